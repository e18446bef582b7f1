//! Ctrl-C and SIGTERM as events one can wait for, so that the demo always takes its cluster down.

use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

/// Where the handler tells: the event's descriptor.
static EVENT: AtomicI32 = AtomicI32::new(-1);

pub struct Interrupt(EventFd);

extern "C" fn tell(_: i32) {
    let one = 1u64.to_ne_bytes();
    // SAFETY: write(2) is async-signal-safe, the bytes live until it returns, and the descriptor is open as long as the process: see `new`.
    unsafe { nix::libc::write(EVENT.load(Ordering::Relaxed), one.as_ptr().cast(), one.len()) };
}

impl Interrupt {
    /// Once a process. A handler and no blocked mask: children would inherit the mask, and then not hear SIGTERM.
    pub fn new() -> Result<&'static Interrupt> {
        let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK).context("cannot make an event")?;
        let interrupt: &'static Interrupt = Box::leak(Box::new(Interrupt(event)));
        EVENT.store(interrupt.0.as_fd().as_raw_fd(), Ordering::Relaxed);
        let action = SigAction::new(SigHandler::Handler(tell), SaFlags::SA_RESTART, SigSet::empty());
        for signal in [Signal::SIGINT, Signal::SIGTERM] {
            // SAFETY: the handler only calls write(2), on a descriptor that was leaked above and so is never closed.
            unsafe { sigaction(signal, &action) }.context("cannot handle signals")?;
        }
        Ok(interrupt)
    }

    /// Whether one has come, now or before.
    pub fn came(&self) -> Result<bool> {
        self.wait(Duration::ZERO)
    }

    /// Waits for one, at most this long. It stays: asking again gives the same answer.
    pub fn wait(&self, timeout: Duration) -> Result<bool> {
        let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::try_from(timeout)?) {
            // Some signal ended the wait; the event says whether it was one of ours.
            Err(nix::errno::Errno::EINTR) => self.came(),
            outcome => Ok(outcome? > 0),
        }
    }
}
