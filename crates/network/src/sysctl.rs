//! Kernel settings under /proc/sys/net of this thread's network namespace, remembered so that `reset` can put them back.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use basics::files;

/// Writes settings and keeps the value each had before we first touched it in a file that survives us.
pub struct Sysctls {
    record: PathBuf,
    before: BTreeMap<String, String>,
}

fn path(key: &str) -> PathBuf {
    Path::new("/proc/sys").join(key)
}

/// `key` is a path below /proc/sys. Writes only when the value differs.
pub fn write(key: &str, value: &str) -> io::Result<()> {
    let path = path(key);
    if fs::read_to_string(&path)?.trim() == value {
        return Ok(());
    }
    fs::write(path, value)
}

impl Sysctls {
    pub fn open(record: PathBuf) -> Self {
        // A record that cannot be read costs the way back of settings, not the network.
        let before = fs::read(&record).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        Self { record, before }
    }

    pub fn set(&mut self, key: &str, value: &str) -> io::Result<()> {
        let now = fs::read_to_string(path(key))?.trim().to_owned();
        if now == value {
            return Ok(());
        }
        if !self.before.contains_key(key) {
            self.before.insert(key.to_owned(), now);
            files::replace(&self.record, &serde_json::to_vec(&self.before)?, files::READABLE)?;
        }
        fs::write(path(key), value)
    }

    /// Puts every setting back; those whose link is gone are skipped.
    pub fn restore(&mut self) -> io::Result<()> {
        for (key, value) in &self.before {
            if path(key).exists() {
                fs::write(path(key), value)?;
            }
        }
        self.before.clear();
        match fs::remove_file(&self.record) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}
