//! Forks a container's first process, or one more process in a running container.
//!
//! Nothing here waits: the child tells over its report channel when it failed, and the channel closes by itself when the program has been executed.

use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use seccompiler::BpfProgram;

use super::process::{Process, Report, Streams, filters};
use super::rootfs::Root;
use super::text::reason;
use crate::cgroup::{Cgroups, DeviceAccess, DeviceRule};
use crate::cri::{ContainerConfig, NamespaceMode, PodSandboxConfig};
use crate::layout::{ContainerFile, Layout, read_json};
use crate::sys::{self, Cloned};

/// Exit code of a child which could not become the program. Never seen by users: the report tells more.
const NOT_STARTED: i32 = 128;

/// What stays the same for all processes of the pod.
pub struct Pod {
    pub layout: Layout,
    pub id: String,
    pub config: PodSandboxConfig,
    pub hostname: String,
    pub cgroups: Cgroups,
    /// Of the pod; its containers' cgroups are below.
    pub cgroup: String,
    /// Our own PID namespace, to come back to.
    pub own_pid_namespace: OwnedFd,
    /// The namespace the pod's containers share, if they do.
    pub shared_pid_namespace: Option<OwnedFd>,
}

/// A child on its way.
pub struct Launched {
    pub pid: i32,
    pub pidfd: OwnedFd,
    pub report: OwnedFd,
}

/// Our ends of a container's streams.
#[derive(Default)]
pub struct Ends {
    pub stdin: Option<OwnedFd>,
    pub stdout: Option<OwnedFd>,
    pub stderr: Option<OwnedFd>,
}

impl Pod {
    pub fn container_config(&self, id: &str) -> Result<ContainerConfig, String> {
        read_json::<ContainerFile>(&self.layout.container_config(id)).map(|file| file.config).map_err(|error| error.to_string())
    }

    /// Whether its first process is the first of a PID namespace, whose end is that of all others in it.
    pub fn has_own_processes(&self, config: &ContainerConfig) -> bool {
        self.config.namespaces.pid == NamespaceMode::Container && config.pid_of.is_none()
    }

    pub fn container_cgroup(&self, id: &str) -> String {
        format!("{}/{id}", self.cgroup)
    }

    /// `target` is a process of the container whose PID namespace it joins, if it is to see another's processes.
    pub fn start_container(&self, id: &str, config: &ContainerConfig, target: Option<BorrowedFd<'_>>) -> Result<(Launched, Ends), String> {
        let cgroup = self.container_cgroup(id);
        let rules = device_rules(config).map_err(|error| reason(&error))?;
        self.cgroups
            .create(&cgroup, &config.resources, DeviceAccess::Allow(&rules))
            .map_err(|error| format!("unable to apply cgroup configuration: {}", reason(&error)))?;
        let cgroup_files = self.cgroups.join_files(&cgroup).map_err(|error| format!("unable to apply cgroup configuration: {}", reason(&error)))?;
        let (streams, ends) = if config.tty { (Streams::Terminal, Ends::default()) } else { pipes(config.stdin).map_err(|error| reason(&error))? };
        let oom_score_adj = config.resources.oom_score_adj;

        let mut namespaces = libc::CLONE_NEWNS as u64;
        if self.has_own_processes(config) {
            namespaces |= libc::CLONE_NEWPID as u64;
        }
        let launched = self.launch(namespaces, target.or(self.shared_pid_namespace.as_ref().map(AsFd::as_fd)), |report| {
            let enter = || -> Result<Vec<BpfProgram>, String> {
                let filters = filters(&config.security)?;
                rustix::process::setsid().map_err(super::text::errno)?;
                if let Some(adjustment) = oom_score_adj {
                    // Lowering needs CAP_SYS_RESOURCE, which a nested machine may lack: the container then is merely likelier to be killed.
                    let _ = std::fs::write("/proc/self/oom_score_adj", adjustment.to_string());
                }
                let root = Root { layout: &self.layout, sandbox_id: &self.id, sandbox: &self.config, container_id: id, config, cgroups: &self.cgroups, cgroup: &cgroup };
                match &self.cgroups {
                    // The new tree is mounted as seen from inside.
                    Cgroups::V2(_) => {
                        join(&cgroup_files)?;
                        root.enter()?;
                    }
                    // Late, so that a container with little CPU or memory does not pay for its own setting up.
                    Cgroups::V1(_) => {
                        root.enter()?;
                        join(&cgroup_files)?;
                    }
                }
                Ok(filters)
            };
            match enter() {
                Ok(filters) => Process { config, hostname: &self.hostname, args: &config.args, streams, filters: &filters, first: true }.execute(report),
                Err(text) => text,
            }
        })?;
        Ok((launched, ends))
    }

