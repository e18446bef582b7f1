//! `kubectl set`: image, env, resources, selector, serviceaccount, subject.

mod subject;

use serde_json::{Value, json};

use super::apply::WRITE;
use super::change::{pod_spec, save};
use crate::builder::{self, FILES, Found};
use crate::command::{command, family};
use crate::error::{Error, Result, fail};
use crate::flags::{Args, Flag, list, switch, text};
use crate::output;
use crate::printers::OUTPUT;
use crate::session::Session;

const COMMON: &[Flag] = &[
    switch("all", "Select all resources in the namespace of the specified resource types"),
    text("selector", "", "Selector (label query) to filter on.").short('l'),
    switch("local", "If true, this will NOT contact api-server but run locally."),
    text("containers", "*", "The names of containers in the selected pod templates to change - may use wildcards").short('c'),
];
family!(SET, "set", "Set specific features on objects", [&ENV, &IMAGE, &RESOURCES, &SELECTOR, &SERVICEACCOUNT, &subject::SUBJECT]);
command!(IMAGE, "image", [], "(-f FILENAME | TYPE NAME) CONTAINER_NAME_1=CONTAINER_IMAGE_1 ... CONTAINER_NAME_N=CONTAINER_IMAGE_N [options]", "Update the image of a pod template", [COMMON, WRITE, FILES, OUTPUT], image);
command!(ENV, "env", [], "RESOURCE/NAME KEY_1=VAL_1 ... KEY_N=VAL_N [options]", "Update environment variables on a pod template", [COMMON, ENV_FLAGS, WRITE, FILES, OUTPUT], env);
const ENV_FLAGS: &[Flag] = &[
    list("env", "Specify a key-value pair for an environment variable to set into each container.").short('e'),
    text("from", "", "The name of a resource from which to inject environment variables"),
    list("keys", "Comma-separated list of keys to import from specified resource"),
    switch("list", "If true, display the environment and any changes in the standard format."),
    on_overwrite(),
    text("prefix", "", "Prefix to append to variable names"),
    switch("resolve", "If true, show secret or configmap references when listing variables"),
];
const fn on_overwrite() -> Flag {
    crate::flags::on("overwrite", "If true, allow environment to be overwritten, otherwise reject updates that overwrite existing environment.")
}
command!(RESOURCES, "resources", [], "(-f FILENAME | TYPE NAME)  ([--limits=LIMITS & --requests=REQUESTS] [options]", "Update resource requests/limits on objects with pod templates", [COMMON, &[text("limits", "", "The resource requirement requests for this container."), text("requests", "", "The resource requirement requests for this container.")], WRITE, FILES, OUTPUT], resources);
command!(SELECTOR, "selector", [], "(-f FILENAME | TYPE NAME) EXPRESSIONS [--resource-version=version] [options]", "Set the selector on a resource", [COMMON, WRITE, FILES, OUTPUT], selector);
command!(SERVICEACCOUNT, "serviceaccount", ["sa"], "(-f FILENAME | TYPE NAME) SERVICE_ACCOUNT [options]", "Update the service account of a resource", [COMMON, WRITE, FILES, OUTPUT], serviceaccount);

/// Resource words, and what is to be set.
fn divide(args: &Args, is_setting: impl Fn(&str) -> bool) -> (Vec<String>, Vec<String>) {
    args.positional.iter().cloned().partition(|word| !is_setting(word))
}

async fn targets(session: &Session, args: &Args, words: &[String]) -> Result<Vec<Found>> {
    if words.is_empty() && !builder::has_files(args) {
        return fail("one or more resources must be specified as <resource> <name> or <resource>/<name>");
    }
    let mut found = Vec::new();
    let mut errors = Vec::new();
    for one in builder::resolve(session, args, words).await? {
        match one {
            Ok(one) => found.push(one),
            Err(error) => errors.push(error),
        }
    }
    builder::gather(errors).map(|()| found)
}

fn each_container(object: &mut Value, kind: &str, lists: &[&str], mut change: impl FnMut(&mut Value)) {
    for list in lists {
        if let Some(containers) = object.pointer_mut(&format!("{}/{list}", pod_spec(kind))).and_then(Value::as_array_mut) {
            containers.iter_mut().for_each(&mut change);
        }
    }
}

