//! The audit log: who did what, as the policy says, in the words of `audit.k8s.io/v1`.
//!
//! Mirrors kube-apiserver's `--audit-policy-file`, `--audit-log-…` and `--audit-webhook-…`. Every answer bears an `Audit-ID`, audited or not. Without a policy a request pays for that id only.

mod batches;
mod log;
mod metrics;
mod policy;
mod record;
mod truncation;
mod webhook;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ::api::Clock;
use http::HeaderMap;
use http::header::{HeaderName, USER_AGENT};
use jiff::Timestamp;
use parking_lot::Mutex;

use crate::authentication::User;
use crate::authorization::Attributes;
use crate::decode;
use crate::outbound::Outbound;
use batches::Batches;
use log::Log;
use metrics::AuditMetrics;
use policy::{Level, Policy};
use record::Received;
use truncation::Truncation;
use serde_json::Value;
use tokio::sync::watch;
use webhook::{Delivery, Webhook};

pub use batches::BatchOptions as AuditBatchOptions;
pub use log::{LogFormat, LogOptions};
pub use policy::Stage;
pub use record::{Completed, Record, reference};
pub use truncation::Truncation as AuditTruncation;
pub use webhook::{Mode as AuditWebhookMode, WebhookOptions as AuditWebhookOptions};

pub const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");
/// A client's own id is no longer.
const MAX_ID_BYTES: usize = 64;

#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    #[error("failed to read file path {path:?}: {error}")]
    Read { path: PathBuf, error: std::io::Error },
    #[error("{why}: from file {path}")]
    Policy { path: PathBuf, why: String },
    #[error("cannot write the audit log {path}: {error}")]
    Log { path: PathBuf, error: std::io::Error },
}

/// Where events go: into a file, to a webhook, or both.
#[derive(Default)]
pub struct Backends {
    pub log: Option<LogOptions>,
    pub webhook: Option<AuditWebhookOptions>,
}

/// A policy and where its events go.
pub struct Audit {
    policy: Policy,
    log: Option<Arc<LogBackend>>,
    webhook: Option<Arc<Webhook>>,
    clock: Arc<dyn Clock>,
    pub(crate) metrics: Arc<AuditMetrics>,
}

/// What became of an event so far.
#[derive(Default)]
struct Taken {
    /// A backend that must not fail did.
    failed: bool,
    delivery: Option<Delivery>,
}

/// The log, and what waits for it.
struct LogBackend {
    log: Mutex<Log>,
    truncation: Option<Truncation>,
    batches: Option<Batches>,
    metrics: Arc<AuditMetrics>,
    clock: Arc<dyn Clock>,
}

impl LogBackend {
    fn new(log: Log, metrics: Arc<AuditMetrics>, clock: Arc<dyn Clock>) -> Arc<Self> {
        let batches = log.options().batch.clone().map(Batches::new);
        Arc::new(Self { truncation: log.options().truncation, log: Mutex::new(log), batches, metrics, clock })
    }

    /// False: it must not be lost, and is.
    fn take(&self, event: &Value, now: Timestamp) -> bool {
        let Some(batches) = &self.batches else { return self.write(event, now) };
        if !batches.take(event.clone()) {
            self.metrics.dropped("buffered", 1, "audit buffer queue blocked");
        }
        true
    }

    fn write(&self, event: &Value, now: Timestamp) -> bool {
        let fitting;
        let event = match self.truncation {
            None => event,
            Some(truncation) => match truncation.fit(event.clone()) {
                Some(event) => {
                    fitting = event;
                    &fitting
                }
                None => {
                    self.metrics.dropped(truncation::PLUGIN, 1, truncation::TOO_LARGE);
                    return !self.log.lock().is_strict();
                }
            },
        };
        let mut log = self.log.lock();
        if let Err(error) = log.event(event, now) {
            self.metrics.dropped("log", 1, &error.to_string());
            return !log.is_strict();
        }
        true
    }

    /// Writes what waits, in its order, until `shutdown`.
    async fn run(self: Arc<Self>, shutdown: watch::Receiver<bool>) {
        let Some(batches) = &self.batches else { return };
        let hand_on = |batch: Vec<Value>| {
            let backend = self.clone();
            async move {
                let now = backend.clock.now();
                batch.iter().for_each(|event| {
                    backend.write(event, now);
                });
            }
        };
        batches.run(1, shutdown, hand_on).await;
    }
}

impl Audit {
    pub fn open(policy_file: &Path, backends: Backends, clock: Arc<dyn Clock>) -> Result<Arc<Self>, AuditError> {
        let text = std::fs::read_to_string(policy_file).map_err(|error| AuditError::Read { path: policy_file.into(), error })?;
        let parsed = decode::yaml(&text).and_then(|value| Policy::of(&value));
        let policy = parsed.map_err(|why| AuditError::Policy { path: policy_file.into(), why })?;
        let metrics = Arc::new(AuditMetrics::default());
        let log = backends.log.map(|options| {
            let path = options.path.clone();
            Log::open(options).map_err(|error| AuditError::Log { path, error })
        });
        let log = log.transpose()?.map(|log| LogBackend::new(log, metrics.clone(), clock.clone()));
        let webhook = backends.webhook.map(|options| Webhook::new(options, metrics.clone()));
        Ok(Arc::new(Self { policy, log, webhook, clock, metrics }))
    }

    /// From here on the webhook can be called.
    pub(crate) fn attach(&self, outbound: &Arc<Outbound>) {
        if let Some(webhook) = &self.webhook {
            webhook.attach(outbound.clone());
        }
    }

