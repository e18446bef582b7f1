//! Streaming sessions: exec, attach, port-forward. The shim hands over descriptors; no byte of a session passes through it twice.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

use super::{Inner, failed};
use crate::cri::{ContainerState, ExecSyncResult, Result, RuntimeError, StreamOptions, Streams, TerminalSize};
use crate::protocol::{Answer, Request};
use crate::sys;

/// Output of one exec_sync stream that is kept, as in containerd.
const MAX_OUTPUT: u64 = 16 * 1024 * 1024;
/// How long output may go on after the process has ended (a child of it may hold the pipe for ever).
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

impl Inner {
    fn running(&self, id: &str) -> Result<Arc<super::records::Container>> {
        let container = self.container(id)?;
        match container.state() {
            ContainerState::Running => Ok(container),
            ContainerState::Created => Err(not_running("CONTAINER_CREATED")),
            ContainerState::Exited | ContainerState::Unknown => Err(not_running("CONTAINER_EXITED")),
        }
    }

    pub async fn exec_sync(&self, id: &str, command: Vec<String>, timeout_seconds: u64) -> Result<ExecSyncResult> {
        let operation = "failed to exec in container";
        let container = self.running(id)?;
        let link = self.link_of(&container)?;
        let exec = sys::random_id().map_err(failed(operation))?;
        let (stdout, stdout_writer) = io::pipe().map_err(failed(operation))?;
        let (stderr, stderr_writer) = io::pipe().map_err(failed(operation))?;
        let exit = link.exec_exit(&exec);
        let request = Request::Exec { container: id.to_owned(), exec: exec.clone(), args: command, tty: false };
        let null = null(OFlags::RDONLY).map_err(failed(operation))?;
        let started = link.ask(operation, request, &[null.as_fd(), stdout_writer.as_fd(), stderr_writer.as_fd()]).await;
        if let Err(error) = started {
            link.forget_exec(&exec);
            return Err(exec_error(&exec, error));
        }
        drop((stdout_writer, stderr_writer));
        let (stdout, stderr) = (reader(stdout.into()).map_err(failed(operation))?, reader(stderr.into()).map_err(failed(operation))?);
        // The pipes are read while the process runs, or it would stop when they are full; what was read stays when time is up.
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut exit = std::pin::pin!(exit);
        let exit_code = {
            let mut read = std::pin::pin!(async {
                tokio::join!(keep(stdout, &mut out), keep(stderr, &mut err));
            });
            let mut read_all = false;
            let wait = async {
                loop {
                    tokio::select! {
                        code = &mut exit => return code,
                        () = &mut read, if !read_all => read_all = true,
                    }
                }
            };
            let ended = match timeout_seconds {
                0 => wait.await,
                seconds => match tokio::time::timeout(Duration::from_secs(seconds), wait).await {
                    Ok(code) => code,
                    Err(_) => {
                        let _ = link.ask(operation, Request::SignalExec { exec: exec.clone(), signal: libc::SIGKILL }, &[]).await;
                        let _ = exit.await;
                        return Err(RuntimeError::Timeout(seconds));
                    }
                },
            };
            if !read_all {
                let _ = tokio::time::timeout(DRAIN_TIMEOUT, read).await;
            }
            ended
        };
        let exit_code = exit_code.map_err(|_| RuntimeError::Failed { operation, message: "the pod's shim is gone".to_owned() })?;
        Ok(ExecSyncResult { stdout: out, stderr: err, exit_code })
    }

    pub async fn exec(&self, id: &str, command: Vec<String>, options: StreamOptions) -> Result<Streams> {
        let operation = "failed to exec in container";
        let container = self.running(id)?;
        let link = self.link_of(&container)?;
        let exec = sys::random_id().map_err(failed(operation))?;
        let exit = link.exec_exit(&exec);
        let request = Request::Exec { container: id.to_owned(), exec: exec.clone(), args: command, tty: options.tty };
        let (mut ours, mut theirs) = ([None, None, None], Vec::new());
        if !options.tty {
            for (stream, wanted) in [options.stdin, options.stdout, options.stderr].into_iter().enumerate() {
                let (our, their) = ends(stream == 0, wanted).map_err(failed(operation))?;
                ours[stream] = our;
                theirs.push(their);
            }
        }
        let descriptors: Vec<_> = theirs.iter().map(AsFd::as_fd).collect();
        let (_, mut answered) = match link.ask(operation, request, &descriptors).await {
            Ok(answer) => answer,
            Err(error) => {
                link.forget_exec(&exec);
                return Err(exec_error(&exec, error));
            }
        };
        let exit = Box::pin(async move { exit.await.map_err(|_| RuntimeError::Failed { operation, message: "the pod's shim is gone".to_owned() }) });
        let Some(master) = answered.pop() else {
            let [stdin, stdout, stderr] = ours;
            return Ok(Streams { stdin, stdout, stderr, resize: None, exit });
        };
        let copy = |wanted: bool| if wanted { master.try_clone().map(Some) } else { Ok(None) };
        Ok(Streams {
            stdin: copy(options.stdin).map_err(failed(operation))?,
            // Someone must hold the master: without a reader the process would hang or be hung up.
            stdout: copy(true).map_err(failed(operation))?,
            stderr: None,
            resize: Some(resizer(master)),
            exit,
        })
    }

