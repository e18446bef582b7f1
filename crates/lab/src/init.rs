//! Process 1 of a node: makes the node's namespaces and root, then reaps whatever nobody else waits for, until the node is switched off.
//!
//! It is this binary again. The command that started it may end; the node does not. Killing it is cutting the power: the kernel kills all that runs in
//! the node with it, and its namespaces, mounts and links go too.

use std::ffi::OsString;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::PathBuf;

use rustix::event::{PollFd, PollFlags, poll};
use sandbox::cgroup::{Cgroups, DeviceAccess};
use sandbox::cri::LinuxResources;
use sandbox::sys::{self, Cloned};
use serde::{Deserialize, Serialize};

use crate::layout::NodeLayout;
use crate::{process, root};

/// The first word of its command line.
pub const WORD: &str = "lab-init";

/// What a node is told about itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Spec {
    pub name: String,
    pub folder: PathBuf,
    pub cgroup: String,
    /// The lab's folder, which its nodes do not see.
    pub hide: PathBuf,
    /// This binary, as the node gets it.
    pub exe: PathBuf,
    pub hosts: String,
    pub resolv_conf: String,
}

impl Spec {
    pub fn layout(&self) -> NodeLayout {
        NodeLayout { folder: self.folder.clone(), cgroup: self.cgroup.clone() }
    }
}

/// Called in the node's network namespace, with one thread.
pub fn main(arguments: &[OsString]) -> i32 {
    let spec = arguments.first().and_then(|path| std::fs::read(path).ok()).and_then(|bytes| serde_json::from_slice::<Spec>(&bytes).ok());
    let Some(spec) = spec else {
        eprintln!("{WORD} is started by `coracle lab`");
        return 2;
    };
    let begun = begin(&spec);
    match begun {
        Ok(()) => run(&spec),
        Err(message) => {
            let _ = process::say(&Err(message));
            1
        }
    }
}

/// Into the node's cgroup and then into its namespaces: returns inside. Outside it says the number by which the outside finds the node, and ends.
fn begin(spec: &Spec) -> Result<(), String> {
    let cgroups = Cgroups::discover().map_err(|error| format!("find the cgroups: {error}"))?;
    cgroups
        .create(&spec.cgroup, &LinuxResources::default(), DeviceAccess::Inherit)
        .map_err(|error| format!("make cgroup {}: {error}", spec.cgroup))?;
    join(&cgroups, &spec.cgroup)?;
    // The cgroup namespace's root is where we are: the node's cgroup.
    const NAMESPACES: i32 = libc::CLONE_NEWPID | libc::CLONE_NEWNS | libc::CLONE_NEWUTS | libc::CLONE_NEWIPC | libc::CLONE_NEWCGROUP;
    let (mut reader, writer) = std::io::pipe().map_err(|error| format!("make a pipe: {error}"))?;
    match sys::clone_process(NAMESPACES as u64).map_err(|error| format!("make the node's namespaces: {error}"))? {
        Cloned::Child => {
            drop(writer);
            // Ends when the process outside has said our number, or is gone.
            let _ = std::io::Read::read(&mut reader, &mut [0]);
            Ok(())
        }
        Cloned::Parent { pid, .. } => {
            // Out of the way: version 2 has no processes beside child cgroups.
            let system = spec.layout().system_cgroup();
            cgroups.create_plain(&system).map_err(|error| format!("make cgroup {system}: {error}"))?;
            join(&cgroups, &system)?;
            let mut out = std::io::stdout().lock();
            writeln!(out, "pid {pid}").and_then(|()| out.flush()).map_err(|error| format!("say the number: {error}"))?;
            drop(writer);
            sys::exit_now(0)
        }
    }
}

fn join(cgroups: &Cgroups, path: &str) -> Result<(), String> {
    let files = cgroups.join_files(path).map_err(|error| format!("open cgroup {path}: {error}"))?;
    files.iter().try_for_each(|mut file| file.write_all(b"0")).map_err(|error| format!("join cgroup {path}: {error}"))
}

/// Inside: the rest of the node, and then nothing but reaping.
fn run(spec: &Spec) -> i32 {
    let ready = prepare(spec);
    let failed = ready.is_err();
    if process::say(&ready).is_err() || failed {
        return 1;
    }
    let Ok(signals) = sys::signal_descriptor() else { return 1 };
    // From now on the standard error is a file of the host's: what the kernel has to say about us is not said there.
    while poll(&mut [PollFd::new(&signals, PollFlags::IN)], None).is_ok() {
        let mut buffer = [0; 128 * 8];
        while let Ok(length) = rustix::io::read(signals.as_fd(), &mut buffer) {
            // struct signalfd_siginfo begins with the signal's number.
            let told = buffer[..length].chunks_exact(128).filter_map(|one| one[..4].try_into().ok().map(u32::from_ne_bytes));
            if told.into_iter().any(|signal| signal == libc::SIGTERM as u32) {
                return 0;
            }
        }
        while sys::reap().is_some() {}
    }
    1
}

fn prepare(spec: &Spec) -> Result<(), String> {
    // By now the process outside has left the node's cgroup.
    let cgroups = Cgroups::discover().map_err(|error| format!("find the cgroups: {error}"))?;
    join(&cgroups, &spec.layout().system_cgroup())?;
    nix::unistd::sethostname(&spec.name).map_err(|error| format!("set the host name: {error}"))?;
    root::enter(spec, &cgroups)?;
    // It may lead a session already.
    let _ = nix::unistd::setsid();
    Ok(())
}
