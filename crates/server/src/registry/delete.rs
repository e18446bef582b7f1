//! DELETE: at once, gracefully, or held by finalizers.
//!
//! Mirrors rest.BeforeDelete and Store.Delete: https://kubernetes.io/docs/concepts/architecture/garbage-collection/

use std::sync::Arc;

use ::api::{Object, Resource, Status};
use client::{DeleteOptions, Propagation};
use serde_json::Value;
use store::{CommitError, Precondition, Write};

use super::{MAX_CONFLICT_RETRIES, has_finalizers, metadata, policy, text};
use crate::admission;
use crate::api::{Api, Context};
use crate::{encode, special};

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

/// What a DELETE led to.
#[derive(Debug)]
pub enum Deleted {
    /// Gone: the last state.
    Gone(Arc<Object>),
    /// Still there, on its way out.
    Going(Arc<Object>),
}

impl Api {
    pub async fn delete(&self, row: &Resource, namespace: Option<&str>, name: &str, options: &DeleteOptions, cx: &Context) -> Result<Deleted, Status> {
        let key = row.key(namespace, name);
        let asks = admission::asks(self, row, cx);
        self.fresh().await?;
        for _ in 0..MAX_CONFLICT_RETRIES * 4 {
            let stored = self.stored(row, namespace, name)?;
            let old = stored.value().map_err(Status::internal)?;
            self.check_preconditions(row, name, options, &old, stored.resource_version())?;
            admission::restrict_node(self, &admission::Asked::new(admission::Operation::Delete, row, "", namespace, name, cx), None, Some(&old))?;
            if asks {
                let shown = special::convert::judged(&self.outbound, row, &stored, &old).await?;
                admission::validate_delete(self, row, namespace, name, &shown, options, cx).await?;
            }
            special::before_delete(self, row, &old)?;
            let mut new = old.clone();
            special::prepare_delete(self, row, &mut new);
            self.propagate(&mut new, options.propagation.or_else(|| by_default(row, &old)));
            let decision = self.plan_delete(row, &mut new, &old, options)?;
            if cx.dry_run {
                return Ok(if matches!(decision, Step::Remove) { Deleted::Gone(stored) } else { Deleted::Going(stored) });
            }
            let (object, gone) = match decision {
                Step::Nothing => return Ok(Deleted::Going(special::convert::shown(&self.outbound, row, stored).await?)),
                Step::Keep => (Some(encode::at_rest(&new)), false),
                Step::Remove => (None, true),
            };
            match self.commit(row, if gone { "delete" } else { "update" }, Write { key: key.clone(), precondition: Precondition::Revision(stored.resource_version()), object }).await {
                Ok(object) if gone => {
                    special::after_delete(self, row, &object).await;
                    return Ok(Deleted::Gone(special::convert::shown(&self.outbound, row, object).await?));
                }
                Ok(object) => {
                    special::after_write(self, row, &object);
                    return Ok(Deleted::Going(special::convert::shown(&self.outbound, row, object).await?));
                }
                Err(CommitError::Precondition { .. }) => {}
                Err(other) => return Err(self.commit_status(row, name, other)),
            }
        }
        Err(Status::modified(&row.group, &row.plural, name))
    }

    fn check_preconditions(&self, row: &Resource, name: &str, options: &DeleteOptions, old: &Value, revision: u64) -> Result<(), Status> {
        let uid = text(old, "/metadata/uid");
        if let Some(wanted) = &options.preconditions.uid
            && wanted != uid
        {
            return Err(Status::conflict(&row.group, &row.kind, name, &format!("the UID in the precondition ({wanted}) does not match the UID in record ({uid}). The object might have been deleted and then recreated")));
        }
        if let Some(wanted) = &options.preconditions.resource_version
            && *wanted != revision.to_string()
        {
            return Err(Status::conflict(&row.group, &row.kind, name, &format!("the ResourceVersion in the precondition ({wanted}) does not match the ResourceVersion in record ({revision}). The object might have been modified")));
        }
        Ok(())
    }

