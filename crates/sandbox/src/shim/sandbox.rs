//! The pod's namespaces. The shim itself lives in its network, IPC and UTS namespaces, so every process it forks is in them from birth;
//! unix sockets with a path work across network namespaces, which is how the main process still reaches it.
//!
//! The network namespace is also bound to a file, where the pod network finds it. A shared PID namespace is kept by a small first process.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::mount::MountFlags;

use super::launch::Pod;
use super::text::reason;
use crate::cgroup::{Cgroups, DeviceAccess};
use crate::cri::NamespaceMode;
use crate::layout::{Layout, SandboxFile, pod_cgroup, read_json};
use crate::sys::{self, Cloned};

/// Makes the namespaces. The error is for the user's eyes.
pub fn set_up(layout: Layout, id: &str) -> Result<Pod, String> {
    let config = read_json::<SandboxFile>(&layout.sandbox_config(id)).map_err(|error| error.to_string())?.config;
    let failed = |what: &str, error: io::Error| format!("{what}: {}", reason(&error));
    let cgroups = Cgroups::discover().map_err(|error| failed("find cgroups", error))?;
    let cgroup = pod_cgroup(&config, id);
    cgroups.create(&cgroup, &config.resources, DeviceAccess::Inherit).map_err(|error| failed("create pod cgroup", error))?;

    let mut flags = 0;
    if config.namespaces.network != NamespaceMode::Node {
        flags |= libc::CLONE_NEWNET;
    }
    if config.namespaces.ipc != NamespaceMode::Node {
        flags |= libc::CLONE_NEWIPC;
    }
    let own_hostname = !config.namespaces.uts_host && config.namespaces.network != NamespaceMode::Node;
    if own_hostname {
        flags |= libc::CLONE_NEWUTS;
    }
    sys::unshare(flags).map_err(|error| failed("create namespaces", error))?;
    if flags & libc::CLONE_NEWNET != 0 {
        bind_network(&layout, id).map_err(|error| failed("keep network namespace", error))?;
    }
    if own_hostname {
        rustix::system::sethostname(config.hostname.as_bytes()).map_err(|error| failed("set host name", error.into()))?;
    }
    let hostname = if own_hostname { config.hostname.clone() } else { rustix::system::uname().nodename().to_string_lossy().into_owned() };
    if flags & libc::CLONE_NEWIPC != 0 {
        mount_shm(&layout, id).map_err(|error| failed("mount /dev/shm", error))?;
    }
    for (name, value) in &config.sysctls {
        set_sysctl(name, value).map_err(|error| failed(&format!("set sysctl {name}"), error))?;
    }
    let own_pid_namespace = open_namespace("/proc/self/ns/pid").map_err(|error| failed("open PID namespace", error))?;
    let shared_pid_namespace = match config.namespaces.pid {
        NamespaceMode::Pod => Some(start_pause().map_err(|error| failed("create PID namespace", error))?),
        _ => None,
    };
    Ok(Pod { layout, id: id.to_owned(), config, hostname, cgroups, cgroup, own_pid_namespace, shared_pid_namespace })
}

/// Undoes what `set_up` left on the host. Everything else goes with the last process.
pub fn tear_down(layout: &Layout, id: &str) {
    use rustix::mount::{UnmountFlags, unmount};
    let netns = layout.netns(id);
    let _ = unmount(&netns, UnmountFlags::DETACH);
    let _ = std::fs::remove_file(netns);
    let shm = layout.shm(id);
    let _ = unmount(&shm, UnmountFlags::DETACH);
    let _ = std::fs::remove_dir(shm);
    let _ = std::fs::remove_file(layout.socket(id));
}

fn bind_network(layout: &Layout, id: &str) -> io::Result<()> {
    let path = layout.netns(id);
    std::fs::write(&path, "")?;
    Ok(rustix::mount::mount_bind("/proc/self/ns/net", &path)?)
}

fn mount_shm(layout: &Layout, id: &str) -> io::Result<()> {
    let path = layout.shm(id);
    std::fs::create_dir_all(&path)?;
    let flags = MountFlags::NOSUID | MountFlags::NOEXEC | MountFlags::NODEV;
    Ok(rustix::mount::mount("shm", &path, "tmpfs", flags, Some(c"mode=1777,size=65536k"))?)
}

/// `net.ipv4.ip_forward` and `net/ipv4/conf/eth0.1/…` are both understood, as sysctl(8) does.
fn set_sysctl(name: &str, value: &str) -> io::Result<()> {
    let path = if name.split(['.', '/']).next().is_some_and(|first| name[first.len()..].starts_with('/')) { name.to_owned() } else { name.replace('.', "/") };
    if path.split('/').any(|part| part == "..") {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    std::fs::write(format!("/proc/sys/{path}"), value)
}

fn open_namespace(path: &str) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Process 1 of a PID namespace the containers share: it only reaps. It is a copy of the shim, so it costs next to nothing.
fn start_pause() -> io::Result<OwnedFd> {
    match sys::clone_process(libc::CLONE_NEWPID as u64)? {
        Cloned::Child => pause(),
        Cloned::Parent { pid, pidfd } => {
            drop(pidfd);
            open_namespace(&format!("/proc/{pid}/ns/pid"))
        }
    }
}

fn pause() -> ! {
    sys::reset_signals();
    let _ = rustix::thread::set_name(c"pause");
    // Ends with the shim; with it go all processes of the namespace.
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
    // No descriptor of the shim may be kept open here: main would not see the shim end.
    for fd in 3..1024 {
        // SAFETY: this process never uses any of its copies of the shim's descriptors again.
        unsafe { libc::close(fd) };
    }
    let signals = match sys::signal_descriptor() {
        Ok(signals) => signals,
        Err(_) => sys::exit_now(1),
    };
    loop {
        let mut poll = [libc::pollfd { fd: signals.as_raw_fd(), events: libc::POLLIN, revents: 0 }];
        // SAFETY: one valid pollfd.
        unsafe { libc::poll(poll.as_mut_ptr(), 1, -1) };
        let mut waste = [0u8; 1024];
        let _ = rustix::io::read(&signals, &mut waste);
        while sys::reap().is_some() {}
    }
}
