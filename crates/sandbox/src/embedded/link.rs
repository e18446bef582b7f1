//! The connection to one shim: requests with their answers, and what the shim tells unasked.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;

use super::Inner;
use super::records::Sandbox;
use crate::cri::{ContainerEventKind, ContainerState, RuntimeError};
use crate::layout::{Run, socket_name, write_json};
use crate::protocol::{self, Answer, Call, Message, Refusal, Request};
use crate::sys;

type Reply = Result<(Answer, Vec<OwnedFd>), Refusal>;

pub struct Link {
    socket: AsyncFd<OwnedFd>,
    next: AtomicU64,
    pending: Mutex<HashMap<u64, oneshot::Sender<Reply>>>,
    execs: Mutex<HashMap<String, oneshot::Sender<i32>>>,
}

/// Before we try again to connect to a shim when this process was the one that could not.
const RECONNECT_PAUSE: Duration = Duration::from_millis(500);
/// Exit code of a container whose end nobody saw.
const UNSEEN: i32 = 137;

impl Link {
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        // SAFETY: an OwnedFd always answers with the same descriptor, which stays open as long as the AsyncFd that owns it.
        let socket = unsafe { AsyncFd::register(socket)? };
        Ok(Self { socket, next: AtomicU64::new(1), pending: Mutex::default(), execs: Mutex::default() })
    }

    /// The shim's first words: its pid and the containers it has.
    pub async fn greeting(&self) -> io::Result<(i32, Vec<(String, Run)>)> {
        match self.receive().await? {
            Some((Message::Hello { pid, containers }, _)) => Ok((pid, containers)),
            Some((Message::Failed { error }, _)) => Err(io::Error::other(error)),
            Some(_) => Err(io::ErrorKind::InvalidData.into()),
            None => Err(io::Error::other("the shim ended")),
        }
    }

    async fn receive(&self) -> io::Result<Option<(Message, Vec<OwnedFd>)>> {
        self.socket.async_io(Interest::READABLE, |socket| protocol::receive(socket.as_fd())).await
    }

    /// Asks and waits for the answer.
    pub async fn ask(&self, operation: &'static str, request: Request, descriptors: &[BorrowedFd<'_>]) -> Result<(Answer, Vec<OwnedFd>), RuntimeError> {
        let seq = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        self.pending.lock().insert(seq, sender);
        let gone = || RuntimeError::Failed { operation, message: "the pod's shim is gone".to_owned() };
        let call = Call { seq, request };
        let sent = self.socket.async_io(Interest::WRITABLE, |socket| protocol::send(socket.as_fd(), &call, descriptors)).await;
        if sent.is_err() {
            self.pending.lock().remove(&seq);
            return Err(gone());
        }
        match receiver.await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(Refusal::NotFound)) => Err(RuntimeError::NotFound { what: "running container", id: operation.to_owned() }),
            Ok(Err(Refusal::Start(text))) => Err(RuntimeError::Start(text)),
            Ok(Err(Refusal::Failed(message))) => Err(RuntimeError::Failed { operation, message }),
            Err(_) => Err(gone()),
        }
    }

    /// Resolves when the exec session of this name has ended. Asked for before it is started.
    pub fn exec_exit(&self, exec: &str) -> oneshot::Receiver<i32> {
        let (sender, receiver) = oneshot::channel();
        self.execs.lock().insert(exec.to_owned(), sender);
        receiver
    }

    /// Whoever still waits for something on this connection is told that it will not come.
    fn close(&self) {
        self.pending.lock().clear();
        self.execs.lock().clear();
    }

    pub fn forget_exec(&self, exec: &str) {
        self.execs.lock().remove(exec);
    }
}

/// Nobody listens for us any more.
pub fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound)
}

/// `None`: the shim is no more. That we cannot connect for another reason (no descriptor is left) says nothing of the shim, and its pod must not die of it.
async fn reconnect(inner: &Inner, sandbox: &Sandbox) -> Option<Arc<Link>> {
    loop {
        match inner.connect(sandbox) {
            Ok(link) => return Some(link),
            Err(error) if is_gone(&error) => return None,
            Err(error) => {
                tracing::warn!(sandbox = sandbox.id, %error, "cannot connect to a shim again");
                tokio::time::sleep(RECONNECT_PAUSE).await;
            }
        }
    }
}

/// The same once it can be reached.
pub async fn follow_again(inner: Arc<Inner>, sandbox: Arc<Sandbox>) {
    match reconnect(&inner, &sandbox).await {
        Some(link) => follow(inner, sandbox, link).await,
        None => inner.shim_ended(&sandbox).await,
    }
}