    /// The finalizers that stand for a propagation policy.
    fn propagate(&self, new: &mut Value, propagation: Option<Propagation>) {
        let Some(propagation) = propagation else { return };
        let meta = metadata(new);
        let mut list: Vec<Value> = meta.get("finalizers").and_then(Value::as_array).cloned().unwrap_or_default();
        list.retain(|name| name != ORPHAN && name != FOREGROUND);
        match propagation {
            Propagation::Orphan => list.push(ORPHAN.into()),
            Propagation::Foreground => list.push(FOREGROUND.into()),
            Propagation::Background => {}
        }
        if list.is_empty() { meta.remove("finalizers") } else { meta.insert("finalizers".into(), list.into()) };
    }

    fn plan_delete(&self, row: &Resource, new: &mut Value, old: &Value, options: &DeleteOptions) -> Result<Step, Status> {
        let already = !text(old, "/metadata/deletionTimestamp").is_empty();
        let known_grace = old.pointer("/metadata/deletionGracePeriodSeconds").and_then(Value::as_i64);
        let wanted = policy(row).delete_grace(old, options.grace_period_seconds);
        let changed = new != old;
        if already {
            let grace = wanted.unwrap_or(0);
            if known_grace.unwrap_or(0) > grace && wanted.is_some() && options.grace_period_seconds.is_some() {
                let grace = self.shorten(new, known_grace.unwrap_or(0), grace);
                return Ok(if grace == 0 && !has_finalizers(new) { Step::Remove } else { Step::Keep });
            }
            if known_grace.unwrap_or(0) == 0 && !has_finalizers(new) {
                return Ok(Step::Remove);
            }
            return Ok(if changed { Step::Keep } else { Step::Nothing });
        }
        let grace = wanted.unwrap_or(0);
        if grace > 0 || has_finalizers(new) {
            self.mark(new, grace);
            return Ok(Step::Keep);
        }
        Ok(Step::Remove)
    }

    /// It is going already and shall go sooner, counted from when it was told to; the grace that is left. No news for its generation.
    fn shorten(&self, new: &mut Value, known: i64, wanted: i64) -> i64 {
        let now = self.clock.now();
        let told = text(new, "/metadata/deletionTimestamp").parse::<jiff::Timestamp>().unwrap_or(now);
        let at = told.checked_sub(jiff::SignedDuration::from_secs(known)).and_then(|at| at.checked_add(jiff::SignedDuration::from_secs(wanted))).unwrap_or(now);
        // Never into the past; as long as it is to go gracefully, its node has the last word.
        let (at, grace) = if at < now { (now, wanted.min(1)) } else { (at, wanted) };
        let meta = metadata(new);
        meta.insert("deletionTimestamp".into(), ::api::world::rfc3339(at).into());
        meta.insert("deletionGracePeriodSeconds".into(), grace.into());
        grace
    }

    fn mark(&self, new: &mut Value, grace: i64) {
        let at = self.clock.now().checked_add(jiff::SignedDuration::from_secs(grace)).unwrap_or_else(|_| self.clock.now());
        let namespace = text(new, "/kind") == "Namespace";
        let meta = metadata(new);
        meta.insert("deletionTimestamp".into(), ::api::world::rfc3339(at).into());
        meta.insert("deletionGracePeriodSeconds".into(), grace.into());
        if let Some(generation) = meta.get("generation").and_then(Value::as_i64)
            && generation > 0
        {
            meta.insert("generation".into(), (generation + 1).into());
        }
        if namespace {
            meta.remove("deletionGracePeriodSeconds");
            if let Some(root) = new.as_object_mut() {
                let status = root.entry("status").or_insert_with(|| Value::Object(Default::default()));
                if let Some(status) = status.as_object_mut() {
                    status.insert("phase".into(), "Terminating".into());
                }
            }
        }
    }
}

/// Kinds whose dependents stay unless somebody says otherwise, for the sake of clients from before there was a garbage collector
/// (`DefaultGarbageCollectionPolicy`); finalizers that are there have said so.
fn by_default(row: &Resource, old: &Value) -> Option<Propagation> {
    let named = old.pointer("/metadata/finalizers").and_then(Value::as_array).is_some_and(|list| list.iter().any(|name| name == ORPHAN || name == FOREGROUND));
    (special::orphans_by_default(row) && !named).then_some(Propagation::Orphan)
}

enum Step {
    Nothing,
    Keep,
    Remove,
}
