//! As much of D-Bus as is needed to talk to logind: calls with simple arguments, their answers, and signals, over the system bus' socket. Values as in the D-Bus specification.
//!
//! No library of the machine is used. What comes in is bounded, and what is malformed is an error.

use std::collections::{HashMap, VecDeque};
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::UnixStream;

/// The specification allows 128 MiB; logind sends some hundred bytes.
const MESSAGE_MAX: usize = 1 << 20;
const FDS_MAX: usize = 4;
const LITTLE_ENDIAN: u8 = b'l';
const VERSION: u8 = 1;
const FIXED_HEADER: usize = 16;

#[derive(Debug, thiserror::Error)]
pub enum DbusError {
    #[error("cannot talk to the system bus: {0}")]
    Io(#[from] io::Error),
    #[error("the system bus does not know who this is: {0}")]
    Authentication(String),
    #[error("{0}")]
    Answer(String),
    #[error("the system bus sent what cannot be read")]
    Malformed,
}

/// Numbers of the specification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    Call = 1,
    Return = 2,
    Error = 3,
    Signal = 4,
}

/// An argument of a call.
#[derive(Debug, Clone, Copy)]
pub enum Argument<'a> {
    Text(&'a str),
    Int32(i32),
}

#[derive(Debug)]
pub struct Message {
    pub kind: u8,
    pub serial: u32,
    /// Path, interface, member, error name, destination, sender and signature by their numbers.
    pub texts: HashMap<u8, String>,
    pub reply_to: Option<u32>,
    pub body: Vec<u8>,
    pub fds: Vec<OwnedFd>,
}

pub const PATH: u8 = 1;
pub const INTERFACE: u8 = 2;
pub const MEMBER: u8 = 3;
pub const ERROR_NAME: u8 = 4;
const REPLY_SERIAL: u8 = 5;
pub const DESTINATION: u8 = 6;
pub const SIGNATURE: u8 = 8;

/// Writes values, each at its alignment.
#[derive(Default)]
pub struct Writer(pub Vec<u8>);

impl Writer {
    pub fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }
    pub fn u32(&mut self, value: u32) {
        self.align(4);
        self.0.extend(value.to_le_bytes());
    }
    pub fn u64(&mut self, value: u64) {
        self.align(8);
        self.0.extend(value.to_le_bytes());
    }
    pub fn text(&mut self, text: &str) {
        self.u32(u32::try_from(text.len()).unwrap_or_default());
        self.0.extend(text.as_bytes());
        self.0.push(0);
    }
    pub fn signature(&mut self, text: &str) {
        self.0.push(u8::try_from(text.len()).unwrap_or_default());
        self.0.extend(text.as_bytes());
        self.0.push(0);
    }
}

/// A message as it goes over the wire. `fields` are header fields with their numbers; `signature` is of the body.
pub fn message(kind: Type, serial: u32, fields: &[(u8, &str)], reply_to: Option<u32>, fds: u32, signature: &str, body: &[u8]) -> Vec<u8> {
    let mut list = Writer::default();
    for (number, value) in fields {
        list.align(8);
        list.0.push(*number);
        list.signature(if *number == PATH { "o" } else { "s" });
        list.text(value);
    }
    for (number, value) in [(REPLY_SERIAL, reply_to), (9, Some(fds).filter(|fds| *fds > 0))] {
        let Some(value) = value else { continue };
        list.align(8);
        list.0.push(number);
        list.signature("u");
        list.u32(value);
    }
    if !signature.is_empty() {
        list.align(8);
        list.0.push(SIGNATURE);
        list.signature("g");
        list.signature(signature);
    }
    let mut out = Writer(vec![LITTLE_ENDIAN, kind as u8, 0, VERSION]);
    out.u32(u32::try_from(body.len()).unwrap_or_default());
    out.u32(serial);
    // The list begins at a multiple of eight, so that its own alignments hold.
    out.u32(u32::try_from(list.0.len()).unwrap_or_default());
    out.0.extend(list.0);
    out.align(8);
    out.0.extend(body);
    out.0
}

