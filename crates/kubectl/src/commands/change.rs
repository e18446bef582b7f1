//! What commands share that change objects: the languages of patches, pod templates, patches of a change and their dry run, waiting for one.
//!
//! Mirrors the patch helpers of k8s.io/kubectl.

use http::Method;
use serde_json::Value;

use super::apply::{DryRun, dry_run, write_query};
use crate::builder::Found;
use crate::error::{Error, Result};
use crate::flags::Args;
use crate::printers;
use crate::resources::Resource;
use crate::session::{Query, Session};

pub const STRATEGIC: &str = "application/strategic-merge-patch+json";
pub const MERGE: &str = "application/merge-patch+json";
pub const JSON: &str = "application/json-patch+json";

/// `error: …` and where to read on, as upstream's UsageErrorf.
pub fn usage(args: &Args, message: impl std::fmt::Display) -> Error {
    Error::Message(format!("{message}\nSee '{} -h' for help and examples", args.path))
}

/// Applies a patch here, as the server would.
pub fn locally(found: &Found, kind: &str, change: &Value) -> Result<Value> {
    let mut object = found.object.clone();
    let told = |error: patch::PatchError| Error::Message(error.to_string());
    match kind {
        JSON => patch::json(&mut object, change).map_err(told)?,
        MERGE => patch::merge(&mut object, change),
        _ => patch::strategic(&mut object, change, found.resource.schema()).map_err(told)?,
    }
    Ok(object)
}

/// Sends a patch, or does here what it would do.
pub async fn send(session: &Session, args: &Args, found: &Found, manager: &str, kind: &str, change: &Value) -> Result<Value> {
    match dry_run(args)? {
        DryRun::Client => locally(found, kind, change),
        _ => session.patch(&write_query(found.path(), args, manager)?, kind, change).await,
    }
}

/// Where the pod template's spec is.
pub fn pod_spec(kind: &str) -> &'static str {
    match kind {
        "Pod" => "/spec",
        "CronJob" => "/spec/jobTemplate/spec/template/spec",
        _ => "/spec/template/spec",
    }
}

/// The patch from the object as it is to `modified`: strategic for built-in kinds, merge for others.
pub fn difference(found: &Found, modified: &Value) -> Result<(&'static str, Value)> {
    Ok(match found.resource.schema() {
        Some(schema) => {
            let patch = patch::two_way(&found.object, modified, Some(schema)).map_err(|error| Error::Message(error.to_string()))?;
            (STRATEGIC, patch)
        }
        None => (MERGE, patch::merge_diff(&found.object, modified)),
    })
}

/// Sends the change (when there is one) and says `deployment.apps/web image updated`.
pub async fn save(session: &Session, args: &Args, found: &Found, modified: &Value, verb: &str, manager: &str) -> Result<()> {
    let (kind, patch) = difference(found, modified)?;
    if patch.as_object().is_some_and(serde_json::Map::is_empty) {
        return Ok(());
    }
    let object = match dry_run(args)? {
        DryRun::Client => modified.clone(),
        _ => session.patch(&write_query(found.path(), args, manager)?, kind, &patch).await?,
    };
    printers::done(args, &object, &found.label(), verb)
}

/// Watches one object until `done` says so; None when it is gone.
pub async fn until(session: &Session, resource: &Resource, namespace: Option<&str>, name: &str, mut done: impl FnMut(Option<&Value>) -> Result<bool>) -> Result<()> {
    loop {
        let mut version = String::new();
        match session.get(&resource.object(namespace, name)).await {
            Ok(object) => {
                version = object.pointer("/metadata/resourceVersion").and_then(Value::as_str).unwrap_or("").to_owned();
                if done(Some(&object))? {
                    return Ok(());
                }
            }
            Err(error) if error.is_not_found() => {
                if done(None)? {
                    return Ok(());
                }
            }
            Err(error) => return Err(error),
        }
        let path = Query::of(resource.collection(namespace)).with("watch", "true").with("fieldSelector", &format!("metadata.name={name}")).with("resourceVersion", &version).end();
        let response = session.open(Method::GET, &path, &[("accept", "application/json")], Vec::new()).await?;
        let mut lines = client::remote::Lines::new(response);
        while let Some(Ok(line)) = lines.next().await {
            let event: Value = serde_json::from_slice(&line).unwrap_or_default();
            let finished = match event["type"].as_str() {
                Some("DELETED") => done(None)?,
                Some("ADDED" | "MODIFIED") => done(Some(&event["object"]))?,
                Some("ERROR") => break,
                _ => false,
            };
            if finished {
                return Ok(());
            }
        }
    }
}

/// A workload's selector, as the text of a label selector.
pub fn selector_of(object: &Value) -> Option<String> {
    let selector = object.pointer("/spec/selector")?;
    let equal = |labels: &serde_json::Map<String, Value>| labels.iter().map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or(""))).collect::<Vec<_>>();
    let parts = if selector.get("matchLabels").is_some() || selector.get("matchExpressions").is_some() {
        let mut parts = selector.get("matchLabels").and_then(Value::as_object).map(equal).unwrap_or_default();
        for expression in selector.get("matchExpressions").and_then(Value::as_array).into_iter().flatten() {
            let key = expression["key"].as_str().unwrap_or("");
            let values: Vec<&str> = expression["values"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            parts.push(match expression["operator"].as_str().unwrap_or("") {
                "In" => format!("{key} in ({})", values.join(",")),
                "NotIn" => format!("{key} notin ({})", values.join(",")),
                "Exists" => key.to_owned(),
                _ => format!("!{key}"),
            });
        }
        parts
    } else {
        selector.as_object().map(equal)?
    };
    (!parts.is_empty()).then(|| parts.join(","))
}
