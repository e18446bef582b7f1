//! A container's life as the shim sees it: launched, executed or failed, ended; and the same for exec sessions.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::epoll::EventFlags;

use super::launch::{Ends, Launched};
use super::log::{Lines, Log};
use super::output::{Output, Sink};
use super::process::{REPORT_ERROR, REPORT_TERMINAL};
use super::requests::Asker;
use super::{Shim, Source, Subject};
use crate::cri::ContainerState;
use crate::layout::{Run, write_json};
use crate::protocol::{self, Answer, Message, Refusal};
use crate::sys;

/// What containerd and runc put before the cause when a container cannot be started. Users search for these words.
const CANNOT_START: &str = "failed to create containerd task: failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: ";
const CANNOT_EXEC: &str = "OCI runtime exec failed: exec failed: unable to start container process: ";
/// Exit code containerd records for a container which could not be started.
const START_ERROR: i32 = 128;

pub struct Container {
    pub run: Run,
    pub pidfd: Option<OwnedFd>,
    pub log: Log,
    pub tty: bool,
    pub stdin_once: bool,
    pub stdin: Option<OwnedFd>,
    /// The terminal's master.
    pub terminal: Option<OwnedFd>,
    pub outputs: [Option<Output>; 2],
    pub sinks: Vec<Sink>,
    /// The end of its first process is the end of all the others.
    own_processes: bool,
    launch: Option<Launch>,
}

pub struct Exec {
    pub pid: i32,
    pub pidfd: OwnedFd,
    terminal: Option<OwnedFd>,
    launch: Option<Launch>,
}

/// A child from which we have not heard yet.
struct Launch {
    asker: Asker,
    report: OwnedFd,
    token: u64,
}

/// How a start went.
enum Outcome {
    Executed,
    Failed(String),
}

impl Shim {
    pub fn start_container(&mut self, asker: Asker, id: &str) -> Result<(), Refusal> {
        if self.ending {
            return Err(Refusal::Failed("the sandbox is being stopped".to_owned()));
        }
        if self.containers.contains_key(id) {
            return Err(Refusal::Failed("cannot start a container that has been started before".to_owned()));
        }
        let config = self.pod.container_config(id).map_err(Refusal::Failed)?;
        let target = match &config.pid_of {
            Some(target) => Some(self.running(target).ok_or_else(|| Refusal::Failed(format!("invalid target container: container {target} is not running")))?),
            None => None,
        };
        let log = Log::open(self.pod.config.log_directory.join(&config.log_path)).map_err(|error| Refusal::Failed(format!("failed to create container log file: {error}")))?;
        let mut container = Container {
            run: Run::default(),
            pidfd: None,
            log,
            tty: config.tty,
            stdin_once: config.stdin_once,
            stdin: None,
            terminal: None,
            outputs: [None, None],
            sinks: Vec::new(),
            own_processes: self.pod.has_own_processes(&config),
            launch: None,
        };
        let launched = self.pod.start_container(id, &config, target).and_then(|(launched, ends)| {
            let subject = Subject::Container(id.to_owned());
            let Launched { pid, pidfd, report } = launched;
            self.processes.insert(pid, subject.clone());
            container.run.pid = pid;
            container.pidfd = Some(pidfd);
            let token = self.watch(&report, EventFlags::IN, Source::Report(subject)).map_err(|error| error.to_string())?;
            container.launch = Some(Launch { asker, report, token });
            let Ends { stdin, stdout, stderr } = ends;
            container.stdin = stdin;
            for (stream, (end, name)) in [(stdout, "stdout"), (stderr, "stderr")].into_iter().enumerate() {
                if let Some(fd) = end {
                    let token = self.watch(&fd, EventFlags::IN, Source::Output { container: id.to_owned(), stream }).map_err(|error| error.to_string())?;
                    container.outputs[stream] = Some(Output { fd, token, lines: Lines::new(name) });
                }
            }
            Ok(())
        });
        self.containers.insert(id.to_owned(), container);
        launched.map_err(|cause| Refusal::Start(self.start_failed(id, &cause)))
    }

