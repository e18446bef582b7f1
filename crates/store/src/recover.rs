//! Opening: the newest snapshot, then the log after it, each byte of them checked. A write cut short at the very end was never
//! acknowledged and is dropped with a warning; any other damage stops the store from opening.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use api::Object;

use crate::config::{Config, Limits};
use crate::error::{OpenError, OpenReport, TornTail, Unreadable};
use crate::frame::{self, FORMAT, Found, Record, SECTOR, SegmentHead};
use crate::log::{self, Log, Tail, segment_name};
use crate::sealing::Sealing;
use crate::snapshot::{self, SnapshotHead, snapshot_name};
use crate::splice;
use crate::state::{Change, FIRST_REVISION, State};

pub struct Opened {
    pub state: State,
    pub log: Log,
    pub report: OpenReport,
    /// Something is sealed otherwise than it would be today.
    pub stale: bool,
    /// Locked for as long as it is open.
    pub lock: Lock,
}

pub fn open(config: &Config) -> Result<Opened, OpenError> {
    let dir = &config.dir;
    make_dir(dir)?;
    let lock = lock(dir)?;
    let files = Files::of(dir)?;
    files.remove_unfinished()?;

    let mut report = OpenReport::default();
    let mut stale = false;
    let (head, mut state) = match files.snapshots.last() {
        Some(revision) => {
            let path = dir.join(snapshot_name(*revision));
            let (head, state, resealed) = snapshot::read(&path, Some(&config.sealing))?;
            stale |= resealed;
            if head.revision != *revision {
                return Err(OpenError::corrupt(path, 0, "the snapshot is of another revision than its name says"));
            }
            report.snapshot = Some(head.revision);
            (head, state)
        }
        None => (SnapshotHead { revision: FIRST_REVISION, boundary: 1 }, State::new(FIRST_REVISION)),
    };
    remove_before(dir, &head)?;
    let segments: Vec<u64> = files.segments.into_iter().filter(|number| *number >= head.boundary).collect();
    if let Some(expected) = missing(&segments, head.boundary) {
        return Err(OpenError::Missing { path: dir.join(segment_name(expected)), what: "the log has a gap there".into() });
    }

    let mut grown = 0;
    let mut tail = None;
    let mut heads = Vec::with_capacity(segments.len());
    for number in &segments {
        heads.push(read_head(dir, *number)?);
    }
    for (index, head) in heads.iter().enumerate() {
        let next = heads.get(index + 1).map(|next| next.sequence);
        let reached = replay(dir, *head, next, &mut state, config, &mut report, &mut stale)?;
        grown += reached.offset;
        tail = Some(reached);
    }
    let tail = match tail {
        Some(tail) => tail,
        None => log::first_segment(dir, &config.limits, state.revision()).map_err(OpenError::io("make the first log segment in", dir))?,
    };
    report.revision = state.revision();
    report.objects = state.len();
    let log = Log::new(dir.clone(), config.limits.clone(), config.faults.clone(), tail, grown);
    Ok(Opened { state, log, report, stale, lock })
}

/// The directory, and its name in the one above it, are there after a power cut.
pub fn make_dir(dir: &Path) -> Result<(), OpenError> {
    // Secrets are in it; etcd's data folder has the same mode.
    basics::files::private_folder(dir).map_err(OpenError::io("make", dir))?;
    let above = dir.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
    log::sync_dir(above).map_err(OpenError::io("sync", above))
}

/// One process at a time; the file says which.
pub fn lock(dir: &Path) -> Result<Lock, OpenError> {
    let path = dir.join("lock");
    let mut file = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path).map_err(OpenError::io("open", &path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let _ = file.read_to_string(&mut holder);
            return Err(OpenError::Locked { dir: dir.into(), holder: holder.trim().into() });
        }
        Err(TryLockError::Error(source)) => return Err(OpenError::Io { action: "lock", path, source }),
    }
    // Only a help for whoever finds it locked; a full disk must not keep the store from opening.
    let _ = file.set_len(0);
    let _ = writeln!(file, "process {}", std::process::id());
    Ok(Lock(file))
}

/// Given back when it is dropped, even if a process that is just being started still holds a copy of the descriptor.
pub struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        let _ = self.0.unlock();
    }
}

struct Files {
    dir: PathBuf,
    /// Ascending, both.
    snapshots: Vec<u64>,
    segments: Vec<u64>,
    unfinished: Vec<PathBuf>,
}

impl Files {
    fn of(dir: &Path) -> Result<Self, OpenError> {
        let mut files = Self { dir: dir.into(), snapshots: Vec::new(), segments: Vec::new(), unfinished: Vec::new() };
        for entry in fs::read_dir(dir).map_err(OpenError::io("list", dir))? {
            let entry = entry.map_err(OpenError::io("list", dir))?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            if name.ends_with(".tmp") {
                files.unfinished.push(entry.path());
            } else if let Some(number) = numbered(name, "snapshot-") {
                files.snapshots.push(number);
            } else if let Some(number) = numbered(name, "log-") {
                files.segments.push(number);
            }
        }
        files.snapshots.sort_unstable();
        files.segments.sort_unstable();
        Ok(files)
    }

    fn remove_unfinished(&self) -> Result<(), OpenError> {
        for path in &self.unfinished {
            fs::remove_file(path).map_err(OpenError::io("remove", path))?;
        }
        Ok(())
    }
}

fn numbered(name: &str, prefix: &str) -> Option<u64> {
    let digits = name.strip_prefix(prefix)?;
    (digits.len() == 16).then(|| u64::from_str_radix(digits, 16).ok()).flatten()
}

