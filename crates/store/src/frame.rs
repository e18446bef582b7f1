//! The bytes of the log: a segment is a header and then batches, each beginning on a sector of its own.
//!
//! A batch is what one fsync made durable, under one checksum. The next batch is written only after that fsync, so a damaged batch
//! *followed by* a good one was acknowledged once: that is corruption. A damaged batch at the end is a torn write if part of it
//! was never written: the file was zeroed before, no batch's head or body ends in zero, and no sector of a body is all zeros.

use std::sync::Arc;

use bytes::Bytes;

use crate::types::Revision;

/// Disks write a sector whole or not at all, so a batch never shares one with an acknowledged batch.
pub const SECTOR: usize = 512;
pub const SEGMENT_MAGIC: u32 = u32::from_le_bytes(*b"CoSg");
const BATCH_MAGIC: u32 = u32::from_le_bytes(*b"CoBt");
pub const FORMAT: u32 = 1;
const BATCH_HEAD: usize = 40;
/// The last byte of a head and of a body: never zero, unlike what was not written.
const WRITTEN: u8 = 0xA5;

/// A builder keeps this much memory between batches.
const KEPT_BYTES: usize = 256 * 1024;

const PUT: u8 = 1;
const DELETE: u8 = 2;
const COMPACT: u8 = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentHead {
    pub number: u64,
    /// The revision before this segment's first. What an earlier segment holds beyond it was never acknowledged.
    pub base: Revision,
    /// The sequence of this segment's first batch.
    pub sequence: u64,
}

impl SegmentHead {
    pub fn encode(&self) -> [u8; SECTOR] {
        let mut out = [0; SECTOR];
        out[0..4].copy_from_slice(&SEGMENT_MAGIC.to_le_bytes());
        out[4..8].copy_from_slice(&FORMAT.to_le_bytes());
        out[8..16].copy_from_slice(&self.number.to_le_bytes());
        out[16..24].copy_from_slice(&self.base.to_le_bytes());
        out[24..32].copy_from_slice(&self.sequence.to_le_bytes());
        let crc = crc32fast::hash(&out[..32]);
        out[32..36].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// `Err(Some(format))` for a newer format.
    pub fn decode(bytes: &[u8]) -> Result<Self, Option<u32>> {
        if bytes.len() < SECTOR || u32_at(bytes, 0) != SEGMENT_MAGIC || u32_at(bytes, 32) != crc32fast::hash(&bytes[..32]) {
            return Err(None);
        }
        match u32_at(bytes, 4) {
            FORMAT => Ok(Self { number: u64_at(bytes, 8), base: u64_at(bytes, 16), sequence: u64_at(bytes, 24) }),
            newer => Err(Some(newer)),
        }
    }
}

/// One change as it is logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// The value has no resourceVersion.
    Put {
        key: Arc<str>,
        value: Bytes,
    },
    Delete {
        key: Arc<str>,
    },
    Compact {
        revision: Revision,
    },
}

/// Collects a batch and becomes the bytes to write.
pub struct BatchBuilder {
    bytes: Vec<u8>,
    records: u32,
}

impl BatchBuilder {
    pub fn new() -> Self {
        Self { bytes: vec![0; BATCH_HEAD], records: 0 }
    }

    pub fn is_empty(&self) -> bool {
        self.records == 0
    }

    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    pub fn records(&self) -> usize {
        self.records as usize
    }