/// Reads values, each at its alignment.
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    big: bool,
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, big: false }
    }
    fn align(&mut self, to: usize) {
        self.at = self.at.next_multiple_of(to);
    }
    fn take(&mut self, count: usize) -> Result<&'a [u8], DbusError> {
        let end = self.at.checked_add(count).ok_or(DbusError::Malformed)?;
        let taken = self.bytes.get(self.at..end).ok_or(DbusError::Malformed)?;
        self.at = end;
        Ok(taken)
    }
    pub fn u32(&mut self) -> Result<u32, DbusError> {
        self.align(4);
        let bytes = self.take(4)?.try_into().map_err(|_| DbusError::Malformed)?;
        Ok(if self.big { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
    }
    pub fn u64(&mut self) -> Result<u64, DbusError> {
        self.align(8);
        let bytes = self.take(8)?.try_into().map_err(|_| DbusError::Malformed)?;
        Ok(if self.big { u64::from_be_bytes(bytes) } else { u64::from_le_bytes(bytes) })
    }
    pub fn text(&mut self) -> Result<&'a str, DbusError> {
        let length = self.u32()? as usize;
        let text = std::str::from_utf8(self.take(length)?).map_err(|_| DbusError::Malformed)?;
        self.take(1)?;
        Ok(text)
    }
    pub fn signature(&mut self) -> Result<&'a str, DbusError> {
        let length = self.take(1)?[0] as usize;
        let text = std::str::from_utf8(self.take(length)?).map_err(|_| DbusError::Malformed)?;
        self.take(1)?;
        Ok(text)
    }
}

/// The length of the whole message whose first bytes these are.
fn length(head: &[u8]) -> Result<usize, DbusError> {
    let big = head[0] != LITTLE_ENDIAN;
    let number = |at: usize| {
        let bytes: [u8; 4] = [head[at], head[at + 1], head[at + 2], head[at + 3]];
        (if big { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }) as usize
    };
    let length = (FIXED_HEADER + number(12)).next_multiple_of(8) + number(4);
    if length > MESSAGE_MAX || head[3] != VERSION { Err(DbusError::Malformed) } else { Ok(length) }
}

pub fn parse(bytes: &[u8], fds: Vec<OwnedFd>) -> Result<Message, DbusError> {
    let head = bytes.get(..FIXED_HEADER).ok_or(DbusError::Malformed)?;
    let whole = length(head)?;
    let mut reader = Reader { bytes, at: 8, big: head[0] != LITTLE_ENDIAN };
    let serial = reader.u32()?;
    let end = reader.u32()? as usize + FIXED_HEADER;
    let (mut texts, mut reply_to) = (HashMap::new(), None);
    while reader.at < end {
        reader.align(8);
        let number = reader.take(1)?[0];
        match reader.signature()? {
            "s" | "o" => drop(texts.insert(number, reader.text()?.to_owned())),
            "g" => drop(texts.insert(number, reader.signature()?.to_owned())),
            "u" => {
                let value = reader.u32()?;
                if number == REPLY_SERIAL {
                    reply_to = Some(value);
                }
            }
            _ => return Err(DbusError::Malformed),
        }
    }
    let body = bytes.get(end.next_multiple_of(8)..whole).ok_or(DbusError::Malformed)?.to_vec();
    Ok(Message { kind: head[1], serial, texts, reply_to, body, fds })
}

impl Message {
    pub fn text(&self, number: u8) -> &str {
        self.texts.get(&number).map(String::as_str).unwrap_or_default()
    }
}

/// A connection to the bus.
pub struct Bus {
    stream: UnixStream,
    serial: u32,
    buffer: Vec<u8>,
    fds: Vec<OwnedFd>,
    /// Signals that came while an answer was waited for.
    signals: VecDeque<Message>,
}

