//! Cgroups of pods and containers, version 1 (one hierarchy per controller) and version 2 (one tree), behind one type.
//!
//! Promises: a path is always relative to the hierarchy root; what is made here is removed by `remove`; a limit which the kernel lacks
//! (swap accounting, say) is no error. Mirrors how runc translates the OCI `linux.resources` of a container.

mod devices;
mod stats;
mod v1;
mod v2;

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::cri::LinuxResources;

pub use devices::DeviceRule;
pub use stats::Usage;

/// How long `kill` waits. Only a process stuck in the kernel takes that long.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);

/// One version-1 hierarchy: the controllers mounted together.
#[derive(Debug, Clone)]
pub struct Hierarchy {
    pub controllers: Vec<String>,
    pub mount: PathBuf,
}

#[derive(Debug, Clone)]
pub enum Cgroups {
    V1(Vec<Hierarchy>),
    V2(PathBuf),
}

/// What device access a new cgroup gives.
pub enum DeviceAccess<'a> {
    /// As its parent.
    Inherit,
    Allow(&'a [DeviceRule]),
}

impl Cgroups {
    /// What this machine has mounted. Of a hybrid (an empty version-2 tree beside version 1) the version-1 side is used.
    pub fn discover() -> io::Result<Self> {
        Self::from_mountinfo(&std::fs::read_to_string("/proc/self/mountinfo")?)
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no cgroup hierarchy is mounted"))
    }

    fn from_mountinfo(mountinfo: &str) -> Option<Self> {
        let mut v1: Vec<Hierarchy> = Vec::new();
        let mut v2 = None;
        for line in mountinfo.lines() {
            let Some((left, right)) = line.split_once(" - ") else { continue };
            let Some(mount) = left.split(' ').nth(4).map(PathBuf::from) else { continue };
            let mut fields = right.split(' ');
            match fields.next() {
                Some("cgroup2") => v2 = v2.or(Some(mount)),
                Some("cgroup") => {
                    let options = fields.nth(1).unwrap_or_default();
                    let controllers: Vec<String> = options.split(',').filter(|name| v1::USED.contains(name)).map(str::to_owned).collect();
                    if !controllers.is_empty() && !v1.iter().any(|known| known.controllers == controllers) {
                        v1.push(Hierarchy { controllers, mount });
                    }
                }
                _ => {}
            }
        }
        if v1.iter().any(|hierarchy| hierarchy.has("memory") || hierarchy.has("cpu")) { Some(Self::V1(v1)) } else { v2.map(Self::V2) }
    }

    /// Makes the cgroup with its ancestors and sets the limits. One that exists is only limited anew.
    pub fn create(&self, path: &str, resources: &LinuxResources, devices: DeviceAccess<'_>) -> io::Result<()> {
        match self {
            Self::V1(hierarchies) => v1::create(hierarchies, path, resources, devices),
            Self::V2(root) => v2::create(root, path, resources, devices),
        }
    }

