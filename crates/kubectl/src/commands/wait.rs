//! `kubectl wait`: until a condition holds, a field has a value, or an object is there or gone.

use serde_json::Value;

use super::change::until;
use crate::builder::{self, FILES, Found, SELECT};
use crate::command::command;
use crate::error::{Error, Result, fail};
use crate::flags::{Args, Flag, switch, text};
use crate::jsonpath::{JsonPath, shown};
use crate::output;
use crate::printers::{OUTPUT, Printer};
use crate::session::Session;

const FLAGS: &[Flag] = &[text("for", "", "The condition to wait on: [create|delete|condition=condition-name[=condition-value]|jsonpath='{JSONPath expression}'=[JSONPath value]]."), switch("local", "If true, wait will NOT contact api-server but run locally."), text("timeout", "30s", "The length of time to wait before giving up.")];
command!(WAIT, "wait", [], "([-f FILENAME] | resource.group/resource.name | resource.group [(-l label | --all)]) [--for=create|--for=delete|--for condition=available|--for=jsonpath='{}'[=value]] [options]", "Wait for a specific condition on one or many resources", [FLAGS, FILES, SELECT, OUTPUT], run);

enum Goal {
    Deleted,
    Created,
    Condition { name: String, value: String },
    Field { path: JsonPath, value: Option<String> },
}

impl Goal {
    fn parse(text: &str) -> Result<Self> {
        if text.eq_ignore_ascii_case("delete") {
            return Ok(Goal::Deleted);
        }
        if text.eq_ignore_ascii_case("create") {
            return Ok(Goal::Created);
        }
        if let Some(rest) = text.strip_prefix("condition=") {
            let (name, value) = rest.split_once('=').unwrap_or((rest, "true"));
            return Ok(Goal::Condition { name: name.to_lowercase(), value: value.trim_matches('"').to_lowercase() });
        }
        if let Some(rest) = text.strip_prefix("jsonpath=") {
            let rest = rest.trim_matches(|c| c == '\'' || c == '"');
            let end = rest.find('}').map_or(rest.len(), |at| rest[at..].find('=').map_or(rest.len(), |more| at + more));
            let path = JsonPath::relaxed(rest[..end].trim_matches(|c| c == '\'' || c == '"')).map_err(Error::Message)?.allow_missing();
            let value = rest[end..].strip_prefix('=').map(|value| value.trim_matches(|c| c == '\'' || c == '"').to_owned());
            return Ok(Goal::Field { path, value });
        }
        fail(format!("unrecognized condition: {text:?}"))
    }

    fn met(&self, object: Option<&Value>) -> bool {
        match (self, object) {
            (Goal::Deleted, object) => object.is_none(),
            (_, None) => false,
            (Goal::Created, Some(_)) => true,
            (Goal::Condition { name, value }, Some(object)) => {
                let generation = object.pointer("/metadata/generation").and_then(Value::as_i64).unwrap_or(0);
                let text = |value: &Value| value.as_str().unwrap_or("").to_lowercase();
                // A condition of an older spec says nothing about this one.
                let fresh = |condition: &Value| condition.get("observedGeneration").or(object.pointer("/status/observedGeneration")).and_then(Value::as_i64).is_none_or(|observed| observed >= generation);
                object.pointer("/status/conditions").and_then(Value::as_array).into_iter().flatten().any(|condition| text(&condition["type"]) == *name && text(&condition["status"]) == *value && fresh(condition))
            }
            (Goal::Field { path, value }, Some(object)) => {
                let found = path.find(object).unwrap_or_default();
                match value {
                    Some(value) => found.len() == 1 && shown(&found[0]) == *value,
                    None => found.first().is_some_and(|found| !found.is_null()),
                }
            }
        }
    }
}

async fn run(session: &Session, args: &Args) -> Result<()> {
    let goal = Goal::parse(args.text("for"))?;
    let timeout = args.duration("timeout")?;
    // Negative: a week, as upstream.
    let limit = std::time::Duration::from_secs_f64(if timeout < 0.0 { 7.0 * 86400.0 } else { timeout });
    let deadline = tokio::time::Instant::now() + limit;
    let mut targets = Vec::new();
    if let (Goal::Created | Goal::Deleted, false) = (&goal, builder::has_files(args)) {
        for wanted in builder::arguments(session, &args.positional, args.on("all-namespaces")).await? {
            match &wanted.name {
                // What is not there needs no waiting to be gone.
                Some(_) if matches!(goal, Goal::Deleted) && session.get(&wanted.path()).await.is_err_and(|error| error.is_not_found()) => {}
                Some(name) => targets.push(Found { resource: wanted.resource.clone(), namespace: wanted.namespace.clone(), name: name.clone(), object: Value::Null, source: String::new() }),
                None => {
                    let list = session.get(&builder::list_path(&wanted, args)).await?;
                    targets.extend(list["items"].as_array().into_iter().flatten().map(|item| Found::of(&wanted.resource, item.clone(), "")));
                }
            }
        }
    } else {
        for found in builder::resolve(session, args, &args.positional).await? {
            match found {
                Ok(found) => targets.push(found),
                Err(error) if error.is_not_found() && matches!(goal, Goal::Deleted) => {}
                Err(error) => return Err(error),
            }
        }
    }
    if targets.is_empty() {
        if matches!(goal, Goal::Deleted) {
            return Ok(());
        }
        return fail("no matching resources found");
    }
    let printer = Printer::of(args)?;
    let mut errors = Vec::new();
    for target in targets {
        let mut last = Value::Null;
        let waiting = until(session, &target.resource, target.namespace.as_deref(), &target.name, |object| {
            last = object.cloned().unwrap_or_default();
            if object.is_none() && matches!(goal, Goal::Condition { .. } | Goal::Field { .. }) {
                return Err(api::Status::not_found(&target.resource.group, &target.resource.plural, &target.name).into());
            }
            Ok(goal.met(object))
        });
        match tokio::time::timeout_at(deadline, waiting).await {
            Ok(Ok(())) => match &printer {
                Some(printer) => printer.print(&last, &target.label())?,
                None => output::line(format!("{} condition met", target.label())),
            },
            Ok(Err(error)) => errors.push(error),
            Err(_) if matches!(goal, Goal::Created) => errors.push(Error::Message("timed out waiting for the condition".to_owned())),
            Err(_) => errors.push(Error::Message(format!("timed out waiting for the condition on {}/{}", target.resource.plural, target.name))),
        }
    }
    builder::gather(errors)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn goals() {
        let object = json!({
            "metadata": {"name": "w", "generation": 2},
            "spec": {"replicas": 2},
            "status": {"observedGeneration": 2, "conditions": [{"type": "Available", "status": "True"}, {"type": "Old", "status": "True", "observedGeneration": 1}, {"type": "Bad", "status": "False"}]}
        });
        for (text, want) in [
            ("condition=Available", true), ("condition=available=TRUE", true), ("condition=Available=false", false), ("condition=Old", false), ("condition=bad=false", true), ("condition=nope", false),
            ("jsonpath={.spec.replicas}=2", true), ("jsonpath='{.spec.replicas}'=3", false), ("jsonpath={.metadata.name}", true), ("jsonpath={.x.y}=1", false), ("create", true), ("delete", false),
        ] {
            assert_eq!(Goal::parse(text).unwrap().met(Some(&object)), want, "{text}");
        }
        assert!(Goal::parse("delete").unwrap().met(None));
        assert_eq!(Goal::parse("foo").err().map(|error| error.to_string()).as_deref(), Some("unrecognized condition: \"foo\""));
    }
}
