//! ClusterIPs and NodePorts: who has which, derived from the Services themselves.
//!
//! Loaded from the store at start and kept by the writes that pass; no second record can disagree with the Services.
//! The lower part of each range is left for addresses that people choose, as upstream does (KEP-3070, KEP-3668).

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::Value;
use store::Store;

use crate::api::Config;

/// At most so many addresses of a range are handed out, however large it is.
const MAX_RANGE: u128 = 1 << 20;

#[derive(Debug, Clone)]
struct Range {
    base: IpAddr,
    prefix: u8,
    size: u128,
    /// Addresses below this offset are not chosen by the server while others are free.
    reserved: u128,
}

impl Range {
    fn new(base: IpAddr, prefix: u8) -> Self {
        let bits = if base.is_ipv4() { 32 } else { 128 } - u32::from(prefix);
        let size = 1u128.checked_shl(bits).unwrap_or(u128::MAX).min(MAX_RANGE);
        let reserved = (size / 16).clamp(16, 256).min(size / 2);
        Self { base, prefix, size, reserved }
    }

    fn nth(&self, offset: u128) -> IpAddr {
        match self.base {
            IpAddr::V4(base) => IpAddr::V4(Ipv4Addr::from((u128::from(u32::from(base)) + offset) as u32)),
            IpAddr::V6(base) => IpAddr::V6(Ipv6Addr::from(u128::from(base) + offset)),
        }
    }

    fn contains(&self, address: IpAddr) -> bool {
        match (self.base, address) {
            (IpAddr::V4(base), IpAddr::V4(address)) => prefix_equal(u128::from(u32::from(base)), u128::from(u32::from(address)), 32, self.prefix),
            (IpAddr::V6(base), IpAddr::V6(address)) => prefix_equal(u128::from(base), u128::from(address), 128, self.prefix),
            _ => false,
        }
    }
}

fn prefix_equal(a: u128, b: u128, bits: u32, prefix: u8) -> bool {
    let shift = bits - u32::from(prefix);
    a.checked_shr(shift).unwrap_or(0) == b.checked_shr(shift).unwrap_or(0)
}

#[derive(Default)]
struct Taken {
    addresses: HashSet<IpAddr>,
    ports: HashSet<u16>,
    next_address: u128,
    next_port: u32,
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
                taken.addresses.extend(addresses(&service));
                taken.ports.extend(ports(&service));
            }
        }
    }

    /// IPv4 or IPv6, in the order of the cluster's ranges.
    pub fn families(&self) -> Vec<&'static str> {
        self.ranges.iter().map(|range| if range.base.is_ipv4() { "IPv4" } else { "IPv6" }).collect()
    }

    pub fn range_text(&self) -> String {
        self.ranges.iter().map(|range| format!("{}/{}", range.base, range.prefix)).collect::<Vec<_>>().join(",")
    }

    pub fn port_range_text(&self) -> String {
        format!("{}-{}", self.ports.0, self.ports.1)
    }

    /// The first address of the first range: the `kubernetes` Service's.
    pub fn first(&self) -> Option<IpAddr> {
        self.ranges.first().map(|range| range.nth(1))
    }

    pub fn take_address(&self, address: IpAddr) -> Result<(), Refused> {
        if !self.ranges.iter().any(|range| range.contains(address)) {
            return Err(Refused::OutOfRange);
        }
        if self.taken.lock().addresses.insert(address) { Ok(()) } else { Err(Refused::Taken) }
    }

    pub fn any_address(&self, family: &str) -> Result<IpAddr, Refused> {
        let range = self.ranges.iter().find(|range| range.base.is_ipv4() == (family != "IPv6")).ok_or(Refused::OutOfRange)?;
        let mut taken = self.taken.lock();
        // First and last of a range are its network and broadcast addresses.
        let (low, high) = (range.reserved.max(1), range.size.saturating_sub(1));
        let span = high.saturating_sub(low);
        for step in 0..span {
            let offset = low + (taken.next_address + step) % span;
            if taken.addresses.insert(range.nth(offset)) {
                taken.next_address = taken.next_address.wrapping_add(step + 1);
                return Ok(range.nth(offset));
            }
        }
        for offset in 1..low {
            if taken.addresses.insert(range.nth(offset)) {
                return Ok(range.nth(offset));
            }
        }
        Err(Refused::Full)
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

    pub fn release(&self, given_addresses: &[IpAddr], given_ports: &[u16]) {
        let mut taken = self.taken.lock();
        for address in given_addresses {
            taken.addresses.remove(address);
        }
        for port in given_ports {
            taken.ports.remove(port);
        }
    }

    /// The same, later and from elsewhere.
    pub fn releaser(&self) -> impl Fn(&[IpAddr], &[u16]) + Send + use<> {
        let taken = self.taken.clone();
        move |given_addresses, given_ports| {
            let mut taken = taken.lock();
            for address in given_addresses {
                taken.addresses.remove(address);
            }
            for port in given_ports {
                taken.ports.remove(port);
            }
        }
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

    fn allocations() -> Allocations {
        Allocations { ranges: vec![Range::new("10.96.0.0".parse().unwrap(), 12), Range::new("fd00::".parse().unwrap(), 112)], ports: (30000, 30010), taken: Arc::default() }
    }

    #[test]
    fn addresses_are_unique_and_inside() {
        let all = allocations();
        assert_eq!(all.first().unwrap().to_string(), "10.96.0.1");
        let (a, b) = (all.any_address("IPv4").unwrap(), all.any_address("IPv4").unwrap());
        assert_ne!(a, b);
        assert_eq!(all.take_address(a), Err(Refused::Taken));
        all.release(&[a], &[]);
        assert_eq!(all.take_address(a), Ok(()));
        assert_eq!(all.take_address("10.0.0.1".parse().unwrap()), Err(Refused::OutOfRange));
        assert!(all.any_address("IPv6").unwrap().is_ipv6());
    }

    #[test]
    fn ports_run_out_and_come_back() {
        let all = allocations();
        let ports: HashSet<u16> = (0..11).map(|_| all.any_port().unwrap()).collect();
        assert_eq!(ports.len(), 11);
        assert_eq!(all.any_port(), Err(Refused::Full));
        all.release(&[], &[30005]);
        assert_eq!(all.any_port(), Ok(30005));
    }
}
