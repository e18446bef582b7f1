//! The shim: one small process per pod which owns the pod's namespaces, starts its containers, writes their logs and keeps their exit codes,
//! whatever becomes of the main process.
//!
//! Promises: one thread, no runtime, nothing polled; it lives in its own session, is in no cgroup of the pod, and reaps whatever its containers
//! leave behind. State is on disk (`run.json`) before anyone is told of it. It ends on `Shutdown` or SIGTERM, after killing everything.
//!
//! The main process (or a successor) talks to it on a socket; see `protocol`.

mod capabilities;
mod containers;
mod launch;
mod log;
mod output;
mod process;
mod requests;
mod rootfs;
mod sandbox;
mod seccomp;
mod seccomp_profile;
pub mod terminal;
mod text;
mod user;

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;

use rustix::event::epoll::{self, EventData, EventFlags};

use crate::layout::Layout;
use crate::protocol::{self, Message};
use crate::sys;
use containers::{Container, Exec};
use launch::Pod;

pub(crate) use sandbox::tear_down;

/// Events taken from the kernel at a time.
const EVENTS: usize = 16;
/// Bytes read from a container's output at a time.
const READ_BUFFER: usize = 16 * 1024;

/// What the main process starts us with: `<exe> shim --root <dir> --state <dir> --id <sandbox>`, the listening socket as standard input.
/// `arguments` are those after `shim`. Call it first thing in `main`, before any thread or allocation that could be spared.
pub fn main(arguments: impl Iterator<Item = OsString>) -> ! {
    let code = match Arguments::parse(arguments) {
        Ok(arguments) => match detach() {
            Ok(listener) => run(arguments, listener),
            Err(error) => {
                complain(format_args!("{error}"));
                1
            }
        },
        Err(what) => {
            complain(format_args!("{what}"));
            2
        }
    };
    std::process::exit(code)
}

struct Arguments {
    layout: Layout,
    id: String,
}

impl Arguments {
    fn parse(mut arguments: impl Iterator<Item = OsString>) -> Result<Self, String> {
        let (mut root, mut state, mut id) = (None, None, None);
        while let Some(name) = arguments.next() {
            let value = arguments.next();
            match name.to_str() {
                Some("--root") => root = value.map(PathBuf::from),
                Some("--state") => state = value.map(PathBuf::from),
                Some("--id") => id = value.and_then(|id| id.into_string().ok()),
                _ => return Err(format!("unknown argument {name:?}")),
            }
        }
        match (root, state, id) {
            (Some(root_dir), Some(state_dir), Some(id)) => Ok(Self { layout: Layout { root_dir, state_dir }, id }),
            _ => Err("--root, --state and --id are needed".to_owned()),
        }
    }
}

