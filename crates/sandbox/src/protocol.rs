//! What the main process and a shim say to each other: JSON packets on a SOCK_SEQPACKET socket, with descriptors beside them.
//!
//! Promises: one packet is one message; a body too large for a packet travels in a memfd, which neither side needs to know of.

use std::io::{self, IoSlice, IoSliceMut, Read, Seek, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::layout::Run;

/// Descriptors a message can carry, the memfd of a large body included.
const MAX_DESCRIPTORS: usize = 5;
/// Bodies above this go into a memfd.
const MAX_PACKET: usize = 16 * 1024;
/// Largest body we accept at all: a command line cannot be larger than this anyway.
const MAX_BODY: u64 = 16 * 1024 * 1024;

#[derive(Debug, Serialize, Deserialize)]
pub enum Request {
    Start { container: String },
    Signal { container: String, signal: i32 },
    /// Without a terminal: with descriptors for stdin, stdout and stderr. With one: answered with the pty's master.
    Exec { container: String, exec: String, args: Vec<String>, tty: bool },
    /// To the process and its group.
    SignalExec { exec: String, signal: i32 },
    /// Answered with the ends asked for, in the order stdin, stdout, stderr; `Answer::Attached` says which.
    Attach { container: String, stdin: bool, stdout: bool, stderr: bool },
    ReopenLog { container: String },
    /// The container is being removed.
    Forget { container: String },
    /// Answered with a non-blocking TCP socket, connecting or connected, to a loopback address inside the pod.
    Connect { port: u16, ipv6: bool },
    /// Kill everything and end. The connection closes when it is done.
    Shutdown,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Call {
    pub seq: u64,
    pub request: Request,
}

#[derive(Debug, Serialize, Deserialize)]
pub enum Answer {
    Done,
    Attached { stdin: bool, stdout: bool, stderr: bool, tty: bool },
}

#[derive(Debug, Serialize, Deserialize)]
pub enum Refusal {
    NotFound,
    /// The process could not be started; the text is the innermost cause.
    Start(String),
    Failed(String),
}

#[derive(Debug, Serialize, Deserialize)]
pub enum Message {
    /// First on every connection.
    Hello { pid: i32, containers: Vec<(String, Run)> },
    /// Instead of a greeting: the sandbox could not be set up, and the shim ends.
    Failed { error: String },
    Reply { seq: u64, result: Result<Answer, Refusal> },
    Started { container: String, run: Run },
    Exited { container: String, run: Run },
    ExecExited { exec: String, exit_code: i32 },
}

/// Sends one packet without blocking.
pub fn send<T: Serialize>(socket: BorrowedFd<'_>, message: &T, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let body = serde_json::to_vec(message)?;
    send_bytes(socket, &body, descriptors)
}

pub fn send_bytes(socket: BorrowedFd<'_>, body: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    if body.len() <= MAX_PACKET {
        return send_packet(socket, b'{', body, descriptors);
    }
    let mut memory = std::fs::File::from(rustix::fs::memfd_create("coracle-message", rustix::fs::MemfdFlags::CLOEXEC)?);
    memory.write_all(body)?;
    let mut all = descriptors.to_vec();
    all.push(memory.as_fd());
    send_packet(socket, b'm', &[], &all)
}

fn send_packet(socket: BorrowedFd<'_>, kind: u8, body: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    let parts = [IoSlice::new(std::slice::from_ref(&kind)), IoSlice::new(body)];
    rustix::net::sendmsg(socket, &parts, &mut control, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Receives one packet without blocking. `None` when the other side closed.
pub fn receive<T: DeserializeOwned>(socket: BorrowedFd<'_>) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let Some((body, descriptors)) = receive_bytes(socket)? else { return Ok(None) };
    let message = serde_json::from_slice(&body)?;
    Ok(Some((message, descriptors)))
}

pub fn receive_bytes(socket: BorrowedFd<'_>) -> io::Result<Option<(Vec<u8>, Vec<OwnedFd>)>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut buffer = [0u8; MAX_PACKET + 1];
    let received = rustix::net::recvmsg(socket, &mut [IoSliceMut::new(&mut buffer)], &mut control, RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC)?;
    let mut descriptors: Vec<OwnedFd> = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    match buffer[..received.bytes].split_first() {
        None => Ok(None),
        Some((b'm', _)) => {
            let memory = descriptors.pop().ok_or(io::ErrorKind::InvalidData)?;
            let mut memory = std::fs::File::from(memory);
            memory.rewind()?;
            let mut body = Vec::new();
            memory.take(MAX_BODY).read_to_end(&mut body)?;
            Ok(Some((body, descriptors)))
        }
        Some((_, body)) => Ok(Some((body.to_vec(), descriptors))),
    }
}

/// A listening socket at `dir/name`, however long the path is.
pub fn listen(dir: &Path, name: &str) -> io::Result<OwnedFd> {
    let path = dir.join(name);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    with_short_path(dir, name, |address| {
        let socket = new_socket(SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
        rustix::net::bind(&socket, address)?;
        rustix::net::listen(&socket, 64)?;
        Ok(socket)
    })
}

/// Connects to a shim. The kernel completes this at once or refuses it: nobody is waited for.
pub fn connect(dir: &Path, name: &str) -> io::Result<OwnedFd> {
    with_short_path(dir, name, |address| {
        let socket = new_socket(SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
        rustix::net::connect(&socket, address)?;
        Ok(socket)
    })
}

fn new_socket(flags: SocketFlags) -> io::Result<OwnedFd> {
    Ok(rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?)
}

/// Socket addresses hold 107 bytes only: go through the directory's descriptor.
fn with_short_path<T>(dir: &Path, name: &str, act: impl FnOnce(&rustix::net::SocketAddrUnix) -> io::Result<T>) -> io::Result<T> {
    use std::os::fd::AsRawFd;
    let full = dir.join(name);
    if full.as_os_str().len() < 100 {
        return act(&rustix::net::SocketAddrUnix::new(&full)?);
    }
    let dir = std::fs::File::open(dir)?;
    act(&rustix::net::SocketAddrUnix::new(format!("/proc/self/fd/{}/{name}", dir.as_raw_fd()))?)
}
