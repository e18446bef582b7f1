//! Where questions about the rest of the world go: to the name servers of the longest zone that the name is in, or they are answered from a list of hosts.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::RwLock;

use crate::forward::Upstreams;
use crate::rewrite::{Rewrite, rewritten};
use crate::metrics::By;
use crate::template::{Template, answered};
use crate::wire::{Answer, CLASS_IN, Code, Name, Question, Section, kind, name_from_text};

/// As CoreDNS's `hosts` has it, unless told otherwise.
const HOSTS_TTL_SECONDS: u32 = 3600;

/// What is done with the names of a zone.
#[derive(Clone)]
pub struct Zone {
    /// Labels, leftmost first; of the root, none.
    labels: Vec<Vec<u8>>,
    to: Upstreams,
    hosts: Arc<BTreeMap<Vec<u8>, Vec<IpAddr>>>,
    hosts_ttl: u32,
    /// Names of addresses.
    reverse: Arc<BTreeMap<Vec<u8>, Vec<Vec<u8>>>>,
    /// What is not in the list is asked elsewhere.
    fall_through: bool,
    rewrites: Arc<[Rewrite]>,
    templates: Arc<[Template]>,
    noted: Noted,
}

/// What is told of questions.
#[derive(Debug, Clone, Copy, Default)]
pub struct Noted {
    pub questions: bool,
    pub errors: bool,
}

impl Zone {
    /// `None` when the name is none.
    pub fn new(name: &str, to: Upstreams) -> Option<Self> {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        name_from_text(&name)?;
        let labels = name.split('.').filter(|label| !label.is_empty()).map(|label| label.as_bytes().to_vec()).collect();
        Some(Self { labels, to, hosts: Arc::default(), hosts_ttl: HOSTS_TTL_SECONDS, reverse: Arc::default(), fall_through: true, rewrites: Arc::default(), templates: Arc::default(), noted: Noted::default() })
    }

    /// Answers that are made from the question.
    pub fn with_templates(mut self, templates: &[Template]) -> Self {
        self.templates = templates.into();
        self
    }

    /// Whether its questions are told, and what failed.
    pub fn telling(mut self, questions: bool, errors: bool) -> Self {
        self.noted = Noted { questions, errors };
        self
    }

    /// Whether what is not in the list of hosts is asked elsewhere, and whether names of its addresses are answered.
    pub fn hosts_falling(mut self, through: bool, reverse: bool) -> Self {
        self.fall_through = through || self.hosts.is_empty();
        if !reverse {
            self.reverse = Arc::default();
        }
        self
    }

    /// Names that are asked for instead of others of this zone.
    pub fn with_rewrites(mut self, rewrites: &[Rewrite]) -> Self {
        self.rewrites = rewrites.into();
        self
    }

    /// Names (text) with their addresses, answered before anybody is asked.
    pub fn with_hosts(mut self, hosts: impl IntoIterator<Item = (String, IpAddr)>, ttl: Option<u32>) -> Self {
        let mut known: BTreeMap<Vec<u8>, Vec<IpAddr>> = BTreeMap::new();
        let mut reverse: BTreeMap<Vec<u8>, Vec<Vec<u8>>> = BTreeMap::new();
        for (name, address) in hosts {
            if let (Some(name), Some(pointer)) = (name_from_text(&name.to_ascii_lowercase()), name_from_text(&reverse_name(address))) {
                reverse.entry(pointer).or_default().push(name);
            }
            if let Some(name) = name_from_text(&name.to_ascii_lowercase()) {
                known.entry(name).or_default().push(address);
            }
        }
        self.hosts = Arc::new(known);
        self.reverse = Arc::new(reverse);
        self.hosts_ttl = ttl.unwrap_or(HOSTS_TTL_SECONDS);
        self
    }
}

/// Zones in any order. What is in none of them has no upstream.
pub type Table = Vec<Zone>;

/// `1.0.0.10.in-addr.arpa`
fn reverse_name(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        IpAddr::V6(address) => {
            let digits: String = address.octets().iter().rev().map(|byte| format!("{:x}.{:x}.", byte & 0xf, byte >> 4)).collect();
            format!("{digits}ip6.arpa")
        }
    }
}

pub enum Route {
    /// Written.
    Answered,
    /// A list of hosts that knows it not, and lets nobody else be asked.
    Failed,
    To(Upstreams),
}

