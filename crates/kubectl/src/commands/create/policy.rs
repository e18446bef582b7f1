//! `create quota`, `priorityclass`, `poddisruptionbudget`.

use serde_json::{Value, json};

use super::super::apply::WRITE;
use super::{pairs, submit};
use crate::command::command;
use crate::error::{Error, Result, fail};
use crate::flags::{Args, Flag, list, switch, text};
use crate::printers::OUTPUT;
use crate::session::Session;

command!(QUOTA, "quota", ["resourcequota"], "NAME [--hard=key1=value1,key2=value2] [--scopes=Scope1,Scope2] [--dry-run=server|client|none] [options]", "Create a quota with the specified name", [&[list("hard", "A comma-delimited set of resource=quantity pairs that define a hard limit."), list("scopes", "A comma-delimited set of quota scopes that must all match each object tracked by the quota.")], WRITE, OUTPUT], quota);
command!(PRIORITYCLASS, "priorityclass", ["pc"], "NAME --value=VALUE --global-default=BOOL [--dry-run=server|client|none] [options]", "Create a priority class with the specified name", [PRIORITY, WRITE, OUTPUT], priorityclass);
const PRIORITY: &[Flag] = &[
    text("description", "", "description is an arbitrary string that usually provides guidelines on when this priority class should be used."),
    switch("global-default", "global-default specifies whether this PriorityClass should be considered as the default priority."),
    text("preemption-policy", "PreemptLowerPriority", "preemption-policy is the policy for preempting pods with lower priority."),
    text("value", "0", "the value of this priority class."),
];
command!(PDB, "poddisruptionbudget", ["pdb"], "NAME --selector=SELECTOR --min-available=N [--dry-run=server|client|none] [options]", "Create a pod disruption budget with the specified name", [PDB_FLAGS, WRITE, OUTPUT], pdb);
const PDB_FLAGS: &[Flag] = &[
    text("max-unavailable", "", "The maximum number or percentage of unavailable pods this budget requires."),
    text("min-available", "", "The minimum number or percentage of available pods this budget requires."),
    text("selector", "", "A label selector to use for this budget."),
];

async fn quota(session: &Session, args: &Args) -> Result<()> {
    let mut spec = json!({});
    for (key, value) in pairs(args, "hard")? {
        spec["hard"][key] = value.into();
    }
    let scopes = args.slice("scopes");
    if !scopes.is_empty() {
        spec["scopes"] = scopes.into();
    }
    let object = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": args.name()?}, "spec": spec, "status": {}});
    submit(session, args, "/api/v1", "resourcequotas", true, "resourcequota", object).await
}

async fn priorityclass(session: &Session, args: &Args) -> Result<()> {
    let mut object = json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": args.name()?}, "value": args.int("value")?, "preemptionPolicy": args.text("preemption-policy")});
    if args.on("global-default") {
        object["globalDefault"] = true.into();
    }
    if let Some(text) = args.given("description") {
        object["description"] = text.into();
    }
    submit(session, args, "/apis/scheduling.k8s.io/v1", "priorityclasses", false, "priorityclass.scheduling.k8s.io", object).await
}

/// A selector's text as a LabelSelector.
pub fn selector(text: &str) -> Result<Value> {
    let parsed = api::selector::LabelSelector::parse(text).map_err(Error::Message)?;
    let _ = parsed;
    let mut found = json!({});
    for part in text.split(',') {
        match part.split_once("==").or_else(|| part.split_once('=')) {
            Some((key, value)) if !key.ends_with('!') => found["matchLabels"][key.trim()] = value.trim().into(),
            _ => return fail(format!("selector {text:?}: only key=value is understood here")),
        }
    }
    Ok(found)
}

async fn pdb(session: &Session, args: &Args) -> Result<()> {
    let Some(text) = args.given("selector") else { return fail("a selector must be specified") };
    let mut spec = json!({"selector": selector(text)?});
    let number = |text: &str| text.parse::<i64>().map_or_else(|_| Value::from(text), Value::from);
    match (args.given("min-available"), args.given("max-unavailable")) {
        (Some(least), None) => spec["minAvailable"] = number(least),
        (None, Some(most)) => spec["maxUnavailable"] = number(most),
        (None, None) => return fail("one of min-available or max-unavailable must be specified"),
        _ => return fail("min-available and max-unavailable cannot be both specified"),
    }
    let object = json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": args.name()?}, "spec": spec, "status": {"currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0, "expectedPods": 0}});
    submit(session, args, "/apis/policy/v1", "poddisruptionbudgets", true, "poddisruptionbudget.policy", object).await
}
