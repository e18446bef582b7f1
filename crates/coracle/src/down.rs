//! `coracle down`: asks the running process to stop, and waits until it has.

use std::os::fd::AsFd;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cli::Folder;
use crate::paths::Paths;

const STOP_TIMEOUT: Duration = Duration::from_secs(40);

/// The running cluster's process, if one runs.
pub fn running(paths: &Paths) -> Option<Pid> {
    let pid: i32 = std::fs::read_to_string(paths.pid_file()).ok()?.trim().parse().ok()?;
    // A process id may have been given to another program since.
    let name = std::fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    name.file_name()?.to_str()?.starts_with("coracle").then_some(Pid::from_raw(pid))
}

pub fn run(folder: &Folder) -> Result<()> {
    let paths = Paths::new(&folder.data_dir);
    match stop(&paths)? {
        true => println!("stopped"),
        false => println!("no cluster runs in {}", paths.data.display()),
    }
    Ok(())
}

/// Whether one ran.
pub fn stop(paths: &Paths) -> Result<bool> {
    let Some(pid) = running(paths) else { return Ok(false) };
    let process = rustix::process::pidfd_open(rustix::process::Pid::from_raw(pid.as_raw()).context("no such process")?, rustix::process::PidfdFlags::empty())?;
    kill(pid, Signal::SIGTERM).context("cannot stop the cluster")?;
    let mut poll = [nix::poll::PollFd::new(process.as_fd(), nix::poll::PollFlags::POLLIN)];
    let timeout = nix::poll::PollTimeout::from(STOP_TIMEOUT.as_millis().min(u128::from(u16::MAX)) as u16);
    if nix::poll::poll(&mut poll, timeout)? == 0 {
        bail!("the cluster (process {pid}) has not stopped after {} s", STOP_TIMEOUT.as_secs());
    }
    Ok(true)
}
