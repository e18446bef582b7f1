//! Ctrl-C and SIGTERM as events one can wait for, so that the demo always takes its cluster down.

use std::os::fd::AsFd;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

pub struct Interrupt(SignalFd);

impl Interrupt {
    /// To be called before any thread starts: they inherit that the signals are blocked. Children do not; Rust clears their mask.
    pub fn new() -> Result<Interrupt> {
        let mut set = SigSet::empty();
        set.add(Signal::SIGINT);
        set.add(Signal::SIGTERM);
        set.thread_block().context("cannot block signals")?;
        Ok(Interrupt(SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?))
    }

    /// Whether one has come, now or before.
    pub fn came(&self) -> Result<bool> {
        self.wait(Duration::ZERO)
    }

    /// Waits for one, at most this long. It stays: asking again gives the same answer.
    pub fn wait(&self, timeout: Duration) -> Result<bool> {
        let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        Ok(poll(&mut fds, PollTimeout::try_from(timeout)?)? > 0)
    }
}
