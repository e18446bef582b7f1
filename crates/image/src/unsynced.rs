//! Which unpacked layers the disk may not have yet: a power cut can leave such a one looking whole, with empty files in it.
//!
//! A layer is noted, with the machine's boot, before it gets its place. Whoever runs for long writes the disk out and forgets the note; a note of an earlier
//! boot says that its layer is not to be trusted, and it is unpacked again from its blob (which is on disk before it has a name). So nobody who unpacks waits
//! for the disk. Within one boot nothing is lost, whoever is killed.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

use crate::files::{remove_all, write_atomically};

const BOOT: &str = "/proc/sys/kernel/random/boot_id";

pub struct Unsynced {
    dir: PathBuf,
    temporary: PathBuf,
    boot: String,
    /// One writes out at a time.
    turn: Mutex<()>,
}

impl Unsynced {
    pub fn open(dir: PathBuf, temporary: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&dir)?;
        // Without one every boot is the same: as if there were no notes.
        let boot = fs::read_to_string(BOOT).unwrap_or_default();
        Ok(Self { dir, temporary, boot, turn: Mutex::new(()) })
    }

    /// All of the layer is written, and it is about to get its place.
    pub fn note(&self, layer: &str) -> io::Result<()> {
        write_atomically(&self.dir.join(layer), &self.temporary, self.boot.as_bytes())
    }

    /// Writes the disk out, if there is anything noted and nobody does so already. Takes as long as the disk.
    pub fn settle(&self) -> io::Result<()> {
        let Some(_turn) = self.turn.try_lock() else { return Ok(()) };
        let noted = self.noted()?;
        if noted.is_empty() {
            return Ok(());
        }
        rustix::fs::syncfs(File::open(&self.dir)?)?;
        noted.iter().try_for_each(|note| remove_all(note))
    }

    /// Calls `remove` with each layer of an earlier boot, and forgets it.
    pub fn distrust<E: From<io::Error>>(&self, mut remove: impl FnMut(&str) -> Result<(), E>) -> Result<(), E> {
        for note in self.noted()? {
            if fs::read_to_string(&note)? == self.boot {
                continue;
            }
            if let Some(layer) = note.file_name().and_then(|name| name.to_str()) {
                remove(layer)?;
            }
            remove_all(&note)?;
        }
        Ok(())
    }

    fn noted(&self) -> io::Result<Vec<PathBuf>> {
        fs::read_dir(&self.dir)?.map(|entry| entry.map(|entry| entry.path())).collect()
    }

    pub fn path(&self) -> &Path {
        &self.dir
    }
}
