//! The Service maps of this node: desired state in, one nftables transaction per change out.
//!
//! Promises: a change costs its own elements, however many Services there are; a packet is never without its Service while a change or
//! a restart of Coracle goes on; tables that somebody else flushed are rebuilt by the next change. Tables `ip coracle` and
//! `ip6 coracle`; look at them with `nft list map ip coracle endpoints`.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use crate::chain::Chain;
use crate::cidr::IpNet;
use crate::conntrack;
use crate::firewall::Firewall;
use crate::netlink::{NetlinkError, Socket};
use crate::nft::{self, Data, Element, Family, TRANSACTION_BYTES_MAX, Transaction};
use crate::service::{Entry, Frontend, Protocol, ServiceChange, ServicePort, ServicePortName, Set, Value};
use crate::sticky::Sticky;
use crate::tables::{self, HAIRPIN};

const TABLE: &str = "coracle";
/// The smallest piece tried when the kernel refuses a large transaction for its size.
const PIECE_BYTES_MIN: usize = 64 << 10;

#[derive(Debug, Clone)]
pub struct DataplaneConfig {
    /// Where pods are: traffic from elsewhere to a Service gets the node's source address, and `externalTrafficPolicy: Local` is not for pods.
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

/// What a port has for itself alone, in one family.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Own {
    sticky: Sticky,
    firewall: Firewall,
}

impl Own {
    fn of(name: &ServicePortName, port: Option<&ServicePort>, family: Family) -> Self {
        Self { sticky: Sticky::of(name, port, family), firewall: Firewall::of(port, family) }
    }

    fn write(&self, before: &Self, name: &ServicePortName, family: Family, transaction: &mut Transaction, config: &DataplaneConfig) {
        self.sticky.write(&before.sticky, name, family, transaction, |t, chain| tables::write_entry(config, t, family, chain));
        self.firewall.write(&before.firewall, name, family, transaction);
    }
}

/// The elements to add and delete in one family.
#[derive(Default)]
struct Diff {
    adds: BTreeMap<(Set, Vec<u8>), (Value, Arc<str>)>,
    deletes: BTreeSet<(Set, Vec<u8>)>,
    hairpin_adds: BTreeSet<IpAddr>,
    hairpin_deletes: BTreeSet<IpAddr>,
    /// UDP frontends whose tracked flows need a look.
    stale: conntrack::Allowed,
    /// Ports whose chains of their own change: from, to.
    own: BTreeMap<ServicePortName, (Own, Own)>,
    /// The chains that look for source ranges are to be made, or removed.
    guards: Option<bool>,
}

