//! What the Service tables are made of: maps, base chains, and the chains that Services share.

use std::net::IpAddr;

use crate::chain::{By, Chain, Keeps, Sticks};
use crate::cidr::IpNet;
use crate::dataplane::DataplaneConfig;
use crate::nft::{Family, Field, Holds, Hook, SetSpec, Transaction};
use crate::rule::{Load, Register, Rule};
use crate::service::{LOCAL_FROM, Protocol, Set};

/// kube-proxy's bit of the packet mark: "leaves with the node's source address".
const MASQUERADE_MARK: u32 = 0x4000;
pub const HAIRPIN: &str = "hairpin";
/// Before the destination is changed.
const BEFORE_NAT: i32 = -110;

/// The registers of a rule that picks an endpoint: a key from word 0 on, what is found from word 10 on.
const KEY: Register = Register::word(0);
const FOUND: Register = Register::word(10);

fn of_family(nets: &[IpNet], family: Family) -> impl Iterator<Item = IpNet> {
    nets.iter().copied().filter(move |net| Family::of(net.address()) == family)
}

/// A shared chain, after those it leads to. Nothing for the chains that belong to one port.
pub fn with_its_targets(chain: Chain) -> Vec<Chain> {
    match chain {
        Chain::Local { by, endpoints, .. } => vec![Chain::Pick { by, keeps: Keeps::Pods, endpoints }, chain],
        Chain::Pick { .. } => vec![chain],
        // These are there from the beginning.
        Chain::Refuse | Chain::Discard => Vec::new(),
        Chain::Sticky { .. } | Chain::Firewall { .. } => Vec::new(),
    }
}

/// What a chain begins with: whether the node stands in for the client, and who goes elsewhere.
pub fn write_entry(config: &DataplaneConfig, transaction: &mut Transaction, family: Family, chain: Chain) {
    let name = chain.to_string();
    let pods = || of_family(&config.cluster_cidrs, family);
    let inside = match chain {
        Chain::Pick { keeps: Keeps::Pods, .. } | Chain::Sticky { kind: Sticks::Cluster | Sticks::ClusterLocal, .. } => {
            let rule = pods().fold(Rule::new(), |rule, net| rule.in_net(Load::Source(family), net, false));
            return transaction.add_rule(&name, rule.set_mark(MASQUERADE_MARK));
        }
        Chain::Pick { keeps: Keeps::Nobody, .. } | Chain::Sticky { kind: Sticks::External, .. } => {
            return transaction.add_rule(&name, Rule::new().set_mark(MASQUERADE_MARK));
        }
        Chain::Local { by, endpoints, .. } => Chain::Pick { by, keeps: Keeps::Pods, endpoints },
        Chain::Sticky { kind: Sticks::ExternalLocal, service } => Chain::Sticky { kind: Sticks::Cluster, service },
        Chain::Firewall { .. } | Chain::Refuse | Chain::Discard => return,
    };
    // Pods and this node are served as if they had gone out to the load balancer and come back to any node.
    let inside = inside.to_string();
    for net in pods() {
        transaction.add_rule(&name, Rule::new().in_net(Load::Source(family), net, true).go(&inside));
    }
    transaction.add_rule(&name, Rule::new().source_is_local().go(&inside));
}

/// A chain that Services share.
pub fn write_chain(config: &DataplaneConfig, transaction: &mut Transaction, family: Family, chain: Chain) {
    let (by, first, many) = match chain {
        Chain::Pick { by, endpoints, .. } => (by, 0, endpoints),
        Chain::Local { by, local, .. } => (by, LOCAL_FROM, local),
        Chain::Sticky { .. } | Chain::Firewall { .. } | Chain::Refuse | Chain::Discard => return,
    };
    let name = chain.to_string();
    transaction.add_chain(&name, None);
    write_entry(config, transaction, family, chain);
    if many == 0 {
        return;
    }
    let pick = [Load::Destination(family), Load::Protocol, Load::DestinationPort, Load::Random { first, many }];
    let (pick, map) = match by {
        By::Address => (&pick[..], Set::Endpoints),
        By::NodePort => (&pick[1..], Set::NodePortEndpoints),
    };
    transaction.add_rule(&name, Rule::new().key(KEY, pick).map(map.name(), KEY, FOUND).dnat(family, FOUND));
}

pub fn write_table(config: &DataplaneConfig, transaction: &mut Transaction, family: Family) {
    transaction.add_table();
    write_sets(transaction, family);
    write_dispatch(transaction, family);
    write_leaving(transaction, family);
    write_filters(config, transaction, family);
}

