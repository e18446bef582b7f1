//! Reads a container's log: from the end if asked, and on as it grows. Mirrors upstream's kuberuntime/logs.
//!
//! Following waits for inotify and for the container's end; it polls nothing. A rotated file is read to its end before the new one.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use rustix::fs::inotify;
use sandbox::cri::{ContainerEvent, ContainerEventKind, ContainerState, Runtime};
use tokio::sync::{broadcast, mpsc};

use crate::fd::Fd;
use crate::log_line::{Printer, Wanted};

const CHUNK: usize = 64 * 1024;
/// Room for a good number of events at once.
const EVENTS: usize = 4096;

#[derive(Debug, Clone, Default)]
pub struct Options {
    pub wanted: Wanted,
    pub tail_lines: Option<u64>,
    pub follow: bool,
}

/// Where the last `lines` lines begin.
fn tail_start(file: &mut File, lines: u64) -> io::Result<u64> {
    let end = file.seek(SeekFrom::End(0))?;
    let mut at = end;
    let mut left = lines;
    let mut buffer = vec![0; CHUNK];
    // A last line without a newline counts as one.
    let mut first = true;
    while at > 0 {
        let length = at.min(CHUNK as u64);
        at -= length;
        file.seek(SeekFrom::Start(at))?;
        let part = &mut buffer[..usize::try_from(length).unwrap_or(CHUNK)];
        file.read_exact(part)?;
        for (index, byte) in part.iter().enumerate().rev() {
            if *byte != b'\n' {
                if first && left == 0 {
                    return Ok(end);
                }
                first = false;
                continue;
            }
            let is_last = at + index as u64 + 1 == end;
            if first && is_last {
                first = false;
                if left == 0 {
                    return Ok(end);
                }
                continue;
            }
            first = false;
            left = left.saturating_sub(1);
            if left == 0 {
                return Ok(at + index as u64 + 1);
            }
        }
    }
    Ok(if lines == 0 { end } else { 0 })
}

struct Reader {
    file: File,
    /// The start of a line whose end has not been written yet.
    rest: Vec<u8>,
    printer: Printer,
}

enum Step {
    /// Everything there is has been sent.
    End,
    /// The reader is gone, or the limit is reached.
    Enough,
}

impl Reader {
    async fn drain(&mut self, out: &mpsc::Sender<Bytes>) -> io::Result<Step> {
        let mut buffer = vec![0; CHUNK];
        loop {
            let length = self.file.read(&mut buffer)?;
            if length == 0 {
                return Ok(Step::End);
            }
            self.rest.extend_from_slice(&buffer[..length]);
            let mut text = Vec::new();
            let mut from = 0;
            let mut more = true;
            while let Some(at) = self.rest[from..].iter().position(|b| *b == b'\n') {
                more = self.printer.print(&self.rest[from..from + at], &mut text);
                from += at + 1;
                if !more {
                    break;
                }
            }
            self.rest.drain(..from);
            if !text.is_empty() && out.send(text.into()).await.is_err() {
                return Ok(Step::Enough);
            }
            if !more {
                return Ok(Step::Enough);
            }
        }
    }
}

/// Watches the log's folder: writes to the file, and a new file in its place.
struct Watch(Fd);

impl Watch {
    fn new(path: &Path) -> io::Result<Self> {
        let fd: OwnedFd = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC)?;
        let folder = path.parent().unwrap_or(Path::new("/"));
        inotify::add_watch(&fd, folder, inotify::WatchFlags::MODIFY | inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO)?;
        Fd::new(fd).map(Self)
    }

    /// Something happened in the folder.
    async fn changed(&self) -> io::Result<()> {
        let mut buffer = [0; EVENTS];
        self.0.read(&mut buffer).await.map(drop)
    }
}

fn same_file(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (file.metadata(), std::fs::metadata(path)) {
        (Ok(a), Ok(b)) => a.ino() == b.ino() && a.dev() == b.dev(),
        // The new one is not there yet.
        _ => true,
    }
}

/// Sends the log to `out` until its end, or as long as the container lives when following. Without a runtime it is a part of this very process.
pub async fn read(runtime: Option<Arc<dyn Runtime>>, container_id: String, path: PathBuf, options: Options, out: mpsc::Sender<Bytes>) {
    if let Err(error) = try_read(runtime.as_ref(), &container_id, &path, options, &out).await {
        let _ = out.send(Bytes::from(format!("unable to retrieve container logs for {container_id}: {error}\n"))).await;
    }
}

async fn next_event(events: &mut Option<broadcast::Receiver<ContainerEvent>>) -> Result<ContainerEvent, broadcast::error::RecvError> {
    match events {
        Some(events) => events.recv().await,
        None => std::future::pending().await,
    }
}

async fn try_read(runtime: Option<&Arc<dyn Runtime>>, id: &str, path: &Path, options: Options, out: &mpsc::Sender<Bytes>) -> io::Result<()> {
    // Both before the first look, so that nothing falls in between.
    let mut events = runtime.map(|runtime| runtime.events());
    let watch = if options.follow { Some(Watch::new(path)?) } else { None };
    let mut file = File::open(path)?;
    if let Some(lines) = options.tail_lines {
        let start = tail_start(&mut file, lines)?;
        file.seek(SeekFrom::Start(start))?;
    }
    let mut reader = Reader { file, rest: Vec::new(), printer: Printer::new(options.wanted) };
    let running = || async {
        match runtime {
            Some(runtime) => runtime.container_status(id).await.is_ok_and(|s| matches!(s.state, ContainerState::Running | ContainerState::Created)),
            None => true,
        }
    };
    let mut alive = options.follow && running().await;
    loop {
        if let Step::Enough = reader.drain(out).await? {
            return Ok(());
        }
        if !same_file(&reader.file, path) {
            // Rotated: what was written to the old file meanwhile, then the new one from its start.
            if let Step::Enough = reader.drain(out).await? {
                return Ok(());
            }
            reader.file = File::open(path)?;
            continue;
        }
        let Some(watch) = watch.as_ref().filter(|_| alive) else { return Ok(()) };
        tokio::select! {
            changed = watch.changed() => changed?,
            () = out.closed() => return Ok(()),
            event = next_event(&mut events) => match event {
                // The runtime tells of the end after the last byte of the log.
                Ok(event) if event.container_id.as_deref() == Some(id) && matches!(event.kind, ContainerEventKind::Stopped | ContainerEventKind::Deleted) => alive = false,
                Ok(_) => {}
                Err(_) => alive = running().await,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn tails() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"a\nbb\nccc\n").unwrap();
        let mut of = |lines| tail_start(&mut file, lines).unwrap();
        assert_eq!([of(0), of(1), of(2), of(3), of(9)], [9, 5, 2, 0, 0]);
        let mut file = tempfile::tempfile().unwrap();
        assert_eq!(tail_start(&mut file, 3).unwrap(), 0);
        file.write_all(b"x").unwrap();
        assert_eq!((tail_start(&mut file, 0).unwrap(), tail_start(&mut file, 1).unwrap()), (1, 0));
    }
}
