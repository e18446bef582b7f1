//! What the service proxy measures of its work: `kubeproxy_*`, on port 10249 of this machine's own addresses.
//!
//! Names, labels, bounds and words are those of pkg/proxy/metrics. Nothing is ever written anew as a whole here, so there is no `sync_full_…`; both families go in one
//! transaction, and so take the same time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use api::k8s::api::discovery::v1::EndpointSlice;
use basics::histogram::exponential;
use basics::metrics::{Counters, Gauges, Histograms, single};
use jiff::Timestamp;
use parking_lot::Mutex;

use crate::services::{Changed, Seen, ServiceKey};

/// When the pods or the Service were changed that a slice was written for.
const LAST_CHANGE: &str = "endpoints.kubernetes.io/last-change-trigger-time";
const SYNC: &[f64] = &exponential::<15>(0.001, 2.0);
const PROGRAMMING: &[f64] = &programming();
const FAMILY: &[&str] = &["ip_family"];

/// A quarter and half a second, each second of a minute, then every five, from two minutes on every thirty.
const fn programming() -> [f64; 80] {
    let (mut bounds, mut at) = ([0.25; 80], 1);
    while at < 80 {
        bounds[at] = match at {
            1 => 0.5,
            2..=60 => (at - 1) as f64,
            61..=72 => (60 + 5 * (at - 61)) as f64,
            _ => (120 + 30 * (at - 73)) as f64,
        };
        at += 1;
    }
    bounds
}

pub struct Measured {
    families: Vec<&'static str>,
    began: Timestamp,
    syncs: Histograms,
    programming: Histograms,
    queued: Gauges,
    synced: Gauges,
    failures: Counters,
    healthz: Counters,
    livez: Counters,
    changed: Mutex<Option<Arc<Changed>>>,
    services_done: AtomicU64,
    slices_done: AtomicU64,
    /// The newest change of a Service's endpoints that was looked at.
    triggers: Mutex<BTreeMap<ServiceKey, Timestamp>>,
}

impl Measured {
    pub fn new(families: Vec<&'static str>, began: Timestamp) -> Self {
        Self {
            families,
            began,
            syncs: Histograms::new("kubeproxy_sync_proxy_rules_duration_seconds", "[ALPHA] SyncProxyRules latency in seconds", FAMILY, SYNC),
            programming: Histograms::new("kubeproxy_network_programming_duration_seconds", "[ALPHA] In Cluster Network Programming Latency in seconds", FAMILY, PROGRAMMING),
            queued: Gauges::new("kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds", "[ALPHA] The last time a sync of proxy rules was queued", FAMILY),
            synced: Gauges::new("kubeproxy_sync_proxy_rules_last_timestamp_seconds", "[ALPHA] The last time proxy rules were successfully synced", FAMILY),
            failures: Counters::new("kubeproxy_sync_proxy_rules_nftables_sync_failures_total", "[ALPHA] Cumulative proxy nftables sync failures", FAMILY),
            healthz: Counters::new("kubeproxy_proxy_healthz_total", "[ALPHA] Cumulative proxy healthz HTTP status", &["code"]),
            livez: Counters::new("kubeproxy_proxy_livez_total", "[ALPHA] Cumulative proxy livez HTTP status", &["code"]),
            changed: Mutex::default(),
            services_done: AtomicU64::new(0),
            slices_done: AtomicU64::new(0),
            triggers: Mutex::default(),
        }
    }

    /// Whose changes are counted.
    pub fn follow(&self, changed: &Arc<Changed>) {
        *self.changed.lock() = Some(changed.clone());
    }

    /// There is something to program.
    pub fn queued(&self) {
        self.families.iter().for_each(|family| self.queued.now(&[family]));
    }

    /// When the endpoints of a Service that is about to be programmed changed, of those that nobody has counted yet.
    pub fn triggers(&self, key: &ServiceKey, slices: Option<&[Arc<EndpointSlice>]>) -> Vec<Timestamp> {
        let mut known = self.triggers.lock();
        let Some(slices) = slices else {
            known.remove(key);
            return Vec::new();
        };
        // What changed before this proxy began says nothing of how quick it is.
        let after = known.get(key).copied().unwrap_or(self.began);
        let told = slices.iter().filter_map(|slice| slice.metadata.annotations.as_ref()?.get(LAST_CHANGE)?.parse::<Timestamp>().ok());
        let new: Vec<Timestamp> = told.filter(|changed| *changed > after).collect();
        if let Some(newest) = new.iter().max() {
            known.insert(key.clone(), *newest);
        }
        new
    }

