//! The Service maps of this node: desired state in, one nftables transaction per change out.
//!
//! Promises: a change costs its own elements, however many Services there are; a packet is never without its Service while a change or
//! a restart of Coracle goes on; tables that somebody else flushed are rebuilt by the next change. Tables `ip coracle` and
//! `ip6 coracle`; look at them with `nft list map ip coracle endpoints`.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use crate::cidr::IpNet;
use crate::conntrack;
use crate::netlink::{NetlinkError, Socket};
use crate::nft::{self, Data, Element, Family, Field, Holds, Hook, SetSpec, TRANSACTION_BYTES_MAX, Transaction};
use crate::rule::{Load, Register, Rule};
use crate::service::{Chain, Entry, Frontend, Protocol, ServiceChange, ServicePort, ServicePortName, Set, Value};
use crate::sticky::Sticky;

/// kube-proxy's bit of the packet mark: "leaves with the node's source address".
const MASQUERADE_MARK: u32 = 0x4000;
const TABLE: &str = "coracle";
const HAIRPIN: &str = "hairpin";
const REJECT: &str = "reject";
/// The smallest piece tried when the kernel refuses a large transaction for its size.
const PIECE_BYTES_MIN: usize = 64 << 10;

#[derive(Debug, Clone)]
pub struct DataplaneConfig {
    /// The pod ranges of the whole cluster: traffic from elsewhere to a Service gets the node's source address.
    pub cluster_cidrs: Vec<IpNet>,
    /// What is sent to an unused address or port of these is refused at once.
    pub service_cidrs: Vec<IpNet>,
}

#[derive(Debug, thiserror::Error)]
pub enum DataplaneError {
    #[error("program services: {0}")]
    Netlink(#[from] NetlinkError),
}

type Result<T, E = DataplaneError> = std::result::Result<T, E>;

/// The elements to add and delete in one family.
#[derive(Default)]
struct Diff {
    adds: BTreeMap<(Set, Vec<u8>), (Value, Arc<str>)>,
    deletes: BTreeSet<(Set, Vec<u8>)>,
    hairpin_adds: BTreeSet<IpAddr>,
    hairpin_deletes: BTreeSet<IpAddr>,
    /// UDP frontends whose tracked flows need a look.
    stale: conntrack::Allowed,
    /// Ports whose session affinity changes: from, to.
    sticky: BTreeMap<ServicePortName, (Sticky, Sticky)>,
}

impl Diff {
    fn is_empty(&self) -> bool {
        self.adds.is_empty() && self.deletes.is_empty() && self.sticky.is_empty() && self.hairpin_adds.is_empty() && self.hairpin_deletes.is_empty()
    }

    fn remove(&mut self, key: (Set, Vec<u8>)) {
        // What this same change added was never programmed.
        if self.adds.remove(&key).is_none() {
            self.deletes.insert(key);
        }
    }
}

/// Owns the node's Service tables. Calls block for as long as the kernel works: well under a millisecond for one Service.
pub struct Dataplane {
    config: DataplaneConfig,
    netfilter: Socket,
    families: Vec<Family>,
    programmed: BTreeMap<ServicePortName, ServicePort>,
    owners: HashMap<Frontend, ServicePortName>,
    /// Ports that want a frontend another one has.
    contested: BTreeSet<ServicePortName>,
    /// How many ports have this endpoint of this node.
    hairpins: HashMap<IpAddr, usize>,
    chains: HashSet<(Family, Chain)>,
    /// The tables are known to be as `programmed` says.
    clean: bool,
}

impl Dataplane {
    /// Takes over the tables a former process left: they go on working until the first [`Dataplane::sync`] or
    /// [`Dataplane::apply`], which replaces them in one transaction.
    pub fn open(config: DataplaneConfig) -> Result<Self> {
        let netfilter = Socket::open(libc::NETLINK_NETFILTER)?;
        let mut families = vec![Family::Ipv4];
        if std::path::Path::new("/proc/sys/net/ipv6").exists() {
            families.push(Family::Ipv6);
        }
        Ok(Self {
            config,
            netfilter,
            families,
            programmed: BTreeMap::new(),
            owners: HashMap::new(),
            contested: BTreeSet::new(),
            hairpins: HashMap::new(),
            chains: HashSet::new(),
            clean: false,
        })
    }

