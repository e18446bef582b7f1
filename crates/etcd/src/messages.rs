//! etcd's messages that we speak, by the tags of its `rpc.proto` and `kv.proto` (v3.4 and later are the same in these).

use bytes::Bytes;

use crate::error::Error;
use crate::wire::{self, Fields};

/// The end of the range of all keys that start with `prefix`.
pub fn after_prefix(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.last_mut() {
        if *last < 0xff {
            *last += 1;
            return end;
        }
        end.pop();
    }
    // Everything from here on.
    vec![0]
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Header {
    pub cluster: u64,
    pub member: u64,
    pub revision: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyValue {
    pub key: Bytes,
    pub value: Bytes,
    pub create_revision: u64,
    pub mod_revision: u64,
    pub version: u64,
    pub lease: u64,
}

#[derive(Debug, Clone, Default)]
pub struct Range {
    pub key: Vec<u8>,
    /// Empty: just the key.
    pub end: Vec<u8>,
    /// 0: all.
    pub limit: u64,
    /// 0: now.
    pub revision: u64,
    pub keys_only: bool,
    pub count_only: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RangeAnswer {
    pub header: Header,
    pub items: Vec<KeyValue>,
    pub more: bool,
    pub count: u64,
}

#[derive(Debug, Clone, Copy)]
pub enum Target {
    /// 0 when the key does not exist.
    Version(u64),
    Created(u64),
    Modified(u64),
}

/// A condition of a transaction.
#[derive(Debug, Clone)]
pub struct Compare {
    pub key: Vec<u8>,
    pub target: Target,
    /// Greater than; else equal.
    pub greater: bool,
}

#[derive(Debug, Clone)]
pub enum Operation {
    Range(Range),
    Put { key: Vec<u8>, value: Bytes, lease: u64 },
    /// The answer carries what was there.
    Delete { key: Vec<u8>, end: Vec<u8> },
}

#[derive(Debug, Clone, Default)]
pub struct Transaction {
    pub compare: Vec<Compare>,
    pub success: Vec<Operation>,
    pub failure: Vec<Operation>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Range(RangeAnswer),
    Put,
    Delete { deleted: u64, previous: Vec<KeyValue> },
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TransactionAnswer {
    pub header: Header,
    pub succeeded: bool,
    pub answers: Vec<Answer>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub deleted: bool,
    /// Of a delete: the key, and the revision of the delete as `mod_revision`.
    pub item: KeyValue,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WatchAnswer {
    pub header: Header,
    pub created: bool,
    pub canceled: bool,
    /// Not 0: what was asked for is gone up to here.
    pub compact_revision: u64,
    pub cancel_reason: String,
    pub events: Vec<Event>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    pub header: Header,
    pub version: String,
    pub database_bytes: u64,
    pub leader: u64,
}

impl Range {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(32 + self.key.len() + self.end.len());
        wire::bytes(&mut out, 1, &self.key);
        wire::bytes(&mut out, 2, &self.end);
        wire::number(&mut out, 3, self.limit);
        wire::number(&mut out, 4, self.revision);
        wire::flag(&mut out, 8, self.keys_only);
        wire::flag(&mut out, 9, self.count_only);
        out
    }
}

impl Operation {
    fn encode(&self) -> Vec<u8> {
        let mut inner = Vec::new();
        let tag = match self {
            Self::Range(range) => {
                inner = range.encode();
                1
            }
            Self::Put { key, value, lease } => {
                inner.reserve(key.len() + value.len() + 24);
                wire::bytes(&mut inner, 1, key);
                wire::bytes(&mut inner, 2, value);
                wire::number(&mut inner, 3, *lease);
                2
            }
            Self::Delete { key, end } => {
                wire::bytes(&mut inner, 1, key);
                wire::bytes(&mut inner, 2, end);
                wire::flag(&mut inner, 3, true);
                3
            }
        };
        let mut out = Vec::with_capacity(inner.len() + 8);
        wire::message(&mut out, tag, &inner);
        out
    }
}

impl Compare {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.key.len() + 16);
        let (target, tag, value) = match self.target {
            Target::Version(value) => (0, 4, value),
            Target::Created(value) => (1, 5, value),
            Target::Modified(value) => (2, 6, value),
        };
        wire::number(&mut out, 1, u64::from(self.greater));
        wire::number(&mut out, 2, target);
        wire::bytes(&mut out, 3, &self.key);
        wire::number(&mut out, tag, value);
        // A member of a oneof that is left out is not the same as zero to all that read it.
        if value == 0 {
            out.extend_from_slice(&[(tag << 3) as u8, 0]);
        }
        out
    }
}

impl Transaction {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for compare in &self.compare {
            wire::message(&mut out, 1, &compare.encode());
        }
        for (tag, operations) in [(2, &self.success), (3, &self.failure)] {
            for operation in operations {
                wire::message(&mut out, tag, &operation.encode());
            }
        }
        out
    }
}

/// `WatchRequest.create_request`
pub(crate) fn create_watch(key: &[u8], end: &[u8], start: u64) -> Vec<u8> {
    let mut inner = Vec::new();
    wire::bytes(&mut inner, 1, key);
    wire::bytes(&mut inner, 2, end);
    wire::number(&mut inner, 3, start);
    wire::flag(&mut inner, 4, true);
    let mut out = Vec::new();
    wire::message(&mut out, 1, &inner);
    out
}

pub(crate) fn compact(revision: u64) -> Vec<u8> {
    let mut out = Vec::new();
    wire::number(&mut out, 1, revision);
    out
}

pub(crate) fn grant(seconds: u64) -> Vec<u8> {
    let mut out = Vec::new();
    wire::number(&mut out, 1, seconds);
    out
}

/// The fields of a message, each handed to `take`.
fn each(bytes: Bytes, mut take: impl FnMut(u64, wire::Part) -> Result<(), Error>) -> Result<(), Error> {
    let mut fields = Fields(bytes);
    while let Some((tag, part)) = fields.next()? {
        take(tag, part)?;
    }
    Ok(())
}

fn header(bytes: Bytes) -> Result<Header, Error> {
    let mut found = Header::default();
    each(bytes, |tag, part| {
        match tag {
            1 => found.cluster = part.number(),
            2 => found.member = part.number(),
            3 => found.revision = part.number(),
            _ => {}
        }
        Ok(())
    })?;
    Ok(found)
}

fn key_value(bytes: Bytes) -> Result<KeyValue, Error> {
    let mut found = KeyValue::default();
    each(bytes, |tag, part| {
        match tag {
            1 => found.key = part.bytes(),
            2 => found.create_revision = part.number(),
            3 => found.mod_revision = part.number(),
            4 => found.version = part.number(),
            5 => found.value = part.bytes(),
            6 => found.lease = part.number(),
            _ => {}
        }
        Ok(())
    })?;
    Ok(found)
}

pub(crate) fn range_answer(bytes: Bytes) -> Result<RangeAnswer, Error> {
    let mut found = RangeAnswer::default();
    each(bytes, |tag, part| {
        match tag {
            1 => found.header = header(part.bytes())?,
            2 => found.items.push(key_value(part.bytes())?),
            3 => found.more = part.number() != 0,
            4 => found.count = part.number(),
            _ => {}
        }
        Ok(())
    })?;
    Ok(found)
}

fn answer(bytes: Bytes) -> Result<Option<Answer>, Error> {
    let mut found = None;
    each(bytes, |tag, part| {
        match tag {
            1 => found = Some(Answer::Range(range_answer(part.bytes())?)),
            2 => found = Some(Answer::Put),
            3 => {
                let (mut deleted, mut previous) = (0, Vec::new());
                each(part.bytes(), |tag, part| {
                    match tag {
                        2 => deleted = part.number(),
                        3 => previous.push(key_value(part.bytes())?),
                        _ => {}
                    }
                    Ok(())
                })?;
                found = Some(Answer::Delete { deleted, previous });
            }
            _ => {}
        }
        Ok(())
    })?;
    Ok(found)
}

pub(crate) fn transaction_answer(bytes: Bytes) -> Result<TransactionAnswer, Error> {
    let mut found = TransactionAnswer::default();
    each(bytes, |tag, part| {
        match tag {
            1 => found.header = header(part.bytes())?,
            2 => found.succeeded = part.number() != 0,
            3 => found.answers.extend(answer(part.bytes())?),
            _ => {}
        }
        Ok(())
    })?;
    Ok(found)
}

pub(crate) fn watch_answer(bytes: Bytes) -> Result<WatchAnswer, Error> {
    let mut found = WatchAnswer::default();
    each(bytes, |tag, part| {
        match tag {
            1 => found.header = header(part.bytes())?,
            3 => found.created = part.number() != 0,
            4 => found.canceled = part.number() != 0,
            5 => found.compact_revision = part.number(),
            6 => found.cancel_reason = part.text(),
            11 => {
                let mut event = Event { deleted: false, item: KeyValue::default() };
                each(part.bytes(), |tag, part| {
                    match tag {
                        1 => event.deleted = part.number() != 0,
                        2 => event.item = key_value(part.bytes())?,
                        _ => {}
                    }
                    Ok(())
                })?;
                found.events.push(event);
            }
            _ => {}
        }
        Ok(())
    })?;
    Ok(found)
}

/// The new lease's id.
pub(crate) fn grant_answer(bytes: Bytes) -> Result<u64, Error> {
    let mut id = 0;
    each(bytes, |tag, part| {
        if tag == 2 {
            id = part.number();
        }
        Ok(())
    })?;
    Ok(id)
}

pub(crate) fn status_answer(bytes: Bytes) -> Result<Status, Error> {
    let mut found = Status::default();
    each(bytes, |tag, part| {
        match tag {
            1 => found.header = header(part.bytes())?,
            2 => found.version = part.text(),
            3 => found.database_bytes = part.number(),
            4 => found.leader = part.number(),
            _ => {}
        }
        Ok(())
    })?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_of_prefixes() {
        for (prefix, end) in [(&b"/registry/"[..], &b"/registry0"[..]), (b"a\xff", b"b"), (b"\xff", b"\0"), (b"", b"\0")] {
            assert_eq!(after_prefix(prefix), end);
        }
    }

    #[test]
    fn transactions_as_the_protocol_has_them() {
        let put = Operation::Put { key: b"k".to_vec(), value: Bytes::from_static(b"v"), lease: 7 };
        let get = Operation::Range(Range { key: b"k".to_vec(), ..Range::default() });
        let compare = Compare { key: b"k".to_vec(), target: Target::Modified(0), greater: false };
        let bytes = Transaction { compare: vec![compare], success: vec![put], failure: vec![get] }.encode();
        let want: &[u8] = &[0x0a, 7, 0x10, 2, 0x1a, 1, b'k', 0x30, 0, 0x12, 10, 0x12, 8, 0x0a, 1, b'k', 0x12, 1, b'v', 0x18, 7, 0x1a, 5, 0x0a, 3, 0x0a, 1, b'k'];
        assert_eq!(bytes, want);
    }
}