    /// All that was to be programmed is: `triggers` are when it changed.
    pub fn synced(&self, took: Duration, seen: Seen, triggers: &[Timestamp], now: Timestamp) {
        self.services_done.store(seen.services, Ordering::Relaxed);
        self.slices_done.store(seen.slices, Ordering::Relaxed);
        for family in &self.families {
            self.synced.now(&[family]);
            self.syncs.observe(&[family], took.as_secs_f64());
            for changed in triggers {
                self.programming.observe(&[family], now.duration_since(*changed).as_secs_f64().max(0.0));
            }
        }
    }

    pub fn failed(&self) {
        self.families.iter().for_each(|family| self.failures.add(&[family], 1));
    }

    /// Its health was asked for.
    pub fn asked(&self, path: &str, code: u16) {
        match path {
            "/healthz" => self.healthz.add(&[&code.to_string()], 1),
            "/livez" => self.livez.add(&[&code.to_string()], 1),
            _ => {}
        }
    }

    pub fn text(&self) -> String {
        let mut out = String::new();
        self.programming.text(&mut out);
        self.healthz.text(&mut out);
        self.livez.text(&mut out);
        self.syncs.text(&mut out);
        let seen = self.changed.lock().as_ref().map(|changed| changed.seen()).unwrap_or_default();
        let pending = |seen: u64, done: &AtomicU64| seen.saturating_sub(done.load(Ordering::Relaxed));
        single(&mut out, "kubeproxy_sync_proxy_rules_endpoint_changes_pending", "gauge", "[ALPHA] Pending proxy rules Endpoint changes", pending(seen.slices, &self.slices_done));
        single(&mut out, "kubeproxy_sync_proxy_rules_endpoint_changes_total", "counter", "[ALPHA] Cumulative proxy rules Endpoint changes", seen.slices);
        self.queued.text(&mut out);
        self.synced.text(&mut out);
        self.failures.text(&mut out);
        single(&mut out, "kubeproxy_sync_proxy_rules_service_changes_pending", "gauge", "[ALPHA] Pending proxy rules Service changes", pending(seen.services, &self.services_done));
        single(&mut out, "kubeproxy_sync_proxy_rules_service_changes_total", "counter", "[ALPHA] Cumulative proxy rules Service changes", seen.services);
        basics::process::text(&mut out);
        out
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn bounds() {
        assert_eq!(PROGRAMMING[..4], [0.25, 0.5, 1.0, 2.0]);
        assert_eq!(PROGRAMMING[58..64], [57.0, 58.0, 59.0, 60.0, 65.0, 70.0]);
        assert_eq!(PROGRAMMING[71..], [110.0, 115.0, 120.0, 150.0, 180.0, 210.0, 240.0, 270.0, 300.0]);
    }

    #[test]
    fn each_change_of_endpoints_counts_once() {
        let began: Timestamp = "2026-11-23T12:00:00Z".parse().unwrap();
        let measured = Measured::new(vec!["IPv4", "IPv6"], began);
        let key = ("default".to_owned(), "web".to_owned());
        let slice = |at: &str| {
            let mut slice = EndpointSlice::default();
            slice.metadata.annotations = Some(BTreeMap::from([(LAST_CHANGE.to_owned(), at.to_owned())]));
            Arc::new(slice)
        };
        assert!(measured.triggers(&key, Some(&[slice("2026-11-23T11:59:59Z")])).is_empty(), "before it began");
        let slices = [slice("2026-11-23T12:00:10Z"), slice("2026-11-23T11:00:00Z")];
        let triggers = measured.triggers(&key, Some(&slices));
        assert_eq!(triggers.len(), 1);
        assert!(measured.triggers(&key, Some(&slices)).is_empty(), "it was counted");
        measured.synced(Duration::from_millis(3), Seen::default(), &triggers, "2026-11-23T12:00:12.5Z".parse().unwrap());
        measured.asked("/healthz", 200);
        let out = measured.text();
        for line in [
            r#"kubeproxy_network_programming_duration_seconds_bucket{ip_family="IPv6",le="2"} 0"#,
            r#"kubeproxy_network_programming_duration_seconds_bucket{ip_family="IPv6",le="3"} 1"#,
            r#"kubeproxy_sync_proxy_rules_duration_seconds_bucket{ip_family="IPv4",le="0.004"} 1"#,
            r#"kubeproxy_proxy_healthz_total{code="200"} 1"#,
            "kubeproxy_sync_proxy_rules_service_changes_total 0",
        ] {
            assert!(out.lines().any(|written| written == line), "{line}\nnot in\n{out}");
        }
        assert!(measured.triggers(&key, None).is_empty() && measured.triggers.lock().is_empty(), "a Service that is gone is forgotten");
    }
}
