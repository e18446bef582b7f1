//! Policies, namespaces and pods in, what this node must let through out: a [`PolicyState`], kept up to date change by change. Pure.
//!
//! Only policies that select a pod of this node cost anything: their peers are sets, kept while some chain names them. A change of a pod looks
//! at the sets in use and at that pod's own policies, a change of a policy at this node's pods in its namespace.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ::network::{Allow, Direction, Member, Peers, PolicyState, Ports, Protocol};

use super::Labels;
use super::pods::Facts;
use super::rules::{Peer, Policy, Port, Rule, Scope};

/// Namespace and name.
pub type Key = (Arc<str>, Arc<str>);

const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";

/// What a set in use holds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum PeerSet {
    Peer(Peer),
    /// The ports of that name of these pods (or of all): what a named port of an egress rule means.
    Named(Option<Peer>, Protocol, Arc<str>),
}

/// Sorted, without repetition.
type ChainKey = (Direction, Vec<(Option<PeerSet>, Ports)>);

struct Used {
    name: Arc<str>,
    users: usize,
}

/// What a sandbox of this node was given, which the API does not know at first.
struct Attached {
    key: Key,
    facts: Facts,
}

#[derive(Default)]
pub struct Engine {
    policies: BTreeMap<Key, Policy>,
    namespaces: BTreeMap<Arc<str>, Labels>,
    pods: BTreeMap<Key, Facts>,
    attached: BTreeMap<String, Attached>,
    sets: BTreeMap<PeerSet, Used>,
    chains: BTreeMap<ChainKey, Used>,
    /// What isolates each pod of this node, in which direction, at which addresses.
    isolated: BTreeMap<(Key, Direction), (ChainKey, Vec<IpAddr>)>,
    names: u64,
    pub state: PolicyState,
}

impl Engine {
    pub fn set_policy(&mut self, key: &Key, policy: Option<Policy>) {
        let old = match policy.clone() {
            Some(policy) => self.policies.insert(key.clone(), policy),
            None => self.policies.remove(key),
        };
        if old == policy {
            return;
        }
        // The pods it selected or selects now: nobody else's rules changed.
        let selects = |labels: &Labels| old.iter().chain(&policy).any(|policy| policy.pods.matches(labels));
        let api = self.pods.iter().filter(|((namespace, _), facts)| *namespace == key.0 && facts.local && selects(&facts.labels)).map(|(pod, _)| pod);
        let attached = self.attached.values().filter(|a| a.key.0 == key.0).map(|a| &a.key);
        let pods: BTreeSet<Key> = api.chain(attached).cloned().collect();
        pods.iter().for_each(|pod| self.isolate(pod));
    }

    pub fn set_namespace(&mut self, name: &Arc<str>, labels: Option<Labels>) {
        let pods: Vec<(Key, Facts)> = self.known().into_iter().filter(|(namespace, _)| namespace == name).filter_map(|key| Some((key.clone(), self.effective(&key)?))).collect();
        let before: Vec<_> = pods.iter().map(|(key, facts)| self.memberships(key, Some(facts))).collect();
        match labels {
            Some(labels) => drop(self.namespaces.insert(name.clone(), labels)),
            None => drop(self.namespaces.remove(name)),
        }
        for ((key, facts), before) in pods.iter().zip(before) {
            let after = self.memberships(key, Some(facts));
            self.move_members(before, after);
        }
    }

    pub fn set_pod(&mut self, key: &Key, facts: Option<Facts>) {
        self.change(key, |engine| match facts {
            Some(facts) => drop(engine.pods.insert(key.clone(), facts)),
            None => drop(engine.pods.remove(key)),
        });
    }

    /// A sandbox of this node got its addresses: its pod is isolated from now on, whether the API's pod is known here yet or not.
    pub fn attach(&mut self, sandbox_id: &str, key: &Key, facts: Facts) {
        self.change(key, |engine| drop(engine.attached.insert(sandbox_id.to_owned(), Attached { key: key.clone(), facts })));
    }

    pub fn detach(&mut self, sandbox_id: &str) {
        if let Some(key) = self.attached.get(sandbox_id).map(|a| a.key.clone()) {
            self.change(&key, |engine| drop(engine.attached.remove(sandbox_id)));
        }
    }

    /// Forgets what the API said of pods and namespaces; nobody looks any more.
    pub fn forget_policies(&mut self) {
        for key in self.policies.keys().cloned().collect::<Vec<_>>() {
            self.set_policy(&key, None);
        }
    }

    pub fn forget_pods(&mut self) {
        for key in self.pods.keys().cloned().collect::<Vec<_>>() {
            self.set_pod(&key, None);
        }
        self.namespaces.clear();
    }

    fn known(&self) -> BTreeSet<Key> {
        self.pods.keys().chain(self.attached.values().map(|a| &a.key)).cloned().collect()
    }

