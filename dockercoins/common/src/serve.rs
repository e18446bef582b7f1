//! A small HTTP/1 server: one request per connection, one at a time or a thread each.
//!
//! SIGTERM drains: what arrives within the next second is still served, for a Service goes on sending connections for a
//! moment after its pod began to terminate. It comes through a signalfd, so that it also works for PID 1.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

const HEAD_MAX: u64 = 16 * 1024;
const BODY_MAX: u64 = 16 << 20;
/// A client that says nothing for this long is cut off; rng could serve nobody else meanwhile.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(5);
const THREADS_MAX: usize = 512;
/// Quiet time after SIGTERM before the end, in milliseconds.
const DRAIN_MS: u16 = 1000;

pub struct Request {
    pub method: String,
    /// Path with query, as sent.
    pub target: String,
    pub version: String,
    pub body: Vec<u8>,
}

impl Request {
    pub fn path(&self) -> &str {
        self.target.split(['?', '#']).next().unwrap_or_default()
    }
}

pub struct Response {
    pub status: u16,
    pub reason: &'static str,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
}

impl Response {
    pub fn new(status: u16, reason: &'static str, content_type: &str, body: impl Into<Vec<u8>>) -> Response {
        Response { status, reason, headers: vec![("Content-Type", content_type.to_owned())], body: body.into() }
    }

    pub fn ok(content_type: &str, body: impl Into<Vec<u8>>) -> Response {
        Response::new(200, "OK", content_type, body)
    }

    pub fn header(mut self, name: &'static str, value: &str) -> Response {
        self.headers.push((name, value.to_owned()));
        self
    }
}

/// One finished exchange, for the access log.
pub struct Exchange<'a> {
    pub peer: IpAddr,
    pub request: &'a Request,
    pub status: u16,
    pub length: usize,
    pub seconds: f64,
}

pub trait Service: Sync {
    fn respond(&self, request: &Request) -> Response;
    fn log(&self, exchange: &Exchange<'_>);
    /// `HTTP/1.0` or `HTTP/1.1`, as the original answers.
    fn version(&self) -> &'static str {
        "HTTP/1.1"
    }
}

#[derive(Clone, Copy, PartialEq)]
pub enum Concurrency {
    OneAtATime,
    ThreadEach,
}

/// Listens on every address, IPv4 and IPv6, and serves until SIGTERM.
pub fn serve(port: u16, concurrency: Concurrency, service: &(impl Service + 'static), ready: impl FnOnce(u16)) -> io::Result<()> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGINT);
    signals.thread_block()?;
    let signals = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC)?;
    let listener = TcpListener::bind(("::", port)).or_else(|_| TcpListener::bind(("0.0.0.0", port)))?;
    listener.set_nonblocking(true)?;
    ready(listener.local_addr()?.port());
    let active = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let mut draining = false;
        loop {
            let timeout = if draining { PollTimeout::from(DRAIN_MS) } else { PollTimeout::NONE };
            let mut events = [PollFd::new(listener.as_fd(), PollFlags::POLLIN), PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
            // Once draining, the signal descriptor stays readable: only connections count.
            let watched = if draining { &mut events[..1] } else { &mut events[..] };
            match poll(watched, timeout) {
                Ok(0) if draining => return Ok(()),
                Ok(_) => {}
                Err(nix::errno::Errno::EINTR) => continue,
                Err(e) => return Err(e.into()),
            }
            if !draining && events[1].any().unwrap_or(false) {
                draining = true;
            }
            let (stream, peer) = match listener.accept() {
                Ok(accepted) => accepted,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => continue,
                // A connection that died in the queue, or no descriptors left: neither ends the service.
                Err(e) => {
                    eprintln!("accept: {e}");
                    continue;
                }
            };
            if concurrency == Concurrency::OneAtATime || active.load(Ordering::Relaxed) >= THREADS_MAX {
                exchange(stream, peer, service);
                continue;
            }
            active.fetch_add(1, Ordering::Relaxed);
            let active = &active;
            scope.spawn(move || {
                exchange(stream, peer, service);
                active.fetch_sub(1, Ordering::Relaxed);
            });
        }
    })
}

