//! The generic registry: create, update, patch and delete of any kind, by its row and strategy.
//!
//! Mirrors k8s.io/apiserver/pkg/registry (rest.BeforeCreate, BeforeUpdate, BeforeDelete and generic/registry.Store), once for all kinds.

mod create;
mod delete;
mod go_order;
mod patches;
pub(crate) mod unfit;
mod update;
mod versions;

pub use delete::Deleted;
pub use update::Part;
pub(crate) use update::same_object;

use std::sync::Arc;

use ::api::custom::Conversion;
use ::api::strategy::{self, Strategy};
use ::api::{Object, Reason, Resource, Status, schema};
use ::patch::apply::{Facts, Writer};
use serde_json::{Map, Value};
use store::CommitError;

use crate::api::{Api, Context};
use crate::special;
pub(crate) use versions::{Forms, KindVersions};

/// How often a write is tried again when another one came between read and write. Upstream's patch handler does the same.
pub(crate) const MAX_CONFLICT_RETRIES: usize = 5;

pub(crate) fn policy(row: &Resource) -> &dyn Strategy {
    strategy::of(row)
}

/// How an object's fields are owned: by its type, or by its definition's schema.
pub(crate) fn facts(row: &Resource) -> Facts<'_> {
    match &row.custom {
        Some(custom) => Facts::Custom(custom.schema()),
        None => schema::of(&row.schema).into(),
    }
}

/// An owner that is named twice is kept once, and the client told (endpoints/handlers `dedupOwnerReferencesAndAddWarning`).
/// `when`: whether before admission, which is not said, or after it.
pub(crate) fn owners_once(value: &mut Value, cx: &Context, when: &str) {
    let Some(owners) = value.pointer_mut("/metadata/ownerReferences").and_then(Value::as_array_mut).filter(|owners| owners.len() > 1) else { return };
    let mut doubled: Vec<String> = Vec::new();
    let mut kept: Vec<Value> = Vec::with_capacity(owners.len());
    for owner in owners.drain(..) {
        if kept.contains(&owner) {
            let uid = text(&owner, "/uid").to_owned();
            if !doubled.contains(&uid) {
                doubled.push(uid);
            }
        } else {
            kept.push(owner);
        }
    }
    *owners = kept;
    if !doubled.is_empty() {
        cx.warn(format!(
            ".metadata.ownerReferences contains duplicate entries{when}; API server dedups owner references in 1.20+, and may reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: {}",
            doubled.join(", ")
        ));
    }
}

/// Why `metadata.managedFields` cannot be understood.
pub(crate) fn managers_fault(object: &Value) -> Option<String> {
    let managers = object.pointer("/metadata/managedFields").and_then(Value::as_array);
    managers.into_iter().flatten().find_map(|entry| match (text(entry, "/operation"), text(entry, "/fieldsType")) {
        ("Apply" | "Update", "FieldsV1") => None,
        ("Apply" | "Update", other) => Some(format!("unsupported fieldsType: {other}")),
        (other, _) => Some(format!("unsupported operation: {other}")),
    })
}

/// Admission may change who manages what, but not so that nobody understands it (apimachinery's `NewManagedFieldsValidatingAdmissionController`).
pub(crate) fn owners_sound(object: &mut Value, before: Option<Value>, cx: &Context) {
    let Some(fault) = managers_fault(object) else { return };
    match before {
        Some(owners) => metadata(object).insert("managedFields".into(), owners),
        None => metadata(object).remove("managedFields"),
    };
    cx.warn(format!(".metadata.managedFields was in an invalid state after admission; this could be caused by an outdated mutating admission controller; please fix your requests: {fault}"));
}

pub(crate) fn metadata(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    // Both branches above and below leave an object in place, so the fallbacks are never taken.
    let object = match value {
        Value::Object(object) => object,
        _ => unreachable!("made an object above"),
    };
    let slot = object.entry("metadata").or_insert_with(|| Value::Object(Map::new()));
    if !slot.is_object() {
        *slot = Value::Object(Map::new());
    }
    match slot {
        Value::Object(metadata) => metadata,
        _ => unreachable!("made an object above"),
    }
}

pub(crate) fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or("")
}

pub(crate) fn has_finalizers(value: &Value) -> bool {
    value.pointer("/metadata/finalizers").and_then(Value::as_array).is_some_and(|list| !list.is_empty())
        || value.pointer("/kind").and_then(Value::as_str) == Some("Namespace") && value.pointer("/spec/finalizers").and_then(Value::as_array).is_some_and(|list| !list.is_empty())
}

