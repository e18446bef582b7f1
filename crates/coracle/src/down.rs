//! `coracle down`: asks the running process to stop, and waits until it has.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::fs::FlockOperation;

use crate::cli::Folder;
use crate::paths::Paths;

/// Longer than requests in flight may take, unless somebody gives them more time.
const STOP_TIMEOUT: Duration = Duration::from_secs(90);

/// The running cluster's process, if one runs: it holds the lock of its file (`hold`), whatever its program is called, and the kernel takes the
/// lock from a dead one. The number alone could have been given to another program since.
pub fn running(paths: &Paths) -> Option<Pid> {
    let file = File::open(paths.pid_file()).ok()?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => None,
        Err(_) => Some(Pid::from_raw(std::io::read_to_string(file).ok()?.trim().parse().ok()?)),
    }
}

/// Says that this process is the running one. Dropped, it is none, and the folder is gone unless something else is in it.
pub struct Held {
    path: PathBuf,
    file: File,
}

impl Drop for Held {
    fn drop(&mut self) {
        // Under the lock: nobody else has it yet. What cannot be removed is taken over by the next.
        drop(std::fs::remove_file(&self.path));
        if let Some(folder) = self.path.parent() {
            drop(std::fs::remove_dir(folder));
        }
        drop(self.file.unlock());
    }
}

/// Makes this process the running one, for as long as the result lives.
pub fn hold(paths: &Paths) -> Result<Held> {
    let path = paths.pid_file();
    std::fs::create_dir_all(paths.run()).with_context(|| format!("cannot make {}", paths.run().display()))?;
    let mut file = File::options().create(true).truncate(false).write(true).mode(0o600).open(&path).with_context(|| format!("cannot write {}", path.display()))?;
    if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        bail!("a cluster already runs in {}\nhint: `coracle status` shows it, `coracle down` stops it", paths.data.display());
    }
    file.set_len(0)?;
    file.write_all(std::process::id().to_string().as_bytes())?;
    Ok(Held { path, file })
}

#[derive(Args, Clone)]
pub struct Options {
    #[command(flatten)]
    folder: Folder,
    /// The machine is about to be switched off: end its pods first, each with its grace, and tell the cluster (the kubelet's graceful node shutdown). Without it the pods run on
    #[arg(long)]
    node_shutdown: bool,
}

pub fn run(options: &Options) -> Result<()> {
    let paths = Paths::new(&options.folder.data_dir);
    let stopped = if options.node_shutdown { signal(&paths, Signal::SIGPWR, None)? } else { stop(&paths)? };
    match stopped {
        true => println!("stopped"),
        false => println!("no cluster runs in {}", paths.data.display()),
    }
    Ok(())
}

/// Whether one ran.
pub fn stop(paths: &Paths) -> Result<bool> {
    signal(paths, Signal::SIGTERM, Some(STOP_TIMEOUT))
}

/// Returns when the process has ended; without a time to wait it is the process that knows how long it may take.
fn signal(paths: &Paths, signal: Signal, patience: Option<Duration>) -> Result<bool> {
    let Some(pid) = running(paths) else { return Ok(false) };
    let process = rustix::process::pidfd_open(rustix::process::Pid::from_raw(pid.as_raw()).context("no such process")?, rustix::process::PidfdFlags::empty())?;
    kill(pid, signal).context("cannot stop the cluster")?;
    let mut poll = [nix::poll::PollFd::new(process.as_fd(), nix::poll::PollFlags::POLLIN)];
    let timeout = patience.map_or(nix::poll::PollTimeout::NONE, |patience| nix::poll::PollTimeout::try_from(patience).unwrap_or(nix::poll::PollTimeout::MAX));
    if nix::poll::poll(&mut poll, timeout)? == 0 {
        bail!("the cluster (process {pid}) has not stopped after {} s", STOP_TIMEOUT.as_secs());
    }
    Ok(true)
}
