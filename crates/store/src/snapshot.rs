//! Snapshot files: the whole state at one revision, in blocks that each carry a checksum, closed by a footer.
//!
//! Written beside and renamed when complete, so a file with a snapshot's name is whole or damaged, never unfinished.

use std::fs::{self, File};
use std::io::{self, BufReader, Read, Write};
use std::path::Path;
use std::sync::Arc;

use api::Object;
use bytes::Bytes;

use crate::config::Faults;
use crate::error::{OpenError, Unreadable};
use crate::frame::{FORMAT, u32_at, u64_at};
use crate::log::{PIECE_BYTES, create_private, sync_dir};
use crate::sealing::Sealing;
use crate::state::State;
use crate::types::Revision;

const MAGIC: u32 = u32::from_le_bytes(*b"CoSn");
const BLOCK_MAGIC: u32 = u32::from_le_bytes(*b"CoBk");
const FOOTER_MAGIC: u32 = u32::from_le_bytes(*b"CoFt");
/// A block is closed when it has grown past this.
const BLOCK_BYTES: usize = 256 * 1024;
/// No block can be larger: one object beyond a full block. Guards the reader against a damaged length.
const MAX_BLOCK_BYTES: usize = 64 * 1024 * 1024;
const HEAD: usize = 28;
const BLOCK_HEAD: usize = 16;
const FOOTER: usize = 24;
const ENTRY_HEAD: usize = 16;

pub fn snapshot_name(revision: Revision) -> String {
    format!("snapshot-{revision:016x}")
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotHead {
    pub revision: Revision,
    /// The first log segment that is needed beside it; 1 when none is.
    pub boundary: u64,
}

impl SnapshotHead {
    fn encode(self) -> [u8; HEAD] {
        let mut out = [0; HEAD];
        out[0..4].copy_from_slice(&MAGIC.to_le_bytes());
        out[4..8].copy_from_slice(&FORMAT.to_le_bytes());
        out[8..16].copy_from_slice(&self.revision.to_le_bytes());
        out[16..24].copy_from_slice(&self.boundary.to_le_bytes());
        let crc = crc32fast::hash(&out[..24]);
        out[24..28].copy_from_slice(&crc.to_le_bytes());
        out
    }
}

/// Writes the file whole and durably, or leaves nothing of it.
pub fn write(path: &Path, head: SnapshotHead, objects: &[(Arc<str>, Arc<Object>)], sealing: &Sealing, faults: &Option<Arc<dyn Faults>>) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".tmp");
    let beside = Path::new(&beside);
    let written = write_beside(beside, head, objects, sealing, faults).and_then(|()| fs::rename(beside, path));
    if written.is_err() {
        let _ = fs::remove_file(beside);
    }
    written?;
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => sync_dir(dir),
        _ => sync_dir(Path::new(".")),
    }
}

fn write_beside(path: &Path, head: SnapshotHead, objects: &[(Arc<str>, Arc<Object>)], sealing: &Sealing, faults: &Option<Arc<dyn Faults>>) -> io::Result<()> {
    let mut file = create_private(path)?;
    file.write_all(&head.encode())?;
    let mut block = vec![0; BLOCK_HEAD];
    let mut count: u32 = 0;
    let mut unsynced = 0;
    for (index, (key, object)) in objects.iter().enumerate() {
        let value = sealing.seal(key, object.bytes()).map_err(io::Error::other)?;
        block.extend_from_slice(&object.resource_version().to_le_bytes());
        block.extend_from_slice(&(key.len() as u32).to_le_bytes());
        block.extend_from_slice(&(value.len() as u32).to_le_bytes());
        block.extend_from_slice(key.as_bytes());
        block.extend_from_slice(&value);
        count += 1;
        if block.len() >= BLOCK_BYTES || index + 1 == objects.len() {
            if let Some(error) = faults.as_ref().and_then(|faults| faults.snapshot()) {
                return Err(error);
            }
            let length = (block.len() - BLOCK_HEAD) as u32;
            block[0..4].copy_from_slice(&BLOCK_MAGIC.to_le_bytes());
            block[4..8].copy_from_slice(&length.to_le_bytes());
            block[8..12].copy_from_slice(&count.to_le_bytes());
            let crc = block_crc(&block[..BLOCK_HEAD], &block[BLOCK_HEAD..]);
            block[12..16].copy_from_slice(&crc.to_le_bytes());
            file.write_all(&block)?;
            unsynced += block.len() as u64;
            if unsynced >= PIECE_BYTES {
                file.sync_data()?;
                unsynced = 0;
            }
            block.truncate(BLOCK_HEAD);
            count = 0;
        }
    }
    let mut footer = [0; FOOTER];
    footer[0..4].copy_from_slice(&FOOTER_MAGIC.to_le_bytes());
    footer[4..12].copy_from_slice(&(objects.len() as u64).to_le_bytes());
    footer[12..20].copy_from_slice(&head.revision.to_le_bytes());
    let crc = crc32fast::hash(&footer[..20]);
    footer[20..24].copy_from_slice(&crc.to_le_bytes());
    file.write_all(&footer)?;
    file.sync_all()
}

