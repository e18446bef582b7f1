//! A configuration file that is followed: whoever edits it, replaces it, or swaps the link it lies behind (as a mounted Secret does) is noticed.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::inotify;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Room for a good number of events at once.
const EVENTS_BYTES: usize = 4096;

pub struct FileChanges {
    path: PathBuf,
    events: AsyncFd<OwnedFd>,
    /// As it was read last: other files of the folder change too.
    content: Vec<u8>,
}

impl FileChanges {
    /// `content` is what is known of it already.
    pub fn of(path: &Path, content: Vec<u8>) -> io::Result<Self> {
        let events = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC)?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // Not while it is being written: half a file says something else.
        inotify::add_watch(&events, folder, inotify::WatchFlags::CLOSE_WRITE | inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO)?;
        // SAFETY: the `OwnedFd` is owned by the `AsyncFd` until that is dropped, so it stays open and the same all that time.
        let events = unsafe { AsyncFd::register_with_interest(events, Interest::READABLE) }.map_err(io::Error::from)?;
        Ok(Self { path: path.into(), events, content })
    }

    /// What it says, as it was read last.
    pub fn content(&self) -> &[u8] {
        &self.content
    }

    /// Waits until the file says something else; false when nobody can tell any more. Cancel-safe.
    pub async fn next(&mut self) -> bool {
        loop {
            if let Ok(content) = std::fs::read(&self.path)
                && content != self.content
            {
                self.content = content;
                return true;
            }
            let mut buffer = [0u8; EVENTS_BYTES];
            let read = self.events.async_io(Interest::READABLE, |fd| rustix::io::read(fd, &mut buffer).map_err(io::Error::from)).await;
            if read.is_err() {
                return false;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whatever_way_it_is_changed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.yaml");
        std::fs::write(&path, "one").unwrap();
        let mut changes = FileChanges::of(&path, b"zero".to_vec()).unwrap();
        assert!(changes.next().await, "it has changed before anyone looked");
        std::fs::write(folder.path().join("another"), "x").unwrap();
        std::fs::write(&path, "two").unwrap();
        assert!(changes.next().await);
        let beside = folder.path().join("beside");
        std::fs::write(&beside, "three").unwrap();
        std::fs::rename(&beside, &path).unwrap();
        assert!(changes.next().await);
        assert_eq!(changes.content, b"three");
    }
}
