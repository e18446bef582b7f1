//! Carries out a plan, in order; creations and deletions that follow one another go side by side.
//!
//! Creations start slowly (1, 2, 4 … at once), so that a quota or a webhook that refuses them is not stormed. The first failure ends the plan, but for a
//! status that tells what was observed. Afterwards the caches are waited for until they show what was done: so the next plan of this key cannot do it twice
//! (upstream keeps counts of expectations for this).

use std::sync::Arc;

use api::{Object, Status};
use client::{Body, DeleteOptions, PatchKind, Preconditions, Propagation, Recorder, Target, WriteOptions};
use futures_util::future::join_all;
use plan::replicaset::Failure;
use plan::{Announce, At, Op};

use crate::context::{Context, OBSERVE_LIMIT};

/// Requests of one plan at the same time, at most.
const WIDTH: usize = 64;

/// Why a plan was not carried out to its end.
#[derive(Debug, thiserror::Error)]
#[error("{op}: {status}")]
pub struct ApplyError {
    pub op: String,
    pub status: Status,
    /// What the failed operation would have told.
    pub failure: Option<Failure>,
}

/// What was done and must show in a cache.
enum Done {
    Written { at: At, revision: u64 },
    Deleted { at: At, uid: String },
    Nothing,
}

pub async fn apply(context: &Context, recorder: &Recorder, ops: Vec<Op>) -> Result<(), ApplyError> {
    let mut done = Vec::new();
    let mut failed = None;
    let mut rest = ops.into_iter().peekable();
    while let Some(op) = rest.next() {
        if failed.is_some() && !tells_what_is(&op) {
            continue;
        }
        let mut batch = vec![op];
        while let Some(next) = rest.next_if(|next| together(&batch[0], next)) {
            batch.push(next);
        }
        let result = if batch.len() == 1 {
            one(context, recorder, &batch[0]).await.map(|what| done.push(what))
        } else {
            side_by_side(context, recorder, &batch, &mut done).await
        };
        if let Err(error) = result {
            failed.get_or_insert(error);
        }
    }
    observe(context, done).await;
    failed.map_or(Ok(()), Err)
}

fn together(first: &Op, next: &Op) -> bool {
    match (first, next) {
        (Op::Create { at: one, .. }, Op::Create { at: other, .. }) | (Op::Delete { at: one, .. }, Op::Delete { at: other, .. }) => {
            one.plural == other.plural && one.group == other.group
        }
        _ => false,
    }
}

fn tells_what_is(op: &Op) -> bool {
    matches!(op, Op::Replace { subresource: Some("status"), .. })
}

async fn side_by_side(context: &Context, recorder: &Recorder, batch: &[Op], done: &mut Vec<Done>) -> Result<(), ApplyError> {
    let mut size = if matches!(batch[0], Op::Create { .. }) { 1 } else { WIDTH };
    let mut rest = batch;
    while !rest.is_empty() {
        let (now, later) = rest.split_at(size.min(rest.len()));
        let mut first = None;
        for result in join_all(now.iter().map(|op| one(context, recorder, op))).await {
            match result {
                Ok(what) => done.push(what),
                Err(error) => drop(first.get_or_insert(error)),
            }
        }
        if let Some(error) = first {
            return Err(error);
        }
        (rest, size) = (later, (size * 2).min(WIDTH));
    }
    Ok(())
}

async fn one(context: &Context, recorder: &Recorder, op: &Op) -> Result<Done, ApplyError> {
    let result = request(context, recorder, op).await;
    let announce = match op {
        Op::Create { announce, .. } | Op::Delete { announce, .. } => announce.as_deref(),
        _ => None,
    };
    match result {
        Ok((done, name)) => {
            if let (Some(Announce { about, done: Some((reason, message)), .. }), Some(name)) = (announce, name) {
                let message = if message.ends_with(' ') { format!("{message}{name}") } else { message.clone() };
                recorder.normal(about, reason, message);
            }
            Ok(done)
        }
        Err(status) if is_namespace_terminating(&status) && matches!(op, Op::Create { .. }) => Ok(Done::Nothing),
        Err(status) => {
            let failure = announce.and_then(|announce| {
                let (reason, message) = announce.failed.as_ref()?;
                recorder.warning(&announce.about, reason, format!("{message}{status}"));
                Some(Failure { reason, message: status.to_string() })
            });
            Err(ApplyError { op: op.to_string(), status, failure })
        }
    }
}

