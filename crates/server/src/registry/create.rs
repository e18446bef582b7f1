//! POST: from a decoded value to a committed object.

use std::sync::Arc;

use ::api::{Cause, Object, Resource, Status, validation};
use serde_json::Value;
use store::{CommitError, Precondition, Write};

use super::{Part, metadata, owners_once, owners_sound, policy, text, track};
use crate::admission;
use crate::admission::quota::Charge;
use crate::api::{Api, Context};
use crate::{encode, special};

/// How many names `generateName` tries before it gives up.
const MAX_NAME_ATTEMPTS: usize = 8;
/// Names that are generated are cut so that the suffix fits into 63 characters.
const MAX_GENERATED_BASE: usize = 58;

impl Api {
    /// `value` has its kind's shape (see `decode`).
    pub async fn create(&self, row: &Resource, namespace: Option<&str>, value: Value, cx: &Context) -> Result<Arc<Object>, Status> {
        self.fresh().await?;
        let generated = text(&value, "/metadata/name").is_empty() && !text(&value, "/metadata/generateName").is_empty();
        if !generated {
            return self.create_once(row, namespace, value, cx).await;
        }
        let mut last = None;
        for _ in 0..MAX_NAME_ATTEMPTS {
            match self.create_once(row, namespace, value.clone(), cx).await {
                Err(status) if status.is_already_exists() => last = Some(status),
                done => return done,
            }
        }
        let mut status = last.unwrap_or_else(|| Status::internal("no name was tried"));
        status.message = format!("{}: the server was not able to generate a unique name for the object", status.message);
        Err(status)
    }

    async fn create_once(&self, row: &Resource, namespace: Option<&str>, mut value: Value, cx: &Context) -> Result<Arc<Object>, Status> {
        self.place(row, namespace, &mut value, cx.dry_run)?;
        owners_once(&mut value, cx, "");
        let strategy = policy(row);
        self.system_fields(row, &mut value);
        strategy.default(&mut value);
        special::convert::to_storage(row, &mut value)?;
        // Before admission, as upstream: what the cluster fills in is nobody's who made it.
        track(self, row, Part::Main, None, &mut value, cx).await;
        let owned = admission::asks(self, row, cx).then(|| value.pointer("/metadata/managedFields").cloned());
        admission::mutate_create(self, row, namespace, &mut value, cx).await?;
        if let Some(owned) = owned {
            owners_sound(&mut value, owned, cx);
        }
        // Only now, as upstream: what admission refuses is told by the name's base, which stays the same from try to try.
        self.generate_name(&mut value);
        strategy.prepare_create(&mut value, &self.strategy_context(row, cx));
        let mut reserved = special::before_create(self, row, &mut value, cx).await?;
        let name = text(&value, "/metadata/name").to_owned();
        let mut causes = validation::object_meta(row, &value);
        causes.extend(strategy.validate(&value));
        causes.extend(special::judge(row, &value, None, &causes));
        self.refuse(row, &name, causes)?;
        strategy.warnings(&value).into_iter().for_each(|warning| cx.warn(warning));
        admission::validate_create(self, row, namespace, &value, cx).await?;
        let charge = Charge { row, namespace: namespace.unwrap_or_default(), new: &value, old: None };
        let charged = self.charge(&charge, Part::Main, cx.dry_run).await?;
        if cx.dry_run {
            if self.store.get(&row.key(namespace, &name)).is_some() {
                return Err(Status::already_exists(&row.group, &row.plural, &name));
            }
            return special::convert::shown_unsaved(&self.outbound, row, encode::unsaved(&value, None)).await;
        }
        let bytes = match special::convert::for_storage(&self.outbound, row, &value).await {
            Ok(bytes) => bytes,
            Err(status) => {
                self.give_back(charged).await;
                return Err(status);
            }
        };
        let write = Write { key: row.key(namespace, &name), precondition: Precondition::Absent, object: Some(bytes) };
        reserved.commits();
        let object = match self.commit(row, "create", write).await {
            Ok(object) => object,
            Err(error) => {
                reserved.failed(&error);
                self.give_back(charged).await;
                return Err(match error {
                    CommitError::Precondition { .. } => Status::already_exists(&row.group, &row.plural, &name),
                    other => self.commit_status(row, &name, other),
                });
            }
        };
        reserved.keep().await;
        special::after_write(self, row, &object);
        special::convert::shown(&self.outbound, row, object).await
    }

    /// Namespace and name of the URL and of the body must agree; the URL's namespace fills an empty one.
    fn place(&self, row: &Resource, namespace: Option<&str>, value: &mut Value, dry_run: bool) -> Result<(), Status> {
        let meta = metadata(value);
        let given = meta.get("namespace").and_then(Value::as_str).unwrap_or("").to_owned();
        match namespace {
            Some(namespace) if row.namespaced() => {
                if !given.is_empty() && given != namespace {
                    return Err(Status::bad_request("the namespace of the provided object does not match the namespace sent on the request"));
                }
                meta.insert("namespace".into(), namespace.into());
            }
            _ => {
                if row.namespaced() {
                    return Err(Status::bad_request("an empty namespace may not be set during creation"));
                }
                meta.remove("namespace");
            }
        }
        // It is the store that minds, and a dry run does not reach it; nor does it mind what is no revision.
        let version = meta.get("resourceVersion").and_then(Value::as_str).and_then(|version| version.parse::<u64>().ok());
        if !dry_run && version.is_some_and(|version| version != 0) {
            return Err(Status::bad_request("resourceVersion should not be set on objects to be created"));
        }
        meta.remove("resourceVersion");
        Ok(())
    }

    fn generate_name(&self, value: &mut Value) {
        let meta = metadata(value);
        let base = meta.get("generateName").and_then(Value::as_str).unwrap_or("");
        if meta.get("name").and_then(Value::as_str).unwrap_or("").is_empty() && !base.is_empty() {
            let cut: String = base.chars().take(MAX_GENERATED_BASE).collect();
            let generated = format!("{cut}{}", self.suffix());
            meta.insert("name".into(), generated.into());
        }
    }

    /// rest.FillObjectMetaSystemFields, and what a client may not set.
    fn system_fields(&self, _row: &Resource, value: &mut Value) {
        let (uid, now) = (self.uid(), self.now());
        let meta = metadata(value);
        for field in ["deletionTimestamp", "deletionGracePeriodSeconds", "selfLink"] {
            meta.remove(field);
        }
        meta.insert("uid".into(), uid.into());
        meta.insert("creationTimestamp".into(), now.into());
    }

    pub(crate) fn refuse(&self, row: &Resource, name: &str, mut causes: Vec<Cause>) -> Result<(), Status> {
        if causes.is_empty() {
            return Ok(());
        }
        // Events are of the core group, by whatever name they come; but for one field they are told by the newer one's names.
        let newer = row.group == "events.k8s.io";
        let group = if newer { "" } else { &row.group };
        causes.iter_mut().filter(|cause| newer && cause.field == "reportingComponent").for_each(|cause| cause.field = "reportingController".to_owned());
        Err(Status::invalid(group, &row.kind, name, causes))
    }
}
