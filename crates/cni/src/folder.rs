//! Word of changes in a folder, by inotify.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::inotify::{self, WatchFlags};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Room for a good number of events at once.
const EVENTS_BYTES: usize = 4096;

pub struct FolderChanges(AsyncFd<OwnedFd>);

impl FolderChanges {
    /// Makes the folder if it is not there: nothing else can be watched. Changes from now on are told of.
    pub fn of(folder: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let events = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC)?;
        // Not while a file is being written: half of it says something else. Links are made in one step.
        let wanted = WatchFlags::CLOSE_WRITE | WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::MOVED_FROM | WatchFlags::DELETE;
        inotify::add_watch(&events, folder, wanted)?;
        // SAFETY: the `OwnedFd` is owned by the `AsyncFd` until that is dropped, so it stays open and the same all that time.
        let events = unsafe { AsyncFd::register_with_interest(events, Interest::READABLE) }.map_err(io::Error::from)?;
        Ok(Self(events))
    }

    /// Waits until something in the folder changed; several changes may count as one. Cancel-safe.
    pub async fn next(&self) -> io::Result<()> {
        let mut buffer = [0u8; EVENTS_BYTES];
        self.0.async_io(Interest::READABLE, |fd| rustix::io::read(fd, &mut buffer).map_err(io::Error::from)).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn files_that_come_change_and_go() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("net.d");
        let changes = FolderChanges::of(&path).unwrap();
        let file = path.join("a.conf");
        std::fs::write(&file, "x").unwrap();
        changes.next().await.unwrap();
        std::fs::rename(&file, folder.path().join("b")).unwrap();
        changes.next().await.unwrap();
        std::os::unix::fs::symlink("/dev/null", &file).unwrap();
        changes.next().await.unwrap();
        std::fs::remove_file(&file).unwrap();
        changes.next().await.unwrap();
    }
}
