//! PUT, and the second half of PATCH: replacing an object or one part of it.

use std::sync::Arc;

use ::api::{Cause, Object, Reason, Resource, Status, validation};
use serde_json::Value;
use store::{CommitError, Precondition, Write};

use super::versions::Forms;
use super::{MAX_CONFLICT_RETRIES, has_finalizers, managers_fault, metadata, owners_once, owners_sound, policy, text, track};
use crate::admission;
use crate::admission::quota::Charge;
use crate::api::{Api, Context};
use crate::{encode, special};

/// Which part of the object a write may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Main,
    /// The wanted number of it only, through its Scale.
    Scale,
    Status,
    /// Another subresource with rules of its own (`special`): `ephemeralcontainers`, `resize`, `finalize`, `approval`.
    Other(&'static str),
}

/// Metadata that the server owns: what a client sends of it is overwritten with what is stored.
const SERVER_FIELDS: [&str; 3] = ["creationTimestamp", "generation", "selfLink"];

/// The revision a write is held to; none and zero are no revision. Upstream's versioner does not make a Status of its error, so neither do we.
fn version(text: &str) -> Result<Option<u64>, Status> {
    if text.is_empty() {
        return Ok(None);
    }
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse::<u64>() {
        Ok(version) if digits => Ok(Some(version).filter(|version| *version > 0)),
        _ => {
            let why = if digits { "value out of range" } else { "invalid syntax" };
            Err(Status::failure(500, Reason::Unknown, format!("strconv.ParseUint: parsing {text:?}: {why}")))
        }
    }
}

fn put_back(meta: &mut serde_json::Map<String, Value>, old: &serde_json::Map<String, Value>, field: &str) {
    match old.get(field) {
        Some(value) => meta.insert(field.into(), value.clone()),
        None => meta.remove(field),
    };
}

/// Nonsense about who manages what is forgotten, not refused.
fn owners_known(new: &mut Value, old: &Value) {
    if managers_fault(new).is_some() {
        match old.pointer("/metadata/managedFields").cloned() {
            Some(owners) => metadata(new).insert("managedFields".into(), owners),
            None => metadata(new).remove("managedFields"),
        };
    }
}

/// Whoever names a uid means that object and no other of its name.
pub(crate) fn same_object(row: &Resource, name: &str, new: &Value, old: &Value) -> Result<(), Status> {
    let (given, known) = (text(new, "/metadata/uid"), text(old, "/metadata/uid"));
    if !given.is_empty() && given != known {
        // Of a key, upstream's store speaks without the prefix of them all.
        let namespace = old.pointer("/metadata/namespace").and_then(Value::as_str);
        let key = row.key(namespace, name);
        let key = key.strip_prefix("/registry").unwrap_or(&key);
        let why = format!("Precondition failed: UID in precondition: {given}, UID in object meta: {known}");
        return Err(Status::conflict(&row.group, &row.plural, name, &format!("StorageError: invalid object, Code: 4, Key: {key}, ResourceVersion: 0, AdditionalErrorMsg: {why}")));
    }
    Ok(())
}

/// `rest.EnsureObjectNamespaceMatchesRequestNamespace`.
fn check_namespace(row: &Resource, namespace: Option<&str>, value: &Value) -> Result<(), Status> {
    let given = text(value, "/metadata/namespace");
    match namespace.filter(|_| row.namespaced() && !given.is_empty()) {
        Some(namespace) if given != namespace => Err(Status::bad_request("the namespace of the provided object does not match the namespace sent on the request")),
        _ => Ok(()),
    }
}

impl Api {
    /// `change` makes the wanted object of the stored one; it is called again when another write came between.
    pub async fn change(&self, row: &Resource, namespace: Option<&str>, name: &str, part: Part, cx: &Context, change: impl Fn(&Value) -> Result<Value, Status>) -> Result<Arc<Object>, Status> {
        self.change_asking(row, namespace, name, part, cx, &Forms::default(), change).await
    }

