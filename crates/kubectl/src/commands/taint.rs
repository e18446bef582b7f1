//! `kubectl taint`: taints put on nodes and taken off.
//!
//! Mirrors k8s.io/kubectl/pkg/cmd/taint.

use serde_json::{Value, json};

use super::apply::{DryRun, WRITE, dry_run, write_query};
use super::change::usage;
use super::pods::{array, text as at};
use crate::builder;
use crate::command::command;
use crate::error::{Error, Result, fail};
use crate::flags::{Args, Flag, switch, text};
use crate::printers::{OUTPUT, done};
use crate::session::Session;

const FLAGS: &[Flag] = &[
    switch("all", "Select all nodes in the cluster"),
    switch("overwrite", "If true, allow taints to be overwritten, otherwise reject taint updates that overwrite existing taints."),
    text("selector", "", "Selector (label query) to filter on, supports '=', '==', '!=', 'in', 'notin'.").short('l'),
];

command!(TAINT, "taint", [], "NODE NAME KEY_1=VAL_1:TAINT_EFFECT_1 ... KEY_N=VAL_N:TAINT_EFFECT_N [options]", "Update the taints on one or more nodes", [FLAGS, WRITE, OUTPUT], run);

const NAME_RULE: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];

#[derive(Debug, Clone, PartialEq, Eq)]
struct Taint {
    key: String,
    value: String,
    effect: String,
}

fn parse(text: &str) -> Result<Taint, String> {
    let parts: Vec<&str> = text.split(':').collect();
    let (key, effect) = match parts[..] {
        [key] => (key, ""),
        [key, effect] => (key, effect),
        _ => return Err(format!("invalid taint spec: {text}")),
    };
    if !effect.is_empty() && !EFFECTS.contains(&effect) {
        return Err(format!("invalid taint effect: {effect}, unsupported taint effect"));
    }
    if effect.is_empty() && key.contains('=') {
        return Err(format!("invalid taint spec: {text}, {NAME_RULE}"));
    }
    let (key, value) = match key.split('=').collect::<Vec<_>>()[..] {
        [key] => (key, ""),
        [key, value] => (key, value),
        _ => return Err(format!("invalid taint spec: {text}")),
    };
    Ok(Taint { key: key.to_owned(), value: value.to_owned(), effect: effect.to_owned() })
}

/// What to put on and what to take off.
fn parse_all(words: &[String]) -> Result<(Vec<Taint>, Vec<Taint>), String> {
    let (mut add, mut remove): (Vec<Taint>, Vec<Taint>) = Default::default();
    for word in words {
        if let Some(word) = word.strip_suffix('-') {
            remove.push(Taint { value: String::new(), ..parse(word)? });
            continue;
        }
        let taint = parse(word)?;
        if taint.effect.is_empty() {
            return Err(format!("invalid taint spec: {word}"));
        }
        if add.iter().any(|other| other.key == taint.key && other.effect == taint.effect) {
            return Err(format!("duplicated taints with the same key and effect: {word}"));
        }
        add.push(taint);
    }
    let both: Vec<String> = add.iter().filter(|taint| remove.iter().any(|other| other.key == taint.key && (other.effect.is_empty() || other.effect == taint.effect))).map(|taint| format!("{}={}", taint.key, taint.effect)).collect();
    if !both.is_empty() {
        return Err(format!("can not both modify and remove the following taint(s) in the same command: {}", both.join(", ")));
    }
    Ok((add, remove))
}

/// The node's taints afterwards, and what that is called.
fn change(node: &Value, add: &[Taint], remove: &[Taint], overwrite: bool) -> Result<(Vec<Value>, &'static str), String> {
    let old: Vec<&Value> = array(node, "/spec/taints").collect();
    let same = |taint: &Taint, value: &Value| taint.key == at(value, "/key") && (taint.effect.is_empty() || taint.effect == at(value, "/effect"));
    let held: Vec<&str> = add.iter().filter(|taint| old.iter().any(|value| same(taint, value))).map(|taint| taint.key.as_str()).collect();
    if !overwrite && !held.is_empty() {
        return Err(format!("node {} already has {} taint(s) with same effect(s) and --overwrite is false", at(node, "/metadata/name"), held.join(",")));
    }
    let overwritten = !held.is_empty();
    for taint in remove {
        if !old.iter().any(|value| same(taint, value)) {
            let shown = if taint.effect.is_empty() { taint.key.clone() } else { format!("{}:{}", taint.key, taint.effect) };
            return Err(format!("taint {shown:?} not found"));
        }
    }
    let mut taints: Vec<Value> = add
        .iter()
        .map(|taint| match taint.value.as_str() {
            "" => json!({"key": taint.key, "effect": taint.effect}),
            value => json!({"key": taint.key, "value": value, "effect": taint.effect}),
        })
        .collect();
    taints.extend(old.iter().filter(|value| !add.iter().chain(remove).any(|taint| same(taint, value))).map(|value| (*value).clone()));
    let said = match (add.is_empty(), remove.is_empty()) {
        (false, true) if !overwritten => "tainted",
        (true, false) => "untainted",
        _ => "modified",
    };
    Ok((taints, said))
}

