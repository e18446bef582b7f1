//! Network policies in the kernel: tables `ip coracle-policy` and `ip6 coracle-policy`, which are there only while some pod is isolated.
//!
//! Packets are judged where they are forwarded: after Services chose an endpoint, before anybody's source is masked. What the node itself
//! sends to its pods, and they to it, is not forwarded and always passes, as upstream has it. Only what a known flow sends back passes
//! unjudged, so a new policy also ends flows that began before it. Each [`PolicyTables::program`] is one transaction per family; when the
//! tables are not as expected they are made anew, in one transaction too: there is no moment without them.

use std::net::IpAddr;
use std::sync::Arc;

use crate::cidr::IpNet;
use crate::netlink::{NetlinkError, Socket};
use crate::nft::{self, Data, Element, Family, Field, Holds, Hook, SetSpec, Transaction};
use crate::policy::{Allow, Content, Direction, Isolated, Member, Peers, PolicyState, Ports};
use crate::route::octets;
use crate::rule::{Load, Register, Rule};

const TABLE: &str = "coracle-policy";
const FORWARD: &str = "forward";
/// Where a packet goes that its sender may send.
const RECEIVE: &str = "receive";
const SELF: &str = "self";
/// Before the chains that refuse Services without endpoints: who may not send is not told.
const PRIORITY: i32 = -10;
const KEY: Register = Register::word(0);

#[derive(Debug, thiserror::Error)]
#[error("program network policies: {0}")]
pub struct PolicyError(#[from] NetlinkError);

/// Owns the tables. Calls block for as long as the kernel works.
pub struct PolicyTables {
    netfilter: Socket,
    families: Vec<Family>,
    /// The tables are known to be as was programmed last.
    clean: bool,
    present: bool,
}

impl PolicyTables {
    /// Takes over the tables a former process left: they go on working until the first [`PolicyTables::program`].
    pub fn open(pod_cidrs: &[IpNet]) -> Result<Self, PolicyError> {
        let families = [Family::Ipv4, Family::Ipv6].into_iter().filter(|f| pod_cidrs.iter().any(|net| Family::of(net.address()) == *f)).collect();
        Ok(Self { netfilter: Socket::open(libc::NETLINK_NETFILTER)?, families, clean: false, present: false })
    }

    /// Makes the kernel do what `state` says.
    pub fn program(&mut self, state: &mut PolicyState) -> Result<(), PolicyError> {
        if self.clean && (state.is_programmed() || (!self.present && state.is_empty())) {
            return Ok(());
        }
        if !self.clean || !self.present || state.is_empty() {
            self.rebuild(state)?;
        } else {
            let families = self.families.clone();
            if let Err(error) = families.into_iter().try_for_each(|family| self.change(state, family)) {
                tracing::warn!(%error, "network policy tables are not as expected, rebuilding");
                self.rebuild(state)?;
            }
        }
        state.programmed();
        Ok(())
    }

    /// Removes the tables.
    pub fn reset(&mut self) -> Result<(), PolicyError> {
        self.clean = false;
        for family in [Family::Ipv4, Family::Ipv6] {
            if nft::table_exists(&mut self.netfilter, family, TABLE)? {
                let mut transaction = Transaction::new(family, TABLE);
                transaction.delete_table();
                transaction.commit(&mut self.netfilter, "delete policy tables")?;
            }
        }
        self.present = false;
        Ok(())
    }

    fn rebuild(&mut self, state: &PolicyState) -> Result<(), PolicyError> {
        if state.is_empty() {
            self.reset()?;
            self.clean = true;
            return Ok(());
        }
        self.clean = false;
        for family in self.families.clone() {
            let mut transaction = Transaction::new(family, TABLE);
            transaction.add_table();
            transaction.delete_table();
            write_table(&mut transaction, family);
            for (name, content) in &state.sets {
                add_set(&mut transaction, family, name, content);
            }
            for (name, (direction, rules)) in &state.chains {
                add_chain(&mut transaction, family, name, *direction, rules);
            }
            for ((direction, address), isolated) in state.pods.iter().filter(|((_, a), _)| Family::of(*a) == family) {
                lead(&mut transaction, *direction, *address, isolated);
            }
            for address in state.pods.keys().map(|(_, a)| *a).filter(|a| Family::of(*a) == family).collect::<std::collections::BTreeSet<_>>() {
                transaction.add_elements(SELF, [Element { key: &octets(address).repeat(2), data: &Data::None, comment: None }]);
            }
            transaction.commit(&mut self.netfilter, "program network policies")?;
        }
        (self.clean, self.present) = (true, true);
        Ok(())
    }

    fn change(&mut self, state: &PolicyState, family: Family) -> Result<(), NetlinkError> {
        let pending = &state.pending;
        let mut transaction = Transaction::new(family, TABLE);
        let pods = || pending.pods.iter().filter(|((_, address), _)| Family::of(*address) == family);
        for ((direction, address), _) in pods().filter(|(_, programmed)| **programmed) {
            transaction.delete_elements(map_name(*direction), [octets(*address).as_slice()]);
        }
        for name in &pending.chains_removed {
            transaction.flush_chain(name);
        }
        for name in &pending.chains_removed {
            transaction.delete_chain(name);
        }
        for name in &pending.sets_removed {
            transaction.delete_set(name);
        }
        for name in &pending.sets_added {
            if let Some(content) = state.sets.get(name) {
                add_set(&mut transaction, family, name, content);
            }
        }
        for (set, member) in pending.members_removed.iter().filter(|(_, m)| Family::of(m.address) == family) {
            transaction.delete_elements(set, [key(member).as_slice()]);
        }
        for (set, member) in pending.members_added.iter().filter(|(_, m)| Family::of(m.address) == family) {
            transaction.add_elements(set, [Element { key: &key(member), data: &Data::None, comment: None }]);
        }
        for name in &pending.chains_added {
            if let Some((direction, rules)) = state.chains.get(name) {
                add_chain(&mut transaction, family, name, *direction, rules);
            }
        }
        for ((direction, address), _) in pods() {
            if let Some(isolated) = state.pods.get(&(*direction, *address)) {
                lead(&mut transaction, *direction, *address, isolated);
            }
        }
        for address in pods().map(|((_, address), _)| *address).collect::<std::collections::BTreeSet<_>>() {
            let both = octets(address).repeat(2);
            match state.isolated(address) {
                (false, true) => transaction.add_elements(SELF, [Element { key: &both, data: &Data::None, comment: None }]),
                (true, false) => transaction.delete_elements(SELF, [both.as_slice()]),
                _ => {}
            }
        }
        transaction.commit(&mut self.netfilter, "program network policies")
    }
}

fn map_name(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "ingress",
        Direction::Egress => "egress",
    }
}

