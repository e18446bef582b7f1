//! What a plan wants done: operations on API objects, and events about them. Data only; `controllers` carries them out in order.

use std::fmt;
use std::time::Duration;

use api::k8s::api::core::v1::ObjectReference;
use api::k8s::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use api::k8s::{Metadata, Resource};
use serde::Serialize;
use serde_json::Value;

/// Where an object is: its kind as the API spells it, its namespace (if it has one) and its name (empty in a creation whose name the server generates).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct At {
    pub group: String,
    pub version: String,
    pub plural: String,
    pub kind: String,
    pub namespace: Option<String>,
    pub name: String,
}

impl At {
    pub fn of<T: Resource>(namespace: Option<&str>, name: &str) -> Self {
        Self {
            group: T::GROUP.to_owned(),
            version: T::VERSION.to_owned(),
            plural: T::URL_PATH_SEGMENT.to_owned(),
            kind: T::KIND.to_owned(),
            namespace: namespace.map(str::to_owned),
            name: name.to_owned(),
        }
    }

    pub fn object<T: Metadata<Ty = ObjectMeta>>(object: &T) -> Self {
        let meta = object.metadata();
        Self::of::<T>(meta.namespace.as_deref(), meta.name.as_deref().unwrap_or(""))
    }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.kind)?;
        f.write_str(" ")?;
        if let Some(namespace) = &self.namespace {
            write!(f, "{namespace}/")?;
        }
        f.write_str(&self.name)
    }
}

