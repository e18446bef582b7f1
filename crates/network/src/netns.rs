//! Work inside another network namespace.
//!
//! The namespace is a property of a thread. A thread that could not find its way back would do the next caller's work in the wrong
//! place, so the work is done on a thread of its own that ends with it.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;

use nix::sched::{CloneFlags, setns, unshare};

/// Runs `work` in the namespace `file` is open on.
pub fn run_in<T: Send>(file: &File, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("netns".into()).stack_size(256 << 10).spawn_scoped(scope, || -> io::Result<T> {
            setns(file.as_fd(), CloneFlags::CLONE_NEWNET)?;
            Ok(work())
        })?;
        thread.join().map_err(|_| io::Error::other("network namespace thread panicked"))?
    })
}

/// A new network namespace without a name; it lives as long as the file, or a process or socket in it.
pub fn create() -> io::Result<File> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| -> io::Result<File> {
            unshare(CloneFlags::CLONE_NEWNET)?;
            File::open("/proc/thread-self/ns/net")
        });
        thread.join().map_err(|_| io::Error::other("network namespace thread panicked"))?
    })
}