fn key(member: &Member) -> Vec<u8> {
    let mut key = octets(member.address);
    if let Some((protocol, port)) = member.port {
        key.extend([protocol.number(), 0, 0, 0]);
        key.extend(port.to_be_bytes());
        key.extend([0, 0]);
    }
    key
}

fn lead(transaction: &mut Transaction, direction: Direction, address: IpAddr, isolated: &Isolated) {
    let data = Data::Goto(isolated.chain.to_string());
    transaction.add_elements(map_name(direction), [Element { key: &octets(address), data: &data, comment: Some(&isolated.owner) }]);
}

fn add_set(transaction: &mut Transaction, family: Family, name: &Arc<str>, content: &Content) {
    let address = Field::address(family);
    let members = match content {
        Content::Addresses(members) => {
            transaction.add_set(SetSpec { name, key: &[address], holds: Holds::Nothing, dynamic: None });
            members
        }
        Content::AddressPorts(members) => {
            transaction.add_set(SetSpec { name, key: &[address, Field::Protocol, Field::Port], holds: Holds::Nothing, dynamic: None });
            members
        }
        Content::Blocks(ranges) => {
            transaction.add_range_set(name, address);
            let ours = ranges.iter().filter(|(first, _)| Family::of(*first) == family);
            return transaction.add_ranges(name, ours.map(|(first, last)| (octets(*first), after(*last).map(octets))));
        }
    };
    let keys: Vec<Vec<u8>> = members.keys().filter(|m| Family::of(m.address) == family).map(key).collect();
    transaction.add_elements(name, keys.iter().map(|key| Element { key, data: &Data::None, comment: None }));
}

/// The address after this one.
fn after(address: IpAddr) -> Option<IpAddr> {
    Some(match address {
        IpAddr::V4(a) => IpAddr::from(std::net::Ipv4Addr::from_bits(a.to_bits().checked_add(1)?)),
        IpAddr::V6(a) => IpAddr::from(std::net::Ipv6Addr::from_bits(a.to_bits().checked_add(1)?)),
    })
}

fn add_chain(transaction: &mut Transaction, family: Family, name: &str, direction: Direction, rules: &[Allow]) {
    transaction.add_chain(name, None);
    let peer = match direction {
        Direction::Ingress => Load::Source(family),
        Direction::Egress => Load::Destination(family),
    };
    for allow in rules {
        let rule = match &allow.peers {
            Peers::Any => Rule::new(),
            Peers::Addresses(set) | Peers::Blocks(set) => Rule::new().load(KEY, peer).lookup(set, KEY),
            Peers::AddressPorts(set) => Rule::new().key(KEY, &[peer, Load::Protocol, Load::DestinationPort]).lookup(set, KEY),
        };
        let rule = match allow.ports {
            Ports::Any => rule,
            Ports::All(protocol) => rule.protocol(protocol.number()),
            Ports::Range(protocol, first, last) => rule.protocol(protocol.number()).destination_port_in(first, last),
        };
        transaction.add_rule(name, if direction == Direction::Egress { rule.go(RECEIVE) } else { rule.accept() });
    }
    transaction.add_rule(name, Rule::new().drop());
}

fn write_table(transaction: &mut Transaction, family: Family) {
    let address = Field::address(family);
    transaction.add_table();
    for name in [map_name(Direction::Ingress), map_name(Direction::Egress)] {
        transaction.add_set(SetSpec { name, key: &[address], holds: Holds::Verdict, dynamic: None });
    }
    transaction.add_set(SetSpec { name: SELF, key: &[address, address], holds: Holds::Nothing, dynamic: None });
    let (source, destination) = (Load::Source(family), Load::Destination(family));
    transaction.add_chain(RECEIVE, None);
    transaction.add_rule(RECEIVE, Rule::new().load(KEY, destination).verdict_map(map_name(Direction::Ingress), KEY));
    transaction.add_chain(FORWARD, Some(Hook { kind: "filter", number: libc::NF_INET_FORWARD, priority: PRIORITY }));
    for answers in Rule::answers() {
        transaction.add_rule(FORWARD, answers.accept());
    }
    // A pod that reaches itself through a Service.
    transaction.add_rule(FORWARD, Rule::new().key(KEY, &[source, destination]).lookup(SELF, KEY).accept());
    transaction.add_rule(FORWARD, Rule::new().load(KEY, source).verdict_map(map_name(Direction::Egress), KEY));
    transaction.add_rule(FORWARD, Rule::new().go(RECEIVE));
}