fn write_sets(transaction: &mut Transaction, family: Family) {
    use Field::{Mark, Port, Protocol};
    let address = Field::address(family);
    let endpoint = [address, Port];
    for set in Set::ALL {
        let (key, holds): (&[Field], _) = match set {
            Set::Services | Set::EmptyServices | Set::Firewall => (&[address, Protocol, Port], Holds::Verdict),
            Set::NodePorts | Set::EmptyNodePorts => (&[Protocol, Port], Holds::Verdict),
            Set::Endpoints => (&[address, Protocol, Port, Mark], Holds::Data(&endpoint)),
            Set::NodePortEndpoints => (&[Protocol, Port, Mark], Holds::Data(&endpoint)),
        };
        transaction.add_set(SetSpec { name: set.name(), key, holds, dynamic: None });
    }
    transaction.add_set(SetSpec { name: HAIRPIN, key: &[address, address], holds: Holds::Nothing, dynamic: None });
}

const fn to_service(family: Family) -> [Load; 3] {
    [Load::Destination(family), Load::Protocol, Load::DestinationPort]
}

const TO_PORT: [Load; 2] = [Load::Protocol, Load::DestinationPort];

/// From the first packet of a flow to the chain of its frontend.
fn write_dispatch(transaction: &mut Transaction, family: Family) {
    for (name, number) in [("prerouting", libc::NF_INET_PRE_ROUTING), ("output", libc::NF_INET_LOCAL_OUT)] {
        transaction.add_chain(name, Some(Hook { kind: "nat", number, priority: -100 }));
        transaction.add_rule(name, Rule::new().key(KEY, &to_service(family)).verdict_map(Set::Services.name(), KEY));
        let mut rule = Rule::new();
        if family == Family::Ipv6 {
            // The kernel does not route from ::1 to another link: leave [::1] to whoever listens there.
            rule = IpNet::new(IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]), 128).into_iter().fold(rule, |r, net| r.in_net(Load::Destination(family), net, false));
        }
        transaction.add_rule(name, rule.destination_is_local().key(KEY, &TO_PORT).verdict_map(Set::NodePorts.name(), KEY));
    }
}

/// For whom the node stands in.
fn write_leaving(transaction: &mut Transaction, family: Family) {
    let name = "postrouting";
    transaction.add_chain(name, Some(Hook { kind: "nat", number: libc::NF_INET_POST_ROUTING, priority: 100 }));
    transaction.add_rule(name, Rule::new().take_mark(MASQUERADE_MARK).masquerade());
    // A pod that reached itself through a Service must see another source, or it would answer itself directly.
    let pair = [Load::Source(family), Load::Destination(family)];
    transaction.add_rule(name, Rule::new().key(KEY, &pair).lookup(HAIRPIN, KEY).masquerade());
}

/// Chains that drop who is in no source range: there only while some port has such ranges, since each hook costs every packet.
const GUARDS: [(&str, i32); 2] = [("firewall-prerouting", libc::NF_INET_PRE_ROUTING), ("firewall-output", libc::NF_INET_LOCAL_OUT)];

pub fn write_guards(transaction: &mut Transaction, family: Family) {
    for (name, number) in GUARDS {
        transaction.add_chain(name, Some(Hook { kind: "filter", number, priority: BEFORE_NAT }));
        transaction.add_rule(name, Rule::new().new_flow().key(KEY, &to_service(family)).verdict_map(Set::Firewall.name(), KEY));
    }
}

pub fn delete_guards(transaction: &mut Transaction) {
    for (name, _) in GUARDS {
        transaction.flush_chain(name);
        transaction.delete_chain(name);
    }
}

/// What is refused, and what is dropped. A packet of a known flow costs one comparison.
fn write_filters(config: &DataplaneConfig, transaction: &mut Transaction, family: Family) {
    let refuse = Chain::Refuse.to_string();
    transaction.add_chain(&refuse, None);
    transaction.add_rule(&refuse, Rule::new().protocol(Protocol::Tcp.number()).reset());
    transaction.add_rule(&refuse, Rule::new().port_unreachable(family));
    let discard = Chain::Discard.to_string();
    transaction.add_chain(&discard, None);
    transaction.add_rule(&discard, Rule::new().drop());
    let (leaving, arriving) = ("new-flow", "new-flow-here");
    for name in [leaving, arriving] {
        transaction.add_chain(name, None);
        transaction.add_rule(name, Rule::new().key(KEY, &to_service(family)).verdict_map(Set::EmptyServices.name(), KEY));
    }
    for net in of_family(&config.service_cidrs, family) {
        transaction.add_rule(leaving, Rule::new().in_net(Load::Destination(family), net, true).go(&refuse));
    }
    let rule = Rule::new().destination_is_local().key(KEY, &TO_PORT);
    transaction.add_rule(arriving, rule.verdict_map(Set::EmptyNodePorts.name(), KEY));
    for (name, number, to) in
        [("filter-forward", libc::NF_INET_FORWARD, leaving), ("filter-output", libc::NF_INET_LOCAL_OUT, leaving), ("filter-input", libc::NF_INET_LOCAL_IN, arriving)]
    {
        transaction.add_chain(name, Some(Hook { kind: "filter", number, priority: 0 }));
        transaction.add_rule(name, Rule::new().new_flow().go(to));
    }
}
