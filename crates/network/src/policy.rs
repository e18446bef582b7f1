//! What this node lets its pods receive and send, as sets, chains and map elements, and what of it the kernel does not know yet. Pure.
//!
//! A pod that some policy isolates has one element per direction, whose verdict names a chain; pods with the same rules share a chain,
//! chains share the sets of their peers. A packet of a pod that is not isolated costs two failing lookups, any other the rules of its own
//! two chains, however many policies and pods there are. A change touches its own elements. `docs/adr/0014-network-policies.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use crate::service::Protocol;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    Ingress,
    Egress,
}

/// Element of a set of peers: an address, or one port of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Member {
    pub address: IpAddr,
    pub port: Option<(Protocol, u16)>,
}

/// Whom a rule lets through, by the name of a set.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Peers {
    Any,
    /// Of members without a port.
    Addresses(Arc<str>),
    /// Of members with a port; the rule's ports are [`Ports::Any`].
    AddressPorts(Arc<str>),
    /// Of ranges.
    Blocks(Arc<str>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ports {
    Any,
    All(Protocol),
    /// First and last.
    Range(Protocol, u16, u16),
}

/// One rule of a chain: these peers by these ports.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Allow {
    pub peers: Peers,
    pub ports: Ports,
}

/// First and last address of each range; no two overlap.
pub type Ranges = Vec<(IpAddr, IpAddr)>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Content {
    /// Each member with how many say so.
    Addresses(BTreeMap<Member, u32>),
    AddressPorts(BTreeMap<Member, u32>),
    Blocks(Ranges),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Isolated {
    pub chain: Arc<str>,
    /// Whose address it is, for who reads the map.
    pub owner: Arc<str>,
}

/// What differs from what was programmed last.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    pub sets_added: BTreeSet<Arc<str>>,
    pub sets_removed: BTreeSet<Arc<str>>,
    pub members_added: BTreeSet<(Arc<str>, Member)>,
    pub members_removed: BTreeSet<(Arc<str>, Member)>,
    pub chains_added: BTreeSet<Arc<str>>,
    pub chains_removed: BTreeSet<Arc<str>>,
    /// Touched elements, and whether the kernel has them.
    pub pods: BTreeMap<(Direction, IpAddr), bool>,
}

impl Pending {
    fn is_empty(&self) -> bool {
        self.sets_added.is_empty()
            && self.sets_removed.is_empty()
            && self.members_added.is_empty()
            && self.members_removed.is_empty()
            && self.chains_added.is_empty()
            && self.chains_removed.is_empty()
            && self.pods.is_empty()
    }
}

/// See the module head. Names of sets and chains are the caller's, and never used again for another content.
#[derive(Debug, Default)]
pub struct PolicyState {
    pub(crate) sets: BTreeMap<Arc<str>, Content>,
    pub(crate) chains: BTreeMap<Arc<str>, (Direction, Vec<Allow>)>,
    pub(crate) pods: BTreeMap<(Direction, IpAddr), Isolated>,
    pub(crate) pending: Pending,
}

impl PolicyState {
    /// No pod is isolated: there is nothing to program at all.
    pub fn is_empty(&self) -> bool {
        self.pods.is_empty()
    }

    /// The kernel knows everything.
    pub fn is_programmed(&self) -> bool {
        self.pending.is_empty()
    }

    fn add_content(&mut self, name: Arc<str>, content: Content) {
        self.sets.insert(name.clone(), content);
        self.pending.sets_added.insert(name);
    }

    pub fn add_addresses(&mut self, name: Arc<str>) {
        self.add_content(name, Content::Addresses(BTreeMap::new()));
    }

    pub fn add_address_ports(&mut self, name: Arc<str>) {
        self.add_content(name, Content::AddressPorts(BTreeMap::new()));
    }

    pub fn add_blocks(&mut self, name: Arc<str>, ranges: Ranges) {
        self.add_content(name, Content::Blocks(ranges));
    }

    /// No chain may name it any more.
    pub fn remove_set(&mut self, name: &Arc<str>) {
        if self.sets.remove(name).is_some() && !self.pending.sets_added.remove(name) {
            self.pending.sets_removed.insert(name.clone());
        }
        self.pending.members_added.retain(|(set, _)| set != name);
        self.pending.members_removed.retain(|(set, _)| set != name);
    }

    fn members(&mut self, set: &Arc<str>) -> Option<&mut BTreeMap<Member, u32>> {
        match self.sets.get_mut(set)? {
            Content::Addresses(members) | Content::AddressPorts(members) => Some(members),
            Content::Blocks(_) => None,
        }
    }

    pub fn add_member(&mut self, set: &Arc<str>, member: Member) {
        let Some(members) = self.members(set) else { return };
        let count = members.entry(member).or_default();
        *count += 1;
        // What a new set has goes with the set.
        if *count == 1 && !self.pending.sets_added.contains(set) {
            let key = (set.clone(), member);
            if !self.pending.members_removed.remove(&key) {
                self.pending.members_added.insert(key);
            }
        }
    }

