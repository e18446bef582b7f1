//! Session affinity of one Service port: a chain per kind of traffic, and a set of clients per endpoint.
//!
//! The clients of an endpoint are in one set whichever frontend they came by, and stay in it while other endpoints come and go; the set
//! ends with its endpoint. Mirrors kube-proxy's affinity sets (KEP-3866).

use std::collections::{BTreeMap, BTreeSet};

use crate::chain::{Chain, Sticks};
use crate::nft::{Family, Field, Holds, SetSpec, Transaction};
use crate::rule::{Load, Register, Rule};
use crate::service::{Endpoint, ServicePort, ServicePortName, short_hash};

/// Clients remembered per endpoint; beyond it affinity is not kept (and traffic still flows).
const CLIENTS_MAX: u32 = 65_536;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sticky {
    chains: BTreeMap<Sticks, Vec<Endpoint>>,
    seconds: u32,
}

impl Sticky {
    /// Empty for a port without session affinity.
    pub fn of(name: &ServicePortName, port: Option<&ServicePort>, family: Family) -> Self {
        let Some((port, seconds)) = port.and_then(|p| Some((p, p.session_affinity?))) else { return Self::default() };
        Self { chains: port.sticky_chains(name, family), seconds }
    }

    fn endpoints(&self) -> BTreeSet<(std::net::IpAddr, u16)> {
        self.chains.values().flatten().map(|e| (e.address, e.port)).collect()
    }

    /// Goes from what `before` says to what this says. What leads to the chains must be removed before, and added after.
    /// `write_entry` writes the rules a chain begins with; they may lead to the port's other chains.
    pub fn write(&self, before: &Self, name: &ServicePortName, family: Family, transaction: &mut Transaction, write_entry: impl Fn(&mut Transaction, Chain)) {
        let (old, new) = (before.endpoints(), self.endpoints());
        let chain = |kind: &Sticks| Chain::Sticky { kind: *kind, service: name.hash() };
        let set_name = |(address, port): &(std::net::IpAddr, u16)| format!("clients-{:016x}", short_hash(format!("{name} {address} {port}").as_bytes()));
        for endpoint in new.difference(&old) {
            let key = &[Field::address(family)];
            transaction.add_set(SetSpec { name: &set_name(endpoint), key, holds: Holds::Nothing, dynamic: Some(CLIENTS_MAX) });
        }
        before.chains.keys().for_each(|kind| transaction.flush_chain(&chain(kind).to_string()));
        self.chains.keys().for_each(|kind| transaction.add_chain(&chain(kind).to_string(), None));
        for (kind, endpoints) in &self.chains {
            let chain_name = chain(kind).to_string();
            write_entry(transaction, chain(kind));
            let client = Register::word(0);
            for endpoint in endpoints {
                let set = set_name(&(endpoint.address, endpoint.port));
                let known = Rule::new().load(client, Load::Source(family)).lookup(&set, client).update(&set, client, self.seconds);
                transaction.add_rule(&chain_name, known.dnat_to(endpoint.address, endpoint.port));
            }
            for (i, endpoint) in endpoints.iter().enumerate() {
                let left = (endpoints.len() - i) as u32;
                let chance = if left > 1 { Rule::new().once_in(left) } else { Rule::new() };
                let set = set_name(&(endpoint.address, endpoint.port));
                let rule = chance.load(client, Load::Source(family)).update(&set, client, self.seconds);
                transaction.add_rule(&chain_name, rule.dnat_to(endpoint.address, endpoint.port));
            }
            // Reached when the set is full.
            if let Some(last) = endpoints.last() {
                transaction.add_rule(&chain_name, Rule::new().dnat_to(last.address, last.port));
            }
        }
        for kind in before.chains.keys().filter(|kind| !self.chains.contains_key(kind)) {
            transaction.delete_chain(&chain(kind).to_string());
        }
        for endpoint in old.difference(&new) {
            transaction.delete_set(&set_name(endpoint));
        }
    }
}