    pub fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(KEPT_BYTES);
        self.bytes.resize(BATCH_HEAD, 0);
        self.records = 0;
    }

    pub fn put(&mut self, key: &str, value: &[u8]) {
        self.record(PUT, key.as_bytes(), value);
    }

    pub fn delete(&mut self, key: &str) {
        self.record(DELETE, key.as_bytes(), &[]);
    }

    pub fn compact(&mut self, revision: Revision) {
        self.record(COMPACT, &[], &revision.to_le_bytes());
    }

    fn record(&mut self, kind: u8, key: &[u8], value: &[u8]) {
        // Lengths are bounded by the object limit and by what an HTTP path can hold.
        self.bytes.push(kind);
        self.bytes.extend_from_slice(&(key.len() as u32).to_le_bytes());
        self.bytes.extend_from_slice(&(value.len() as u32).to_le_bytes());
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(value);
        self.records += 1;
    }

    /// Whole sectors, ready for the log.
    pub fn finish(&mut self, sequence: u64, first: Revision) -> &[u8] {
        self.bytes.push(WRITTEN);
        let body = self.bytes.len() - BATCH_HEAD;
        let crc = crc32fast::hash(&self.bytes[BATCH_HEAD..]);
        let head = BatchHead { body: body as u32, crc, records: self.records, sequence, first };
        self.bytes[..BATCH_HEAD].copy_from_slice(&head.encode());
        let whole = self.bytes.len().next_multiple_of(SECTOR);
        self.bytes.resize(whole, 0);
        &self.bytes
    }
}

struct BatchHead {
    /// Bytes after the head, with the closing one, without the padding.
    body: u32,
    crc: u32,
    records: u32,
    sequence: u64,
    first: Revision,
}

impl BatchHead {
    fn encode(&self) -> [u8; BATCH_HEAD] {
        let mut out = [0; BATCH_HEAD];
        out[0..4].copy_from_slice(&BATCH_MAGIC.to_le_bytes());
        out[4..8].copy_from_slice(&self.body.to_le_bytes());
        out[8..12].copy_from_slice(&self.crc.to_le_bytes());
        out[12..16].copy_from_slice(&self.records.to_le_bytes());
        out[16..24].copy_from_slice(&self.sequence.to_le_bytes());
        out[24..32].copy_from_slice(&self.first.to_le_bytes());
        let crc = crc32fast::hash(&out[..32]);
        out[32..36].copy_from_slice(&crc.to_le_bytes());
        out[36..40].fill(WRITTEN);
        out
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        if bytes.len() < BATCH_HEAD || u32_at(bytes, 0) != BATCH_MAGIC || u32_at(bytes, 32) != crc32fast::hash(&bytes[..32]) {
            return None;
        }
        if bytes[36..40] != [WRITTEN; 4] {
            return None;
        }
        Some(Self {
            body: u32_at(bytes, 4),
            crc: u32_at(bytes, 8),
            records: u32_at(bytes, 12),
            sequence: u64_at(bytes, 16),
            first: u64_at(bytes, 24),
        })
    }
}

/// A batch as read back.
#[derive(Debug)]
pub struct Batch {
    pub sequence: u64,
    pub first: Revision,
    pub records: Vec<Record>,
    /// Where the next one begins.
    pub end: usize,
}