impl Diff {
    fn is_empty(&self) -> bool {
        self.adds.is_empty() && self.deletes.is_empty() && self.own.is_empty() && self.hairpin_adds.is_empty() && self.hairpin_deletes.is_empty()
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
    /// Ports with source ranges.
    guarded: BTreeSet<(Family, ServicePortName)>,
    /// Where the chains that look for them are.
    guards: BTreeSet<Family>,
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
            guarded: BTreeSet::new(),
            guards: BTreeSet::new(),
            clean: false,
        })
    }

    /// As the API calls them.
    pub fn families(&self) -> Vec<&'static str> {
        self.families.iter().map(|family| if *family == Family::Ipv4 { "IPv4" } else { "IPv6" }).collect()
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
        for (family, diff) in &mut diffs {
            let wanted = self.is_guarded(*family);
            diff.guards = (self.guards.contains(family) != wanted).then_some(wanted);
        }
        if !self.clean {
            self.rebuild()?;
        } else if diffs.values().any(|diff| !diff.is_empty()) {
            let sent = diffs.iter().filter(|(_, diff)| !diff.is_empty()).try_for_each(|(family, diff)| {
                Self::send(&self.config, &mut self.netfilter, &mut self.chains, *family, diff)?;
                match diff.guards {
                    Some(true) => drop(self.guards.insert(*family)),
                    Some(false) => drop(self.guards.remove(family)),
                    None => {}
                }
                Ok::<(), NetlinkError>(())
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
        self.guarded.clear();
        self.guards.clear();
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
            port.keep_places(old.as_ref());
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
            for (frontend, entry) in port.iter().flat_map(|p| p.frontends(*family)) {
                let owner = self.owners.entry(frontend).or_insert_with(|| name.clone());
                if *owner == name {
                    continue;
                }
                let owner = owner.clone();
                if entry == Entry::Internal && !self.is_cluster_ip(&owner, frontend) {
                    self.displace(*family, diff, &owner, frontend, &name);
                } else {
                    self.contested.insert(name.clone());
                }
            }
            let after = port.as_ref().map(|p| p.elements(&name, *family, |f| self.owners.get(f) == Some(&name))).unwrap_or_default();
            diff_elements(diff, before, after, &comment);
            let (from, to) = (Own::of(&name, old.as_ref(), *family), Own::of(&name, port.as_ref(), *family));
            if to.firewall.is_empty() {
                self.guarded.remove(&(*family, name.clone()));
            } else {
                self.guarded.insert((*family, name.clone()));
            }
            if from != to {
                diff.own.entry(name.clone()).or_insert_with(|| (from, Own::default())).1 = to;
            }
            self.count_hairpins(*family, diff, old.as_ref(), port.as_ref());
            self.look_for_stale(*family, diff, &name, lost, old.as_ref(), port.as_ref());
        }
        self.programmed.extend(port.map(|port| (name, port)));
    }

    fn is_cluster_ip(&self, owner: &ServicePortName, frontend: Frontend) -> bool {
        self.programmed.get(owner).is_some_and(|port| port.frontends(frontend.family()).contains(&(frontend, Entry::Internal)))
    }

    /// Takes a frontend from who has it: what a Service says is its external address may be another's cluster IP, which the API gave to nobody else and which
    /// must lead to its Service whoever came first. (In kube-proxy the last one wins, by chance.)
    fn displace(&mut self, family: Family, diff: &mut Diff, owner: &ServicePortName, frontend: Frontend, by: &ServicePortName) {
        tracing::warn!(service = %owner, cluster_ip_of = %by, ?frontend, "an external address is the cluster IP of another Service: it has no effect");
        let Some(port) = self.programmed.get(owner) else { return };
        let before = port.elements(owner, family, |f| self.owners.get(f) == Some(owner));
        let after = port.elements(owner, family, |f| *f != frontend && self.owners.get(f) == Some(owner));
        if port.protocol == Protocol::Udp {
            // Whatever flows there now goes to the wrong Service.
            diff.stale.entry(frontend).or_default();
        }
        diff_elements(diff, before, after, &owner.to_string().into());
        self.owners.insert(frontend, by.clone());
        self.contested.insert(owner.clone());
    }

    fn is_guarded(&self, family: Family) -> bool {
        self.guarded.iter().any(|(guarded, _)| *guarded == family)
    }

    fn count_hairpins(&mut self, family: Family, diff: &mut Diff, old: Option<&ServicePort>, new: Option<&ServicePort>) {
        let local = |port: Option<&ServicePort>| -> BTreeSet<IpAddr> {
            let endpoints = port.into_iter().flat_map(ServicePort::reachable);
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
        if old.or(new).is_none_or(|p| p.protocol != Protocol::Udp) {
            return;
        }
        let flows = |port: Option<&ServicePort>| port.map(|p| p.may_flow_to(family)).unwrap_or_default();
        let (before, now) = (flows(old), flows(new));
        // What was sent while there was nobody went on untranslated, and would for as long as its sender keeps its port.
        if before.is_subset(&now) && !before.is_empty() && new.is_some() {
            return;
        }
        for frontend in lost {
            diff.stale.entry(frontend).or_default();
        }
        for (frontend, _) in new.iter().flat_map(|p| p.frontends(family)) {
            if self.owners.get(&frontend) == Some(name) {
                diff.stale.insert(frontend, now.clone());
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
        for set in Set::ALL {
            let keys: Vec<&[u8]> = diff.deletes.iter().filter(|(s, _)| *s == set).map(|(_, key)| key.as_slice()).collect();
            transaction.delete_elements(set.name(), keys);
        }
        let keys: Vec<Vec<u8>> = diff.hairpin_deletes.iter().map(hairpin_key).collect();
        transaction.delete_elements(HAIRPIN, keys.iter().map(Vec::as_slice));
        if diff.guards == Some(false) {
            tables::delete_guards(&mut transaction);
        }
        for (name, (from, to)) in &diff.own {
            to.write(from, name, family, &mut transaction, config);
        }
        add_chains(config, &mut transaction, chains, family, diff.adds.values().map(|(value, _)| value));
        for set in Set::ALL {
            let elements: Vec<_> =
                diff.adds.iter().filter(|((s, _), _)| *s == set).map(|((_, key), (value, comment))| (key, data(value), comment)).collect();
            transaction.add_elements(set.name(), elements.iter().map(|(key, data, comment)| Element { key, data, comment: comment_for(set, comment) }));
        }
        let keys: Vec<Vec<u8>> = diff.hairpin_adds.iter().map(hairpin_key).collect();
        transaction.add_elements(HAIRPIN, keys.iter().map(|key| Element { key, data: &Data::None, comment: None }));
        if diff.guards == Some(true) {
            tables::write_guards(&mut transaction, family);
        }
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
        tables::write_table(&self.config, &mut transaction, family);
        self.guards.remove(&family);
        if self.is_guarded(family) {
            tables::write_guards(&mut transaction, family);
            self.guards.insert(family);
        }
        let mut elements: BTreeMap<Set, Vec<(Vec<u8>, Value, Arc<str>)>> = BTreeMap::new();
        for (name, port) in &self.programmed {
            let comment: Arc<str> = name.to_string().into();
            for ((set, key), value) in port.elements(name, family, |f| self.owners.get(f) == Some(name)) {
                elements.entry(set).or_default().push((key, value, comment.clone()));
            }
        }
        for (name, port) in &self.programmed {
            Own::of(name, Some(port), family).write(&Own::default(), name, family, &mut transaction, &self.config);
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

/// The name of the Service once per frontend is enough to read the maps by.
fn comment_for(set: Set, comment: &Arc<str>) -> Option<&str> {
    (!matches!(set, Set::Endpoints | Set::NodePortEndpoints)).then_some(comment)
}

fn hairpin_key(address: &IpAddr) -> Vec<u8> {
    crate::route::octets(*address).repeat(2)
}

fn data(value: &Value) -> Data {
    match value {
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
        let Value::Goto(chain) = value else { continue };
        for chain in tables::with_its_targets(*chain) {
            if chains.insert((family, chain)) {
                tables::write_chain(config, transaction, family, chain);
            }
        }
    }
}