    pub fn programmed(&self) -> &BTreeMap<ServicePortName, ServicePort> {
        &self.programmed
    }

    /// Makes the tables say exactly `desired`.
    pub fn sync(&mut self, desired: &BTreeMap<ServicePortName, ServicePort>) -> Result<()> {
        let gone = self.programmed.keys().filter(|name| !desired.contains_key(*name)).map(|name| (name.clone(), None));
        let mut changes: Vec<ServiceChange> = gone.collect();
        changes.extend(desired.iter().map(|(name, port)| (name.clone(), Some(port.clone()))));
        self.apply(changes)
    }

    /// Applies changes in one transaction per address family they touch.
    pub fn apply(&mut self, changes: impl IntoIterator<Item = ServiceChange>) -> Result<()> {
        let mut diffs: BTreeMap<Family, Diff> = self.families.iter().map(|f| (*f, Diff::default())).collect();
        for (name, port) in changes {
            self.change(&mut diffs, name, port);
        }
        // What was refused a frontend may have it now.
        for name in self.contested.clone() {
            let port = self.programmed.get(&name).cloned();
            self.change(&mut diffs, name, port);
        }
        if !self.clean {
            self.rebuild()?;
        } else if diffs.values().any(|diff| !diff.is_empty()) {
            let sent = diffs.iter().filter(|(_, diff)| !diff.is_empty()).try_for_each(|(family, diff)| {
                Self::send(&self.config, &mut self.netfilter, &mut self.chains, *family, diff)
            });
            if let Err(error) = sent {
                tracing::warn!(%error, "service tables are not as expected, rebuilding");
                self.clean = false;
                self.rebuild()?;
            }
        }
        for (family, diff) in diffs {
            self.forget(family, &diff);
        }
        Ok(())
    }

    /// Removes the tables.
    pub fn reset(&mut self) -> Result<()> {
        self.clean = false;
        self.programmed.clear();
        self.owners.clear();
        self.contested.clear();
        self.hairpins.clear();
        self.chains.clear();
        for family in self.families.clone() {
            if nft::table_exists(&mut self.netfilter, family, TABLE)? {
                let mut transaction = Transaction::new(family, TABLE);
                transaction.delete_table();
                transaction.commit(&mut self.netfilter, "delete service tables")?;
            }
        }
        Ok(())
    }

    fn change(&mut self, diffs: &mut BTreeMap<Family, Diff>, name: ServicePortName, port: Option<ServicePort>) {
        let mut port = port;
        let old = self.programmed.remove(&name);
        if let (Some(port), old) = (&mut port, &old) {
            port.keep_places(old.as_ref().map_or(&[], |old| &old.endpoints));
        }
        if old == port && !self.contested.contains(&name) {
            self.programmed.extend(old.map(|old| (name, old)));
            return;
        }
        self.contested.remove(&name);
        let comment: Arc<str> = name.to_string().into();
        for (family, diff) in diffs {
            let before = old.as_ref().map(|p| p.elements(&name, *family, |f| self.owners.get(f) == Some(&name))).unwrap_or_default();
            let mut lost = Vec::new();
            for (frontend, _) in old.iter().flat_map(|p| p.frontends(*family)) {
                if self.owners.get(&frontend) == Some(&name) {
                    self.owners.remove(&frontend);
                    lost.push(frontend);
                }
            }
            for (frontend, _) in port.iter().flat_map(|p| p.frontends(*family)) {
                if *self.owners.entry(frontend).or_insert_with(|| name.clone()) != name {
                    self.contested.insert(name.clone());
                }
            }
            let after = port.as_ref().map(|p| p.elements(&name, *family, |f| self.owners.get(f) == Some(&name))).unwrap_or_default();
            diff_elements(diff, before, after, &comment);
            let (from, to) = (Sticky::of(&name, old.as_ref(), *family), Sticky::of(&name, port.as_ref(), *family));
            if from != to {
                diff.sticky.entry(name.clone()).or_insert_with(|| (from, Sticky::default())).1 = to;
            }
            self.count_hairpins(*family, diff, old.as_ref(), port.as_ref());
            self.look_for_stale(*family, diff, &name, lost, old.as_ref(), port.as_ref());
        }
        self.programmed.extend(port.map(|port| (name, port)));
    }