/// What lies at a place in a segment.
#[derive(Debug)]
pub enum Found {
    Batch(Batch),
    /// Zeros: nothing was written here.
    Nothing,
    /// A write that was cut short.
    Torn,
    Damaged(&'static str),
}

/// Reads what is at `offset`. `sequence` is the batch that belongs there.
pub fn read(segment: &[u8], offset: usize, sequence: u64) -> Found {
    let rest = segment.get(offset..).unwrap_or(&[]);
    let sector = &rest[..rest.len().min(SECTOR)];
    if sector.iter().all(|byte| *byte == 0) {
        return Found::Nothing;
    }
    let Some(head) = BatchHead::decode(rest) else {
        return match sector.get(BATCH_HEAD - 1) {
            Some(0) | None => Found::Torn,
            Some(_) => Found::Damaged("the head of a batch does not match its checksum"),
        };
    };
    if head.sequence != sequence {
        return Found::Damaged("a batch is out of sequence");
    }
    let length = head.body as usize;
    let body = &rest[BATCH_HEAD..];
    let body = &body[..body.len().min(length)];
    if body.len() < length || crc32fast::hash(body) != head.crc {
        return if was_cut(&rest[..rest.len().min(BATCH_HEAD + length)], BATCH_HEAD + length) {
            Found::Torn
        } else {
            Found::Damaged("a batch does not match its checksum")
        };
    }
    match records(&body[..length - 1], head.records) {
        Some(records) => {
            Found::Batch(Batch { sequence: head.sequence, first: head.first, records, end: offset + (BATCH_HEAD + length).next_multiple_of(SECTOR) })
        }
        None => Found::Damaged("a batch holds records that cannot be read"),
    }
}

/// Whether some of a batch's bytes never reached the disk.
fn was_cut(batch: &[u8], length: usize) -> bool {
    batch.len() < length || batch.last() == Some(&0) || batch.chunks(SECTOR).any(|sector| sector.iter().all(|byte| *byte == 0))
}

/// The place of a good batch head after `offset` that belongs after `sequence`.
pub fn later_batch(segment: &[u8], offset: usize, sequence: u64) -> Option<usize> {
    (offset + SECTOR..segment.len()).step_by(SECTOR).find(|at| {
        segment[*at..].starts_with(&BATCH_MAGIC.to_le_bytes()) && BatchHead::decode(&segment[*at..]).is_some_and(|head| head.sequence > sequence)
    })
}

fn records(mut body: &[u8], count: u32) -> Option<Vec<Record>> {
    let mut records = Vec::with_capacity((count as usize).min(body.len() / 9));
    for _ in 0..count {
        let (head, rest) = body.split_at_checked(9)?;
        let (key, rest) = rest.split_at_checked(u32_at(head, 1) as usize)?;
        let (value, rest) = rest.split_at_checked(u32_at(head, 5) as usize)?;
        let key = std::str::from_utf8(key).ok()?;
        records.push(match head[0] {
            PUT => Record::Put { key: key.into(), value: Bytes::copy_from_slice(value) },
            DELETE => Record::Delete { key: key.into() },
            COMPACT => Record::Compact { revision: u64::from_le_bytes(value.try_into().ok()?) },
            _ => return None,
        });
        body = rest;
    }
    body.is_empty().then_some(records)
}

/// The caller has checked that the bytes are there.
pub fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

/// The caller has checked that the bytes are there.
pub fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two_batches() -> (Vec<u8>, usize) {
        let mut builder = BatchBuilder::new();
        builder.put("a/b", &[b'x'; 1500]);
        builder.delete("a/c");
        let mut segment = builder.finish(1, 2).to_vec();
        let second = segment.len();
        builder.clear();
        builder.compact(2);
        segment.extend_from_slice(builder.finish(2, 4));
        segment.resize(segment.len() + 4 * SECTOR, 0);
        (segment, second)
    }

    #[test]
    fn reads_back_what_was_written() {
        let (segment, second) = two_batches();
        let Found::Batch(batch) = read(&segment, 0, 1) else { panic!("no batch") };
        assert_eq!((batch.sequence, batch.first, batch.end), (1, 2, second));
        assert_eq!(batch.records, [Record::Put { key: "a/b".into(), value: Bytes::from(vec![b'x'; 1500]) }, Record::Delete { key: "a/c".into() }]);
        let Found::Batch(batch) = read(&segment, second, 2) else { panic!("no batch") };
        assert_eq!(batch.records, [Record::Compact { revision: 2 }]);
        assert!(matches!(read(&segment, batch.end, 3), Found::Nothing));
    }

    #[test]
    fn every_cut_is_torn_and_every_flip_is_damage() {
        let (segment, second) = two_batches();
        let used = BATCH_HEAD + 9 + 3 + 1500 + 9 + 3 + 1;
        assert_eq!(used.next_multiple_of(SECTOR), second);
        for cut in 0..used {
            let mut torn = segment.clone();
            torn[cut..].fill(0);
            assert!(matches!(read(&torn, 0, 1), Found::Nothing | Found::Torn), "cut at {cut}");
            torn.truncate(cut);
            assert!(matches!(read(&torn, 0, 1), Found::Nothing | Found::Torn), "short at {cut}");
        }
        for byte in 0..used {
            for bit in 0..8 {
                let mut flipped = segment.clone();
                flipped[byte] ^= 1 << bit;
                assert!(matches!(read(&flipped, 0, 1), Found::Damaged(_)), "byte {byte} bit {bit}");
                assert_eq!(later_batch(&flipped, 0, 1), Some(second));
            }
        }
    }
}