/// Leaves the parent for good and takes the listening socket from standard input.
fn detach() -> io::Result<OwnedFd> {
    // Whatever the main process had inherited without wanting it (a lock of the shell that started it, say) must not live as long as a pod.
    // SAFETY: nothing of ours is open yet but the standard descriptors.
    unsafe { libc::close_range(3, libc::c_uint::MAX, 0) };
    if sys::fork()?.is_some() {
        sys::exit_now(0);
    }
    rustix::process::setsid()?;
    rustix::process::chdir("/")?;
    let _ = rustix::thread::set_name(c"coracle-shim");
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    let listener = rustix::io::fcntl_dupfd_cloexec(io::stdin(), 3)?;
    let null = rustix::fs::open("/dev/null", rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CLOEXEC, rustix::fs::Mode::empty())?;
    // SAFETY: descriptor 0 belongs to no Rust value but the standard library's stdin, which we do not read.
    if unsafe { libc::dup2(null.as_raw_fd(), 0) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(listener)
}

fn run(arguments: Arguments, listener: OwnedFd) -> i32 {
    let layout = arguments.layout.clone();
    let set_up = sys::signal_descriptor().map_err(|error| error.to_string()).and_then(|signals| {
        let pod = sandbox::set_up(arguments.layout, &arguments.id)?;
        Shim::new(pod, &listener, signals).map_err(|error| error.to_string())
    });
    let code = match set_up {
        Ok(mut shim) => match shim.serve(&listener) {
            Ok(()) => 0,
            Err(error) => {
                complain(format_args!("{error}"));
                shim.kill_everything();
                1
            }
        },
        Err(error) => {
            complain(format_args!("{error}"));
            if let Ok(client) = rustix::net::accept(&listener) {
                let _ = protocol::send(client.as_fd(), &Message::Failed { error }, &[]);
            }
            1
        }
    };
    sandbox::tear_down(&layout, &arguments.id);
    code
}

/// For the sandbox's shim.log. A log that cannot be written must not end the shim, as `eprintln!` would.
fn complain(what: std::fmt::Arguments<'_>) {
    let _ = io::Write::write_fmt(&mut io::stderr(), format_args!("shim: {what}\n"));
}

/// What a descriptor in the poll set is.
#[derive(Clone)]
enum Source {
    Listener,
    Signals,
    Client,
    /// A child saying how its start went.
    Report(Subject),
    /// A container's stdout (0, or the terminal) or stderr (1).
    Output { container: String, stream: usize },
    /// An attached reader that was full.
    Sink { container: String },
}

/// Whose process something is about.
#[derive(Clone, PartialEq, Eq)]
enum Subject {
    Container(String),
    Exec(String),
}

struct Shim {
    pod: Pod,
    epoll: OwnedFd,
    signals: OwnedFd,
    next_token: u64,
    sources: HashMap<u64, Source>,
    clients: BTreeMap<u64, OwnedFd>,
    containers: BTreeMap<String, Container>,
    execs: BTreeMap<String, Exec>,
    processes: HashMap<i32, Subject>,
    buffer: Vec<u8>,
    /// Entries for a log file, gathered before they are written at once.
    entries: Vec<u8>,
    ending: bool,
}

impl Shim {
    fn new(pod: Pod, listener: &OwnedFd, signals: OwnedFd) -> io::Result<Self> {
        let mut shim = Self {
            pod,
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            signals,
            next_token: 0,
            sources: HashMap::new(),
            clients: BTreeMap::new(),
            containers: BTreeMap::new(),
            execs: BTreeMap::new(),
            processes: HashMap::new(),
            buffer: vec![0; READ_BUFFER],
            entries: Vec::new(),
            ending: false,
        };
        let signals = shim.signals.try_clone()?;
        shim.watch(&signals, EventFlags::IN, Source::Signals)?;
        shim.watch(listener, EventFlags::IN, Source::Listener)?;
        Ok(shim)
    }

    fn watch(&mut self, fd: &OwnedFd, flags: EventFlags, source: Source) -> io::Result<u64> {
        self.next_token += 1;
        epoll::add(&self.epoll, fd, EventData::new_u64(self.next_token), flags)?;
        self.sources.insert(self.next_token, source);
        Ok(self.next_token)
    }

    /// Must be called while the descriptor is still open.
    fn unwatch(&mut self, token: u64, fd: &OwnedFd) {
        self.sources.remove(&token);
        let _ = epoll::delete(&self.epoll, fd);
    }

    fn serve(&mut self, listener: &OwnedFd) -> io::Result<()> {
        loop {
            let mut events = [MaybeUninit::uninit(); EVENTS];
            let ready: Vec<(u64, EventFlags)> = match epoll::wait(&self.epoll, &mut events, None) {
                Ok((events, _)) => events.iter().map(|event| (event.data.u64(), event.flags)).collect(),
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            for (token, _) in ready {
                // A source may have gone with an earlier event of the same batch.
                match self.sources.get(&token).cloned() {
                    None => {}
                    Some(Source::Listener) => self.accept(listener),
                    Some(Source::Signals) => self.handle_signals(),
                    Some(Source::Client) => self.handle_client(token),
                    Some(Source::Report(subject)) => self.handle_report(&subject),
                    Some(Source::Output { container, stream }) => self.handle_output(&container, stream),
                    Some(Source::Sink { container }) => self.handle_sinks(&container),
                }
            }
            if self.ending && self.processes.is_empty() {
                return Ok(());
            }
        }
    }

    fn handle_signals(&mut self) {
        let mut records = [0u8; size_of::<libc::signalfd_siginfo>() * 8];
        while let Ok(length) = rustix::io::read(&self.signals, &mut records) {
            for record in records[..length].chunks_exact(size_of::<libc::signalfd_siginfo>()) {
                // The number is the first word of signalfd_siginfo.
                let number = u32::from_ne_bytes([record[0], record[1], record[2], record[3]]);
                if number as i32 == libc::SIGTERM {
                    self.end();
                }
            }
        }
        while let Some((pid, code)) = sys::reap() {
            match self.processes.remove(&pid) {
                Some(Subject::Container(id)) => self.container_ended(&id, code),
                Some(Subject::Exec(id)) => self.exec_ended(&id, code),
                // An orphan which became ours.
                None => {}
            }
        }
    }

    /// Kills everything; the loop ends when all of it has been reaped.
    fn end(&mut self) {
        self.ending = true;
        self.kill_everything();
    }

    fn kill_everything(&mut self) {
        for container in self.containers.values() {
            if let Some(pidfd) = &container.pidfd {
                let _ = sys::signal_process(pidfd.as_fd(), libc::SIGKILL);
            }
        }
        for exec in self.execs.values() {
            let _ = sys::signal_process(exec.pidfd.as_fd(), libc::SIGKILL);
        }
        self.pod.cgroups.kill(&self.pod.cgroup);
    }

    /// Tells every connected main process.
    fn broadcast(&mut self, message: &Message) {
        let tokens: Vec<u64> = self.clients.keys().copied().collect();
        for token in tokens {
            self.tell(token, message, &[]);
        }
    }

    /// One that does not take it is cut off; it will connect again and be greeted with everything as it is then.
    fn tell(&mut self, token: u64, message: &Message, descriptors: &[std::os::fd::BorrowedFd<'_>]) {
        let Some(client) = self.clients.get(&token) else { return };
        if protocol::send(client.as_fd(), message, descriptors).is_err() {
            self.drop_client(token);
        }
    }

    fn drop_client(&mut self, token: u64) {
        if let Some(client) = self.clients.remove(&token) {
            self.unwatch(token, &client);
        }
    }
}
