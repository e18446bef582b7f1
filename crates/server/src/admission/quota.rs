//! ResourceQuota: what a write would use is added to the quotas that concern it before the write, and taken off again if the write fails.
//!
//! Mirrors the admission plugin's `CheckRequest`; the quota controller counts anew when something goes.
//! https://kubernetes.io/docs/concepts/policy/resource-quotas/

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use ::api::usage::{self, Amounts};
use ::api::{Object, Resource, Status};
use serde_json::{Map, Value};
use store::{CommitError, Precondition, Write};

use super::shown_name;
use crate::api::Api;
use crate::encode;
use crate::registry::{MAX_CONFLICT_RETRIES, Part};

/// What was added to which quota; must be given back when the write comes to nothing.
#[must_use]
#[derive(Default)]
pub struct Charged(Vec<(String, Amounts)>);

/// Namespaces share this many turns.
const TURNS: usize = 64;

/// Whose turn it is to count in a namespace. Another server may still count at the same time: compare-and-swap decides.
pub struct Turns([tokio::sync::Mutex<()>; TURNS]);

impl Default for Turns {
    fn default() -> Self {
        Self(std::array::from_fn(|_| tokio::sync::Mutex::default()))
    }
}

impl Turns {
    fn of(&self, namespace: &str) -> &tokio::sync::Mutex<()> {
        let mut hasher = DefaultHasher::new();
        namespace.hash(&mut hasher);
        &self.0[hasher.finish() as usize % TURNS]
    }
}

/// One write as quotas see it.
pub struct Charge<'a> {
    pub row: &'a Resource,
    pub namespace: &'a str,
    pub new: &'a Value,
    pub old: Option<&'a Value>,
}

impl Charge<'_> {
    /// Whether such a write can use more than before. Events are not counted at all.
    fn counts(&self, part: Part) -> bool {
        let core = |plural: &str| self.row.group.is_empty() && self.row.plural == plural;
        match (self.old, part) {
            _ if self.row.plural == "events" => false,
            (None, part) => part == Part::Main,
            (Some(_), Part::Main) if core("services") || core("persistentvolumeclaims") || self.row.group == "resource.k8s.io" && self.row.plural == "resourceclaims" => true,
            (Some(old), Part::Main) => core("pods") && usage::is_terminating(old) != usage::is_terminating(self.new),
            (Some(_), Part::Other("resize")) => core("pods"),
            _ => false,
        }
    }

    fn forbidden(&self, why: &str) -> Status {
        Status::forbidden(&self.row.group, &self.row.plural, shown_name(self.new), why)
    }

    /// What this write adds to a quota, or why it may not.
    fn judge(&self, quota: &Value, name: &str, now: jiff::Timestamp) -> Result<Amounts, Status> {
        let (hard, used) = (usage::amounts(quota, "status.hard"), usage::amounts(quota, "status.used"));
        let concerns = |object: &Value| usage::in_scope(quota, self.row, object);
        let bounded: Vec<&str> = hard.keys().map(String::as_str).filter(|name| usage::tracks(self.row, name)).collect();
        if bounded.is_empty() || !concerns(self.new) {
            return Ok(Amounts::new());
        }
        if self.row.group.is_empty() && self.row.plural == "pods" {
            if let Some(missing) = usage::missing(self.new, bounded.iter().copied()) {
                return Err(self.forbidden(&format!("failed quota: {name}: {missing}")));
            }
        }
        if bounded.iter().any(|name| !used.contains_key(*name)) {
            return Err(self.forbidden(&format!("status unknown for quota: {name}, resources: {}", bounded.join(","))));
        }
        let mut delta = usage::of(self.row, self.new, now);
        if let Some(old) = self.old.filter(|old| concerns(old)) {
            let before = usage::of(self.row, old, now);
            for (name, amount) in &mut delta {
                if let Some(before) = before.get(name) {
                    *amount = amount.minus(before);
                }
            }
        }
        delta.retain(|name, amount| amount.sign() > 0 && hard.contains_key(name));
        let exceeded: Vec<&String> = delta.iter().filter(|(name, amount)| used.get(*name).map_or(**amount, |known| known.plus(amount)) > hard[*name]).map(|(name, _)| name).collect();
        if exceeded.is_empty() {
            return Ok(delta);
        }
        let only = |amounts: &Amounts| usage::shown(&exceeded.iter().filter_map(|name| Some(((*name).clone(), *amounts.get(*name)?))).collect());
        Err(self.forbidden(&format!("exceeded quota: {name}, requested: {}, used: {}, limited: {}", only(&delta), only(&used), only(&hard))))
    }
}