/// Errors of a single client end its connection, nothing else.
fn exchange(stream: TcpStream, peer: SocketAddr, service: &impl Service) {
    let started = Instant::now();
    let prepared = stream
        .set_nonblocking(false)
        .and_then(|()| stream.set_nodelay(true))
        .and_then(|()| stream.set_read_timeout(Some(CLIENT_TIMEOUT)))
        .and_then(|()| stream.set_write_timeout(Some(CLIENT_TIMEOUT)));
    if prepared.is_err() {
        return;
    }
    let mut reader = BufReader::new(stream);
    let request = match read_request(&mut reader) {
        Ok(Some(request)) => request,
        Ok(None) => return,
        Err(_) => {
            let _ = reader.get_mut().write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            return;
        }
    };
    let response = service.respond(&request);
    let mut message = format!("{} {} {}\r\n", service.version(), response.status, response.reason);
    for (name, value) in &response.headers {
        message += &format!("{name}: {value}\r\n");
    }
    message += &format!("Content-Length: {}\r\nConnection: close\r\n\r\n", response.body.len());
    let mut message = message.into_bytes();
    if request.method != "HEAD" {
        message.extend(&response.body);
    }
    let _ = reader.get_mut().write_all(&message);
    service.log(&Exchange {
        peer: peer.ip().to_canonical(),
        request: &request,
        status: response.status,
        length: response.body.len(),
        seconds: started.elapsed().as_secs_f64(),
    });
}

/// `None` when the client closed without a word (a TCP probe).
fn read_request(reader: &mut BufReader<TcpStream>) -> io::Result<Option<Request>> {
    let Some((request, length, expects)) = read_head(reader)? else { return Ok(None) };
    if expects {
        reader.get_mut().write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    let mut body = Vec::new();
    reader.take(length).read_to_end(&mut body)?;
    if (body.len() as u64) < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Some(Request { body, ..request }))
}

fn read_head(reader: &mut impl BufRead) -> io::Result<Option<(Request, u64, bool)>> {
    let bad = || io::Error::from(io::ErrorKind::InvalidData);
    let mut head = reader.take(HEAD_MAX);
    let mut line = String::new();
    if head.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace();
    let (Some(method), Some(target), Some(version), None) = (words.next(), words.next(), words.next(), words.next()) else {
        return Err(bad());
    };
    if !version.starts_with("HTTP/1.") || !target.starts_with('/') {
        return Err(bad());
    }
    let request = Request { method: method.to_owned(), target: target.to_owned(), version: version.to_owned(), body: Vec::new() };
    let (mut length, mut expects) = (0, false);
    loop {
        let mut line = String::new();
        if head.read_line(&mut line)? == 0 {
            return Err(bad());
        }
        if line.trim_end().is_empty() {
            return Ok(Some((request, length, expects)));
        }
        let (name, value) = line.split_once(':').ok_or_else(bad)?;
        let value = value.trim();
        if name.eq_ignore_ascii_case("content-length") {
            length = value.parse().ok().filter(|n| *n <= BODY_MAX).ok_or_else(bad)?;
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            return Err(bad());
        } else if name.eq_ignore_ascii_case("expect") {
            expects = value.eq_ignore_ascii_case("100-continue");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads() {
        let head = |text: &str| read_head(&mut text.as_bytes());
        let (request, length, expects) =
            head("POST /x?y HTTP/1.1\r\nHost: a\r\ncontent-length: 5\r\nExpect: 100-continue\r\n\r\n").unwrap().unwrap();
        assert_eq!((request.method.as_str(), request.path(), length, expects), ("POST", "/x", 5, true));
        assert!(head("").unwrap().is_none());
        for bad in [
            "GET\r\n\r\n",
            "GET / HTTP/2\r\n\r\n",
            "GET x HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\n",
            "GET / HTTP/1.1\r\nnocolon\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
        ] {
            assert!(head(bad).is_err(), "{bad:?}");
        }
        assert!(head(&format!("GET / HTTP/1.1\r\nA: {}\r\n\r\n", "x".repeat(20_000))).is_err());
    }
}
