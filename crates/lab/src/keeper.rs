//! The process that holds the lab's wires: it lives in the network namespace with the bridge, which is there for as long as it is.

use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags, poll};

use crate::process;

/// The first word of its command line.
pub const WORD: &str = "lab-keeper";

pub fn main() -> i32 {
    let signals = sandbox::sys::signal_descriptor();
    let ready = signals.as_ref().map(drop).map_err(|error| format!("wait for signals: {error}"));
    if process::say(&ready).is_err() {
        return 1;
    }
    let Ok(signals) = signals else { return 1 };
    // Nothing to do but to be there: the first signal is the end.
    let _ = poll(&mut [PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN)], None);
    0
}