    pub fn remove_member(&mut self, set: &Arc<str>, member: Member) {
        let Some(members) = self.members(set) else { return };
        let Some(count) = members.get_mut(&member) else { return };
        *count -= 1;
        if *count > 0 {
            return;
        }
        members.remove(&member);
        if !self.pending.sets_added.contains(set) {
            let key = (set.clone(), member);
            if !self.pending.members_added.remove(&key) {
                self.pending.members_removed.insert(key);
            }
        }
    }

    pub fn add_chain(&mut self, name: Arc<str>, direction: Direction, rules: Vec<Allow>) {
        self.chains.insert(name.clone(), (direction, rules));
        self.pending.chains_added.insert(name);
    }

    /// No pod may be led to it any more.
    pub fn remove_chain(&mut self, name: &Arc<str>) {
        if self.chains.remove(name).is_some() && !self.pending.chains_added.remove(name) {
            self.pending.chains_removed.insert(name.clone());
        }
    }

    /// From now on (or no longer) the address gets only what the chain lets through.
    pub fn isolate(&mut self, direction: Direction, address: IpAddr, to: Option<(Arc<str>, Arc<str>)>) {
        let key = (direction, address);
        let isolated = to.map(|(chain, owner)| Isolated { chain, owner });
        if self.pods.get(&key) == isolated.as_ref() {
            return;
        }
        let before = match isolated {
            Some(isolated) => self.pods.insert(key, isolated),
            None => self.pods.remove(&key),
        };
        self.pending.pods.entry(key).or_insert(before.is_some());
    }

    /// Addresses isolated in some direction, before and after what is pending.
    pub(crate) fn isolated(&self, address: IpAddr) -> (bool, bool) {
        let both = [Direction::Ingress, Direction::Egress];
        let after = |direction| self.pods.contains_key(&(direction, address));
        let before = |direction| self.pending.pods.get(&(direction, address)).copied().unwrap_or_else(|| after(direction));
        (both.into_iter().any(before), both.into_iter().any(after))
    }

    pub(crate) fn programmed(&mut self) {
        self.pending = Pending::default();
    }

    /// As text, for tests and for people: `ingress 10.0.0.1 -> …`, with the names of sets replaced by what is in them.
    pub fn describe(&self) -> Vec<String> {
        let set = |name: &Arc<str>| match self.sets.get(name) {
            Some(Content::Addresses(members) | Content::AddressPorts(members)) => {
                let one = |m: &Member| m.port.map_or_else(|| m.address.to_string(), |(protocol, port)| format!("{}:{protocol:?}:{port}", m.address));
                format!("{{{}}}", members.keys().map(one).collect::<Vec<_>>().join(" "))
            }
            Some(Content::Blocks(ranges)) => ranges.iter().map(|(first, last)| format!("{first}-{last}")).collect::<Vec<_>>().join(" "),
            None => "missing".to_owned(),
        };
        let rule = |rule: &Allow| {
            let peers = match &rule.peers {
                Peers::Any => "any".to_owned(),
                Peers::Addresses(name) | Peers::AddressPorts(name) | Peers::Blocks(name) => set(name),
            };
            match rule.ports {
                Ports::Any => peers,
                Ports::All(protocol) => format!("{peers} {protocol:?}"),
                Ports::Range(protocol, first, last) if first == last => format!("{peers} {protocol:?} {first}"),
                Ports::Range(protocol, first, last) => format!("{peers} {protocol:?} {first}-{last}"),
            }
        };
        let chain = |name: &Arc<str>| self.chains.get(name).map_or("missing".to_owned(), |(_, rules)| rules.iter().map(rule).collect::<Vec<_>>().join(", "));
        self.pods.iter().map(|((direction, address), isolated)| format!("{direction:?} {} {address} <- {}", isolated.owner, chain(&isolated.chain)).trim_end().to_owned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_and_goes_unseen_is_not_pending() {
        let ip: IpAddr = "10.0.0.1".parse().expect("ip");
        let member = Member { address: ip, port: None };
        let (set, chain, owner): (Arc<str>, Arc<str>, Arc<str>) = ("s".into(), "c".into(), "default/a".into());
        let mut state = PolicyState::default();
        state.add_addresses(set.clone());
        state.add_member(&set, member);
        assert!(state.pending.members_added.is_empty(), "goes with its set");
        state.programmed();
        state.add_member(&set, member);
        assert!(state.is_programmed(), "two say so");
        state.remove_member(&set, member);
        state.remove_member(&set, member);
        assert_eq!(state.pending.members_removed.len(), 1);
        state.add_member(&set, member);
        assert!(state.is_programmed());
        state.add_chain(chain.clone(), Direction::Ingress, vec![Allow { peers: Peers::Addresses(set.clone()), ports: Ports::Any }]);
        state.isolate(Direction::Ingress, ip, Some((chain.clone(), owner)));
        assert_eq!(state.isolated(ip), (false, true));
        assert_eq!(state.describe(), ["Ingress default/a 10.0.0.1 <- {10.0.0.1}"]);
        state.isolate(Direction::Ingress, ip, None);
        state.remove_chain(&chain);
        state.remove_set(&set);
        assert_eq!((state.pending.chains_added.len(), state.pending.sets_removed.len()), (0, 1));
        assert!(state.is_empty());
    }
}
