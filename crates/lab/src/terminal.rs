//! This terminal joined to one in a node: keys in, screen out, the window's size, until the program there ends.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize};

const CHUNK: usize = 32 << 10;

/// The terminal in raw mode for as long as this lives.
struct Raw(Option<Termios>);

impl Raw {
    fn start() -> Self {
        let Ok(before) = tcgetattr(io::stdin()) else { return Self(None) };
        let mut raw = before.clone();
        raw.make_raw();
        Self(tcsetattr(io::stdin(), OptionalActions::Now, &raw).ok().map(|()| before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            // A terminal that went away needs no mode.
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, before);
        }
    }
}

/// The size of our window for theirs.
pub fn copy_size(master: &OwnedFd) {
    if let Ok(size) = tcgetwinsize(io::stdin()) {
        let _ = tcsetwinsize(master, size);
    }
}

/// A descriptor that tells of changes of the window's size.
fn window_changes() -> io::Result<OwnedFd> {
    use std::os::fd::FromRawFd;
    // SAFETY: the set is initialised by sigemptyset; the returned descriptor is fresh.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, libc::SIGWINCH);
        if libc::sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()) < 0 {
            return Err(io::Error::last_os_error());
        }
        let fd = libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(OwnedFd::from_raw_fd(fd)) }
    }
}

fn write_all(to: impl AsFd, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(&to, bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Returns when the program has ended, and what it said is shown. What it left behind in the background may have the terminal open still.
pub fn relay(master: &OwnedFd, program: &OwnedFd) -> io::Result<()> {
    let _raw = Raw::start();
    let changes = window_changes()?;
    copy_size(master);
    let mut buffer = vec![0; CHUNK];
    let (stdin, stdout) = (io::stdin(), io::stdout());
    let mut keys = true;
    loop {
        let mut ready = vec![PollFd::new(master, PollFlags::IN), PollFd::new(&changes, PollFlags::IN), PollFd::new(program, PollFlags::IN)];
        if keys {
            ready.push(PollFd::new(&stdin, PollFlags::IN));
        }
        match poll(&mut ready, None) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        }
        let happened: Vec<bool> = ready.iter().map(|one| !one.revents().is_empty()).collect();
        if happened[0] {
            match rustix::io::read(master, &mut buffer) {
                // EIO: the last one who had it open has closed it.
                Ok(0) | Err(rustix::io::Errno::IO) => return Ok(()),
                Ok(length) => write_all(&stdout, &buffer[..length])?,
                Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
                Err(error) => return Err(error.into()),
            }
        } else if happened[2] {
            return Ok(());
        }
        if happened[1] {
            while rustix::io::read(&changes, &mut buffer).is_ok() {}
            copy_size(master);
        }
        if happened.get(3) == Some(&true) {
            match rustix::io::read(&stdin, &mut buffer) {
                Ok(0) | Err(_) => keys = false,
                Ok(length) => write_all(master, &buffer[..length])?,
            }
        }
    }
}