    /// `streams` are stdin, stdout and stderr, or none for a terminal.
    pub fn start_exec(&self, container: &str, container_pidfd: BorrowedFd<'_>, config: &ContainerConfig, args: &[String], streams: Option<[OwnedFd; 3]>) -> Result<Launched, String> {
        let cgroup_files = self.cgroups.join_files(&self.container_cgroup(container)).map_err(|error| reason(&error))?;
        let streams = match streams {
            Some([stdin, stdout, stderr]) => Streams::Given { stdin, stdout, stderr },
            None => Streams::Terminal,
        };
        self.launch(0, Some(container_pidfd), |report| {
            let enter = || -> Result<Vec<BpfProgram>, String> {
                let filters = filters(&config.security)?;
                rustix::process::setsid().map_err(super::text::errno)?;
                if let Some(adjustment) = config.resources.oom_score_adj {
                    let _ = std::fs::write("/proc/self/oom_score_adj", adjustment.to_string());
                }
                join_files_only(&cgroup_files)?;
                sys::setns(container_pidfd, libc::CLONE_NEWNS | libc::CLONE_NEWCGROUP).map_err(|error| format!("setns: {}", reason(&error)))?;
                Ok(filters)
            };
            match enter() {
                Ok(filters) => Process { config, hostname: &self.hostname, args, streams, filters: &filters, first: false }.execute(report),
                Err(text) => text,
            }
        })
    }

    /// Forks, in the PID namespace of `pid_namespace` (its link or a process in it) if there is one. `child` says why it failed.
    fn launch(&self, namespaces: u64, pid_namespace: Option<BorrowedFd<'_>>, child: impl FnOnce(&Report) -> String) -> Result<Launched, String> {
        let failed = |error: io::Error| reason(&error);
        let (ours, theirs) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).map_err(|error| failed(error.into()))?;
        if let Some(namespace) = pid_namespace {
            sys::setns(namespace, libc::CLONE_NEWPID).map_err(failed)?;
        }
        let cloned = sys::clone_process(namespaces);
        match cloned {
            Ok(Cloned::Child) => {
                drop(ours);
                // Until it is the user's program this process holds the shim's descriptors: no one in the container may look into it.
                // (execve makes it visible again.)
                let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
                let report = Report(theirs);
                // A panic must not unwind into the shim's own loop, of which this process holds a copy.
                let text = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| child(&report))).unwrap_or_else(|_| "internal error".to_owned());
                report.error(&text);
                sys::exit_now(NOT_STARTED)
            }
            other => {
                if pid_namespace.is_some() {
                    sys::setns(self.own_pid_namespace.as_fd(), libc::CLONE_NEWPID).map_err(failed)?;
                }
                match other {
                    Ok(Cloned::Parent { pid, pidfd }) => Ok(Launched { pid, pidfd, report: ours }),
                    Ok(Cloned::Child) => sys::exit_now(NOT_STARTED),
                    Err(error) => Err(failed(error)),
                }
            }
        }
    }
}

fn join_files_only(files: &[std::fs::File]) -> Result<(), String> {
    for mut file in files {
        file.write_all(b"0").map_err(|error| format!("unable to join cgroup: {}", reason(&error)))?;
    }
    Ok(())
}

/// Joins and makes that the root of what the container can see.
fn join(files: &[std::fs::File]) -> Result<(), String> {
    join_files_only(files)?;
    sys::unshare(libc::CLONE_NEWCGROUP).map_err(|error| format!("unshare cgroup namespace: {}", reason(&error)))
}

/// The child's streams and our ends of them. Without stdin it reads nothing.
fn pipes(stdin: bool) -> io::Result<(Streams, Ends)> {
    let pipe = || -> io::Result<(OwnedFd, OwnedFd)> {
        let (reader, writer) = io::pipe()?;
        Ok((reader.into(), writer.into()))
    };
    let (child_in, our_in) = if stdin {
        let (reader, writer) = pipe()?;
        sys::set_nonblocking(writer.as_fd())?;
        (reader, Some(writer))
    } else {
        (rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?, None)
    };
    let (our_out, child_out) = pipe()?;
    let (our_err, child_err) = pipe()?;
    sys::set_nonblocking(our_out.as_fd())?;
    sys::set_nonblocking(our_err.as_fd())?;
    Ok((Streams::Given { stdin: child_in, stdout: child_out, stderr: child_err }, Ends { stdin: our_in, stdout: Some(our_out), stderr: Some(our_err) }))
}

fn device_rules(config: &ContainerConfig) -> io::Result<Vec<DeviceRule>> {
    if config.security.privileged {
        return Ok(vec![DeviceRule::EVERYTHING]);
    }
    let mut rules = DeviceRule::DEFAULT.to_vec();
    for device in &config.devices {
        let stat = rustix::fs::stat(device.host_path.as_str())?;
        let kind = if rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::BlockDevice { 'b' } else { 'c' };
        let mut rule = DeviceRule::new(kind, Some(rustix::fs::major(stat.st_rdev)), Some(rustix::fs::minor(stat.st_rdev)));
        let allowed = |letter| device.permissions.is_empty() || device.permissions.contains(letter);
        (rule.read, rule.write, rule.make) = (allowed('r'), allowed('w'), allowed('m'));
        rules.push(rule);
    }
    Ok(rules)
}