    pub async fn attach(&self, id: &str, options: StreamOptions) -> Result<Streams> {
        let operation = "failed to attach container";
        let container = self.running(id)?;
        let link = self.link_of(&container)?;
        let request = Request::Attach { container: id.to_owned(), stdin: options.stdin, stdout: options.stdout, stderr: options.stderr };
        // A resize needs the terminal, which comes as stdin: ask for it even if only output is wanted.
        let request = match request {
            Request::Attach { container: id, stdout, stderr, .. } if container.config.tty => Request::Attach { container: id, stdin: true, stdout, stderr },
            other => other,
        };
        let (answer, descriptors) = link.ask(operation, request, &[]).await?;
        let Answer::Attached { stdin, stdout, stderr, tty } = answer else {
            return Err(RuntimeError::Failed { operation, message: "the shim answered something else".to_owned() });
        };
        let mut descriptors = descriptors.into_iter();
        let mut next = |given: bool| if given { descriptors.next() } else { None };
        let (stdin, stdout, stderr) = (next(stdin), next(stdout), next(stderr));
        let mut resize = None;
        if tty && let Some(terminal) = &stdin {
            resize = Some(resizer(terminal.try_clone().map_err(failed(operation))?));
        }
        let stdin = stdin.filter(|_| options.stdin);
        let exit = Box::pin(async move { Ok(container.ended().await.exit_code) });
        Ok(Streams { stdin, stdout, stderr, resize, exit })
    }

    /// The stream is in non-blocking mode.
    pub async fn port_forward(&self, sandbox_id: &str, port: u16) -> Result<std::net::TcpStream> {
        let sandbox = self.sandbox(sandbox_id)?;
        let link = self.link(&sandbox)?;
        let mut refused = None;
        for ipv6 in [false, true] {
            let connected = match link.ask("port forward", Request::Connect { port, ipv6 }, &[]).await {
                Ok((_, mut descriptors)) => match descriptors.pop() {
                    Some(socket) => established(socket).await,
                    None => Err(io::ErrorKind::InvalidData.into()),
                },
                Err(error) => Err(io::Error::other(error.to_string())),
            };
            match connected {
                Ok(stream) => return Ok(stream),
                // The answer of IPv4 is the one to show: it is what was meant.
                Err(error) => drop(refused.get_or_insert(error)),
            }
        }
        let reason = refused.map(|error| error.to_string()).unwrap_or_default();
        Err(RuntimeError::Failed { operation: "port forward", message: format!("failed to connect to localhost:{port} inside namespace {sandbox_id:?}: {reason}") })
    }
}

/// Reads to the end. What is too much is read as well, else whoever writes it would stand still.
async fn keep(mut stream: pipe::Receiver, kept: &mut Vec<u8>) {
    // What was read stays when there was an error.
    let _ = (&mut stream).take(MAX_OUTPUT).read_to_end(kept).await;
    let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
}

fn not_running(state: &str) -> RuntimeError {
    RuntimeError::Failed { operation: "failed to exec in container", message: format!("container is in {state} state") }
}

/// containerd's words around a program that could not be started.
fn exec_error(exec: &str, error: RuntimeError) -> RuntimeError {
    match error {
        RuntimeError::Start(text) => RuntimeError::Start(format!("failed to exec in container: failed to start exec {exec:?}: {text}")),
        other => other,
    }
}

fn null(flags: OFlags) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open("/dev/null", flags | OFlags::CLOEXEC, Mode::empty())?)
}

/// Our end, non-blocking, and the process's. Unwanted streams are /dev/null.
fn ends(input: bool, wanted: bool) -> io::Result<(Option<OwnedFd>, OwnedFd)> {
    if !wanted {
        return Ok((None, null(if input { OFlags::RDONLY } else { OFlags::WRONLY })?));
    }
    let (reader, writer) = io::pipe()?;
    let (our, their): (OwnedFd, OwnedFd) = if input { (writer.into(), reader.into()) } else { (reader.into(), writer.into()) };
    sys::set_nonblocking(our.as_fd())?;
    Ok((Some(our), their))
}

fn reader(fd: OwnedFd) -> io::Result<pipe::Receiver> {
    sys::set_nonblocking(fd.as_fd())?;
    pipe::Receiver::from_owned_fd(fd)
}

fn resizer(terminal: OwnedFd) -> Box<dyn Fn(TerminalSize) + Send + Sync> {
    Box::new(move |size| {
        let size = rustix::termios::Winsize { ws_row: size.height, ws_col: size.width, ws_xpixel: 0, ws_ypixel: 0 };
        // The session may be over.
        let _ = rustix::termios::tcsetwinsize(&terminal, size);
    })
}

async fn established(socket: OwnedFd) -> io::Result<std::net::TcpStream> {
    let stream = tokio::net::TcpStream::from_std(std::net::TcpStream::from(socket))?;
    stream.writable().await?;
    match stream.take_error()? {
        Some(error) => Err(error),
        None => stream.into_std(),
    }
}