    fn count_hairpins(&mut self, family: Family, diff: &mut Diff, old: Option<&ServicePort>, new: Option<&ServicePort>) {
        let local = |port: Option<&ServicePort>| -> BTreeSet<IpAddr> {
            let endpoints = port.into_iter().flat_map(|p| &p.endpoints);
            endpoints.filter(|e| e.local && Family::of(e.address) == family).map(|e| e.address).collect()
        };
        let (old, new) = (local(old), local(new));
        for address in new.difference(&old) {
            let count = self.hairpins.entry(*address).or_default();
            *count += 1;
            if *count == 1 && !diff.hairpin_deletes.remove(address) {
                diff.hairpin_adds.insert(*address);
            }
        }
        for address in old.difference(&new) {
            let Some(count) = self.hairpins.get_mut(address) else { continue };
            *count -= 1;
            if *count == 0 {
                self.hairpins.remove(address);
                if !diff.hairpin_adds.remove(address) {
                    diff.hairpin_deletes.insert(*address);
                }
            }
        }
    }

    /// Notes UDP frontends whose flows may lead nowhere.
    fn look_for_stale(
        &self,
        family: Family,
        diff: &mut Diff,
        name: &ServicePortName,
        lost: Vec<Frontend>,
        old: Option<&ServicePort>,
        new: Option<&ServicePort>,
    ) {
        let gone = old.into_iter().flat_map(|p| &p.endpoints).filter(|e| !new.is_some_and(|n| n.endpoints.contains(e)));
        let none_gone = gone.filter(|e| Family::of(e.address) == family).count() == 0;
        if old.or(new).is_none_or(|p| p.protocol != Protocol::Udp) {
            return;
        }
        let was_empty = old.is_none_or(|p| p.endpoints.is_empty());
        if none_gone && !was_empty && new.is_some() {
            return;
        }
        for frontend in lost {
            diff.stale.entry(frontend).or_default();
        }
        for (frontend, entry) in new.iter().flat_map(|p| p.frontends(family)) {
            if self.owners.get(&frontend) == Some(name) {
                let endpoints = new.map(|p| p.endpoints(family, entry)).unwrap_or_default();
                diff.stale.insert(frontend, endpoints.iter().map(|e| (e.address, e.port)).collect());
            }
        }
    }

    /// What the kernel remembers by itself about endpoints that left.
    fn forget(&mut self, family: Family, diff: &Diff) {
        if !diff.stale.is_empty() {
            match conntrack::forget_stale(&mut self.netfilter, family, &diff.stale) {
                Ok(0) => {}
                Ok(flows) => tracing::debug!(flows, "forgot UDP flows to endpoints that are gone"),
                Err(error) => tracing::warn!(%error, "UDP flows may stay with an endpoint that is gone"),
            }
        }
    }

