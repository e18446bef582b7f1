//! Answers from upstream, kept for as long as they say, at most half a minute, and only so many.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::wire::{HEADER, Question, Record, kind, skip_name};

pub const ENTRIES_MAX: usize = 4096;
/// Larger answers are asked for again.
pub const ENTRY_BYTES_MAX: usize = 4096;
/// As kubeadm's CoreDNS (`cache 30`).
pub const SECONDS_MAX: u32 = 30;

/// Everything in a question that makes its answer another one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key {
    name: Box<[u8]>,
    kind: u16,
    class: u16,
    edns: bool,
    dnssec_ok: bool,
}

impl Key {
    pub fn new(question: &Question) -> Self {
        Self {
            name: question.name.wire().into(),
            kind: question.kind,
            class: question.class,
            edns: question.edns.is_some(),
            dnssec_ok: question.edns.is_some_and(|e| e.dnssec_ok),
        }
    }
}

struct Entry {
    message: Arc<[u8]>,
    kept_at: Instant,
    until: Instant,
}

/// How long answers are kept at most, and at least: of names that are, and of names that are not. A longest of zero: not at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheRule {
    pub success: (u32, u32),
    pub denial: (u32, u32),
}

impl Default for CacheRule {
    fn default() -> Self {
        Self { success: (0, SECONDS_MAX), denial: (0, SECONDS_MAX) }
    }
}

impl CacheRule {
    pub const NEVER: Self = Self { success: (0, 0), denial: (0, 0) };
}

#[derive(Default)]
pub struct Cache {
    rule: CacheRule,
    entries: HashMap<Key, Entry>,
    /// Oldest first; a key is there once.
    order: VecDeque<Key>,
}

impl Cache {
    pub fn new(rule: CacheRule) -> Self {
        Self { rule, ..Self::default() }
    }

    pub fn rule(&self) -> CacheRule {
        self.rule
    }

    /// Of names that are, and of names that are not.
    pub fn kept(&self) -> (usize, usize) {
        let denials = self.entries.values().filter(|entry| crate::metrics::is_denial(&entry.message)).count();
        (self.entries.len() - denials, denials)
    }

    /// The answer and its age in seconds.
    pub fn get(&self, key: &Key, now: Instant) -> Option<(Arc<[u8]>, u32)> {
        let entry = self.entries.get(key).filter(|e| now < e.until)?;
        Some((entry.message.clone(), now.duration_since(entry.kept_at).as_secs() as u32))
    }

    pub fn put(&mut self, key: Key, message: &[u8], now: Instant) {
        let Some(seconds) = keepable_seconds(message, &self.rule) else { return };
        let entry = Entry { message: message.into(), kept_at: now, until: now + Duration::from_secs(seconds.into()) };
        if self.entries.insert(key.clone(), entry).is_none() {
            self.order.push_back(key);
            if self.order.len() > ENTRIES_MAX {
                self.order.pop_front().map(|oldest| self.entries.remove(&oldest));
            }
        }
    }
}

/// How long a message may be kept: the least TTL of its records; a negative answer without SOA, or a failure, not at all.
fn keepable_seconds(message: &[u8], rule: &CacheRule) -> Option<u32> {
    const NO_ERROR: u8 = 0;
    const NX_DOMAIN: u8 = 3;
    let code = message.get(3)? & 0x0f;
    let truncated = message.get(2)? & 0x02 != 0;
    if truncated || message.len() > ENTRY_BYTES_MAX || !matches!(code, NO_ERROR | NX_DOMAIN) {
        return None;
    }
    let (shortest, longest) = if crate::metrics::is_denial(message) { rule.denial } else { rule.success };
    let mut least = None;
    for_each_record(message, |record| {
        if record.kind != kind::OPT {
            least = Some(record.ttl.min(least.unwrap_or(longest)));
        }
    })?;
    least.map(|seconds| seconds.max(shortest)).filter(|seconds| *seconds > 0)
}

/// `None` when the message is malformed.
fn for_each_record(message: &[u8], mut visit: impl FnMut(Record)) -> Option<()> {
    let count = |at: usize| Some(usize::from(u16::from_be_bytes(message.get(at..at + 2)?.try_into().ok()?)));
    let mut at = HEADER;
    for _ in 0..count(4)? {
        at = skip_name(message, at)? + 4;
    }
    for _ in 0..count(6)? + count(8)? + count(10)? {
        let record = Record::read(message, at)?;
        at = record.end;
        visit(record);
    }
    Some(())
}

/// A kept message as the answer to another asker: its id, its spelling of the name, and what is left of the TTLs.
pub fn refresh(message: &mut [u8], asked: &[u8], question: &Question, age_seconds: u32) {
    message[..2].copy_from_slice(&asked[..2]);
    message[2] = (message[2] & !1) | (asked[2] & 1);
    if let (Some(to), Some(from)) = (message.get_mut(HEADER..HEADER + question.length), asked.get(HEADER..HEADER + question.length)) {
        to.copy_from_slice(from);
    }
    let mut ttls = Vec::new();
    for_each_record(message, |record| {
        if record.kind != kind::OPT {
            ttls.push((record.ttl_at, record.ttl));
        }
    });
    for (at, ttl) in ttls {
        message[at..at + 4].copy_from_slice(&ttl.saturating_sub(age_seconds).to_be_bytes());
    }
}

/// The answer records of a message: owner, and the record.
pub fn answers(message: &[u8]) -> Vec<(Vec<u8>, Record)> {
    let mut answers = Vec::new();
    let wanted = message.get(6..8).map_or(0, |b| usize::from(u16::from_be_bytes([b[0], b[1]])));
    let questions = message.get(4..6).map_or(0, |b| usize::from(u16::from_be_bytes([b[0], b[1]])));
    let mut at = HEADER;
    for _ in 0..questions {
        match skip_name(message, at) {
            Some(end) => at = end + 4,
            None => return answers,
        }
    }
    while answers.len() < wanted {
        let (Some(owner), Some(record)) = (crate::wire::expand_name(message, at), Record::read(message, at)) else { break };
        at = record.end;
        answers.push((owner, record));
    }
    answers
}
