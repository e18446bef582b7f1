//! A process of the lab that outlives the command which started it: found again by its number and when it started, since a number alone may have been
//! given to another by now.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use basics::files;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};

use crate::error::{LabError, Result, errno, io};

/// How long a killed process may take to go: only one stuck in the kernel takes that long.
const END_TIMEOUT: Duration = Duration::from_secs(20);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    pub pid: i32,
    start_time: u64,
}

/// Field 22 of /proc/<pid>/stat; the name before may hold anything, but ends at the last parenthesis.
fn start_time(pid: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

impl Process {
    pub fn of(pid: i32) -> Option<Self> {
        Some(Self { pid, start_time: start_time(pid)? })
    }

    /// The one the file names, if it still runs.
    pub fn read(path: &Path) -> Option<Self> {
        let found: Self = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
        (start_time(found.pid) == Some(found.start_time) && !is_ended(found.pid)).then_some(found)
    }

    pub fn write(&self, path: &Path) -> Result<()> {
        let bytes = serde_json::to_vec(self).unwrap_or_default();
        files::replace(path, &bytes, files::READABLE).map_err(io(format!("write {}", path.display())))
    }

    pub fn handle(&self) -> Option<OwnedFd> {
        let handle = pidfd_open(Pid::from_raw(self.pid)?, PidfdFlags::empty()).ok()?;
        // Looked at after it is held: it is the one that was meant.
        (start_time(self.pid) == Some(self.start_time)).then_some(handle)
    }

    pub fn namespace(&self, kind: &str) -> Result<File> {
        let path = format!("/proc/{}/ns/{kind}", self.pid);
        File::open(&path).map_err(io(format!("open {path}")))
    }

    /// Kills it and returns when it, and of a node all that ran on it, has ended.
    pub fn kill(&self) -> Result<()> {
        let Some(handle) = self.handle() else { return Ok(()) };
        sandbox::sys::signal_process(handle.as_fd(), libc::SIGKILL).map_err(io(format!("kill process {}", self.pid)))?;
        let until = Instant::now() + END_TIMEOUT;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match poll(
                &mut [PollFd::new(&handle, PollFlags::IN)],
                Some(&Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) }),
            ) {
                Ok(0) => return Err(LabError::Invalid(format!("process {} has not ended after {} s", self.pid, END_TIMEOUT.as_secs()))),
                Ok(_) => return Ok(()),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(io("wait for the end of a process")(error.into())),
            }
        }
    }
}

/// Ended, and only not yet waited for by its parent.
fn is_ended(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .ok()
        .and_then(|stat| stat.rsplit_once(')')?.1.trim_start().chars().next())
        .is_none_or(|state| matches!(state, 'Z' | 'X'))
}

/// This program again, as one of the lab's own processes, in a session of its own and in the network namespace given. Returns when it has said
/// `ready` on its standard output, with what it said before: lines `key value`, of which `pid` is the process that stays.
pub fn launch(what: &str, log: &Path, namespace: Option<&File>, arguments: &[String]) -> Result<Vec<String>> {
    let failed = |message: String| LabError::Start { node: what.to_owned(), message };
    let (mut reader, writer) = std::io::pipe().map_err(io("make a pipe"))?;
    let log_file = File::options().create(true).append(true).open(log).map_err(io(format!("write {}", log.display())))?;
    let exe = std::env::current_exe().map_err(io("find this program"))?;
    let mut command = Command::new(exe);
    command.args(arguments).env_clear().stdin(Stdio::null()).stdout(writer).stderr(log_file);
    let namespace = namespace.map(|file| file.as_fd().try_clone_to_owned()).transpose().map_err(io("keep a namespace"))?;
    // SAFETY: between fork and exec only setsid and setns are called, both async-signal-safe.
    unsafe {
        command.pre_exec(move || {
            nix::unistd::setsid()?;
            if let Some(namespace) = &namespace {
                nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET)?;
            }
            Ok(())
        });
    }
    let child = command.spawn().map_err(io(format!("start {what}")))?;
    // Ours of the pipe's ends goes with the command: what is read ends when nobody can write any more.
    drop(command);
    let mut said = String::new();
    reader.read_to_string(&mut said).map_err(io(format!("hear of {what}")))?;
    // One that stays itself need not say its number; one that leaves another behind says that one's.
    let mut lines = vec![format!("pid {}", child.id())];
    lines.splice(0..0, said.lines().map(str::to_owned));
    let own = lines.pop();
    match lines.pop() {
        Some(last) if last == "ready" => {
            lines.extend(own);
            Ok(lines)
        }
        Some(last) => Err(failed(last.strip_prefix("error: ").unwrap_or(&last).to_owned())),
        None => Err(failed(format!("it ended without a word; its log is {}", log.display()))),
    }
}

/// In the process that was launched: `ready`, or why not. The pipe closes, and nothing more is said there.
pub fn say(outcome: &Result<(), String>) -> Result<()> {
    let text = match outcome {
        Ok(()) => "ready\n".to_owned(),
        Err(message) => format!("error: {}\n", message.replace('\n', " ")),
    };
    let mut out = std::io::stdout().lock();
    // Whoever started us may have gone.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    let null = File::options().write(true).open("/dev/null").map_err(io("open /dev/null"))?;
    nix::unistd::dup2_stdout(&null).map_err(errno("close the pipe"))
}