/// The event that tells of an operation's outcome. On success the message is `done`, followed by the object's name if it ends in a space; on failure it is
/// `failed` followed by the error.
#[derive(Debug, Clone, PartialEq)]
pub struct Announce {
    pub about: ObjectReference,
    pub done: Option<(&'static str, String)>,
    pub failed: Option<(&'static str, String)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    Orphan,
    Background,
    Foreground,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatchKind {
    Json,
    Merge,
    Strategic,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Op {
    /// Goes on only if the object is there with this uid and not being deleted, asked of the server itself and not of a cache.
    Confirm {
        at: At,
        uid: String,
    },
    /// Creates; that it exists already is an error unless `or_exists`.
    Create {
        at: At,
        object: Value,
        or_exists: bool,
        announce: Option<Box<Announce>>,
    },
    /// Replaces the object or its subresource (`status`, `finalize`); its resourceVersion guards against overwriting a newer one.
    Replace {
        at: At,
        subresource: Option<&'static str>,
        object: Value,
    },
    Patch {
        at: At,
        subresource: Option<&'static str>,
        kind: PatchKind,
        patch: Value,
    },
    /// Deletes the object with this uid (any, when empty); that it is gone already is a success.
    Delete {
        at: At,
        uid: String,
        propagation: Propagation,
        grace_period_seconds: Option<i64>,
        announce: Option<Box<Announce>>,
    },
    Event {
        about: ObjectReference,
        warning: bool,
        reason: String,
        message: String,
    },
}

impl Op {
    pub fn create<T: Metadata<Ty = ObjectMeta> + Serialize>(object: &T) -> Self {
        let mut at = At::object(object);
        if at.name.is_empty() {
            at.name = String::new();
        }
        Op::Create { at, object: value(object), or_exists: false, announce: None }
    }

    /// Writes the whole object to `/status`.
    pub fn status<T: Metadata<Ty = ObjectMeta> + Serialize>(object: &T) -> Self {
        Op::Replace { at: At::object(object), subresource: Some("status"), object: value(object) }
    }

    pub fn replace<T: Metadata<Ty = ObjectMeta> + Serialize>(object: &T) -> Self {
        Op::Replace { at: At::object(object), subresource: None, object: value(object) }
    }

    /// A merge patch (RFC 7386) of `object` as it was read: a newer one answers with a conflict.
    pub fn merge<T: Metadata<Ty = ObjectMeta>>(object: &T, patch: Value) -> Self {
        Op::Patch { at: At::object(object), subresource: None, kind: PatchKind::Merge, patch: guarded(object.metadata(), patch) }
    }

    pub fn delete<T: Metadata<Ty = ObjectMeta>>(object: &T) -> Self {
        let uid = object.metadata().uid.clone().unwrap_or_default();
        Op::Delete { at: At::object(object), uid, propagation: Propagation::Background, grace_period_seconds: None, announce: None }
    }

    pub fn normal(about: &ObjectReference, reason: &str, message: String) -> Self {
        Op::Event { about: about.clone(), warning: false, reason: reason.to_owned(), message }
    }

    pub fn warning(about: &ObjectReference, reason: &str, message: String) -> Self {
        Op::Event { about: about.clone(), warning: true, reason: reason.to_owned(), message }
    }

    /// Says how a creation or deletion went.
    pub fn announced(mut self, told: Announce) -> Self {
        if let Op::Create { announce, .. } | Op::Delete { announce, .. } = &mut self {
            *announce = Some(Box::new(told));
        }
        self
    }
}

/// The JSON of an API type. These types always have one; should one not, the server refuses the null.
pub(crate) fn value<T: Serialize>(object: &T) -> Value {
    serde_json::to_value(object).unwrap_or(Value::Null)
}

fn guarded(meta: &ObjectMeta, mut patch: Value) -> Value {
    if let Some(version) = &meta.resource_version {
        patch["metadata"]["resourceVersion"] = Value::String(version.clone());
    }
    if let Some(uid) = &meta.uid {
        patch["metadata"]["uid"] = Value::String(uid.clone());
    }
    patch
}

/// What is to be done now, in this order, and when to look again though nothing happens.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    pub ops: Vec<Op>,
    pub requeue_after: Option<Duration>,
}

impl Plan {
    pub fn push(&mut self, op: Op) {
        self.ops.push(op);
    }

    /// Looks again after `delay` or sooner.
    pub fn look_again(&mut self, delay: Duration) {
        self.requeue_after = Some(self.requeue_after.map_or(delay, |known| known.min(delay)));
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Op::Confirm { at, .. } => write!(f, "confirm {at}"),
            Op::Create { at, object, announce, .. } => {
                write!(f, "create {at}")?;
                if at.name.is_empty() {
                    write!(f, "{}*", object.pointer("/metadata/generateName").and_then(Value::as_str).unwrap_or(""))?;
                }
                if let Some(replicas) = object.pointer("/spec/replicas") {
                    write!(f, " replicas={replicas}")?;
                }
                outcome(f, announce)
            }
            Op::Replace { at, subresource: Some("status"), object } => write!(f, "status {at} {}", object.get("status").unwrap_or(&Value::Null)),
            Op::Replace { at, subresource, .. } => {
                write!(f, "replace {at}{}{}", if subresource.is_some() { "/" } else { "" }, subresource.unwrap_or(""))
            }
            Op::Patch { at, subresource, patch, .. } => {
                let mut shown = patch.clone();
                if let Some(meta) = shown.get_mut("metadata").and_then(Value::as_object_mut) {
                    meta.remove("resourceVersion");
                    meta.remove("uid");
                }
                if let Some(map) = shown.as_object_mut() {
                    map.retain(|key, part| key != "metadata" || part.as_object().is_none_or(|meta| !meta.is_empty()));
                }
                write!(f, "patch {at}{}{} {shown}", if subresource.is_some() { "/" } else { "" }, subresource.unwrap_or(""))
            }
            Op::Delete { at, propagation, grace_period_seconds, announce, .. } => {
                write!(f, "delete {at}")?;
                if *propagation != Propagation::Background {
                    write!(f, " {propagation:?}")?;
                }
                if let Some(grace) = grace_period_seconds {
                    write!(f, " grace={grace}")?;
                }
                outcome(f, announce)
            }
            Op::Event { warning, reason, message, .. } => write!(f, "event {} {reason}: {message}", if *warning { "Warning" } else { "Normal" }),
        }
    }
}

fn outcome(f: &mut fmt::Formatter<'_>, announce: &Option<Box<Announce>>) -> fmt::Result {
    match announce.as_deref().and_then(|announce| announce.done.as_ref()) {
        Some((reason, message)) => write!(f, " ({reason}: {message}…)"),
        None => Ok(()),
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for op in &self.ops {
            writeln!(f, "{op}")?;
        }
        if let Some(delay) = self.requeue_after {
            writeln!(f, "again in {}s", delay.as_secs_f64())?;
        }
        Ok(())
    }
}