    fn send(
        config: &DataplaneConfig,
        netfilter: &mut Socket,
        chains: &mut HashSet<(Family, Chain)>,
        family: Family,
        diff: &Diff,
    ) -> Result<(), NetlinkError> {
        let mut transaction = Transaction::new(family, TABLE);
        for set in SETS {
            let keys: Vec<&[u8]> = diff.deletes.iter().filter(|(s, _)| *s == set).map(|(_, key)| key.as_slice()).collect();
            transaction.delete_elements(set.name(), keys);
        }
        let keys: Vec<Vec<u8>> = diff.hairpin_deletes.iter().map(hairpin_key).collect();
        transaction.delete_elements(HAIRPIN, keys.iter().map(Vec::as_slice));
        for (name, (from, to)) in &diff.sticky {
            to.write(from, name, family, &mut transaction, |t, chain| write_mark(config, t, family, chain));
        }
        add_chains(config, &mut transaction, chains, family, diff.adds.values().map(|(value, _)| value));
        for set in SETS {
            let elements: Vec<_> =
                diff.adds.iter().filter(|((s, _), _)| *s == set).map(|((_, key), (value, comment))| (key, data(value), comment)).collect();
            transaction.add_elements(set.name(), elements.iter().map(|(key, data, comment)| Element { key, data, comment: comment_for(set, comment) }));
        }
        let keys: Vec<Vec<u8>> = diff.hairpin_adds.iter().map(hairpin_key).collect();
        transaction.add_elements(HAIRPIN, keys.iter().map(|key| Element { key, data: &Data::None, comment: None }));
        transaction.commit(netfilter, "program services")
    }

    /// Replaces the tables by what `programmed` says: in one transaction if the kernel takes it, else in pieces.
    fn rebuild(&mut self) -> Result<()> {
        let mut piece = TRANSACTION_BYTES_MAX;
        for family in self.families.clone() {
            loop {
                match self.rebuild_family(family, piece) {
                    Ok(()) => break,
                    Err(error) if matches!(error.errno(), libc::EMSGSIZE | libc::ENOBUFS) && piece > PIECE_BYTES_MIN => piece /= 4,
                    Err(error) => return Err(error.into()),
                }
            }
        }
        self.clean = true;
        Ok(())
    }

    fn rebuild_family(&mut self, family: Family, piece: usize) -> Result<(), NetlinkError> {
        const BATCH: usize = 256;
        self.chains.retain(|(f, _)| *f != family);
        let mut transaction = Transaction::new(family, TABLE);
        transaction.add_table();
        transaction.delete_table();
        write_table(&self.config, &mut transaction, family);
        let mut elements: BTreeMap<Set, Vec<(Vec<u8>, Value, Arc<str>)>> = BTreeMap::new();
        for (name, port) in &self.programmed {
            let comment: Arc<str> = name.to_string().into();
            for ((set, key), value) in port.elements(name, family, |f| self.owners.get(f) == Some(name)) {
                elements.entry(set).or_default().push((key, value, comment.clone()));
            }
        }
        for (name, port) in self.programmed.iter().filter(|(_, port)| port.session_affinity.is_some()) {
            let sticky = Sticky::of(name, Some(port), family);
            sticky.write(&Sticky::default(), name, family, &mut transaction, |t, chain| write_mark(&self.config, t, family, chain));
        }
        add_chains(&self.config, &mut transaction, &mut self.chains, family, elements.values().flatten().map(|(_, value, _)| value));
        let commit_if_full = |transaction: &mut Transaction, netfilter: &mut Socket| {
            if transaction.len() + BATCH * 512 <= piece {
                return Ok(());
            }
            std::mem::replace(transaction, Transaction::new(family, TABLE)).commit(netfilter, "program services")
        };
        for (set, elements) in elements {
            // Large messages, but in pieces that a small send buffer takes too.
            for batch in elements.chunks(BATCH) {
                commit_if_full(&mut transaction, &mut self.netfilter)?;
                let batch: Vec<_> = batch.iter().map(|(key, value, comment)| (key, data(value), comment)).collect();
                transaction.add_elements(set.name(), batch.iter().map(|(key, data, comment)| Element { key, data, comment: comment_for(set, comment) }));
            }
        }
        let hairpins: Vec<Vec<u8>> = self.hairpins.keys().filter(|a| Family::of(**a) == family).map(hairpin_key).collect();
        for batch in hairpins.chunks(BATCH) {
            commit_if_full(&mut transaction, &mut self.netfilter)?;
            transaction.add_elements(HAIRPIN, batch.iter().map(|key| Element { key, data: &Data::None, comment: None }));
        }
        transaction.commit(&mut self.netfilter, "program services")
    }
}

const SETS: [Set; 6] = [Set::Services, Set::Endpoints, Set::NodePorts, Set::NodePortEndpoints, Set::EmptyServices, Set::EmptyNodePorts];

/// The name of the Service once per frontend is enough to read the maps by.
fn comment_for(set: Set, comment: &Arc<str>) -> Option<&str> {
    (!matches!(set, Set::Endpoints | Set::NodePortEndpoints)).then_some(comment)
}

fn hairpin_key(address: &IpAddr) -> Vec<u8> {
    crate::route::octets(*address).repeat(2)
}

fn data(value: &Value) -> Data {
    match value {
        Value::Nothing => Data::None,
        Value::Endpoint(value) => Data::Value(value.clone()),
        Value::Goto(chain) => Data::Goto(chain.to_string()),
    }
}

fn diff_elements(
    diff: &mut Diff,
    before: crate::service::Elements,
    after: crate::service::Elements,
    comment: &Arc<str>,
) {
    let mut before: BTreeMap<_, _> = before.into_iter().collect();
    for (key, value) in after {
        match before.remove(&key) {
            Some(old) if old == value => continue,
            Some(_) => diff.remove(key.clone()),
            None => {}
        }
        diff.adds.insert(key, (value, comment.clone()));
    }
    for key in before.into_keys() {
        diff.remove(key);
    }
}

fn add_chains<'a>(
    config: &DataplaneConfig,
    transaction: &mut Transaction,
    chains: &mut HashSet<(Family, Chain)>,
    family: Family,
    values: impl Iterator<Item = &'a Value>,
) {
    for value in values {
        if let Value::Goto(chain @ Chain::Pick { .. }) = value
            && chains.insert((family, *chain))
        {
            write_chain(config, transaction, family, *chain);
        }
    }
}