/// `*`, a name, or a name with stars.
fn fits(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((head, tail)) => name.strip_prefix(head).is_some_and(|rest| (0..=rest.len()).any(|at| rest.is_char_boundary(at) && fits(tail, &rest[at..]))),
    }
}

async fn image(session: &Session, args: &Args) -> Result<()> {
    let (words, settings) = divide(args, |word| word.contains('='));
    if settings.is_empty() {
        return fail("at least one image update is required");
    }
    let mut wanted = Vec::new();
    for setting in &settings {
        match setting.split_once('=') {
            Some((name, image)) if !name.is_empty() => wanted.push((name, image)),
            _ => return fail(format!("all images must be specified as <container>=<image>: {setting}")),
        }
    }
    if wanted.len() > 1 && wanted.iter().any(|(name, _)| *name == "*") {
        return fail("all containers are already specified by *, but saw more than one container_name=container_image pairs");
    }
    let mut errors = Vec::new();
    for found in targets(session, args, &words).await? {
        let mut modified = found.object.clone();
        for (name, image) in &wanted {
            let mut known = false;
            each_container(&mut modified, &found.resource.kind, &["containers", "initContainers"], |container| {
                if *name == "*" || container["name"] == **name {
                    known = true;
                    container["image"] = (*image).into();
                }
            });
            if !known {
                errors.push(Error::Message(format!("unable to find container named {name:?}")));
            }
        }
        if let Err(error) = save(session, args, &found, &modified, "image updated", "kubectl-set").await {
            errors.push(Error::Message(format!("failed to patch image update to pod template: {error}")));
        }
    }
    builder::gather(errors)
}

fn env_key(prefix: &str, key: &str) -> String {
    let plain: String = key.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect();
    format!("{prefix}{plain}")
}

async fn env(session: &Session, args: &Args) -> Result<()> {
    let (words, mut settings) = divide(args, |word| word.contains('=') || word.ends_with('-') && !word.contains('/'));
    settings.extend(args.list("env").iter().cloned());
    let mut variables: Vec<Value> = Vec::new();
    let mut removals: Vec<String> = Vec::new();
    for setting in &settings {
        match setting.split_once('=') {
            Some((key, value)) => variables.push(json!({"name": key, "value": value})),
            None => removals.push(setting.trim_end_matches('-').to_owned()),
        }
    }
    if let Some(from) = args.given("from") {
        let source = builder::one(session, from, "configmaps").await?;
        let (field, inner) = match source.resource.kind.as_str() {
            "ConfigMap" => ("configMapKeyRef", &source.object["data"]),
            "Secret" => ("secretKeyRef", &source.object["data"]),
            kind => return fail(format!("unsupported resource specified in --from: {kind}")),
        };
        let keys = args.slice("keys");
        for key in inner.as_object().into_iter().flat_map(|map| map.keys()).filter(|key| keys.is_empty() || keys.contains(key)) {
            variables.push(json!({"name": env_key(args.text("prefix"), key), "valueFrom": {field: {"name": source.name, "key": key}}}));
        }
    }
    for found in targets(session, args, &words).await? {
        let mut modified = found.object.clone();
        let mut any = false;
        each_container(&mut modified, &found.resource.kind, &["containers", "initContainers"], |container| {
            if !fits(args.text("containers"), container["name"].as_str().unwrap_or("")) {
                return;
            }
            any = true;
            let mut list = container["env"].as_array().cloned().unwrap_or_default();
            list.retain(|entry| !removals.iter().any(|name| entry["name"] == *name));
            for variable in &variables {
                match list.iter_mut().find(|entry| entry["name"] == variable["name"]) {
                    Some(entry) => *entry = variable.clone(),
                    None => list.push(variable.clone()),
                }
            }
            if list.is_empty() {
                if let Some(container) = container.as_object_mut() {
                    container.remove("env");
                }
            } else {
                container["env"] = list.into();
            }
        });
        if !any {
            output::complain(format!("Warning: {}/{} does not have any containers matching {:?}", found.resource.kind, found.name, args.text("containers")));
            continue;
        }
        if args.on("list") {
            each_container(&mut modified, &found.resource.kind, &["containers", "initContainers"], |container| {
                output::line(format!("# {} {}, container {}", found.resource.kind, found.name, container["name"].as_str().unwrap_or("")));
                for entry in container["env"].as_array().into_iter().flatten() {
                    let name = entry["name"].as_str().unwrap_or("");
                    output::line(match entry.get("valueFrom").and_then(Value::as_object).and_then(|from| from.iter().next()) {
                        None => format!("{name}={}", entry["value"].as_str().unwrap_or("")),
                        Some((kind, from)) if kind == "secretKeyRef" => format!("# {name} from secret {}, key {}", from["name"].as_str().unwrap_or(""), from["key"].as_str().unwrap_or("")),
                        Some((kind, from)) if kind == "configMapKeyRef" => format!("# {name} from configmap {}, key {}", from["name"].as_str().unwrap_or(""), from["key"].as_str().unwrap_or("")),
                        Some((_, from)) => format!("# {name} from field path {}", from["fieldPath"].as_str().unwrap_or("")),
                    });
                }
            });
            continue;
        }
        save(session, args, &found, &modified, "env updated", "kubectl-set").await?;
    }
    Ok(())
}