    /// Begins to hand on what waits, until `shutdown`; what is returned ends when all of it has been.
    pub(crate) fn run(&self, shutdown: watch::Receiver<bool>) -> impl Future<Output = ()> + Send + 'static {
        let log = self.log.clone().map(|log| tokio::spawn(log.run(shutdown.clone())));
        let webhook = self.webhook.clone().map(|webhook| tokio::spawn(webhook.run(shutdown)));
        async move {
            for running in [log, webhook].into_iter().flatten() {
                let _ = running.await;
            }
        }
    }

    pub(crate) fn text(&self, out: &mut String) {
        self.metrics.text(out);
    }

    fn is_strict(&self) -> bool {
        self.webhook.as_ref().is_some_and(|webhook| webhook.is_strict())
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn write(&self, event: &Value, now: Timestamp) -> Taken {
        let mut taken = Taken::default();
        self.metrics.event();
        if let Some(log) = &self.log {
            taken.failed = !log.take(event, now);
        }
        if let Some(webhook) = &self.webhook {
            taken.delivery = webhook.take(event.clone());
        }
        taken
    }

    /// A record of a request, when the policy wants one. Nothing of it is written yet.
    pub fn begin(self: &Arc<Self>, id: &str, uri: &str, asked: &Attributes, version: &str, user: &User, peer: Option<std::net::IpAddr>, headers: &HeaderMap) -> Option<Arc<Record>> {
        let decision = self.policy.decide(user, asked);
        self.metrics.level(decision.level.as_str());
        if decision.level == Level::None {
            return None;
        }
        let object = asked.path.is_empty().then(|| {
            reference([("resource", &asked.resource), ("namespace", &asked.namespace), ("name", &asked.name), ("apiGroup", &asked.group), ("apiVersion", version), ("subresource", &asked.subresource)])
        });
        let agent = headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or("");
        let received = Received { id, uri, verb: &asked.verb, user, source_addresses: source_addresses(headers, peer), user_agent: agent, object };
        Some(Record::new(self.clone(), decision.clone(), received))
    }
}

/// Who is said to have asked, then who did (`utilnet.SourceIPs`).
fn source_addresses(headers: &HeaderMap, peer: Option<std::net::IpAddr>) -> Vec<String> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("");
    let parse = |address: &str| address.trim().parse::<std::net::IpAddr>().ok().map(|address| address.to_canonical().to_string());
    let mut found: Vec<String> = text("x-forwarded-for").split(',').filter_map(parse).collect();
    found.extend(parse(text("x-real-ip")).filter(|real| !found.contains(real)));
    if let Some(peer) = peer.map(|peer| peer.to_canonical().to_string())
        && found.last() != Some(&peer)
    {
        found.push(peer);
    }
    found
}

/// Ids of requests: as many as there are, none twice in the life of this process, and none like another process'.
pub struct Ids {
    start: u64,
    next: AtomicU64,
}

impl Ids {
    pub fn new(chance: &crate::api::Chance) -> Self {
        let mut raw = [0u8; 16];
        chance(&mut raw);
        let (start, next) = (u64::from_le_bytes(raw[..8].try_into().unwrap_or_default()), u64::from_le_bytes(raw[8..].try_into().unwrap_or_default()));
        Self { start, next: AtomicU64::new(next) }
    }

    /// The client's, or one of our own: a UUID of version 4 in form.
    pub fn of(&self, headers: &HeaderMap) -> String {
        if let Some(given) = headers.get(AUDIT_ID).and_then(|id| id.to_str().ok()).filter(|id| !id.is_empty()) {
            return given.chars().take(MAX_ID_BYTES).collect();
        }
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        // Every number maps to another one (splitmix64).
        let mut low = self.next.fetch_add(STEP, Ordering::Relaxed);
        low = (low ^ (low >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        low = (low ^ (low >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        low ^= low >> 31;
        let high = self.start ^ low.rotate_left(32);
        format!("{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}", high >> 32, (high >> 16) & 0xffff, high & 0xfff, 0x8000 | (low >> 48) & 0x3fff, low & 0xffff_ffff_ffff)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids() {
        let ids = Ids::new(&(Arc::new(|buffer: &mut [u8]| buffer.fill(7)) as crate::api::Chance));
        let mut seen: Vec<String> = (0..1000).map(|_| ids.of(&HeaderMap::new())).collect();
        assert!(seen.iter().all(|id| id.len() == 36 && id.as_bytes()[14] == b'4' && matches!(id.as_bytes()[19], b'8' | b'9' | b'a' | b'b')), "{seen:?}");
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 1000);
        let given = HeaderMap::from_iter([(AUDIT_ID, http::HeaderValue::from_static("mine"))]);
        assert_eq!(ids.of(&given), "mine");
    }

    #[test]
    fn addresses() {
        let headers = |list: &[(&'static str, &'static str)]| HeaderMap::from_iter(list.iter().map(|(name, value)| (HeaderName::from_static(name), http::HeaderValue::from_static(value))));
        let peer = Some("::ffff:192.0.2.1".parse().unwrap());
        assert_eq!(source_addresses(&headers(&[]), peer), ["192.0.2.1"]);
        assert_eq!(source_addresses(&headers(&[("x-forwarded-for", "203.0.113.5, nonsense"), ("x-real-ip", "203.0.113.9")]), peer), ["203.0.113.5", "203.0.113.9", "192.0.2.1"]);
        assert_eq!(source_addresses(&headers(&[("x-forwarded-for", "192.0.2.1")]), peer), ["192.0.2.1"]);
    }
}
