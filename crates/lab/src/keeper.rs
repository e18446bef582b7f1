//! The process that holds the lab's wires: it lives in the network namespace with the bridge, which is there for as long as it is. It is the lab's mirror too.

use std::ffi::OsString;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::event::{PollFd, PollFlags, poll};

use crate::{mirror, process};

/// The first word of its command line.
pub const WORD: &str = "lab-keeper";

/// The arguments: where the mirror's authority is to be written, and the folder of the lab's images.
pub fn main(arguments: &[OsString]) -> i32 {
    // Before any thread: all of them leave signals to the descriptor.
    let signals = sandbox::sys::signal_descriptor();
    let ready = signals.as_ref().map(drop).map_err(|error| format!("wait for signals: {error}")).and_then(|()| match arguments {
        [authority_file, images] => mirror::start(Path::new(authority_file), Path::new(images)),
        _ => Err(format!("{WORD} is started by `coracle lab`")),
    });
    let failed = ready.is_err();
    if process::say(&ready).is_err() || failed {
        return 1;
    }
    let Ok(signals) = signals else { return 1 };
    // Nothing to do but to be there: the first signal is the end.
    let _ = poll(&mut [PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN)], None);
    0
}