/// Listens to the shim until it ends.
pub async fn follow(inner: Arc<Inner>, sandbox: Arc<Sandbox>, link: Arc<Link>) {
    let mut link = link;
    loop {
        match link.receive().await {
            Ok(Some((message, descriptors))) => inner.heard(&sandbox, &link, message, descriptors),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => tracing::warn!(sandbox = sandbox.id, %error, "message of a shim not understood"),
            Ok(None) | Err(_) => {
                link.close();
                match reconnect(&inner, &sandbox).await {
                    // It cut us off because we were slow; its greeting brings us up to date.
                    Some(again) => link = again,
                    None => break,
                }
            }
        }
    }
    inner.shim_ended(&sandbox).await;
}

impl Inner {
    /// Connects to the sandbox's shim, if there is one.
    pub fn connect(&self, sandbox: &Sandbox) -> io::Result<Arc<Link>> {
        let socket = protocol::connect(&self.layout.socket_dir(), &socket_name(&sandbox.id))?;
        let link = Arc::new(Link::new(socket)?);
        *sandbox.link.lock() = Some(link.clone());
        Ok(link)
    }

    fn heard(&self, sandbox: &Sandbox, link: &Link, message: Message, descriptors: Vec<OwnedFd>) {
        match message {
            Message::Hello { pid, containers } => {
                sandbox.shim_pid.store(pid, Ordering::Relaxed);
                for (container, run) in containers {
                    self.learned(sandbox, &container, run);
                }
            }
            Message::Failed { error } => tracing::warn!(sandbox = sandbox.id, error, "shim failed"),
            Message::Reply { seq, result } => {
                let waiting = link.pending.lock().remove(&seq);
                if let Some(waiting) = waiting {
                    // Whoever asked may have been cancelled.
                    let _ = waiting.send(result.map(|answer| (answer, descriptors)));
                }
            }
            Message::Started { container, run } | Message::Exited { container, run } => self.learned(sandbox, &container, run),
            Message::ExecExited { exec, exit_code } => {
                let waiting = link.execs.lock().remove(&exec);
                if let Some(waiting) = waiting {
                    let _ = waiting.send(exit_code);
                }
            }
        }
    }

    /// Takes note of a container's state and tells of it when it is new.
    pub fn learned(&self, sandbox: &Sandbox, container_id: &str, run: Run) {
        let Ok(container) = self.container(container_id) else { return };
        let kind = match run.state {
            ContainerState::Running => ContainerEventKind::Started,
            ContainerState::Exited => ContainerEventKind::Stopped,
            ContainerState::Created | ContainerState::Unknown => return,
        };
        let changed = container.run.borrow().state != run.state;
        container.run.send_replace(run);
        if changed {
            self.emit(sandbox, Some(container_id), kind);
        }
    }

    /// The shim is no more. If that was not asked for, nothing of the pod may live on unwatched.
    pub async fn shim_ended(self: &Arc<Self>, sandbox: &Arc<Sandbox>) {
        sandbox.link.lock().take();
        let (inner, ended) = (self.clone(), sandbox.clone());
        let work = move || inner.bury(&ended);
        if tokio::task::spawn_blocking(work).await.is_err() {
            tracing::warn!(sandbox = sandbox.id, "cleaning up after a shim was interrupted");
        }
        sandbox.ended.send_replace(true);
        self.emit(sandbox, None, ContainerEventKind::Stopped);
    }

    /// Kills what is left of the pod, takes its traces off the host and settles the states. Blocking.
    pub fn bury(&self, sandbox: &Sandbox) {
        if !sandbox.stopping.load(Ordering::Relaxed) {
            tracing::warn!(sandbox = sandbox.id, "the shim of a pod ended unexpectedly");
        }
        self.cgroups.kill(&sandbox.cgroup());
        crate::shim::tear_down(&self.layout, &sandbox.id);
        for container in self.containers_of(&sandbox.id) {
            if container.state() != ContainerState::Running {
                continue;
            }
            let mut run = container.run.borrow().clone();
            run.state = ContainerState::Exited;
            run.pid = 0;
            run.finished_at = sys::now_ns();
            run.exit_code = UNSEEN;
            run.reason = "ContainerStatusUnknown".to_owned();
            run.message = "The container could not be located when the pod was terminated".to_owned();
            if let Err(error) = write_json(&self.layout.run(&container.id), &run) {
                tracing::warn!(container = container.id, %error, "cannot record the state of a container");
            }
            self.learned(sandbox, &container.id, run);
        }
        self.set_not_ready(sandbox);
    }

    pub fn set_not_ready(&self, sandbox: &Sandbox) {
        let mut status = sandbox.status.lock();
        status.ready = false;
        if let Err(error) = write_json(&self.layout.sandbox_status(&sandbox.id), &*status) {
            tracing::warn!(sandbox = sandbox.id, %error, "cannot record the state of a sandbox");
        }
    }
}