/// Drops what a newer snapshot stands for.
pub fn remove_before(dir: &Path, head: &SnapshotHead) -> Result<(), OpenError> {
    let files = Files::of(dir)?;
    let old = files.snapshots.iter().filter(|revision| **revision < head.revision).map(|revision| snapshot_name(*revision));
    let done = files.segments.iter().filter(|number| **number < head.boundary).map(|number| segment_name(*number));
    for name in old.chain(done) {
        let path = files.dir.join(name);
        fs::remove_file(&path).map_err(OpenError::io("remove", &path))?;
    }
    Ok(())
}

/// The first number that should be there and is not. A store that never had a snapshot may have no segment yet.
fn missing(segments: &[u64], boundary: u64) -> Option<u64> {
    if segments.is_empty() {
        return (boundary > 1).then_some(boundary);
    }
    segments.iter().zip(boundary..).find(|(found, expected)| *found != expected).map(|(_, expected)| expected)
}

fn read_head(dir: &Path, number: u64) -> Result<SegmentHead, OpenError> {
    let path = dir.join(segment_name(number));
    let mut bytes = Vec::with_capacity(SECTOR);
    let file = File::open(&path).map_err(OpenError::io("open", &path))?;
    file.take(SECTOR as u64).read_to_end(&mut bytes).map_err(OpenError::io("read", &path))?;
    match SegmentHead::decode(&bytes) {
        Ok(head) if head.number == number => Ok(head),
        Ok(_) => Err(OpenError::corrupt(path, 0, "the segment has another number than its name says")),
        Err(Some(found)) => Err(OpenError::Newer { path, found, known: FORMAT }),
        Err(None) => Err(OpenError::corrupt(path, 0, "the head of the segment does not match its checksum")),
    }
}

/// Applies a segment up to the batch `next` (where the following segment goes on) or, for the last one, up to its end.
fn replay(dir: &Path, head: SegmentHead, next: Option<u64>, state: &mut State, config: &Config, report: &mut OpenReport, stale: &mut bool) -> Result<Tail, OpenError> {
    let path = dir.join(segment_name(head.number));
    if head.base != state.revision() {
        let what = format!("the segment follows revision {}, but what is before it ends at {}", head.base, state.revision());
        return Err(OpenError::corrupt(path, 0, what));
    }
    let bytes = fs::read(&path).map_err(OpenError::io("read", &path))?;
    let mut offset = SECTOR;
    let mut sequence = head.sequence;
    let cut = loop {
        if next.is_some_and(|next| sequence >= next) {
            break false;
        }
        match frame::read(&bytes, offset, sequence) {
            Found::Batch(batch) => {
                if batch.first != state.revision() + 1 {
                    return Err(OpenError::corrupt(path, offset as u64, "a batch does not follow the revision before it"));
                }
                for record in batch.records {
                    *stale |= apply(state, record, &config.sealing).map_err(|why| why.at(&path, offset as u64))?;
                    report.replayed += 1;
                }
                state.trim(&config.limits, None);
                offset = batch.end;
                sequence = batch.sequence + 1;
            }
            Found::Damaged(what) => return Err(OpenError::corrupt(path, offset as u64, what)),
            Found::Nothing | Found::Torn => {
                if next.is_some() || frame::later_batch(&bytes, offset, sequence - 1).is_some() {
                    return Err(OpenError::corrupt(path, offset as u64, "a batch is missing or cut short, although later ones are there"));
                }
                break !zeros(bytes.get(offset..).unwrap_or(&[]));
            }
        }
    };
    let file = OpenOptions::new().read(true).write(true).open(&path).map_err(OpenError::io("open", &path))?;
    let capacity = bytes.len() as u64;
    if cut {
        tracing::warn!(path = %path.display(), offset, "a write that was never acknowledged was cut short by a crash; it is dropped");
        log::zero(&file, offset as u64, capacity.saturating_sub(offset as u64)).map_err(OpenError::io("clean the end of", &path))?;
        report.torn = Some(TornTail { path: path.clone(), offset: offset as u64 });
    }
    // What was read may so far be only in the page cache of a process that was killed: it is served from now on, so it must be on the disk.
    file.sync_data().map_err(OpenError::io("sync", &path))?;
    Ok(Tail { file, number: head.number, offset: offset as u64, capacity, sequence })
}

fn zeros(bytes: &[u8]) -> bool {
    const NONE: [u8; 4096] = [0; 4096];
    bytes.chunks(NONE.len()).all(|chunk| chunk == &NONE[..chunk.len()])
}

/// Whether the record is sealed otherwise than it would be today.
fn apply(state: &mut State, record: Record, sealing: &Sealing) -> Result<bool, Unreadable> {
    let revision = state.revision() + 1;
    match record {
        Record::Put { key, value } => {
            let (plain, stale) = sealing.unseal(&key, &value).map_err(|error| Unreadable::Sealed { key: key.to_string(), why: error.0 })?;
            let bytes = splice::insert(&plain, revision).ok_or(Unreadable::Damaged("a record holds an object without metadata"))?;
            let key = state.entry(&key).map_or(key, |(known, _)| Arc::clone(known));
            state.apply(Change::Put(key, Arc::new(Object::new(bytes, revision))));
            return Ok(stale);
        }
        Record::Delete { key } => {
            let last = state.get(&key).ok_or(Unreadable::Damaged("a record deletes a key that is not there"))?;
            let bytes = splice::replace(last.bytes(), revision).ok_or(Unreadable::Damaged("a record deletes an object without metadata"))?;
            state.apply(Change::Delete(key, Arc::new(Object::new(bytes, revision))));
        }
        Record::Compact { revision } => {
            state.trim(&Limits { history_events: usize::MAX, history_bytes: usize::MAX, ..Limits::default() }, Some(revision));
        }
    }
    Ok(false)
}
