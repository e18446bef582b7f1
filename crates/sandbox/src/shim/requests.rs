//! What the main process asks of the shim.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::epoll::EventFlags;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::text::reason;
use super::{Shim, Source};
use crate::protocol::{self, Answer, Call, Message, Refusal, Request};
use crate::sys;

/// Who asked, so that the answer finds its way back.
#[derive(Clone, Copy)]
pub struct Asker {
    pub client: u64,
    pub seq: u64,
}

impl Shim {
    pub fn accept(&mut self, listener: &OwnedFd) {
        while let Ok(client) = rustix::net::accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
            let Ok(token) = self.watch(&client, EventFlags::IN, Source::Client) else { continue };
            self.clients.insert(token, client);
            let containers = self.containers.iter().map(|(id, container)| (id.clone(), container.run.clone())).collect();
            self.tell(token, &Message::Hello { pid: rustix::process::getpid().as_raw_nonzero().get(), containers }, &[]);
        }
    }

    pub fn handle_client(&mut self, token: u64) {
        loop {
            let Some(client) = self.clients.get(&token) else { return };
            match protocol::receive::<Call>(client.as_fd()) {
                Ok(Some((call, descriptors))) => self.answer(Asker { client: token, seq: call.seq }, call.request, descriptors),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::InvalidData => super::complain(format_args!("{error}")),
                Ok(None) | Err(_) => return self.drop_client(token),
            }
        }
    }

    fn answer(&mut self, asker: Asker, request: Request, descriptors: Vec<OwnedFd>) {
        let result = match request {
            // These two answer when the child has reported.
            Request::Start { container } => match self.start_container(asker, &container) {
                Ok(()) => return,
                Err(refusal) => Err(refusal),
            },
            Request::Exec { container, exec, args, tty } => match self.start_exec(asker, &container, exec, &args, tty, descriptors) {
                Ok(()) => return,
                Err(refusal) => Err(refusal),
            },
            Request::Attach { container, stdin, stdout, stderr } => match self.attach(&container, stdin, stdout, stderr) {
                Ok((answer, ends)) => {
                    let ends: Vec<BorrowedFd<'_>> = ends.iter().map(AsFd::as_fd).collect();
                    return self.reply(asker, Ok(answer), &ends);
                }
                Err(refusal) => Err(refusal),
            },
            Request::Connect { port, ipv6 } => match connect(port, ipv6) {
                Ok(socket) => return self.reply(asker, Ok(Answer::Done), &[socket.as_fd()]),
                Err(error) => Err(Refusal::Failed(reason(&error))),
            },
            Request::Signal { container, signal } => self.signal_container(&container, signal),
            Request::SignalExec { exec, signal } => {
                if let Some(exec) = self.execs.get(&exec) {
                    sys::kill(-exec.pid, signal);
                    let _ = sys::signal_process(exec.pidfd.as_fd(), signal);
                }
                Ok(Answer::Done)
            }
            Request::ReopenLog { container } => match self.containers.get_mut(&container) {
                Some(container) => container.log.reopen().map(|()| Answer::Done).map_err(|error| Refusal::Failed(reason(&error))),
                None => Err(Refusal::NotFound),
            },
            Request::Forget { container } => {
                self.forget_container(&container);
                Ok(Answer::Done)
            }
            Request::Shutdown => {
                self.end();
                Ok(Answer::Done)
            }
        };
        self.reply(asker, result, &[]);
    }

    pub fn reply(&mut self, asker: Asker, result: Result<Answer, Refusal>, descriptors: &[BorrowedFd<'_>]) {
        self.tell(asker.client, &Message::Reply { seq: asker.seq, result }, descriptors);
    }
}

/// We are in the pod's network namespace, so a plain socket is one of the pod's.
fn connect(port: u16, ipv6: bool) -> io::Result<OwnedFd> {
    let (family, address) = if ipv6 {
        (AddressFamily::INET6, std::net::SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, port)))
    } else {
        (AddressFamily::INET, std::net::SocketAddr::from((std::net::Ipv4Addr::LOCALHOST, port)))
    };
    let socket = rustix::net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    match rustix::net::connect(&socket, &address) {
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => Ok(socket),
        Err(error) => Err(error.into()),
    }
}