    /// The first process of a container, while it runs.
    fn running(&self, id: &str) -> Option<BorrowedFd<'_>> {
        let container = self.containers.get(id).filter(|container| container.run.state == ContainerState::Running)?;
        container.pidfd.as_ref().map(AsFd::as_fd)
    }

    /// Records that it never ran, and returns the text for the user.
    fn start_failed(&mut self, id: &str, cause: &str) -> String {
        let text = format!("{CANNOT_START}{cause}: unknown");
        if let Some(container) = self.containers.get_mut(id) {
            container.run = Run { state: ContainerState::Exited, finished_at: sys::now_ns(), exit_code: START_ERROR, reason: "StartError".to_owned(), message: text.clone(), ..Run::default() };
        }
        self.record(id);
        self.close_streams(id);
        let _ = self.pod.cgroups.remove(&self.pod.container_cgroup(id));
        text
    }

    /// On disk first.
    fn record(&self, id: &str) {
        if let Some(container) = self.containers.get(id)
            && let Err(error) = write_json(&self.pod.layout.run(id), &container.run)
        {
            super::complain(format_args!("cannot record the state of container {id}: {error}"));
        }
    }

    pub fn start_exec(&mut self, asker: Asker, container: &str, exec: String, args: &[String], tty: bool, descriptors: Vec<OwnedFd>) -> Result<(), Refusal> {
        if !self.containers.contains_key(container) {
            return Err(Refusal::NotFound);
        }
        let pidfd = self.running(container).ok_or_else(|| Refusal::Failed("container is in CONTAINER_EXITED state".to_owned()))?;
        let streams = if tty { None } else { Some(<[OwnedFd; 3]>::try_from(descriptors).map_err(|_| Refusal::Failed("exec without its three streams".to_owned()))?) };
        let config = self.pod.container_config(container).map_err(Refusal::Failed)?;
        let launched = self.pod.start_exec(container, pidfd, &config, args, streams);
        let Launched { pid, pidfd, report } = launched.map_err(|cause| Refusal::Start(format!("{CANNOT_EXEC}{cause}: unknown")))?;
        let subject = Subject::Exec(exec.clone());
        let token = self.watch(&report, EventFlags::IN, Source::Report(subject.clone())).map_err(|error| Refusal::Failed(error.to_string()))?;
        self.processes.insert(pid, subject);
        self.execs.insert(exec, Exec { pid, pidfd, terminal: None, launch: Some(Launch { asker, report, token }) });
        Ok(())
    }

    /// Reads what a child has to say, as far as it is there.
    pub fn handle_report(&mut self, subject: &Subject) {
        loop {
            let launch = match subject {
                Subject::Container(id) => self.containers.get(id).and_then(|container| container.launch.as_ref()),
                Subject::Exec(id) => self.execs.get(id).and_then(|exec| exec.launch.as_ref()),
            };
            let Some(launch) = launch else { return };
            match protocol::receive_bytes(launch.report.as_fd()) {
                Ok(None) => return self.started(subject, Outcome::Executed),
                Ok(Some((body, mut descriptors))) => match body.split_first() {
                    Some((&REPORT_ERROR, text)) => return self.started(subject, Outcome::Failed(String::from_utf8_lossy(text).into_owned())),
                    Some((&REPORT_TERMINAL, _)) => {
                        if let Some(master) = descriptors.pop()
                            && let Err(error) = self.take_terminal(subject, master)
                        {
                            super::complain(format_args!("terminal: {error}"));
                        }
                    }
                    _ => {}
                },
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => return self.started(subject, Outcome::Failed(error.to_string())),
            }
        }
    }

    fn take_terminal(&mut self, subject: &Subject, master: OwnedFd) -> io::Result<()> {
        sys::set_nonblocking(master.as_fd())?;
        match subject {
            Subject::Exec(id) => {
                if let Some(exec) = self.execs.get_mut(id) {
                    exec.terminal = Some(master);
                }
            }
            Subject::Container(id) => {
                let fd = master.try_clone()?;
                let token = self.watch(&fd, EventFlags::IN, Source::Output { container: id.clone(), stream: 0 })?;
                if let Some(container) = self.containers.get_mut(id) {
                    container.terminal = Some(master);
                    container.outputs[0] = Some(Output { fd, token, lines: Lines::new("stdout") });
                }
            }
        }
        Ok(())
    }

    fn started(&mut self, subject: &Subject, outcome: Outcome) {
        let launch = match subject {
            Subject::Container(id) => self.containers.get_mut(id).and_then(|container| container.launch.take()),
            Subject::Exec(id) => self.execs.get_mut(id).and_then(|exec| exec.launch.take()),
        };
        let Some(launch) = launch else { return };
        self.unwatch(launch.token, &launch.report);
        match (subject, outcome) {
            (Subject::Container(id), Outcome::Executed) => {
                let Some(container) = self.containers.get_mut(id) else { return };
                container.run.state = ContainerState::Running;
                container.run.started_at = sys::now_ns();
                let run = container.run.clone();
                self.record(id);
                self.broadcast(&Message::Started { container: id.clone(), run });
                self.reply(launch.asker, Ok(Answer::Done), &[]);
            }
            (Subject::Container(id), Outcome::Failed(cause)) => {
                let text = self.start_failed(id, &cause);
                if let Some(run) = self.containers.get(id).map(|container| container.run.clone()) {
                    self.broadcast(&Message::Exited { container: id.clone(), run });
                }
                self.reply(launch.asker, Err(Refusal::Start(text)), &[]);
            }
            (Subject::Exec(id), Outcome::Executed) => {
                let terminal = self.execs.get_mut(id).and_then(|exec| exec.terminal.take());
                let ends: Vec<_> = terminal.iter().map(AsFd::as_fd).collect();
                self.reply(launch.asker, Ok(Answer::Done), &ends);
            }
            (Subject::Exec(_), Outcome::Failed(cause)) => self.reply(launch.asker, Err(Refusal::Start(format!("{CANNOT_EXEC}{cause}: unknown"))), &[]),
        }
    }

    pub fn signal_container(&mut self, id: &str, signal: i32) -> Result<Answer, Refusal> {
        let container = self.containers.get(id).ok_or(Refusal::NotFound)?;
        if let Some(pidfd) = &container.pidfd {
            sys::signal_process(pidfd.as_fd(), signal).map_err(|error| Refusal::Failed(error.to_string()))?;
        }
        Ok(Answer::Done)
    }

    pub fn container_ended(&mut self, id: &str, code: i32) {
        // What the child said last is read before its end is believed.
        self.handle_report(&Subject::Container(id.to_owned()));
        self.started(&Subject::Container(id.to_owned()), Outcome::Executed);
        let cgroup = self.pod.container_cgroup(id);
        let Some(container) = self.containers.get_mut(id) else { return };
        container.pidfd = None;
        if container.run.state != ContainerState::Running {
            return;
        }
        if !container.own_processes {
            // Nothing else ends the processes which the first one leaves in a PID namespace that goes on.
            self.pod.cgroups.kill(&cgroup);
        }
        let out_of_memory = self.pod.cgroups.oom_kills(&cgroup) > 0;
        self.drain(id);
        let Some(container) = self.containers.get_mut(id) else { return };
        let run = &mut container.run;
        run.state = ContainerState::Exited;
        run.pid = 0;
        run.finished_at = sys::now_ns();
        run.exit_code = code;
        run.reason = match (out_of_memory, code) {
            (true, _) => "OOMKilled",
            (false, 0) => "Completed",
            (false, _) => "Error",
        }
        .to_owned();
        let run = run.clone();
        self.record(id);
        // An exec's process may just be ending; whoever removes the container tries again.
        let _ = self.pod.cgroups.remove(&cgroup);
        self.broadcast(&Message::Exited { container: id.to_owned(), run });
    }

    pub fn exec_ended(&mut self, id: &str, code: i32) {
        let subject = Subject::Exec(id.to_owned());
        self.handle_report(&subject);
        self.started(&subject, Outcome::Executed);
        if self.execs.remove(id).is_some() {
            self.broadcast(&Message::ExecExited { exec: id.to_owned(), exit_code: code });
        }
    }

    /// The container is being removed; whoever does that takes care of its cgroup.
    pub fn forget_container(&mut self, id: &str) {
        if self.containers.contains_key(id) {
            self.close_streams(id);
            self.containers.remove(id);
        }
    }
}