/// A part of an object as managers know it: its subresource, and the top-level fields that a write of it cannot change.
pub(crate) fn written(row: &Resource, part: Part) -> (&'static str, &'static [&'static str]) {
    match part {
        Part::Main if row.subresource("status").is_some() => ("", &["status"]),
        Part::Main => ("", &[]),
        Part::Scale => ("scale", &[]),
        Part::Status => ("status", &["spec", "metadata"]),
        Part::Other(name) => (name, &[]),
    }
}

/// Notes in `metadata.managedFields` who changed what (server-side apply's other half).
pub(crate) async fn track(api: &Api, row: &Resource, part: Part, old: Option<&Value>, new: &mut Value, cx: &Context) {
    if cx.applied {
        return;
    }
    let now = &api.now();
    if row.custom.as_ref().is_some_and(|custom| custom.conversion == Conversion::Webhook) {
        let forms = Forms::default();
        loop {
            let mut noted = new.clone();
            note(row, part, old, &mut noted, cx, now, &forms);
            if !forms.ask(&api.outbound, row).await {
                *new = noted;
                return;
            }
        }
    }
    let forms = &Forms::default();
    if special::convert::converts(row) {
        // Who writes a form that is not stored owns its fields, not those they are stored in.
        let shown = |value: &Value| {
            let mut value = value.clone();
            special::convert::show(row, &mut value);
            value
        };
        let (before, mut after) = (old.map(shown), shown(new));
        note(row, part, before.as_ref(), &mut after, cx, now, forms);
        match metadata(&mut after).remove("managedFields") {
            Some(owners) => metadata(new).insert("managedFields".into(), owners),
            None => metadata(new).remove("managedFields"),
        };
        return;
    }
    note(row, part, old, new, cx, now, forms);
}

fn note(row: &Resource, part: Part, old: Option<&Value>, new: &mut Value, cx: &Context, now: &str, forms: &Forms) {
    let (subresource, reset) = written(row, part);
    let manager = if cx.field_manager.is_empty() { "unknown" } else { &cx.field_manager };
    let versions = versions::KindVersions(row, forms);
    let writer = Writer { manager, api_version: &row.api_version(), subresource, now, reset, versions: versions.any() };
    ::patch::apply::track(old, new, facts(row), &writer);
}

impl Api {
    pub(crate) fn strategy_context(&self, row: &Resource, cx: &Context) -> strategy::Context {
        if row.group != "certificates.k8s.io" {
            return strategy::Context::at(self.clock.now());
        }
        // Signing requests record who asked; for the rest it would be copied in vain.
        let user = &cx.user;
        let extra = user.extra.iter().map(|(key, values)| (key.clone(), values.clone())).collect();
        let requester = strategy::Requester { name: user.name.clone(), uid: user.uid.clone(), groups: user.groups.clone(), extra };
        strategy::Context { now: self.clock.now(), requester: Some(requester) }
    }

    pub(crate) fn not_found(&self, row: &Resource, name: &str) -> Status {
        Status::not_found(&row.group, &row.plural, name)
    }

    /// The object as stored, whatever version was asked for.
    pub(crate) fn stored(&self, row: &Resource, namespace: Option<&str>, name: &str) -> Result<Arc<Object>, Status> {
        self.store.get(&row.key(namespace, name)).ok_or_else(|| self.not_found(row, name))
    }

    /// A store's refusal in the API's words. `Precondition` is handled by the callers, which know what they expected.
    pub(crate) fn commit_status(&self, row: &Resource, name: &str, error: CommitError) -> Status {
        match error {
            CommitError::Precondition { .. } => Status::modified(&row.group, &row.plural, name),
            CommitError::TooLarge { size, limit } => Status::too_large(format!("etcdserver: request is too large ({size} bytes, at most {limit})")),
            // As upstream when etcd has no space: 500. The words say what to do about it.
            CommitError::Full(why) => Status::internal(format!("no space: the disk of the cluster's data is full ({why}); nothing was written, reads go on; writes work again when there is room")),
            CommitError::Unavailable(why) => Status::unavailable(format!("the store cannot write: {why}")),
            // etcd's own words, as upstream passes them on.
            CommitError::Unknown(why) => Status::failure(500, Reason::Unknown, why),
        }
    }
}
