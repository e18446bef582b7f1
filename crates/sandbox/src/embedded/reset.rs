//! Leaves the host as it was before the runtime: no process, mount, namespace, cgroup or file of it.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::{Config, failed};
use crate::cgroup::Cgroups;
use crate::cri::Result;
use crate::layout::{Layout, SandboxFile, names, pod_cgroup, read_json};
use crate::shim;
use crate::sys;

/// How long a shim gets to end its containers before it is killed.
const GRACE_SECONDS: i64 = 20;
/// What was there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Report {
    pub shims: usize,
    pub sandboxes: usize,
    pub containers: usize,
    pub mounts: usize,
}

/// Kills every shim and container and removes every trace. Nobody may have the runtime open. The pod network's interfaces and rules are
/// not its business. Blocking.
pub fn reset(config: &Config) -> Result<Report> {
    Layout::new(&config.root_dir, &config.state_dir).and_then(|layout| erase(&layout)).map_err(failed("reset the container runtime"))
}

fn erase(layout: &Layout) -> io::Result<Report> {
    let mut report = Report { shims: end_shims(layout)?, containers: names(&layout.containers())?.len(), ..Report::default() };
    let cgroups = Cgroups::discover()?;
    for id in names(&layout.sandboxes())? {
        report.sandboxes += 1;
        shim::tear_down(layout, &id);
        if let Ok(file) = read_json::<SandboxFile>(&layout.sandbox_config(&id)) {
            let cgroup = pod_cgroup(&file.config, &id);
            cgroups.kill(&cgroup);
            cgroups.remove(&cgroup)?;
        }
    }
    match std::fs::read_to_string(layout.cgroup_parents()) {
        Ok(parents) => parents.lines().for_each(|parent| cgroups.remove_empty(parent)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    report.mounts = unmount_below(layout)?;
    for dir in [layout.sandboxes(), layout.containers(), layout.socket_dir(), layout.netns_dir(), layout.shm_dir()] {
        match std::fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    match std::fs::remove_file(layout.cgroup_parents()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    for dir in [&layout.root_dir, &layout.state_dir] {
        // Others may keep theirs beside ours.
        let _ = std::fs::remove_dir(dir);
    }
    Ok(report)
}

/// SIGTERM makes a shim kill everything it has and end.
fn end_shims(layout: &Layout) -> io::Result<usize> {
    let mut shims = Vec::new();
    for name in names(Path::new("/proc"))? {
        if let Ok(pid) = name.parse::<i32>()
            && let Some(pidfd) = shim_of(layout, pid)
        {
            shims.push(pidfd);
        }
    }
    for pidfd in &shims {
        sys::signal_process(pidfd.as_fd(), libc::SIGTERM)?;
    }
    for pidfd in &shims {
        if !ended(pidfd)? {
            sys::signal_process(pidfd.as_fd(), libc::SIGKILL)?;
            ended(pidfd)?;
        }
    }
    Ok(shims.len())
}

/// A handle on the process if it is a shim of this layout: its command line says so.
fn shim_of(layout: &Layout, pid: i32) -> Option<OwnedFd> {
    let pidfd = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
    let command = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let words: Vec<&OsStr> = command.split(|byte| *byte == 0).map(OsStr::from_bytes).collect();
    let is_ours = words.get(1).is_some_and(|word| *word == "shim") && words.windows(2).any(|pair| pair[0] == "--root" && pair[1] == layout.root_dir.as_os_str());
    is_ours.then_some(pidfd)
}

fn ended(pidfd: &OwnedFd) -> io::Result<bool> {
    let timeout = Timespec { tv_sec: GRACE_SECONDS, tv_nsec: 0 };
    Ok(poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&timeout))? > 0)
}

/// Whatever is still mounted below our directories, innermost first.
fn unmount_below(layout: &Layout) -> io::Result<usize> {
    let ours = [layout.sandboxes(), layout.containers(), layout.netns_dir(), layout.shm_dir()];
    let mut count = 0;
    for mount in mount_points(&std::fs::read("/proc/self/mountinfo")?).into_iter().rev() {
        if ours.iter().any(|dir| mount.starts_with(dir)) {
            rustix::mount::unmount(&mount, rustix::mount::UnmountFlags::DETACH)?;
            count += 1;
        }
    }
    Ok(count)
}

fn mount_points(mountinfo: &[u8]) -> Vec<PathBuf> {
    mountinfo.split(|byte| *byte == b'\n').filter_map(|line| line.split(|byte| *byte == b' ').nth(4)).map(unescape).collect()
}

/// Blanks and the like are written as `\040`.
fn unescape(field: &[u8]) -> PathBuf {
    let mut path = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        let octal = after.get(..3).and_then(|digits| std::str::from_utf8(digits).ok()).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match octal.filter(|_| *first == b'\\') {
            Some(byte) => {
                path.push(byte);
                rest = &after[3..];
            }
            None => {
                path.push(*first);
                rest = after;
            }
        }
    }
    PathBuf::from(std::ffi::OsString::from_vec(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_unescaped() {
        let text = b"36 35 98:0 / /a\\040b rw - ext4 x rw\n37 35 98:0 / /plain rw - ext4 x rw\n";
        assert_eq!(mount_points(text), [PathBuf::from("/a b"), PathBuf::from("/plain")]);
    }
}