    /// As [`Self::change`], for a `change` that looks at other versions of the object: it is called again once what it wanted to know is told.
    #[expect(clippy::too_many_arguments, reason = "the arguments of change and one more")]
    pub(crate) async fn change_asking(&self, row: &Resource, namespace: Option<&str>, name: &str, part: Part, cx: &Context, forms: &Forms, change: impl Fn(&Value) -> Result<Value, Status>) -> Result<Arc<Object>, Status> {
        let key = row.key(namespace, name);
        self.fresh().await?;
        for _ in 0..MAX_CONFLICT_RETRIES {
            let stored = self.stored(row, namespace, name)?;
            let shown = special::convert::shown(&self.outbound, row, stored.clone()).await?;
            // Most kinds are shown as they are stored, and are decoded once.
            let as_stored = Arc::ptr_eq(&shown, &stored);
            // Custom kinds are judged in the version that was asked for, others as they are stored.
            let old = if row.custom.is_some() { shown.value() } else { stored.value() }.map_err(Status::internal)?;
            let mut new = loop {
                let made = if as_stored || row.custom.is_some() { change(&old) } else { change(&shown.value().map_err(Status::internal)?) };
                if !forms.ask(&self.outbound, row).await {
                    break made?;
                }
            };
            let pinned = version(text(&new, "/metadata/resourceVersion"))?;
            if pinned.is_some_and(|pinned| pinned != stored.resource_version()) {
                return Err(Status::modified(&row.group, &row.plural, name));
            }
            owners_once(&mut new, cx, "");
            if matches!(part, Part::Main | Part::Scale | Part::Status) || row.custom.is_some() {
                policy(row).default(&mut new);
            }
            special::convert::to_storage(row, &mut new)?;
            // Before admission and strategy, as upstream: what they change is not the writer's. Parts with rules of their own are known only after those.
            let early = !matches!(part, Part::Other(_));
            owners_known(&mut new, &old);
            if early {
                track(self, row, part, Some(&old), &mut new, cx).await;
            }
            let mut reserved = self.settle(row, namespace, name, part, &mut new, &old, cx).await?;
            if !early {
                track(self, row, part, Some(&old), &mut new, cx).await;
            }
            let current = row.custom.is_none() || (as_stored && row.version == row.storage_version);
            if current && new == old {
                return Ok(shown);
            }
            let bytes = special::convert::for_storage(&self.outbound, row, &new).await?;
            if !current && bytes == encode::at_rest(&stored.value().map_err(Status::internal)?) {
                return Ok(shown);
            }
            let charge = Charge { row, namespace: namespace.unwrap_or_default(), new: &new, old: Some(&old) };
            let charged = self.charge(&charge, part, cx.dry_run).await?;
            if cx.dry_run {
                let unsaved = encode::unsaved(&new, Some(stored.resource_version()));
                return special::convert::shown_unsaved(&self.outbound, row, unsaved).await;
            }
            let deleting = !text(&new, "/metadata/deletionTimestamp").is_empty();
            let finished = deleting && !has_finalizers(&new) && new.pointer("/metadata/deletionGracePeriodSeconds").and_then(Value::as_i64).unwrap_or(0) == 0;
            let write = Write { key: key.clone(), precondition: Precondition::Revision(stored.resource_version()), object: (!finished).then_some(bytes) };
            reserved.commits();
            match self.commit(row, if finished { "delete" } else { "update" }, write).await {
                Ok(object) => {
                    if finished {
                        // What was taken for the new state goes with it, what the old one held is given back.
                        reserved.unused();
                        drop(reserved);
                        special::after_delete(self, row, &object).await;
                    } else {
                        reserved.keep().await;
                        special::after_write(self, row, &object);
                    }
                    return special::convert::shown(&self.outbound, row, object).await;
                }
                Err(error) => {
                    reserved.failed(&error);
                    self.give_back(charged).await;
                    // Who pins a version is looked at again as well: the object may be gone, which is no conflict.
                    if !matches!(error, CommitError::Precondition { .. }) {
                        return Err(self.commit_status(row, name, error));
                    }
                }
            }
        }
        Err(Status::modified(&row.group, &row.plural, name))
    }

    /// PUT of a decoded value.
    pub async fn update(&self, row: &Resource, namespace: Option<&str>, name: &str, part: Part, value: Value, cx: &Context) -> Result<Arc<Object>, Status> {
        self.check_name(row, namespace, name, &value)?;
        if self.store.get(&row.key(namespace, name)).is_none() {
            self.fresh().await?;
        }
        if part == Part::Main && policy(row).allow_create_on_update() && self.store.get(&row.key(namespace, name)).is_none() {
            let given = text(&value, "/metadata/uid");
            if !given.is_empty() {
                return Err(Status::conflict(&row.group, &row.plural, name, &format!("Precondition failed: UID in precondition: {given}, UID in object meta: ")));
            }
            return self.create(row, namespace, value, cx).await;
        }
        if part == Part::Main && version(text(&value, "/metadata/resourceVersion"))?.is_none() && !policy(row).allow_unconditional_update() {
            let stored = self.stored(row, namespace, name)?;
            same_object(row, name, &value, &stored.value().map_err(Status::internal)?)?;
            let cause = Cause { reason: "FieldValueInvalid".into(), message: "Invalid value: 0: must be specified for an update".into(), field: "metadata.resourceVersion".into() };
            // The resource in the kind's place, as upstream.
            return Err(Status::invalid(&row.group, &row.plural, name, vec![cause]));
        }
        self.change(row, namespace, name, part, cx, |old| same_object(row, name, &value, old).map(|()| value.clone())).await
    }

