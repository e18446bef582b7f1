//! The write-ahead log on disk: numbered segment files, zeroed before use so that an fdatasync has no metadata to write.
//!
//! A batch that failed is taken back: its place is zeroed again. If that fails too, or if it was the fsync that failed (the kernel may
//! then have dropped the pages and report success next time, as PostgreSQL learned in 2018), the segment is never written again and
//! the next batch opens a new one, whose head says where the old one ended.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use crate::config::{Fault, Faults, Limits};
use crate::frame::{BatchBuilder, SECTOR, SegmentHead};
use crate::types::Revision;

const SPARE: &str = "spare.tmp";
const NEW: &str = "new.tmp";
/// A large file goes to the disk in pieces of this size, so that the fsync of a batch never waits behind all of it.
pub const PIECE_BYTES: u64 = 1024 * 1024;
static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

pub fn segment_name(number: u64) -> String {
    format!("log-{number:016x}")
}

pub struct Log {
    dir: PathBuf,
    limits: Limits,
    faults: Option<Arc<dyn Faults>>,
    file: File,
    number: u64,
    offset: u64,
    capacity: u64,
    /// Of the next batch.
    sequence: u64,
    /// The segment must not be written any more.
    spoiled: bool,
    spare: Option<JoinHandle<io::Result<u64>>>,
    /// Bytes logged since the last snapshot began.
    pub grown: u64,
}

/// An open segment and where to go on in it.
pub struct Tail {
    pub file: File,
    pub number: u64,
    pub offset: u64,
    pub capacity: u64,
    pub sequence: u64,
}

impl Log {
    pub fn new(dir: PathBuf, limits: Limits, faults: Option<Arc<dyn Faults>>, tail: Tail, grown: u64) -> Self {
        let Tail { file, number, offset, capacity, sequence } = tail;
        Self { dir, limits, faults, file, number, offset, capacity, sequence, spoiled: false, spare: None, grown }
    }

    /// Durable when it returns `Ok`; not in the log when it returns `Err`.
    pub fn append(&mut self, batch: &mut BatchBuilder, first: Revision) -> io::Result<()> {
        let length = (batch.len() + 1).next_multiple_of(SECTOR) as u64;
        if self.spoiled || self.offset + length > self.capacity {
            self.rotate(first - 1, length)?;
        }
        let bytes = batch.finish(self.sequence, first);
        if let Err(error) = write(&self.file, &self.faults, bytes, self.offset) {
            self.spoiled = self.take_back(length).is_err();
            return Err(error);
        }
        if let Err(error) = sync(&self.file, &self.faults) {
            self.spoiled = true;
            if let Err(error) = self.take_back(length) {
                tracing::warn!(segment = self.number, %error, "a failed batch could not be erased from the log");
            }
            return Err(error);
        }
        self.offset += length;
        self.grown += length;
        self.sequence += 1;
        if self.spare.is_none() && self.offset > self.capacity / 2 {
            self.prepare();
        }
        Ok(())
    }

    fn take_back(&self, length: u64) -> io::Result<()> {
        zero(&self.file, self.offset, length)?;
        sync(&self.file, &self.faults)
    }

    /// Starts the next segment: what comes after `base` goes there.
    pub fn rotate(&mut self, base: Revision, room: u64) -> io::Result<()> {
        let spare = self.spare.take().and_then(|spare| spare.join().ok());
        if let Some(error) = self.faults.as_ref().and_then(|faults| faults.new_segment()) {
            return Err(error);
        }
        let (from, capacity) = match spare {
            Some(Ok(size)) if size >= room + SECTOR as u64 => (SPARE, size),
            _ => {
                let size = self.limits.segment_bytes.max(room + SECTOR as u64);
                zeroed(&self.dir.join(NEW), size)?;
                (NEW, size)
            }
        };
        let head = SegmentHead { number: self.number + 1, base, sequence: self.sequence };
        self.file = place(&self.dir, from, head)?;
        self.number = head.number;
        self.offset = SECTOR as u64;
        self.capacity = capacity;
        self.spoiled = false;
        Ok(())
    }

    /// A place in the log that a snapshot of `revision` can stand for: the number of the first segment that is still needed with it.
    pub fn boundary(&mut self, revision: Revision) -> io::Result<u64> {
        if self.spoiled || self.offset > SECTOR as u64 {
            self.rotate(revision, 0)?;
        }
        Ok(self.number)
    }

    /// Zeroes the next segment while this one is in use.
    fn prepare(&mut self) {
        let path = self.dir.join(SPARE);
        let size = self.limits.segment_bytes;
        self.spare = std::thread::Builder::new().name("store-spare".into()).spawn(move || zeroed(&path, size).map(|()| size)).ok();
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        if let Some(spare) = self.spare.take() {
            let _ = spare.join();
        }
        let _ = fs::remove_file(self.dir.join(SPARE));
    }
}

/// The first segment of a store.
pub fn first_segment(dir: &Path, limits: &Limits, base: Revision) -> io::Result<Tail> {
    let capacity = limits.first_segment_bytes.max(2 * SECTOR as u64);
    zeroed(&dir.join(NEW), capacity)?;
    let file = place(dir, NEW, SegmentHead { number: 1, base, sequence: 1 })?;
    Ok(Tail { file, number: 1, offset: SECTOR as u64, capacity, sequence: 1 })
}

/// Gives a zeroed file its head and its name. Durable before the first batch that relies on it.
fn place(dir: &Path, from: &str, head: SegmentHead) -> io::Result<File> {
    let from = dir.join(from);
    let file = OpenOptions::new().read(true).write(true).open(&from)?;
    file.write_all_at(&head.encode(), 0)?;
    file.sync_all()?;
    fs::rename(&from, dir.join(segment_name(head.number)))?;
    sync_dir(dir)?;
    Ok(file)
}

/// Only the owner reads what the store writes: Secrets are in it.
pub fn create_private(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(path)
}

/// A new file of zeros which are really on the disk. Nothing is left of it when it fails.
fn zeroed(path: &Path, size: u64) -> io::Result<()> {
    let made = create_private(path).and_then(|file| {
        for offset in (0..size).step_by(PIECE_BYTES as usize) {
            zero(&file, offset, PIECE_BYTES.min(size - offset))?;
            file.sync_data()?;
        }
        file.sync_all()
    });
    if made.is_err() {
        let _ = fs::remove_file(path);
    }
    made
}

pub fn zero(file: &File, mut offset: u64, mut length: u64) -> io::Result<()> {
    while length > 0 {
        let piece = length.min(ZEROS.len() as u64);
        file.write_all_at(&ZEROS[..piece as usize], offset)?;
        offset += piece;
        length -= piece;
    }
    Ok(())
}

pub fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

fn write(file: &File, faults: &Option<Arc<dyn Faults>>, bytes: &[u8], offset: u64) -> io::Result<()> {
    match faults.as_ref().and_then(|faults| faults.write(bytes.len())) {
        None => file.write_all_at(bytes, offset),
        Some(Fault::Fail(error)) => Err(error),
        Some(Fault::Torn(length, error)) => {
            file.write_all_at(&bytes[..length.min(bytes.len())], offset)?;
            Err(error)
        }
    }
}

fn sync(file: &File, faults: &Option<Arc<dyn Faults>>) -> io::Result<()> {
    match faults.as_ref().and_then(|faults| faults.sync()) {
        None => file.sync_data(),
        Some(error) => Err(error),
    }
}
