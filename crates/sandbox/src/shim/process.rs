//! The last steps of a container's process before it is the user's program: streams, user, capabilities, seccomp, execve.
//!
//! Runs in the forked child, inside the container's namespaces, for the first process and for exec alike.
//! Order as runc's: without no_new_privs the filter is installed while we may (it needs CAP_SYS_ADMIN), with it as late as possible.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{Access, AtFlags, CWD, FileType, Gid, Mode, Uid};
use seccompiler::BpfProgram;

use super::text::{errno, reason};
use super::{capabilities, rootfs, seccomp, seccomp_profile, terminal, user};
use crate::cri::{ContainerConfig, SeccompProfile, SecurityContext};
use crate::protocol;
use crate::sys;

const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// What runc's init exits with when execve itself fails.
const EXEC_FAILED: i32 = 255;

/// The child's end of the channel on which it says why it failed, or hands over its terminal. Silence until it closes means it has been executed.
pub struct Report(pub OwnedFd);

/// The first byte of what a child reports.
pub const REPORT_ERROR: u8 = b'e';
pub const REPORT_TERMINAL: u8 = b't';

impl Report {
    pub fn error(&self, text: &str) {
        let mut body = vec![REPORT_ERROR];
        body.extend_from_slice(text.as_bytes());
        // Nobody is left to tell if this fails; the exit of the process says enough.
        let _ = protocol::send_bytes(self.0.as_fd(), &body, &[]);
    }

    fn terminal(&self, master: &OwnedFd) -> io::Result<()> {
        protocol::send_bytes(self.0.as_fd(), &[REPORT_TERMINAL], &[master.as_fd()])
    }
}

pub enum Streams {
    Given { stdin: OwnedFd, stdout: OwnedFd, stderr: OwnedFd },
    Terminal,
}

pub struct Process<'a> {
    pub config: &'a ContainerConfig,
    pub hostname: &'a str,
    pub args: &'a [String],
    pub streams: Streams,
    pub filters: &'a [BpfProgram],
    /// The container's first process: its terminal is the console.
    pub first: bool,
}

/// The seccomp programs for a container. To be called while the node's files can be seen, as a profile may be one of them.
pub fn filters(security: &SecurityContext) -> Result<Vec<BpfProgram>, String> {
    match &security.seccomp {
        _ if security.privileged => Ok(Vec::new()),
        SeccompProfile::Unconfined => Ok(Vec::new()),
        SeccompProfile::RuntimeDefault => Ok(vec![seccomp::runtime_default(capabilities::wanted(security)?)?]),
        SeccompProfile::Localhost(path) => seccomp_profile::load(path, seccomp::architecture()?),
    }
}