/// The quota with so much more, or less, used.
fn with_used(quota: &Value, delta: &Amounts, sign: i64) -> Value {
    let mut used = usage::amounts(quota, "status.used");
    for (name, amount) in delta {
        if let Some(known) = used.get_mut(name) {
            *known = known.plus(&amount.times(sign));
        }
    }
    let used: Map<String, Value> = used.into_iter().filter(|(_, amount)| !amount.is_negative()).map(|(name, amount)| (name, amount.to_string().into())).collect();
    let mut quota = quota.clone();
    quota["status"]["used"] = used.into();
    quota
}

impl Api {
    /// Refuses the write, or counts it. A dry run is judged and not counted.
    pub(crate) async fn charge(&self, charge: &Charge<'_>, part: Part, dry_run: bool) -> Result<Charged, Status> {
        let mut charged = Charged::default();
        if charge.namespace.is_empty() || !charge.counts(part) || !self.config.plugins.on("ResourceQuota") {
            return Ok(charged);
        }
        let page = self.store.list(&format!("/registry/resourcequotas/{}/", charge.namespace), None, None, 0).map_err(Status::internal)?;
        if page.items.is_empty() {
            return Ok(charged);
        }
        // Writers of one namespace come one after another, or they would only hinder each other.
        let _turn = self.quota_turns.of(charge.namespace).lock().await;
        // All of them first: mostly one refuses before any has counted.
        for (_, object) in &page.items {
            charge.judge(&object.value().map_err(Status::internal)?, &object.meta().name, self.clock.now())?;
        }
        if dry_run {
            return Ok(charged);
        }
        for (key, _) in page.items {
            match self.adjust(&key, 1, |quota, object| charge.judge(quota, &object.meta().name, self.clock.now())).await {
                Ok(delta) if delta.is_empty() => {}
                Ok(delta) => charged.0.push((key.to_string(), delta)),
                Err(refused) => {
                    self.give_back(charged).await;
                    return Err(refused);
                }
            }
        }
        Ok(charged)
    }

    pub(crate) async fn give_back(&self, charged: Charged) {
        for (key, delta) in charged.0 {
            if let Err(error) = self.adjust(&key, -1, |_, _| Ok(delta.clone())).await {
                // The quota controller counts anew in some minutes.
                tracing::warn!(%error, key, "what a failed write would have used is still counted");
            }
        }
    }

    async fn adjust(&self, key: &str, sign: i64, delta: impl Fn(&Value, &Object) -> Result<Amounts, Status>) -> Result<Amounts, Status> {
        for _ in 0..MAX_CONFLICT_RETRIES {
            let Some(stored) = self.store.get(key) else { return Ok(Amounts::new()) };
            let stored: Arc<Object> = stored;
            let quota = stored.value().map_err(Status::internal)?;
            let delta = delta(&quota, &stored)?;
            if delta.is_empty() {
                return Ok(delta);
            }
            let write = Write { key: key.to_owned(), precondition: Precondition::Revision(stored.resource_version()), object: Some(encode::at_rest(&with_used(&quota, &delta, sign))) };
            match self.store.commit(write).await {
                Ok(_) => return Ok(delta),
                Err(CommitError::Precondition { .. }) => {}
                Err(CommitError::Unavailable(why)) => return Err(Status::unavailable(format!("the store cannot write: {why}"))),
                Err(other) => return Err(Status::internal(other)),
            }
        }
        let name = key.rsplit('/').next().unwrap_or(key);
        Err(Status::modified("", "resourcequotas", name))
    }
}
