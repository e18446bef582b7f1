//! Commands that read an object, change it and send what changed: the patch, its dry run, and where it is only printed.
//!
//! Mirrors the patch helpers of k8s.io/kubectl (strategic merge where the type is built in, JSON merge elsewhere).

use serde_json::Value;

use crate::builder::Found;
use crate::error::{Error, Result, fail};
use crate::flags::{Args, Flag, optional, switch, text};
use crate::session::{Query, Session};

pub const STRATEGIC: &str = "application/strategic-merge-patch+json";
pub const MERGE: &str = "application/merge-patch+json";
pub const JSON: &str = "application/json-patch+json";

pub const DRY_RUN: Flag = optional("dry-run", "unchanged", "none", "Must be \"none\", \"server\", or \"client\".");
pub const LOCAL: Flag = switch("local", "If true, the command will NOT contact api-server but run locally.");

pub const fn manager(default: &'static str) -> Flag {
    text("field-manager", default, "Name of the manager used to track field ownership.")
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DryRun {
    None,
    Client,
    Server,
}

pub fn dry_run(args: &Args) -> Result<DryRun> {
    match args.text("dry-run") {
        "" | "none" | "false" => Ok(DryRun::None),
        "client" | "unchanged" | "true" => Ok(DryRun::Client),
        "server" => Ok(DryRun::Server),
        other => fail(format!("Invalid dry-run value ({other}). Must be \"none\", \"server\", or \"client\".")),
    }
}

/// `error: …` and where to read on, as upstream's UsageErrorf.
pub fn usage(args: &Args, message: impl std::fmt::Display) -> Error {
    Error::Message(format!("{message}\nSee '{} -h' for help and examples", args.path))
}

/// What makes `modified` out of the object, and in which language.
pub fn difference(found: &Found, modified: &Value) -> Result<(&'static str, Value)> {
    match found.resource.schema() {
        Some(schema) => Ok((STRATEGIC, patch::two_way(&found.object, modified, Some(schema)).map_err(|error| Error::Message(error.to_string()))?)),
        None => Ok((MERGE, patch::merge_diff(&found.object, modified))),
    }
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

/// Sends a patch, or does here what it would do. `subresource` may be empty.
pub async fn send(session: &Session, args: &Args, found: &Found, subresource: &str, kind: &str, change: &Value) -> Result<Value> {
    let dry = dry_run(args)?;
    if dry == DryRun::Client {
        return locally(found, kind, change);
    }
    let path = if subresource.is_empty() { found.path() } else { found.sub(subresource) };
    let query = Query::of(path).with("dryRun", if dry == DryRun::Server { "All" } else { "" }).with("fieldManager", args.text("field-manager"));
    session.patch(&query.end(), kind, change).await
}

pub fn is_empty(change: &Value) -> bool {
    change.as_object().is_some_and(serde_json::Map::is_empty)
}

/// The pod template of a workload.
pub fn template_path(kind: &str) -> Option<&'static str> {
    Some(match kind {
        "Pod" => "",
        "CronJob" => "/spec/jobTemplate/spec/template",
        "PodTemplate" => "/template",
        "Deployment" | "ReplicaSet" | "DaemonSet" | "StatefulSet" | "Job" | "ReplicationController" => "/spec/template",
        _ => return None,
    })
}

/// The object at `pointer`, made where it is missing.
pub fn entry<'a>(object: &'a mut Value, pointer: &str) -> &'a mut serde_json::Map<String, Value> {
    let mut at = object;
    for key in pointer.split('/').skip(1) {
        let key = key.replace("~1", "/").replace("~0", "~");
        if !at.is_object() {
            *at = Value::Object(Default::default());
        }
        at = &mut at[key.as_str()];
    }
    if !at.is_object() {
        *at = Value::Object(Default::default());
    }
    match at {
        Value::Object(map) => map,
        _ => unreachable!("made an object just above"),
    }
}
