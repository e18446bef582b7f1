//! `loadBalancerSourceRanges` of one Service port: a chain that drops who is in none of the ranges of its set.
//!
//! It sees packets before their destination is changed, and only those to the load balancer's addresses: cluster IPs and node ports of the
//! same Service are open, as with kube-proxy.

use crate::chain::Chain;
use crate::cidr::IpNet;
use crate::nft::{Family, Transaction};
use crate::ranges;
use crate::rule::{Load, Register, Rule};
use crate::service::{ServicePort, ServicePortName};

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Firewall {
    ranges: Vec<IpNet>,
}

impl Firewall {
    /// Empty for a port that everybody may come to in this family.
    pub fn of(port: Option<&ServicePort>, family: Family) -> Self {
        let Some(port) = port.filter(|port| port.load_balancer_ips.iter().any(|address| Family::of(*address) == family)) else { return Self::default() };
        Self { ranges: port.source_ranges.iter().copied().filter(|net| Family::of(net.address()) == family).collect() }
    }

    /// Whether everybody may come.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Goes from what `before` says to what this says. What leads to the chain must be removed before, and added after.
    pub fn write(&self, before: &Self, name: &ServicePortName, family: Family, transaction: &mut Transaction) {
        let service = name.hash();
        let (chain, set) = (Chain::Firewall { service }.to_string(), format!("sources-{service:016x}"));
        match (before.ranges.is_empty(), self.ranges.is_empty()) {
            (true, true) => return,
            (true, false) => {
                ranges::add_set(transaction, family, &set);
                transaction.add_chain(&chain, None);
                transaction.add_rule(&chain, Rule::new().load(Register::word(0), Load::Source(family)).not_in(&set, Register::word(0)).drop());
            }
            (false, false) => {}
            (false, true) => {
                transaction.flush_chain(&chain);
                transaction.delete_chain(&chain);
                transaction.delete_set(&set);
                return;
            }
        }
        ranges::fill(transaction, family, &set, &self.ranges);
    }
}