/// The registers of a rule that picks an endpoint: a key from word 0 on, what is found from word 10 on.
const KEY: Register = Register::word(0);
const FOUND: Register = Register::word(10);

/// What a frontend's chain begins with: whether the node stands in for the client.
fn write_mark(config: &DataplaneConfig, transaction: &mut Transaction, family: Family, chain: Chain) {
    let (Chain::Pick { entry, .. } | Chain::Sticky { entry, .. }) = chain;
    let rule = match entry {
        // Whoever is no pod may have no way back but through this node.
        Entry::Cluster => {
            let pods = config.cluster_cidrs.iter().filter(|net| net.is_ipv4() == (family == Family::Ipv4));
            pods.fold(Rule::new(), |rule, net| rule.in_net(Load::Source(family), *net, false))
        }
        Entry::External | Entry::NodePort => Rule::new(),
        // The node itself may have used 127.0.0.1.
        Entry::ExternalLocal | Entry::NodePortLocal => Rule::new().source_is_local(),
    };
    transaction.add_rule(&chain.to_string(), rule.set_mark(MASQUERADE_MARK));
}

fn write_chain(config: &DataplaneConfig, transaction: &mut Transaction, family: Family, chain: Chain) {
    let Chain::Pick { entry, endpoints } = chain else { return };
    let name = chain.to_string();
    transaction.add_chain(&name, None);
    write_mark(config, transaction, family, chain);
    let pick = [Load::Destination(family), Load::Protocol, Load::DestinationPort, Load::Random(endpoints)];
    let (pick, map) = if entry.is_node_port() { (&pick[1..], Set::NodePortEndpoints) } else { (&pick[..], Set::Endpoints) };
    transaction.add_rule(&name, Rule::new().key(KEY, pick).map(map.name(), KEY, FOUND).dnat(family, FOUND));
}

