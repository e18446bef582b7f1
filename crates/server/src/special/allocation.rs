//! What Services are given: addresses (`addresses.rs`) and node ports (`node_ports.rs`). Who has one is said by a key of the store, and by nothing else.
//!
//! The key is made before the Service that gets what it stands for and goes after the Service that lets it go, so API servers on one store never give anything
//! twice. Here is what both have in common.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use basics::histogram::head;
use basics::metrics::{line, shown, single};
use parking_lot::Mutex;
use serde_json::Value;
use store::{Precondition, Store, Write};

use super::addresses::Range;
use crate::api::{Api, Config};
use crate::registry::text;

#[derive(Debug, PartialEq, Eq)]
pub enum Refused {
    OutOfRange,
    Taken,
    Full,
}

/// Who gets something.
#[derive(Debug, Clone, Copy)]
pub struct Owner<'a> {
    pub namespace: &'a str,
    pub name: &'a str,
}

impl<'a> Owner<'a> {
    pub fn of(service: &'a Value) -> Self {
        Self { namespace: text(service, "/metadata/namespace"), name: text(service, "/metadata/name") }
    }
}

/// Something taken for a write that may still fail.
#[derive(Debug, Clone)]
pub struct Taken {
    pub key: String,
    pub revision: u64,
}

/// Gives back what was taken, unless another has taken it over since.
pub async fn undo(store: Arc<dyn Store>, taken: Vec<Taken>) {
    for Taken { key, revision } in taken {
        let write = Write { key: key.clone(), precondition: Precondition::Revision(revision), object: None };
        if let Err(error) = store.commit(write).await {
            tracing::debug!(key, %error, "an allocation could not be given back; it will be found to have leaked");
        }
    }
}

/// What is given out of the cluster's ranges, by the names of pkg/registry/core/service/{ipallocator,portallocator}/metrics.go.
pub fn metrics(api: &Api, out: &mut String) {
    let counts: Vec<_> = api.allocations.counts(&*api.store).collect();
    let mut each = |name: &str, help: &str, value: fn(&(String, u128, u128)) -> u128| {
        head(out, name, "gauge", help);
        counts.iter().for_each(|count| line(out, name, &shown([("cidr", &*count.0)]), value(count)));
    };
    each("kube_apiserver_clusterip_allocator_allocated_ips", "[ALPHA] Gauge measuring the number of allocated IPs for Services", |(_, taken, _)| *taken);
    each("kube_apiserver_clusterip_allocator_available_ips", "[ALPHA] Gauge measuring the number of available IPs for Services", |(_, _, free)| *free);
    let (first, last) = api.allocations.ports;
    let taken = api.store.count(super::node_ports::PREFIX);
    let all = usize::from(last.saturating_sub(first)) + 1;
    single(out, "kube_apiserver_nodeport_allocator_allocated_ports", "gauge", "[ALPHA] Gauge measuring the number of allocated NodePorts for Services", taken);
    single(out, "kube_apiserver_nodeport_allocator_available_ports", "gauge", "[ALPHA] Gauge measuring the number of available NodePorts for Services", all.saturating_sub(taken));
}

pub struct Allocations {
    ranges: Vec<Range>,
    ports: (u16, u16),
    turns: AtomicU64,
    /// Revisions of what is being given back while nobody waits for it: as good as free.
    going: Arc<Mutex<HashSet<u64>>>,
}

impl Allocations {
    pub fn new(config: &Config) -> Self {
        Self { ranges: config.service_cidrs.iter().map(|(base, prefix)| Range::new(*base, *prefix)).collect(), ports: config.node_port_range, turns: AtomicU64::new(0), going: Arc::default() }
    }

    fn counts(&self, store: &dyn Store) -> impl Iterator<Item = (String, u128, u128)> {
        let known = store.list("/registry/ipaddresses/", None, None, 0).map(|page| page.items).unwrap_or_default();
        let taken: Vec<IpAddr> = known.iter().filter_map(|(key, _)| key.rsplit('/').next()?.parse().ok()).collect();
        self.ranges.iter().map(move |range| {
            let within = taken.iter().filter(|address| range.offers(**address)).count() as u128;
            (range.cidr(), within, range.usable().saturating_sub(within))
        })
    }

    /// IPv4 or IPv6, in the order of the cluster's ranges.
    pub fn families(&self) -> Vec<&'static str> {
        self.ranges.iter().map(|range| range.family()).collect()
    }

    /// Where the search for something free begins: one further each time.
    pub fn turn(&self) -> u64 {
        self.turns.fetch_add(1, Ordering::Relaxed)
    }

    /// Gives back what was taken for a write that failed, which does not wait for it.
    pub fn giver(&self, store: Arc<dyn Store>, taken: Vec<Taken>) -> impl FnOnce() + Send + use<> {
        let going = self.going.clone();
        move || {
            if taken.is_empty() {
                return;
            }
            let revisions: Vec<u64> = taken.iter().map(|one| one.revision).collect();
            going.lock().extend(&revisions);
            // Were it to panic, whoever finds what has leaked may still take it back.
            let given = Given { going, revisions };
            tokio::spawn(async move {
                undo(store, taken).await;
                drop(given);
            });
        }
    }

    /// Whether the allocation of this revision is being given back.
    pub fn is_going(&self, revision: u64) -> bool {
        self.going.lock().contains(&revision)
    }

    /// The first and the last node port.
    pub fn port_range(&self) -> (u16, u16) {
        self.ports
    }

    /// The first address of the first range: the `kubernetes` Service's.
    pub fn first(&self) -> Option<IpAddr> {
        self.ranges.first().map(|range| range.nth(1))
    }
}

/// The cluster addresses a Service holds.
pub fn addresses(service: &Value) -> Vec<IpAddr> {
    let listed = service.pointer("/spec/clusterIPs").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    let single = service.pointer("/spec/clusterIP").and_then(Value::as_str);
    let mut found: Vec<IpAddr> = listed.chain(single).filter_map(|text| text.parse().ok()).collect();
    found.dedup();
    found
}

/// The node ports a Service holds.
pub fn ports(service: &Value) -> Vec<u16> {
    let mut found: Vec<u16> = service.pointer("/spec/ports").and_then(Value::as_array).into_iter().flatten().filter_map(|port| port.get("nodePort")?.as_u64()).filter_map(|port| u16::try_from(port).ok()).filter(|port| *port != 0).collect();
    if let Some(port) = service.pointer("/spec/healthCheckNodePort").and_then(Value::as_u64).and_then(|port| u16::try_from(port).ok()).filter(|port| *port != 0) {
        found.push(port);
    }
    // One number may serve TCP and UDP of the same Service.
    found.sort_unstable();
    found.dedup();
    found
}

/// Allocations that are being given back, until this is dropped.
struct Given {
    going: Arc<Mutex<HashSet<u64>>>,
    revisions: Vec<u64>,
}

impl Drop for Given {
    fn drop(&mut self) {
        self.going.lock().retain(|revision| !self.revisions.contains(revision));
    }
}
