//! NodePorts: who has which, derived from the Services themselves; and which families of addresses the cluster has.
//!
//! Loaded from the store at start and kept by the writes that pass; no second record can disagree with the Services.
//! The lower part of the range is left for ports that people choose, as upstream does (KEP-3668). ClusterIPs: `addresses.rs`.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::Value;
use store::Store;

use super::addresses::Range;
use crate::api::Config;

#[derive(Default)]
struct Taken {
    ports: HashSet<u16>,
    next_port: u32,
    next_address: u128,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Refused {
    OutOfRange,
    Taken,
    Full,
}

pub struct Allocations {
    ranges: Vec<Range>,
    ports: (u16, u16),
    taken: Arc<Mutex<Taken>>,
}

impl Allocations {
    pub fn new(config: &Config) -> Self {
        Self {
            ranges: config.service_cidrs.iter().map(|(base, prefix)| Range::new(*base, *prefix)).collect(),
            ports: config.node_port_range,
            taken: Arc::default(),
        }
    }

    /// What the Services of the store hold.
    pub fn load(&self, store: &dyn Store) {
        let Ok(page) = store.list("/registry/services/specs/", None, None, 0) else { return };
        let mut taken = self.taken.lock();
        for (_, object) in page.items {
            if let Ok(service) = object.value() {
                taken.ports.extend(ports(&service));
            }
        }
    }

    /// IPv4 or IPv6, in the order of the cluster's ranges.
    pub fn families(&self) -> Vec<&'static str> {
        self.ranges.iter().map(|range| range.family()).collect()
    }

    /// Where the search for a free address begins: one further each time.
    pub fn turn(&self) -> u128 {
        let mut taken = self.taken.lock();
        taken.next_address += 1;
        taken.next_address - 1
    }

    pub fn port_range_text(&self) -> String {
        format!("{}-{}", self.ports.0, self.ports.1)
    }

    /// The first address of the first range: the `kubernetes` Service's.
    pub fn first(&self) -> Option<IpAddr> {
        self.ranges.first().map(|range| range.nth(1))
    }

    pub fn take_port(&self, port: u16) -> Result<(), Refused> {
        if port < self.ports.0 || port > self.ports.1 {
            return Err(Refused::OutOfRange);
        }
        if self.taken.lock().ports.insert(port) { Ok(()) } else { Err(Refused::Taken) }
    }

    pub fn any_port(&self) -> Result<u16, Refused> {
        let mut taken = self.taken.lock();
        let reserved = 86u32.min(u32::from(self.ports.1 - self.ports.0) / 2);
        let span = u32::from(self.ports.1 - self.ports.0) + 1;
        for step in 0..span {
            let offset = (reserved + taken.next_port + step) % span;
            let port = self.ports.0 + offset as u16;
            if taken.ports.insert(port) {
                // A prime step scatters the ports so that a freed one is not given out again at once.
                taken.next_port = taken.next_port.wrapping_add(step + 37) % span;
                return Ok(port);
            }
        }
        Err(Refused::Full)
    }

    /// Gives ports back, later and from elsewhere.
    pub fn releaser(&self) -> impl Fn(&[u16]) + Send + use<> {
        let taken = self.taken.clone();
        move |given| {
            let mut taken = taken.lock();
            for port in given {
                taken.ports.remove(port);
            }
        }
    }

    /// Another API server gave them out.
    pub fn hold(&self, given: &[u16]) {
        self.taken.lock().ports.extend(given);
    }

    pub fn release(&self, given: &[u16]) {
        self.releaser()(given);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_run_out_and_come_back() {
        let all = Allocations { ranges: Vec::new(), ports: (30000, 30010), taken: Arc::default() };
        let ports: HashSet<u16> = (0..11).map(|_| all.any_port().unwrap()).collect();
        assert_eq!(ports.len(), 11);
        assert_eq!(all.any_port(), Err(Refused::Full));
        all.release(&[30005]);
        assert_eq!(all.any_port(), Ok(30005));
    }
}
