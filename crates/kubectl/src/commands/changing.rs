//! Commands that send a patch, or do here what it would do: the languages of patches and their dry run.
//!
//! Mirrors the patch helpers of k8s.io/kubectl.

use serde_json::Value;

use super::apply::{DryRun, dry_run, write_query};
use crate::builder::Found;
use crate::error::{Error, Result};
use crate::flags::Args;
use crate::session::Session;

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