    /// Makes a leaf below one that exists, without limits: version 2 is not told to account for it, which it refuses while its parent has processes.
    pub fn create_plain(&self, path: &str) -> io::Result<()> {
        match self {
            Self::V1(hierarchies) => v1::create(hierarchies, path, &LinuxResources::default(), DeviceAccess::Inherit),
            Self::V2(root) => match std::fs::create_dir(root.join(path)) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
                _ => Ok(()),
            },
        }
    }

    pub fn update(&self, path: &str, resources: &LinuxResources) -> io::Result<()> {
        match self {
            Self::V1(hierarchies) => v1::limit(hierarchies, path, resources),
            Self::V2(root) => v2::limit(&root.join(path), resources),
        }
    }

    /// Files into which a single-threaded process writes `0` to join. In version 1 that is `tasks`: moving only oneself, as a thread,
    /// spares the kernel a grace period of several milliseconds which `cgroup.procs` costs.
    pub fn join_files(&self, path: &str) -> io::Result<Vec<File>> {
        let open = |file: PathBuf| std::fs::OpenOptions::new().write(true).open(file);
        match self {
            Self::V1(hierarchies) => hierarchies.iter().map(|hierarchy| open(hierarchy.mount.join(path).join("tasks"))).collect(),
            Self::V2(root) => Ok(vec![open(root.join(path).join("cgroup.procs"))?]),
        }
    }

    /// What a container sees under /sys/fs/cgroup: names with the directory to be bound there; `None` in version 2, where it is mounted afresh.
    pub fn views(&self, path: &str) -> Option<Vec<(String, CString)>> {
        match self {
            Self::V1(hierarchies) => Some(
                hierarchies
                    .iter()
                    .filter_map(|hierarchy| {
                        use std::os::unix::ffi::OsStrExt;
                        let name = hierarchy.mount.file_name()?.to_str()?.to_owned();
                        Some((name, CString::new(hierarchy.mount.join(path).as_os_str().as_bytes()).ok()?))
                    })
                    .collect(),
            ),
            Self::V2(_) => None,
        }
    }

    /// Kills every process in it and below it, and waits for their end, as long as that can be expected.
    pub fn kill(&self, path: &str) {
        let deadline = Instant::now() + KILL_TIMEOUT;
        if let Self::V2(root) = self {
            // All at once; a kernel before 5.14 has it not.
            let _ = std::fs::write(root.join(path).join("cgroup.kill"), "1");
        }
        loop {
            // Killed by handle, not by number: a number may have a new owner by now.
            let handles: Vec<OwnedFd> = self.processes(path).into_iter().filter_map(handle).collect();
            if handles.is_empty() {
                return;
            }
            for handle in &handles {
                let _ = crate::sys::signal_process(handle.as_fd(), libc::SIGKILL);
            }
            for handle in &handles {
                let left = deadline.saturating_duration_since(Instant::now());
                let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
                if !matches!(poll(&mut [PollFd::new(handle, PollFlags::IN)], Some(&timeout)), Ok(ended) if ended > 0) {
                    return;
                }
            }
        }
    }

    /// The processes in it and below it.
    fn processes(&self, path: &str) -> Vec<i32> {
        let root = match self {
            Self::V1(hierarchies) => match hierarchies.iter().find(|hierarchy| hierarchy.has("pids")).or(hierarchies.first()) {
                Some(hierarchy) => hierarchy.mount.join(path),
                None => return Vec::new(),
            },
            Self::V2(root) => root.join(path),
        };
        let mut pids = Vec::new();
        collect_processes(&root, &mut pids);
        pids
    }

    /// Removes it and what is below it. Missing is fine; busy is an error.
    pub fn remove(&self, path: &str) -> io::Result<()> {
        self.each_root(|root| remove_tree(&root.join(path)))
    }

    /// Removes it and its ancestors, such as `kubepods`, as far as they are empty. What is in use stays.
    pub fn remove_empty(&self, path: &str) {
        let _ = self.each_root(|root| {
            for path in Path::new(path).ancestors().filter(|path| !path.as_os_str().is_empty()) {
                match std::fs::remove_dir(root.join(path)) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => break,
                    _ => {}
                }
            }
            Ok(())
        });
    }

    /// How many processes in it the kernel has killed for want of memory.
    pub fn oom_kills(&self, path: &str) -> u64 {
        let file = match self {
            Self::V1(hierarchies) => match v1::find(hierarchies, "memory") {
                Some(hierarchy) => hierarchy.mount.join(path).join("memory.oom_control"),
                None => return 0,
            },
            Self::V2(root) => root.join(path).join("memory.events"),
        };
        std::fs::read_to_string(file).ok().and_then(|text| stats::keyed(&text, "oom_kill")).unwrap_or(0)
    }

    pub fn usage(&self, path: &str) -> Usage {
        match self {
            Self::V1(hierarchies) => stats::v1(hierarchies, path),
            Self::V2(root) => stats::v2(&root.join(path)),
        }
    }

    /// All that the kernel tells of a group; `None` when it is not there.
    pub fn used(&self, path: &str) -> Option<crate::cri::CgroupUse> {
        match self {
            Self::V1(hierarchies) => stats::all_v1(hierarchies, path),
            Self::V2(root) => stats::all_v2(&root.join(path)),
        }
    }

    fn each_root(&self, mut act: impl FnMut(&Path) -> io::Result<()>) -> io::Result<()> {
        match self {
            Self::V1(hierarchies) => hierarchies.iter().try_for_each(|hierarchy| act(&hierarchy.mount)),
            Self::V2(root) => act(root),
        }
    }
}

impl Hierarchy {
    pub fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|name| name == controller)
    }
}

fn handle(pid: i32) -> Option<OwnedFd> {
    pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()
}

fn collect_processes(dir: &Path, pids: &mut Vec<i32>) {
    if let Ok(text) = std::fs::read_to_string(dir.join("cgroup.procs")) {
        // A process outside our PID namespace reads as 0: killing "0" would be ourselves.
        pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|pid| *pid > 0));
    }
    for child in child_directories(dir) {
        collect_processes(&child, pids);
    }
}

fn remove_tree(dir: &Path) -> io::Result<()> {
    match std::fs::remove_dir(dir) {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(_) => {}
    }
    for child in child_directories(dir) {
        remove_tree(&child)?;
    }
    match std::fs::remove_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn child_directories(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    entries.filter_map(Result::ok).filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()).collect()
}

/// Writes a control file. The text must go in one write.
fn set(file: &Path, value: &str) -> io::Result<()> {
    std::fs::OpenOptions::new()
        .write(true)
        .open(file)
        .and_then(|mut file| file.write_all(value.as_bytes()))
        .map_err(|error| io::Error::new(error.kind(), format!("write {value:?} to {}: {error}", file.display())))
}

/// As `set`, for what the kernel may have been built without.
fn set_if_present(file: &Path, value: &str) -> io::Result<()> {
    match set(file, value) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_is_mounted() {
        let v1 = "30 1 0:1 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
                  31 1 0:2 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                  32 1 0:3 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n\
                  33 1 0:4 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let Some(Cgroups::V1(found)) = Cgroups::from_mountinfo(v1) else { panic!("version 1 not recognised") };
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].controllers, ["cpu", "cpuacct"]);
        let v2 = "33 1 0:4 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        assert!(matches!(Cgroups::from_mountinfo(v2), Some(Cgroups::V2(root)) if root == Path::new("/sys/fs/cgroup")));
        assert!(Cgroups::from_mountinfo("").is_none());
    }
}