pub struct Routing {
    table: RwLock<Arc<Table>>,
    /// Whether any zone has such rules: most questions are of the cluster's own names, and few clusters have any.
    rewrites: AtomicBool,
    /// Whether any has what goes before the cluster's own names.
    early: AtomicBool,
    questions: AtomicBool,
}

impl Routing {
    /// Everything to these.
    pub fn new(to: Upstreams) -> Self {
        Self { table: RwLock::new(Arc::new(Zone::new("", to).into_iter().collect())), rewrites: AtomicBool::new(false), early: AtomicBool::new(false), questions: AtomicBool::new(false) }
    }

    pub fn set(&self, mut table: Table) {
        // The first that fits is then the longest.
        table.sort_by_key(|zone| std::cmp::Reverse(zone.labels.len()));
        self.rewrites.store(table.iter().any(|zone| !zone.rewrites.is_empty()), Ordering::Relaxed);
        self.early.store(table.iter().any(|zone| !zone.templates.is_empty() || !zone.hosts.is_empty()), Ordering::Relaxed);
        self.questions.store(table.iter().any(|zone| zone.noted.questions), Ordering::Relaxed);
        *self.table.write() = Arc::new(table);
    }

    /// The name in wire form that is asked for instead.
    pub fn rewritten(&self, name: &Name) -> Option<Vec<u8>> {
        if !self.rewrites.load(Ordering::Relaxed) {
            return None;
        }
        let table = self.table.read().clone();
        rewritten(&table.iter().find(|zone| name.ends_with(&zone.labels))?.rewrites, name)
    }

    /// Whether any zone tells its questions.
    pub fn tells(&self) -> bool {
        self.questions.load(Ordering::Relaxed)
    }

    /// What is told of a name.
    pub fn noted(&self, name: &Name) -> Noted {
        let table = self.table.read().clone();
        table.iter().find(|zone| name.ends_with(&zone.labels)).map(|zone| zone.noted).unwrap_or_default()
    }

    /// What goes before the cluster's own names, in CoreDNS's order: templates, and names that are in a list of hosts.
    pub fn early(&self, question: &Question, answer: &mut Answer<'_>) -> Option<(Code, By)> {
        if !self.early.load(Ordering::Relaxed) {
            return None;
        }
        let table = self.table.read().clone();
        let zone = table.iter().find(|zone| question.name.ends_with(&zone.labels))?;
        if !zone.templates.is_empty()
            && let Some(code) = answered(&zone.templates, &question.name.text()?, question, answer)
        {
            return Some((code, By::Template));
        }
        from_hosts(zone, &question.name, question, answer).then_some((Code::NoError, By::Hosts))
    }

    pub fn of(&self, question: &Question, answer: &mut Answer<'_>) -> Route {
        let table = self.table.read().clone();
        let Some(zone) = table.iter().find(|zone| question.name.ends_with(&zone.labels)) else { return Route::To(Upstreams::none()) };
        if from_hosts(zone, &question.name, question, answer) {
            Route::Answered
        } else if !zone.fall_through && matches!(question.kind, kind::A | kind::AAAA) {
            Route::Failed
        } else {
            Route::To(zone.to.clone())
        }
    }

    /// Kept answers: of names that are, and of names that are not.
    pub fn kept(&self) -> (usize, usize) {
        let table = self.table.read().clone();
        table.iter().map(|zone| zone.to.kept()).fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    }
}

/// A name of the list is answered even when it has no address of the kind that is asked for.
fn from_hosts(zone: &Zone, name: &Name, question: &Question, answer: &mut Answer<'_>) -> bool {
    if zone.hosts.is_empty() || question.class != CLASS_IN || !matches!(question.kind, kind::A | kind::AAAA | kind::PTR) {
        return false;
    }
    if question.kind == kind::PTR {
        let Some(names) = zone.reverse.get(name.wire()) else { return false };
        answer.authoritative();
        for name in names {
            answer.record(Section::Answer, None, kind::PTR, zone.hosts_ttl, |buffer| buffer.extend_from_slice(name));
        }
        return true;
    }
    let Some(addresses) = zone.hosts.get(name.wire()) else { return false };
    answer.authoritative();
    for address in addresses.iter().filter(|address| address.is_ipv4() == (question.kind == kind::A)) {
        answer.address(Section::Answer, None, *address, zone.hosts_ttl);
    }
    true
}