/// Nothing is created any more in a namespace that goes; that is nobody's fault.
fn is_namespace_terminating(status: &Status) -> bool {
    status.details.causes.iter().any(|cause| cause.reason == "NamespaceTerminating")
}

/// What was done, and the name of the object if there is something to tell of it.
async fn request(context: &Context, recorder: &Recorder, op: &Op) -> Result<(Done, Option<String>), Status> {
    let transport = context.client.transport();
    let options = WriteOptions { field_manager: context.client.field_manager().to_owned(), ..WriteOptions::default() };
    match op {
        Op::Confirm { at, uid } => {
            let object = transport.get(&target(at, None)).await?;
            let meta = object.meta();
            if meta.uid != *uid {
                return Err(Status::conflict(&at.group, &at.plural, &at.name, "the object was replaced by another of the same name"));
            }
            if meta.deletion_timestamp.is_some() {
                return Err(Status::conflict(&at.group, &at.plural, &at.name, "the object is being deleted"));
            }
            Ok((Done::Nothing, None))
        }
        Op::Create { at, object, or_exists, .. } => {
            let collection = Target { name: None, ..target(at, None) };
            match transport.create(&collection, Body::Value(object.clone()), &options).await {
                Ok(created) => {
                    let name = created.meta().name.clone();
                    Ok((written(at, &created), Some(name)))
                }
                Err(status) if *or_exists && status.is_already_exists() => Ok((Done::Nothing, None)),
                Err(status) => Err(status),
            }
        }
        Op::Replace { at, subresource, object } => {
            let object = transport.update(&target(at, *subresource), Body::Value(object.clone()), &options).await?;
            Ok((written(at, &object), None))
        }
        Op::Patch { at, subresource, kind, patch } => {
            let kind = match kind {
                plan::PatchKind::Json => PatchKind::Json,
                plan::PatchKind::Merge => PatchKind::Merge,
                plan::PatchKind::Strategic => PatchKind::Strategic,
            };
            let object = transport.patch(&target(at, *subresource), kind, Body::Value(patch.clone()), &options).await?;
            Ok((written(at, &object), None))
        }
        Op::Delete { at, uid, propagation, grace_period_seconds, .. } => {
            let options = DeleteOptions {
                grace_period_seconds: *grace_period_seconds,
                propagation: Some(match propagation {
                    plan::Propagation::Orphan => Propagation::Orphan,
                    plan::Propagation::Background => Propagation::Background,
                    plan::Propagation::Foreground => Propagation::Foreground,
                }),
                preconditions: Preconditions { uid: Some(uid.clone()).filter(|uid| !uid.is_empty()), resource_version: None },
                dry_run: false,
            };
            match transport.delete(&target(at, None), &options).await {
                Ok(_) => Ok((Done::Deleted { at: at.clone(), uid: uid.clone() }, Some(at.name.clone()))),
                // Gone already, or another one of the same name.
                Err(status) if status.is_not_found() || status.is_conflict() => Ok((Done::Nothing, None)),
                Err(status) => Err(status),
            }
        }
        Op::Event { about, warning, reason, message } => {
            let kind = if *warning { client::EventType::Warning } else { client::EventType::Normal };
            recorder.record(about, kind, reason, message.clone());
            Ok((Done::Nothing, None))
        }
    }
}

fn written(at: &At, object: &Arc<Object>) -> Done {
    Done::Written { at: at.clone(), revision: object.resource_version() }
}

pub fn target(at: &At, subresource: Option<&str>) -> Target {
    Target {
        group: at.group.clone(),
        version: at.version.clone(),
        plural: at.plural.clone(),
        namespace: at.namespace.clone(),
        name: Some(at.name.clone()),
        subresource: subresource.map(str::to_owned),
    }
}

async fn observe(context: &Context, done: Vec<Done>) {
    let waits = done.iter().filter_map(|done| match done {
        Done::Written { at, revision } => Some(context.observed(at)?.reached(*revision)),
        Done::Deleted { at, uid } => Some(context.observed(at)?.deleted(at, uid)),
        Done::Nothing => None,
    });
    if tokio::time::timeout(OBSERVE_LIMIT, join_all(waits)).await.is_err() {
        tracing::warn!("the caches do not show what was written");
    }
}