impl Bus {
    /// Connected, known and named.
    pub async fn connect(socket: &Path) -> Result<Self, DbusError> {
        let mut bus = Self { stream: UnixStream::connect(socket).await?, serial: 0, buffer: Vec::new(), fds: Vec::new(), signals: VecDeque::new() };
        let uid = rustix::process::geteuid().as_raw().to_string();
        let uid: String = uid.bytes().map(|byte| format!("{byte:02x}")).collect();
        bus.stream.write_all(format!("\0AUTH EXTERNAL {uid}\r\n").as_bytes()).await?;
        bus.expect_line("OK").await?;
        bus.stream.write_all(b"NEGOTIATE_UNIX_FD\r\n").await?;
        bus.expect_line("AGREE_UNIX_FD").await?;
        bus.stream.write_all(b"BEGIN\r\n").await?;
        bus.call("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "Hello", &[]).await?;
        Ok(bus)
    }

    async fn expect_line(&mut self, word: &str) -> Result<(), DbusError> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|two| two == b"\r\n") {
                let line: Vec<u8> = self.buffer.drain(..end + 2).collect();
                let line = String::from_utf8_lossy(&line).trim().to_owned();
                return if line.split(' ').next() == Some(word) { Ok(()) } else { Err(DbusError::Authentication(line)) };
            }
            self.fill().await?;
        }
    }

    /// Reads what there is, with the file descriptors that come along.
    async fn fill(&mut self) -> Result<(), DbusError> {
        if self.buffer.len() > MESSAGE_MAX {
            return Err(DbusError::Malformed);
        }
        let mut bytes = [0; 4096];
        let mut fds = Vec::new();
        let count = self
            .stream
            .async_io(Interest::READABLE, || {
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
                let mut ancillary = RecvAncillaryBuffer::new(&mut space);
                let received = recvmsg(self.stream.as_fd(), &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT)?;
                for message in ancillary.drain() {
                    if let RecvAncillaryMessage::ScmRights(came) = message {
                        fds.extend(came);
                    }
                }
                Ok(received.bytes)
            })
            .await?;
        if count == 0 {
            return Err(DbusError::Io(io::ErrorKind::UnexpectedEof.into()));
        }
        self.buffer.extend(&bytes[..count]);
        self.fds.append(&mut fds);
        Ok(())
    }

    async fn next(&mut self) -> Result<Message, DbusError> {
        loop {
            if self.buffer.len() >= FIXED_HEADER {
                let whole = length(&self.buffer[..FIXED_HEADER])?;
                if self.buffer.len() >= whole {
                    let bytes: Vec<u8> = self.buffer.drain(..whole).collect();
                    // Nobody sends us others than with the answer that is waited for.
                    return parse(&bytes, std::mem::take(&mut self.fds));
                }
            }
            self.fill().await?;
        }
    }

    /// Calls a method and returns its answer.
    pub async fn call(&mut self, destination: &str, path: &str, interface: &str, member: &str, arguments: &[Argument<'_>]) -> Result<Message, DbusError> {
        self.serial += 1;
        let (mut body, mut signature) = (Writer::default(), String::new());
        for argument in arguments {
            match argument {
                Argument::Text(text) => {
                    signature.push('s');
                    body.text(text);
                }
                Argument::Int32(number) => {
                    signature.push('i');
                    body.u32(number.cast_unsigned());
                }
            }
        }
        let fields = [(PATH, path), (INTERFACE, interface), (MEMBER, member), (DESTINATION, destination)];
        self.stream.write_all(&message(Type::Call, self.serial, &fields, None, 0, &signature, &body.0)).await?;
        loop {
            let message = self.next().await?;
            if message.kind == Type::Signal as u8 {
                self.signals.push_back(message);
            } else if message.reply_to == Some(self.serial) {
                if message.kind != Type::Error as u8 {
                    return Ok(message);
                }
                let why = if message.text(SIGNATURE).starts_with('s') { Reader::new(&message.body).text().unwrap_or_default() } else { "" };
                return Err(DbusError::Answer(format!("{}: {why}", message.text(ERROR_NAME))));
            }
        }
    }

    /// The next signal that somebody sends.
    pub async fn signal(&mut self) -> Result<Message, DbusError> {
        if let Some(signal) = self.signals.pop_front() {
            return Ok(signal);
        }
        loop {
            let message = self.next().await?;
            if message.kind == Type::Signal as u8 {
                return Ok(message);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_survive_the_wire() {
        let mut body = Writer::default();
        body.text("why");
        body.u64(7);
        let bytes = message(Type::Signal, 3, &[(PATH, "/a/b"), (MEMBER, "M")], Some(9), 0, "st", &body.0);
        let parsed = parse(&bytes, vec![]).unwrap();
        assert_eq!((parsed.kind, parsed.serial, parsed.text(PATH), parsed.text(MEMBER), parsed.text(SIGNATURE), parsed.reply_to), (4, 3, "/a/b", "M", "st", Some(9)));
        let mut reader = Reader::new(&parsed.body);
        assert_eq!((reader.text().unwrap(), reader.u64().unwrap()), ("why", 7));
        assert!(reader.u32().is_err());
        for cut in 0..bytes.len() {
            assert!(parse(&bytes[..cut], vec![]).is_err(), "{cut}");
        }
    }

    #[test]
    fn too_long_is_refused() {
        let mut bytes = message(Type::Signal, 1, &[], None, 0, "", &[]);
        bytes[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(parse(&bytes, vec![]).is_err());
    }
}