async fn resources(session: &Session, args: &Args) -> Result<()> {
    if args.given("limits").is_none() && args.given("requests").is_none() {
        return fail("you must specify an update to requests or limits (in the form of --requests/--limits)");
    }
    for found in targets(session, args, &args.positional).await? {
        let mut modified = found.object.clone();
        for field in ["limits", "requests"] {
            for pair in args.text(field).split(',').filter(|pair| !pair.is_empty()) {
                let Some((name, amount)) = pair.split_once('=') else { return fail(format!("invalid argument syntax {pair}, expected <resource>=<value>")) };
                if api::quantity::Quantity::parse(amount).is_err() {
                    return fail("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'");
                }
                each_container(&mut modified, &found.resource.kind, &["containers"], |container| {
                    if fits(args.text("containers"), container["name"].as_str().unwrap_or("")) {
                        container["resources"][field][name] = amount.into();
                    }
                });
            }
        }
        save(session, args, &found, &modified, "resource requirements updated", "kubectl-set").await?;
    }
    Ok(())
}

async fn selector(session: &Session, args: &Args) -> Result<()> {
    let (words, settings) = divide(args, |word| word.contains('='));
    let Some(text) = settings.first() else { return fail("at least one selector expression is required") };
    let mut labels = json!({});
    for part in text.split(',') {
        match part.split_once('=') {
            Some((key, value)) => labels[key] = value.into(),
            None => return fail(format!("invalid selector: {part}")),
        }
    }
    for found in targets(session, args, &words).await? {
        if found.resource.kind != "Service" {
            return fail(format!("setting a selector is only supported for Services, not {}", found.resource.kind));
        }
        let mut modified = found.object.clone();
        modified["spec"]["selector"] = labels.clone();
        save(session, args, &found, &modified, "selector updated", "kubectl-set").await?;
    }
    Ok(())
}

async fn serviceaccount(session: &Session, args: &Args) -> Result<()> {
    let Some((account, words)) = args.positional.split_last() else { return fail("serviceaccount is required") };
    for found in targets(session, args, words).await? {
        let mut modified = found.object.clone();
        if let Some(spec) = modified.pointer_mut(pod_spec(&found.resource.kind)) {
            spec["serviceAccountName"] = account.as_str().into();
            spec["serviceAccount"] = account.as_str().into();
        }
        save(session, args, &found, &modified, "serviceaccount updated", "kubectl-set").await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, name, want) in [("*", "web", true), ("web", "web", true), ("w*", "web", true), ("*b", "web", true), ("w*x", "web", false), ("a", "web", false), ("*e*", "web", true)] {
            assert_eq!(fits(pattern, name), want, "{pattern} {name}");
        }
    }

    #[test]
    fn only_the_named_container_is_in_the_patch() {
        let object = json!({"apiVersion": "apps/v1", "kind": "Deployment", "spec": {"template": {"spec": {"containers": [{"name": "a", "image": "x:1"}, {"name": "b", "image": "y:1"}]}}}});
        let mut modified = object.clone();
        each_container(&mut modified, "Deployment", &["containers"], |container| {
            if container["name"] == "b" {
                container["image"] = "y:2".into();
            }
        });
        let schema = api::table::table().find("apps", "v1", "deployments").and_then(|row| api::schema::of(&row.schema));
        let patch = patch::two_way(&object, &modified, schema).unwrap();
        assert_eq!(patch["spec"]["template"]["spec"]["containers"], json!([{"image": "y:2", "name": "b"}]));
    }
}