    /// The object's own name and namespace are those of the URL (endpoints/handlers `checkName`).
    pub(crate) fn check_name(&self, row: &Resource, namespace: Option<&str>, name: &str, value: &Value) -> Result<(), Status> {
        check_namespace(row, namespace, value)?;
        let given = text(value, "/metadata/name");
        if given.is_empty() {
            return Err(Status::bad_request(format!("the name of the object ({name} based on URL) was undeterminable: name must be provided")));
        }
        if given != name {
            return Err(Status::bad_request(format!("the name of the object ({given}) does not match the name on the URL ({name})")));
        }
        Ok(())
    }

    /// Everything between the wanted object and the bytes: server-owned fields, strategy, admission, validation.
    async fn settle(&self, row: &Resource, namespace: Option<&str>, name: &str, part: Part, new: &mut Value, old: &Value, cx: &Context) -> Result<special::Reserved, Status> {
        let strategy = policy(row);
        let context = self.strategy_context(row, cx);
        {
            let old_meta = old.get("metadata").and_then(Value::as_object).cloned().unwrap_or_default();
            let meta = metadata(new);
            meta.insert("name".into(), name.into());
            match namespace {
                Some(namespace) if row.namespaced() => meta.insert("namespace".into(), namespace.into()),
                _ => meta.remove("namespace"),
            };
            for field in SERVER_FIELDS {
                match old_meta.get(field) {
                    Some(value) => meta.insert(field.into(), value.clone()),
                    None => meta.remove(field),
                };
            }
            // Validation refuses other values, but those of a deletion that is under way are never the client's.
            if text(new, "/metadata/uid").is_empty() {
                put_back(metadata(new), &old_meta, "uid");
            }
            if old_meta.contains_key("deletionTimestamp") {
                put_back(metadata(new), &old_meta, "deletionTimestamp");
            }
            if new.pointer("/metadata/deletionGracePeriodSeconds").is_none_or(Value::is_null) {
                put_back(metadata(new), &old_meta, "deletionGracePeriodSeconds");
            }
            let meta = metadata(new);
            // Conditional or not, from here on the update is of this very revision.
            if let Some(version) = old_meta.get("resourceVersion") {
                meta.insert("resourceVersion".into(), version.clone());
            }
        }
        let [again, status_again] = strategy.metadata_again();
        let mut causes;
        let mut reserved = special::Reserved::none();
        let (subresource, _) = super::written(row, part);
        if subresource != "binding" {
            let owned = admission::asks(self, row, cx).then(|| new.pointer("/metadata/managedFields").cloned());
            admission::mutate_update(self, row, subresource, namespace, new, old, cx).await?;
            if let Some(owned) = owned {
                owners_sound(new, owned, cx);
            }
        }
        match part {
            Part::Main | Part::Scale => {
                strategy.prepare_update(new, old, &context);
                reserved = special::before_update(self, row, new, old, cx).await?;
                causes = validation::object_meta_update(row, new, old, again);
                causes.extend(strategy.validate_update(new, old));
                causes.extend(special::judge(row, new, Some(old), &causes));
                // Only an object that is taken is warned about.
                if causes.is_empty() && special::warns_on_update(row) {
                    strategy.update_warnings(new, old).into_iter().for_each(|warning| cx.warn(warning));
                }
            }
            Part::Status => {
                strategy.prepare_status(new, old, &context);
                causes = validation::object_meta_update(row, new, old, status_again);
                causes.extend(strategy.validate_status(new, old));
                if row.custom.is_some() {
                    causes.extend(special::judge(row, new, Some(old), &causes));
                }
            }
            Part::Other(subresource) => {
                causes = special::settle_subresource(self, row, subresource, new, old, cx)?;
                causes.extend(validation::object_meta_update(row, new, old, status_again));
            }
        }
        self.refuse(row, name, causes)?;
        if subresource != "binding" {
            admission::validate_update(self, row, subresource, namespace, new, old, cx).await?;
        }
        Ok(reserved)
    }
}