fn block_crc(head: &[u8], body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&head[4..12]);
    hasher.update(body);
    hasher.finalize()
}

/// Reads a snapshot to its last byte; anything that is not as it was written is an error. Without sealing values stay as they lie. Also: whether one is sealed otherwise than today.
pub fn read(path: &Path, sealing: Option<&Sealing>) -> Result<(SnapshotHead, State, bool), OpenError> {
    let file = File::open(path).map_err(OpenError::io("open", path))?;
    let mut reader = Reader { path, file: BufReader::with_capacity(BLOCK_BYTES, file), offset: 0 };
    let mut head = [0; HEAD];
    reader.fill(&mut head)?;
    if u32_at(&head, 0) != MAGIC || u32_at(&head, 24) != crc32fast::hash(&head[..24]) {
        return Err(OpenError::corrupt(path, 0, "the head of the snapshot does not match its checksum"));
    }
    if u32_at(&head, 4) != FORMAT {
        return Err(OpenError::Newer { path: path.into(), found: u32_at(&head, 4), known: FORMAT });
    }
    let head = SnapshotHead { revision: u64_at(&head, 8), boundary: u64_at(&head, 16) };
    let mut state = State::new(head.revision);
    let mut stale = false;
    let mut body = Vec::new();
    loop {
        let at = reader.offset;
        let mut first = [0; BLOCK_HEAD];
        reader.fill(&mut first)?;
        match u32_at(&first, 0) {
            BLOCK_MAGIC => {
                let length = u32_at(&first, 4) as usize;
                if length > MAX_BLOCK_BYTES {
                    return Err(OpenError::corrupt(path, at, "a block of the snapshot has an impossible length"));
                }
                body.resize(length, 0);
                reader.fill(&mut body)?;
                if block_crc(&first, &body) != u32_at(&first, 12) {
                    return Err(OpenError::corrupt(path, at, "a block of the snapshot does not match its checksum"));
                }
                stale |= load(&mut state, &body, u32_at(&first, 8), sealing).map_err(|why| why.at(path, at))?;
            }
            FOOTER_MAGIC => {
                let mut footer = [0; FOOTER];
                footer[..BLOCK_HEAD].copy_from_slice(&first);
                reader.fill(&mut footer[BLOCK_HEAD..])?;
                if u32_at(&footer, 20) != crc32fast::hash(&footer[..20])
                    || u64_at(&footer, 12) != head.revision
                    || u64_at(&footer, 4) != state.len() as u64
                {
                    return Err(OpenError::corrupt(path, at, "the footer of the snapshot does not match its content"));
                }
                if !reader.at_end()? {
                    return Err(OpenError::corrupt(path, reader.offset, "the snapshot goes on after its footer"));
                }
                return Ok((head, state, stale));
            }
            _ => return Err(OpenError::corrupt(path, at, "a block of the snapshot is damaged")),
        }
    }
}

fn load(state: &mut State, mut body: &[u8], count: u32, sealing: Option<&Sealing>) -> Result<bool, Unreadable> {
    const DAMAGED: Unreadable = Unreadable::Damaged("a block of the snapshot cannot be read");
    let mut any_stale = false;
    for _ in 0..count {
        let (head, rest) = body.split_at_checked(ENTRY_HEAD).ok_or(DAMAGED)?;
        let (key, rest) = rest.split_at_checked(u32_at(head, 8) as usize).ok_or(DAMAGED)?;
        let (value, rest) = rest.split_at_checked(u32_at(head, 12) as usize).ok_or(DAMAGED)?;
        let key = std::str::from_utf8(key).map_err(|_| DAMAGED)?;
        let (value, stale) = match sealing {
            Some(sealing) => sealing.unseal(key, value).map_err(|error| Unreadable::Sealed { key: key.to_owned(), why: error.0 })?,
            None => (value.into(), false),
        };
        any_stale |= stale;
        state.load(key.into(), Arc::new(Object::new(Bytes::copy_from_slice(&value), u64_at(head, 0))));
        body = rest;
    }
    if body.is_empty() { Ok(any_stale) } else { Err(DAMAGED) }
}

struct Reader<'a> {
    path: &'a Path,
    file: BufReader<File>,
    offset: u64,
}

impl Reader<'_> {
    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), OpenError> {
        match self.file.read_exact(buffer) {
            Ok(()) => {
                self.offset += buffer.len() as u64;
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Err(OpenError::corrupt(self.path, self.offset, "the snapshot ends before its footer"))
            }
            Err(error) => Err(OpenError::io("read", self.path)(error)),
        }
    }

    fn at_end(&mut self) -> Result<bool, OpenError> {
        Ok(self.file.read(&mut [0]).map_err(OpenError::io("read", self.path))? == 0)
    }
}
