//! `lab shell`: a program in a node, as if it were typed there.
//!
//! This process goes into the node's namespaces and starts the program from there, on a terminal of the node's own when there is one here, and
//! ends as the program does.

use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, Stdio};

use nix::sched::{CloneFlags, setns};
use sandbox::cgroup::Cgroups;

use crate::error::{LabError, Result, io};
use crate::layout::NodeLayout;
use crate::process::Process;
use crate::terminal;

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// As a shell has it.
const NOT_FOUND: i32 = 127;
/// What a shell in a node keeps of this one's environment.
const KEPT: [&str; 5] = ["TERM", "LANG", "LC_ALL", "COLORTERM", "COLUMNS"];

/// Only for a process with one thread. The program's exit code; 128 and the signal's number when it was killed.
pub fn run(process: &Process, place: &NodeLayout, words: &[OsString], environment: &[(String, String)]) -> Result<i32> {
    let handle = process.handle().ok_or_else(|| LabError::Invalid("the node was switched off just now".into()))?;
    let cgroups = Cgroups::discover().map_err(io("find the cgroups"))?;
    let files = cgroups.join_files(&place.system_cgroup()).map_err(io("open the node's cgroup"))?;
    files.iter().try_for_each(|mut file| file.write_all(b"0")).map_err(io("join the node's cgroup"))?;
    let all = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWCGROUP;
    setns(handle.as_fd(), all).map_err(|error| LabError::Io { what: "go into the node".into(), source: error.into() })?;
    std::env::set_current_dir("/root").map_err(io("go to /root"))?;

    let mut command = match words.split_first() {
        Some((program, rest)) => {
            // Found where the node has it, not where this process would have looked.
            let mut command = Command::new(program);
            command.args(rest);
            command
        }
        None => {
            let mut command = Command::new("/bin/bash");
            command.arg("--login");
            command
        }
    };
    command.env_clear().env("PATH", PATH).env("HOME", "/root").env("USER", "root").env("LOGNAME", "root").env("SHELL", "/bin/bash");
    command.envs(KEPT.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    let on_terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let terminal = on_terminal.then(sandbox::shim::terminal::open).transpose().map_err(io("open a terminal in the node"))?;
    if let Some(terminal) = &terminal {
        let slave = || terminal.slave.try_clone().map(Stdio::from).map_err(io("open a terminal in the node"));
        command.stdin(slave()?).stdout(slave()?).stderr(slave()?);
        terminal::copy_size(&terminal.master);
    }
    // SAFETY: between fork and exec only system calls are made.
    unsafe {
        command.pre_exec(move || {
            sandbox::sys::reset_signals();
            if on_terminal {
                nix::unistd::setsid()?;
                rustix::process::ioctl_tiocsctty(std::io::stdin())?;
            } else {
                // Whoever ends this command ends the program.
                rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::HUP))?;
            }
            Ok(())
        });
    }
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("coracle: {}: command not found", words.first().map(|word| word.to_string_lossy()).unwrap_or_default());
            return Ok(NOT_FOUND);
        }
        Err(error) => return Err(io("start the program")(error)),
    };
    // Ours of the terminal's far side goes with the command: the end is then the program's.
    drop(command);
    if let Some(terminal) = terminal {
        drop(terminal.slave);
        let program = rustix::process::pidfd_open(rustix::process::Pid::from_child(&child), rustix::process::PidfdFlags::empty());
        let carried = program.map_err(std::io::Error::from).and_then(|program| terminal::relay(&terminal.master, &program));
        carried.map_err(io("carry the terminal"))?;
    }
    let status = child.wait().map_err(io("wait for the program"))?;
    Ok(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)))
}