    /// What is true of a pod: what the API says, and the addresses its sandbox has before the API knows.
    fn effective(&self, key: &Key) -> Option<Facts> {
        let mut attached = self.attached.values().filter(|a| a.key == *key);
        let Some(api) = self.pods.get(key) else {
            let mut facts = attached.next()?.facts.clone();
            facts.addresses.extend(attached.flat_map(|a| a.facts.addresses.iter().copied()));
            return Some(facts);
        };
        let mut facts = api.clone();
        for address in attached.filter(|a| a.facts.uid == api.uid).flat_map(|a| &a.facts.addresses) {
            if !facts.addresses.contains(address) {
                facts.addresses.push(*address);
            }
        }
        Some(facts)
    }

    fn change(&mut self, key: &Key, change: impl FnOnce(&mut Self)) {
        let before = self.effective(key);
        change(self);
        let after = self.effective(key);
        if before != after {
            let (old, new) = (self.memberships(key, before.as_ref()), self.memberships(key, after.as_ref()));
            self.move_members(old, new);
            self.isolate(key);
        }
    }

    /// In which sets in use a pod is, as what.
    fn memberships(&self, key: &Key, facts: Option<&Facts>) -> BTreeSet<(Arc<str>, Member)> {
        let Some(facts) = facts else { return BTreeSet::new() };
        self.sets.iter().flat_map(|(set, used)| self.members(set, key, facts).into_iter().map(|member| (used.name.clone(), member))).collect()
    }

    fn move_members(&mut self, before: BTreeSet<(Arc<str>, Member)>, after: BTreeSet<(Arc<str>, Member)>) {
        before.difference(&after).for_each(|(set, member)| self.state.remove_member(set, *member));
        after.difference(&before).for_each(|(set, member)| self.state.add_member(set, *member));
    }

    fn members(&self, set: &PeerSet, key: &Key, facts: &Facts) -> Vec<Member> {
        match set {
            PeerSet::Peer(Peer::Blocks(_)) => Vec::new(),
            PeerSet::Peer(peer) if self.is_peer(peer, key, facts) => facts.addresses.iter().map(|address| Member { address: *address, port: None }).collect(),
            PeerSet::Peer(_) => Vec::new(),
            PeerSet::Named(peer, protocol, name) => {
                let ports = || facts.ports.iter().filter(|(n, p, _)| n == name && p == protocol).map(|(_, p, number)| Some((*p, *number)));
                let reached = |address: &&IpAddr| match peer {
                    None => true,
                    Some(Peer::Blocks(ranges)) => ranges.iter().any(|(first, last)| *first <= **address && **address <= *last),
                    Some(peer) => self.is_peer(peer, key, facts),
                };
                facts.addresses.iter().filter(reached).flat_map(|address| ports().map(|port| Member { address: *address, port })).collect()
            }
        }
    }

    fn is_peer(&self, peer: &Peer, (namespace, _): &Key, facts: &Facts) -> bool {
        let Peer::Pods { scope, pods } = peer else { return false };
        let in_scope = match scope {
            Scope::Namespace(name) => name == namespace,
            Scope::Namespaces(selector) => match self.namespaces.get(namespace) {
                Some(labels) => selector.matches(labels),
                // Not told of yet; this much is certain.
                None => selector.matches(&Labels::from([(NAMESPACE_NAME.to_owned(), namespace.to_string())])),
            },
        };
        in_scope && pods.matches(&facts.labels)
    }

    /// Makes a pod of this node as isolated as its policies say.
    fn isolate(&mut self, key: &Key) {
        let facts = self.effective(key).filter(|facts| facts.local && !facts.addresses.is_empty());
        let owner: Arc<str> = format!("{}/{}", key.0, key.1).into();
        for direction in [Direction::Ingress, Direction::Egress] {
            let wanted = facts.as_ref().and_then(|facts| Some((self.chain_key(key, facts, direction)?, facts.addresses.clone())));
            let place = (key.clone(), direction);
            if self.isolated.get(&place) == wanted.as_ref() {
                continue;
            }
            // The new chain first: what both need stays.
            if let Some((chain, addresses)) = &wanted {
                let name = self.acquire_chain(chain);
                for address in addresses {
                    self.state.isolate(direction, *address, Some((name.clone(), owner.clone())));
                }
            }
            let before = match wanted.clone() {
                Some(wanted) => self.isolated.insert(place, wanted),
                None => self.isolated.remove(&place),
            };
            if let Some((chain, addresses)) = before {
                let kept = wanted.map(|(_, addresses)| addresses).unwrap_or_default();
                for address in addresses.iter().filter(|a| !kept.contains(a)) {
                    // Somebody else may have it by now.
                    let other = self.isolated.iter().find(|((other, d), (_, theirs))| *d == direction && other != key && theirs.contains(address));
                    let other = other.map(|((other, _), (chain, _))| (chain.clone(), format!("{}/{}", other.0, other.1)));
                    let to = other.and_then(|(chain, owner)| Some((self.chains.get(&chain)?.name.clone(), owner.into())));
                    self.state.isolate(direction, *address, to);
                }
                self.release_chain(&chain);
            }
        }
    }