fn write_table(config: &DataplaneConfig, transaction: &mut Transaction, family: Family) {
    use Field::{Mark, Port, Protocol};
    let address = Field::address(family);
    let by_address = [address, Protocol, Port];
    let by_port = [Protocol, Port];
    let endpoint = [address, Port];
    transaction.add_table();
    transaction.add_set(SetSpec { name: Set::Services.name(), key: &by_address, holds: Holds::Verdict, dynamic: None });
    transaction.add_set(SetSpec { name: Set::Endpoints.name(), key: &[address, Protocol, Port, Mark], holds: Holds::Data(&endpoint), dynamic: None });
    transaction.add_set(SetSpec { name: Set::NodePorts.name(), key: &by_port, holds: Holds::Verdict, dynamic: None });
    transaction.add_set(SetSpec { name: Set::NodePortEndpoints.name(), key: &[Protocol, Port, Mark], holds: Holds::Data(&endpoint), dynamic: None });
    transaction.add_set(SetSpec { name: Set::EmptyServices.name(), key: &by_address, holds: Holds::Nothing, dynamic: None });
    transaction.add_set(SetSpec { name: Set::EmptyNodePorts.name(), key: &by_port, holds: Holds::Nothing, dynamic: None });
    transaction.add_set(SetSpec { name: HAIRPIN, key: &[address, address], holds: Holds::Nothing, dynamic: None });

    let to_service = [Load::Destination(family), Load::Protocol, Load::DestinationPort];
    let to_port = [Load::Protocol, Load::DestinationPort];
    for (name, number) in [("prerouting", libc::NF_INET_PRE_ROUTING), ("output", libc::NF_INET_LOCAL_OUT)] {
        transaction.add_chain(name, Some(Hook { kind: "nat", number, priority: -100 }));
        transaction.add_rule(name, Rule::new().key(KEY, &to_service).verdict_map(Set::Services.name(), KEY));
        let mut rule = Rule::new();
        if family == Family::Ipv6 {
            // The kernel does not route from ::1 to another link: leave [::1] to whoever listens there.
            rule = IpNet::new(IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]), 128).into_iter().fold(rule, |r, net| r.in_net(Load::Destination(family), net, false));
        }
        transaction.add_rule(name, rule.destination_is_local().key(KEY, &to_port).verdict_map(Set::NodePorts.name(), KEY));
    }
    let name = "postrouting";
    transaction.add_chain(name, Some(Hook { kind: "nat", number: libc::NF_INET_POST_ROUTING, priority: 100 }));
    transaction.add_rule(name, Rule::new().take_mark(MASQUERADE_MARK).masquerade());
    // A pod that reached itself through a Service must see another source, or it would answer itself directly.
    let pair = [Load::Source(family), Load::Destination(family)];
    transaction.add_rule(name, Rule::new().key(KEY, &pair).lookup(HAIRPIN, KEY).masquerade());

    transaction.add_chain(REJECT, None);
    transaction.add_rule(REJECT, Rule::new().protocol(crate::service::Protocol::Tcp.number()).reset());
    transaction.add_rule(REJECT, Rule::new().port_unreachable(family));
    let filter = |number| Some(Hook { kind: "filter", number, priority: 0 });
    for (name, number) in [("filter-forward", libc::NF_INET_FORWARD), ("filter-output", libc::NF_INET_LOCAL_OUT), ("filter-input", libc::NF_INET_LOCAL_IN)] {
        transaction.add_chain(name, filter(number));
        transaction.add_rule(name, Rule::new().new_flow().key(KEY, &to_service).lookup(Set::EmptyServices.name(), KEY).go(REJECT));
        if number == libc::NF_INET_LOCAL_IN {
            let rule = Rule::new().new_flow().destination_is_local().key(KEY, &to_port);
            transaction.add_rule(name, rule.lookup(Set::EmptyNodePorts.name(), KEY).go(REJECT));
            continue;
        }
        for net in config.service_cidrs.iter().filter(|net| net.is_ipv4() == (family == Family::Ipv4)) {
            transaction.add_rule(name, Rule::new().new_flow().in_net(Load::Destination(family), *net, true).go(REJECT));
        }
    }
}
