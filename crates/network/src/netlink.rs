//! A netlink socket and the one encoder all families share (`Documentation/userspace-api/netlink/intro.rst`).
//!
//! The kernel handles a netlink request inside `sendmsg`, so every answer is already queued when that call returns: a
//! request never blocks and needs no poll loop. Promises: a request larger than the default buffers works (the buffers
//! are raised past the sysctl limits), and an answer that did not fit is an error, never taken for success.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Largest request sent in one piece; an nftables transaction must be one piece.
pub const SEND_BUFFER_BYTES: usize = 64 << 20;
/// Room for the answers to one request, errors of a failed transaction included.
const RECEIVE_BUFFER_BYTES: usize = 8 << 20;
/// The kernel fills dump datagrams up to 32 KiB, or up to the size of the buffer it saw last.
const DATAGRAM_BYTES: usize = 64 << 10;
/// An attribute's length is 16 bits.
pub const ATTRIBUTE_BYTES_MAX: usize = u16::MAX as usize;

const HEADER: usize = 16;
const NLA_F_NESTED: u16 = 1 << 15;
const NLA_TYPE_MASK: u16 = !(3 << 14);

/// A request the kernel refused, with the kernel's own words when it gave some.
#[derive(Debug, thiserror::Error)]
#[error("{operation}: {source}{}", .message.as_deref().map(|m| format!(" ({m})")).unwrap_or_default())]
pub struct NetlinkError {
    pub operation: String,
    #[source]
    pub source: io::Error,
    pub message: Option<String>,
    /// Sequence number of the message refused, 0 when the failure is of the socket.
    pub sequence: u32,
}

impl NetlinkError {
    pub fn io(operation: impl Into<String>, source: io::Error) -> Self {
        Self { operation: operation.into(), source, message: None, sequence: 0 }
    }

    pub fn errno(&self) -> i32 {
        self.source.raw_os_error().unwrap_or(0)
    }
}

pub type Result<T, E = NetlinkError> = std::result::Result<T, E>;

/// Messages being written one after another into one buffer.
#[derive(Default)]
pub struct Request {
    buffer: Vec<u8>,
    start: usize,
    sequence: u32,
}

impl Request {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    pub fn len(&self) -> usize {
        self.buffer.len()
    }

    pub fn sequence(&self) -> u32 {
        self.sequence
    }

    /// Appends one message: header, the family's fixed part, and the attributes `body` writes. Returns its sequence number.
    pub fn message(&mut self, kind: u16, flags: i32, fixed: &[u8], body: impl FnOnce(&mut Self)) -> u32 {
        self.start = self.buffer.len();
        self.sequence += 1;
        self.buffer.extend_from_slice(&0u32.to_ne_bytes());
        self.buffer.extend_from_slice(&kind.to_ne_bytes());
        self.buffer.extend_from_slice(&((flags | libc::NLM_F_REQUEST) as u16).to_ne_bytes());
        self.buffer.extend_from_slice(&self.sequence.to_ne_bytes());
        self.buffer.extend_from_slice(&0u32.to_ne_bytes());
        self.buffer.extend_from_slice(fixed);
        self.pad();
        body(self);
        let length = (self.buffer.len() - self.start) as u32;
        self.buffer[self.start..self.start + 4].copy_from_slice(&length.to_ne_bytes());
        self.sequence
    }

    /// Asks for an acknowledgement of the message written last.
    pub fn acknowledge_last(&mut self) {
        if let Some(flags) = self.buffer.get_mut(self.start + 6..self.start + 8) {
            let value = u16::from_ne_bytes([flags[0], flags[1]]) | libc::NLM_F_ACK as u16;
            flags.copy_from_slice(&value.to_ne_bytes());
        }
    }

    fn pad(&mut self) {
        let length = self.buffer.len().next_multiple_of(4);
        self.buffer.resize(length, 0);
    }

    pub fn bytes(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        debug_assert!(value.len() + 4 <= ATTRIBUTE_BYTES_MAX);
        self.buffer.extend_from_slice(&((value.len() + 4) as u16).to_ne_bytes());
        self.buffer.extend_from_slice(&kind.to_ne_bytes());
        self.buffer.extend_from_slice(value);
        self.pad();
        self
    }