impl Process<'_> {
    /// Only returns with the reason why the program does not run.
    pub fn execute(self, report: &Report) -> String {
        match self.prepare(report) {
            Ok((program, arguments, environment)) => {
                let mut argument_pointers: Vec<*const libc::c_char> = arguments.iter().map(|text| text.as_ptr()).collect();
                argument_pointers.push(std::ptr::null());
                let mut environment_pointers: Vec<*const libc::c_char> = environment.iter().map(|text| text.as_ptr()).collect();
                environment_pointers.push(std::ptr::null());
                // SAFETY: both arrays end with null and point at strings alive until the call, which does not return when it works.
                unsafe { libc::execve(program.as_ptr(), argument_pointers.as_ptr(), environment_pointers.as_ptr()) };
                let error = io::Error::last_os_error();
                // As upstream this counts as started; the words go to the container's own stderr, hence its log.
                let words = format!("exec {}: {}\n", program.to_string_lossy(), reason(&error));
                let _ = io::Write::write_all(&mut io::stderr(), words.as_bytes());
                sys::exit_now(EXEC_FAILED)
            }
            Err(text) => text,
        }
    }

    #[allow(clippy::type_complexity)]
    fn prepare(&self, report: &Report) -> Result<(CString, Vec<CString>, Vec<CString>), String> {
        let security = &self.config.security;
        let passwd = std::fs::read("/etc/passwd").unwrap_or_default();
        let group = std::fs::read("/etc/group").unwrap_or_default();
        let identity = user::identify(&security.user, &String::from_utf8_lossy(&passwd), &String::from_utf8_lossy(&group)).map_err(|error| error.to_string())?;
        let capability_set = capabilities::wanted(security)?;

        match &self.streams {
            Streams::Given { stdin, stdout, stderr } => {
                for stream in [stdin, stdout, stderr] {
                    give_to(stream.as_fd(), identity.uid, identity.gid);
                }
                set_streams(stdin.as_fd(), stdout.as_fd(), stderr.as_fd()).map_err(|error| format!("set up streams: {}", reason(&error)))?;
            }
            Streams::Terminal => {
                let open = || -> io::Result<()> {
                    let terminal = terminal::open()?;
                    if self.first {
                        terminal.bind_console()?;
                    }
                    terminal.adopt(identity.uid, identity.gid)?;
                    report.terminal(&terminal.master)
                };
                open().map_err(|error| format!("set up terminal: {}", reason(&error)))?;
            }
        }

        let cwd = if self.config.working_dir.is_empty() { "/" } else { self.config.working_dir.as_str() };
        if !cwd.starts_with('/') {
            return Err(format!("Cwd must be an absolute path: {cwd:?}"));
        }
        if self.first {
            rootfs::ensure_directory(cwd).map_err(|error| format!("error during container init: mkdir {cwd}: {}", reason(&error)))?;
        }
        // As root first; where only the user may go (a share, say), again as the user.
        let entered = rustix::process::chdir(cwd);
        rustix::process::umask(Mode::from_raw_mode(0o022));

        let failed = |what: &'static str| move |error: io::Error| format!("error during container init: {what}: {}", reason(&error));
        if security.no_new_privs {
            rustix::thread::set_no_new_privs(true).map_err(|error| failed("set no_new_privs")(error.into()))?;
        } else {
            install(self.filters)?;
        }
        capabilities::limit_bounding(capability_set).map_err(failed("drop bounding set"))?;
        rustix::thread::set_keep_capabilities(true).map_err(|error| failed("keep capabilities")(error.into()))?;
        let groups: Vec<Gid> = identity.groups.iter().copied().map(Gid::from_raw).collect();
        rustix::thread::set_thread_groups(&groups).map_err(|error| failed("setgroups")(error.into()))?;
        rustix::thread::set_thread_gid(Gid::from_raw(identity.gid)).map_err(|error| failed("setgid")(error.into()))?;
        rustix::thread::set_thread_uid(Uid::from_raw(identity.uid)).map_err(|error| failed("setuid")(error.into()))?;
        rustix::thread::set_keep_capabilities(false).map_err(|error| failed("keep capabilities")(error.into()))?;
        capabilities::apply(capability_set).map_err(failed("capset"))?;
        if entered.is_err() {
            rustix::process::chdir(cwd).map_err(|error| format!("chdir to cwd ({cwd:?}) set in config.json failed: {}", errno(error)))?;
        }

        let environment = self.environment(&identity.home);
        let search = environment.iter().rev().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or_default();
        let program = find(self.args.first().map_or("", String::as_str), search)?;
        let text = |text: String| CString::new(text).map_err(|_| "invalid argument: it contains a zero byte".to_owned());
        let program = text(program)?;
        let arguments = self.args.iter().cloned().map(text).collect::<Result<_, _>>()?;
        let environment = environment.into_iter().map(text).collect::<Result<_, _>>()?;
        if security.no_new_privs {
            install(self.filters)?;
        }
        sys::reset_signals();
        sys::close_all_on_exec();
        Ok((program, arguments, environment))
    }

    /// The node's variables over the runtime's own.
    fn environment(&self, home: &str) -> Vec<String> {
        let given = &self.config.env;
        let lacks = |name: &str| !given.iter().any(|(known, _)| known == name);
        let mut environment = Vec::with_capacity(given.len() + 4);
        if lacks("PATH") {
            environment.push(DEFAULT_PATH.to_owned());
        }
        if lacks("HOSTNAME") {
            environment.push(format!("HOSTNAME={}", self.hostname));
        }
        if matches!(self.streams, Streams::Terminal) && lacks("TERM") {
            environment.push("TERM=xterm".to_owned());
        }
        environment.extend(given.iter().map(|(name, value)| format!("{name}={value}")));
        if lacks("HOME") {
            environment.push(format!("HOME={home}"));
        }
        environment
    }
}

fn install(filters: &[BpfProgram]) -> Result<(), String> {
    for filter in filters {
        let program: Vec<libc::sock_filter> = filter.iter().map(|step| libc::sock_filter { code: step.code, jt: step.jt, jf: step.jf, k: step.k }).collect();
        sys::seccomp_install(&program).map_err(|error| format!("error during container init: unable to init seccomp: {}", reason(&error)))?;
    }
    Ok(())
}

/// So that the user may open /dev/stdout again. What does not belong to the container alone (a null device) keeps its owner.
fn give_to(stream: BorrowedFd<'_>, uid: u32, gid: u32) {
    if rustix::fs::fstat(stream).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Fifo) {
        let _ = rustix::fs::fchown(stream, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
    }
}

pub fn set_streams(stdin: BorrowedFd<'_>, stdout: BorrowedFd<'_>, stderr: BorrowedFd<'_>) -> io::Result<()> {
    for (from, to) in [(stdin, 0), (stdout, 1), (stderr, 2)] {
        // SAFETY: 0, 1 and 2 are this process's standard streams, owned by no Rust value. None of the sources is one of them: the shim
        // keeps /dev/null there.
        if unsafe { libc::dup2(from.as_raw_fd(), to) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// What Go's `exec.LookPath` does, with its words.
fn find(name: &str, search: &str) -> Result<String, String> {
    let failed = |why: String| format!("exec: {name:?}: {why}");
    if name.contains('/') {
        return match check(name) {
            Ok(()) => Ok(name.to_owned()),
            Err(rustix::io::Errno::NOENT) => Err(failed(format!("stat {name}: no such file or directory"))),
            Err(rustix::io::Errno::NOTDIR) => Err(failed(format!("stat {name}: not a directory"))),
            Err(error) => Err(failed(errno(error))),
        };
    }
    for directory in search.split(':') {
        let directory = if directory.is_empty() { "." } else { directory };
        let path = format!("{}/{name}", directory.trim_end_matches('/'));
        if !name.is_empty() && check(&path).is_ok() {
            return Ok(path);
        }
    }
    Err(failed("executable file not found in $PATH".to_owned()))
}

fn check(path: &str) -> rustix::io::Result<()> {
    let stat = rustix::fs::stat(path)?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        return Err(rustix::io::Errno::ISDIR);
    }
    if stat.st_mode & 0o111 == 0 {
        return Err(rustix::io::Errno::ACCESS);
    }
    rustix::fs::accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS)
}