pub async fn run(session: &Session, args: &Args) -> Result<()> {
    let is_taint = |word: &&String| word.contains('=') || word.contains(':') || word.ends_with('-');
    let (taints, names): (Vec<&String>, Vec<&String>) = args.positional.iter().partition(is_taint);
    let (taints, names): (Vec<String>, Vec<String>) = (taints.into_iter().cloned().collect(), names.into_iter().cloned().collect());
    let Some(kind) = names.first() else { return fail("one or more resources must be specified as <resource> <name>") };
    let mapper = session.mapper().await?;
    let kind = kind.split('/').next().unwrap_or(kind);
    if mapper.find(kind)?.kind != "Node" {
        return fail(format!("invalid resource type {kind}, only node types are supported"));
    }
    if taints.is_empty() {
        return fail("at least one taint update is required");
    }
    let (add, remove) = parse_all(&taints).map_err(|error| if error.starts_with("can not") { Error::Message(error) } else { usage(args, error) })?;
    let mut errors = Vec::new();
    for found in builder::resolve(session, args, &names).await? {
        let outcome = async {
            let found = found?;
            let (taints, said) = change(&found.object, &add, &remove, args.on("overwrite")).map_err(Error::Message)?;
            let mut object = found.object.clone();
            object["spec"]["taints"] = taints.clone().into();
            if dry_run(args)? != DryRun::Client {
                // The version: two that taint at once must not undo each other.
                let body = json!({"metadata": {"resourceVersion": at(&found.object, "/metadata/resourceVersion")}, "spec": {"taints": taints}});
                object = session.patch(&write_query(found.path(), args, "kubectl-taint")?, super::change::MERGE, &body).await?;
            }
            done(args, &object, &found.label(), said)
        };
        if let Err(error) = outcome.await {
            errors.push(error);
        }
    }
    builder::gather(errors)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        let words = |text: &str| parse_all(&text.split(' ').map(str::to_owned).collect::<Vec<_>>());
        for (text, want) in [
            ("a=b:Foo", "invalid taint effect: Foo, unsupported taint effect"),
            ("a", "invalid taint spec: a"),
            ("a=b:NoSchedule a:NoSchedule-", "can not both modify and remove the following taint(s) in the same command: a=NoSchedule"),
            ("a=b:NoSchedule a=c:NoSchedule", "duplicated taints with the same key and effect: a=c:NoSchedule"),
        ] {
            assert_eq!(words(text).unwrap_err(), want);
        }
    }

    #[test]
    fn changes() {
        let node = json!({"metadata": {"name": "n1"}, "spec": {"taints": [{"key": "x", "effect": "NoSchedule"}, {"key": "x", "effect": "NoExecute"}]}});
        for (text, overwrite, want) in [
            ("a=b:NoSchedule", false, Ok(("tainted", 3))),
            ("x=b:NoSchedule", false, Err("node n1 already has x taint(s) with same effect(s) and --overwrite is false")),
            ("x=b:NoSchedule", true, Ok(("modified", 2))),
            ("x:NoSchedule-", false, Ok(("untainted", 1))),
            ("x-", false, Ok(("untainted", 0))),
            ("y:NoSchedule-", false, Err("taint \"y:NoSchedule\" not found")),
        ] {
            let (add, remove) = parse_all(&[text.to_owned()]).unwrap();
            let got = change(&node, &add, &remove, overwrite).map(|(taints, said)| (said, taints.len()));
            assert_eq!(got, want.map_err(str::to_owned), "{text}");
        }
    }
}