    pub fn u8(&mut self, kind: u16, value: u8) -> &mut Self {
        self.bytes(kind, &[value])
    }

    /// Host byte order, as rtnetlink wants it.
    pub fn u32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.bytes(kind, &value.to_ne_bytes())
    }

    /// Network byte order, as netfilter wants it.
    pub fn be32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    pub fn be64(&mut self, kind: u16, value: u64) -> &mut Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    /// NUL-terminated.
    pub fn text(&mut self, kind: u16, value: &str) -> &mut Self {
        self.buffer.extend_from_slice(&((value.len() + 5) as u16).to_ne_bytes());
        self.buffer.extend_from_slice(&kind.to_ne_bytes());
        self.buffer.extend_from_slice(value.as_bytes());
        self.buffer.push(0);
        self.pad();
        self
    }

    pub fn nest(&mut self, kind: u16, body: impl FnOnce(&mut Self)) -> &mut Self {
        let start = self.buffer.len();
        self.buffer.extend_from_slice(&0u16.to_ne_bytes());
        self.buffer.extend_from_slice(&(kind | NLA_F_NESTED).to_ne_bytes());
        body(self);
        let length = self.buffer.len() - start;
        debug_assert!(length <= ATTRIBUTE_BYTES_MAX, "nest of {length} bytes");
        self.buffer[start..start + 2].copy_from_slice(&(length as u16).to_ne_bytes());
        self
    }

    /// Bytes inside a nest that are no attribute: the fixed part of an embedded message (a veth peer).
    pub fn raw(&mut self, value: &[u8]) -> &mut Self {
        self.buffer.extend_from_slice(value);
        self.pad();
        self
    }
}

/// One message of an answer.
pub struct Reply {
    pub kind: u16,
    payload: Vec<u8>,
}

impl Reply {
    /// The family's fixed part; shorter than asked when the message is.
    pub fn fixed(&self, length: usize) -> &[u8] {
        self.payload.get(..length).unwrap_or(&self.payload)
    }

    /// The attributes after a fixed part of `length` bytes.
    pub fn attributes(&self, length: usize) -> Attributes<'_> {
        Attributes(self.payload.get(length.next_multiple_of(4)..).unwrap_or(&[]))
    }
}

/// Walks attributes; stops at the first that is malformed.
#[derive(Clone, Copy)]
pub struct Attributes<'a>(pub &'a [u8]);

impl<'a> Attributes<'a> {
    pub fn get(self, kind: u16) -> Option<&'a [u8]> {
        self.into_iter().find(|(k, _)| *k == kind).map(|(_, v)| v)
    }

    pub fn nested(self, kind: u16) -> Attributes<'a> {
        Attributes(self.get(kind).unwrap_or(&[]))
    }

    pub fn u32(self, kind: u16) -> Option<u32> {
        Some(u32::from_ne_bytes(self.get(kind)?.get(..4)?.try_into().ok()?))
    }

    pub fn text(self, kind: u16) -> Option<&'a str> {
        let value = self.get(kind)?;
        std::str::from_utf8(value.split(|b| *b == 0).next()?).ok()
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let length = u16::from_ne_bytes(self.0.get(..2)?.try_into().ok()?) as usize;
        let kind = u16::from_ne_bytes(self.0.get(2..4)?.try_into().ok()?) & NLA_TYPE_MASK;
        let value = self.0.get(4..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some((kind, value))
    }
}

/// A netlink socket of one protocol in the network namespace of the thread that opened it; it stays there.
pub struct Socket {
    fd: OwnedFd,
}

impl Socket {
    pub fn open(protocol: i32) -> Result<Self> {
        Self::with_groups(protocol, 0)
    }