    /// What its policies let a pod receive or send; `None` when that is everything.
    fn chain_key(&self, key: &Key, facts: &Facts, direction: Direction) -> Option<ChainKey> {
        let mut isolated = false;
        let mut allowed = BTreeSet::new();
        let first = (key.0.clone(), Arc::from(""));
        for (_, policy) in self.policies.range(first..).take_while(|((namespace, _), _)| *namespace == key.0).filter(|(_, policy)| policy.pods.matches(&facts.labels)) {
            let rules = match direction {
                Direction::Ingress => &policy.ingress,
                Direction::Egress => &policy.egress,
            };
            isolated |= rules.is_some();
            rules.iter().flatten().for_each(|rule| allow(rule, facts, direction, &mut allowed));
        }
        (isolated && !allowed.contains(&(None, Ports::Any))).then(|| (direction, allowed.into_iter().collect()))
    }

    fn new_name(&mut self, what: &str) -> Arc<str> {
        self.names += 1;
        format!("{what}-{}", self.names).into()
    }

    fn acquire_chain(&mut self, key: &ChainKey) -> Arc<str> {
        if let Some(used) = self.chains.get_mut(key) {
            used.users += 1;
            return used.name.clone();
        }
        let (direction, rules) = key;
        let name = self.new_name(if *direction == Direction::Ingress { "to" } else { "from" });
        let rules = rules.iter().map(|(set, ports)| Allow { peers: set.as_ref().map_or(Peers::Any, |set| self.acquire_set(set)), ports: *ports }).collect();
        self.state.add_chain(name.clone(), *direction, rules);
        self.chains.insert(key.clone(), Used { name: name.clone(), users: 1 });
        name
    }

    fn release_chain(&mut self, key: &ChainKey) {
        let Some(used) = self.chains.get_mut(key) else { return };
        used.users -= 1;
        if used.users > 0 {
            return;
        }
        if let Some(used) = self.chains.remove(key) {
            self.state.remove_chain(&used.name);
        }
        key.1.iter().filter_map(|(set, _)| set.as_ref()).for_each(|set| self.release_set(set));
    }

    fn acquire_set(&mut self, set: &PeerSet) -> Peers {
        let name = match self.sets.get_mut(set) {
            Some(used) => {
                used.users += 1;
                used.name.clone()
            }
            None => self.fill_set(set),
        };
        match set {
            PeerSet::Peer(Peer::Blocks(_)) => Peers::Blocks(name),
            PeerSet::Peer(_) => Peers::Addresses(name),
            PeerSet::Named(..) => Peers::AddressPorts(name),
        }
    }

    fn fill_set(&mut self, set: &PeerSet) -> Arc<str> {
        let name = match set {
            PeerSet::Peer(Peer::Blocks(ranges)) => {
                let name = self.new_name("blocks");
                self.state.add_blocks(name.clone(), ranges.clone());
                name
            }
            PeerSet::Peer(_) => {
                let name = self.new_name("pods");
                self.state.add_addresses(name.clone());
                name
            }
            PeerSet::Named(..) => {
                let name = self.new_name("ports");
                self.state.add_address_ports(name.clone());
                name
            }
        };
        for key in self.known() {
            let Some(facts) = self.effective(&key) else { continue };
            for member in self.members(set, &key, &facts) {
                self.state.add_member(&name, member);
            }
        }
        self.sets.insert(set.clone(), Used { name: name.clone(), users: 1 });
        name
    }

    fn release_set(&mut self, set: &PeerSet) {
        let Some(used) = self.sets.get_mut(set) else { return };
        used.users -= 1;
        if used.users == 0
            && let Some(used) = self.sets.remove(set)
        {
            self.state.remove_set(&used.name);
        }
    }
}

/// Adds what one rule lets through; `facts` are of the isolated pod.
fn allow(rule: &Rule, facts: &Facts, direction: Direction, allowed: &mut BTreeSet<(Option<PeerSet>, Ports)>) {
    let peers: Vec<Option<&Peer>> = rule.peers.as_ref().map_or(vec![None], |peers| peers.iter().map(Some).collect());
    let Some(ports) = &rule.ports else {
        allowed.extend(peers.into_iter().map(|peer| (peer.cloned().map(PeerSet::Peer), Ports::Any)));
        return;
    };
    for peer in peers {
        let set = peer.cloned().map(PeerSet::Peer);
        for port in ports {
            match port {
                Port::All(protocol) => drop(allowed.insert((set.clone(), Ports::All(*protocol)))),
                Port::Range(protocol, first, last) => drop(allowed.insert((set.clone(), Ports::Range(*protocol, *first, *last)))),
                // Of the pod itself when it receives, of each peer when it sends.
                Port::Named(protocol, name) if direction == Direction::Ingress => {
                    let own = facts.ports.iter().filter(|(n, p, _)| n == name && p == protocol);
                    allowed.extend(own.map(|(_, p, number)| (set.clone(), Ports::Range(*p, *number, *number))));
                }
                Port::Named(protocol, name) => drop(allowed.insert((Some(PeerSet::Named(peer.cloned(), *protocol, name.clone())), Ports::Any))),
            }
        }
    }
}