    /// One that is told of changes to links, addresses and routes.
    pub fn of_changes(action: &str) -> Result<AsyncFd<Self>> {
        const GROUPS: i32 = libc::RTMGRP_LINK | libc::RTMGRP_IPV4_IFADDR | libc::RTMGRP_IPV6_IFADDR | libc::RTMGRP_IPV4_ROUTE | libc::RTMGRP_IPV6_ROUTE;
        let socket = Self::with_groups(libc::NETLINK_ROUTE, GROUPS as u32)?;
        // SAFETY: the Socket owns its descriptor, gives the same one each time and closes it only when dropped, which is inside the AsyncFd.
        let socket = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) };
        socket.map_err(|error| NetlinkError::io(action, error.into()))
    }

    /// `groups` is the bit mask of the first 32 multicast groups.
    pub fn with_groups(protocol: i32, groups: u32) -> Result<Self> {
        let failed = |what: &str| NetlinkError::io(format!("netlink {what}"), io::Error::last_os_error());
        // SAFETY: a plain socket call; the descriptor it returns is owned by nobody else.
        let fd = unsafe { libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, protocol) };
        if fd < 0 {
            return Err(failed("socket"));
        }
        // SAFETY: fd was just returned by socket() and is valid.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        // SAFETY: sockaddr_nl is plain data, all zero is valid.
        let mut address: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
        address.nl_family = libc::AF_NETLINK as u16;
        address.nl_groups = groups;
        // SAFETY: the pointer and the length describe `address`, which outlives the call.
        let bound = unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), size_of_val(&address) as u32) };
        if bound < 0 {
            return Err(failed("bind"));
        }
        let socket = Self { fd };
        // The forced variants pass net.core.{w,r}mem_max and need CAP_NET_ADMIN, as everything here does.
        socket.option(libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, SEND_BUFFER_BYTES as i32);
        socket.option(libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, RECEIVE_BUFFER_BYTES as i32);
        socket.option(libc::SOL_NETLINK, libc::NETLINK_EXT_ACK, 1);
        // Errors echo the header of the message only: a refused 4 MiB transaction must not fill our own queue.
        socket.option(libc::SOL_NETLINK, libc::NETLINK_CAP_ACK, 1);
        Ok(socket)
    }

    /// Best effort: without these options requests still work, only with smaller limits or poorer errors.
    fn option(&self, level: i32, name: i32, value: i32) {
        // SAFETY: the pointer and the length describe `value`, which outlives the call.
        unsafe { libc::setsockopt(self.fd.as_raw_fd(), level, name, (&raw const value).cast(), size_of_val(&value) as u32) };
    }

    fn send(&self, operation: &str, bytes: &[u8]) -> Result<()> {
        loop {
            // SAFETY: the pointer and the length describe `bytes`.
            let sent = unsafe { libc::send(self.fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), 0) };
            if sent == bytes.len() as isize {
                return Ok(());
            }
            let error = if sent < 0 { io::Error::last_os_error() } else { io::Error::from_raw_os_error(libc::EMSGSIZE) };
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(NetlinkError::io(operation, error));
            }
        }
    }

    /// One datagram of messages, or `None` when nothing is queued.
    pub fn receive(&self, buffer: &mut Vec<u8>) -> io::Result<Option<usize>> {
        buffer.resize(DATAGRAM_BYTES, 0);
        loop {
            // SAFETY: the pointer and the length describe `buffer`. MSG_TRUNC makes the kernel return the true length.
            let got = unsafe { libc::recv(self.fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), libc::MSG_TRUNC) };
            if got >= 0 {
                if got as usize > buffer.len() {
                    return Err(io::Error::from_raw_os_error(libc::EMSGSIZE));
                }
                return Ok(Some(got as usize));
            }
            let error = io::Error::last_os_error();
            match error.kind() {
                io::ErrorKind::Interrupted => {}
                io::ErrorKind::WouldBlock => return Ok(None),
                _ => return Err(error),
            }
        }
    }

    /// Sends the request and gathers all of its answers. The first error answer is the result; the rest is read and dropped, so
    /// that the next request starts clean.
    pub fn request(&mut self, operation: &str, request: &Request) -> Result<Vec<Reply>> {
        let mut replies = Vec::new();
        match self.request_all(operation, request, &mut replies)?.into_iter().next() {
            Some(error) => Err(error),
            None => Ok(replies),
        }
    }

    /// Like [`Socket::request`], for requests of several messages of which some may fail: all refusals are returned.
    pub fn request_all(&mut self, operation: &str, request: &Request, replies: &mut Vec<Reply>) -> Result<Vec<NetlinkError>> {
        self.send(operation, &request.buffer)?;
        let mut errors = Vec::new();
        let mut buffer = Vec::new();
        loop {
            let length = match self.receive(&mut buffer) {
                Ok(Some(length)) => length,
                Ok(None) => return Ok(errors),
                // Answers were lost (ENOBUFS): what they said is unknown, so this is a failure. Keep draining.
                Err(error) => {
                    errors.push(NetlinkError::io(operation, error));
                    continue;
                }
            };
            for (kind, flags, sequence, payload) in messages(&buffer[..length]) {
                match kind as i32 {
                    libc::NLMSG_ERROR => errors.extend(refusal(operation, flags, sequence, payload)),
                    libc::NLMSG_DONE | libc::NLMSG_NOOP => {}
                    _ => replies.push(Reply { kind, payload: payload.to_vec() }),
                }
            }
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> i32 {
        self.fd.as_raw_fd()
    }
}

/// The messages of a datagram: kind, flags, sequence, payload.
pub fn messages(mut datagram: &[u8]) -> impl Iterator<Item = (u16, u16, u32, &[u8])> {
    std::iter::from_fn(move || {
        let header = datagram.get(..HEADER)?;
        let length = u32::from_ne_bytes(header[..4].try_into().ok()?) as usize;
        let kind = u16::from_ne_bytes([header[4], header[5]]);
        let flags = u16::from_ne_bytes([header[6], header[7]]);
        let sequence = u32::from_ne_bytes(header[8..12].try_into().ok()?);
        let payload = datagram.get(HEADER..length)?;
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some((kind, flags, sequence, payload))
    })
}

/// An NLMSG_ERROR with code 0 is an acknowledgement.
fn refusal(operation: &str, flags: u16, sequence: u32, payload: &[u8]) -> Option<NetlinkError> {
    const EXTENDED: u16 = 0x200; // NLM_F_ACK_TLVS
    const MESSAGE: u16 = 1; // NLMSGERR_ATTR_MSG
    let code = i32::from_ne_bytes(payload.get(..4)?.try_into().ok()?);
    if code == 0 {
        return None;
    }
    // The echoed header follows; with CAP_ACK nothing of the body does.
    let extended = (flags & EXTENDED != 0).then(|| Attributes(payload.get(4 + HEADER..).unwrap_or(&[])));
    Some(NetlinkError {
        operation: operation.to_owned(),
        source: io::Error::from_raw_os_error(-code),
        message: extended.and_then(|a| a.text(MESSAGE)).map(str::to_owned),
        sequence,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_round_trip() {
        let mut request = Request::new();
        request.message(7, 0, &[1, 2, 3, 4], |m| {
            m.u32(1, 42).text(2, "abc").nest(3, |n| {
                n.u8(4, 9);
            });
        });
        let (kind, _, sequence, payload) = messages(&request.buffer).next().expect("one message");
        assert_eq!((kind, sequence), (7, 1));
        let reply = Reply { kind, payload: payload.to_vec() };
        assert_eq!(reply.fixed(4), [1, 2, 3, 4]);
        let attributes = reply.attributes(4);
        assert_eq!(attributes.u32(1), Some(42));
        assert_eq!(attributes.text(2), Some("abc"));
        assert_eq!(attributes.nested(3).get(4), Some(&[9u8][..]));
        assert_eq!(attributes.get(5), None);
    }

    #[test]
    fn a_cut_datagram_ends_the_walk() {
        let mut request = Request::new();
        request.message(7, 0, &[], |m| {
            m.u32(1, 42);
        });
        for cut in 0..request.buffer.len() {
            assert_eq!(messages(&request.buffer[..cut]).count(), 0);
        }
        assert_eq!(Attributes(&[8, 0, 1]).count(), 0);
        assert_eq!(Attributes(&[3, 0, 1, 0]).count(), 0);
    }
}
