//! One HTTP request per connection, the name looked up each time: what the worker needs to see Services come and go.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::resolve::{ResolveError, resolve};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Long enough to wait for one's turn behind a hundred others at a service that takes 0.1 s each.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
const RESPONSE_MAX: u64 = 1 << 20;

#[derive(Debug)]
pub enum RequestError {
    Resolve(ResolveError),
    Connect(String, io::Error),
    Transfer(String, io::Error),
    /// Anything but 200.
    Status(String, u16),
}

impl std::fmt::Display for RequestError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            RequestError::Resolve(e) => write!(f, "{e}"),
            RequestError::Connect(to, e) => write!(f, "connect to {to}: {e}"),
            RequestError::Transfer(url, e) => write!(f, "{url}: {e}"),
            RequestError::Status(url, status) => write!(f, "{url}: status {status}"),
        }
    }
}

impl std::error::Error for RequestError {}

/// `name:port` of `http://name[:port]` or of the bare form.
pub fn authority(url: &str, default_port: u16) -> (String, u16) {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let rest = rest.split('/').next().unwrap_or(rest);
    match rest.rsplit_once(':') {
        Some((host, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) && !host.ends_with(':') => {
            (host.to_owned(), port.parse().unwrap_or(default_port))
        }
        _ => (rest.to_owned(), default_port),
    }
}

/// Connects to the first address of `host` that answers.
pub fn connect(host: &str, port: u16) -> Result<TcpStream, RequestError> {
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in resolve(host).map_err(RequestError::Resolve)? {
        match TcpStream::connect_timeout(&SocketAddr::new(address, port), CONNECT_TIMEOUT) {
            Ok(stream) => {
                let set = || {
                    stream.set_nodelay(true)?;
                    stream.set_read_timeout(Some(READ_TIMEOUT))?;
                    stream.set_write_timeout(Some(READ_TIMEOUT))
                };
                set().map_err(|e| RequestError::Connect(format!("{host}:{port}"), e))?;
                return Ok(stream);
            }
            Err(e) => last = e,
        }
    }
    Err(RequestError::Connect(format!("{host}:{port}"), last))
}

/// The body of a 200 response. `base` is `http://rng` or `http://127.0.0.1:8001`.
pub fn request(method: &str, base: &str, path: &str, body: Option<(&str, &[u8])>) -> Result<Vec<u8>, RequestError> {
    let (host, port) = authority(base, 80);
    let url = format!("http://{host}:{port}{path}");
    let mut stream = connect(&host, port)?;
    let failed = |e| RequestError::Transfer(url.clone(), e);
    let mut message = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: dockercoins\r\nAccept: */*\r\nConnection: close\r\n");
    if let Some((content_type, body)) = body {
        message += &format!("Content-Type: {content_type}\r\nContent-Length: {}\r\n", body.len());
    }
    let mut message = (message + "\r\n").into_bytes();
    message.extend(body.map(|(_, body)| body).unwrap_or_default());
    stream.write_all(&message).map_err(failed)?;
    let mut response = Vec::new();
    stream.take(RESPONSE_MAX).read_to_end(&mut response).map_err(failed)?;
    let (status, body) = parse(&response).map_err(failed)?;
    if status != 200 {
        return Err(RequestError::Status(url, status));
    }
    Ok(body.to_vec())
}

fn parse(response: &[u8]) -> io::Result<(u16, &[u8])> {
    let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let end = response.windows(4).position(|w| w == b"\r\n\r\n").ok_or_else(|| bad("connection closed before a whole response"))?;
    let head = String::from_utf8_lossy(&response[..end]).into_owned();
    let body = &response[end + 4..];
    let status = head.split_whitespace().nth(1).and_then(|s| s.parse().ok()).ok_or_else(|| bad("not an HTTP response"))?;
    let length = head
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.trim().parse::<usize>().ok());
    match length {
        Some(length) if body.len() < length => Err(bad("connection closed before a whole response")),
        Some(length) => Ok((status, &body[..length])),
        None => Ok((status, body)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities() {
        for (url, host, port) in [
            ("http://rng", "rng", 80),
            ("http://127.0.0.1:8001/", "127.0.0.1", 8001),
            ("redis:6380", "redis", 6380),
            ("redis", "redis", 80),
            ("http://[::1]:81", "[::1]", 81),
        ] {
            assert_eq!(authority(url, 80), (host.to_owned(), port), "{url}");
        }
    }

    #[test]
    fn responses() {
        assert_eq!(parse(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nabc").unwrap(), (200, &b"ab"[..]));
        assert_eq!(parse(b"HTTP/1.1 404 Not Found\r\n\r\nx").unwrap(), (404, &b"x"[..]));
        for bad in [&b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab"[..], b"", b"HTTP/1.1 200", b"\r\n\r\n"] {
            assert!(parse(bad).is_err());
        }
    }
}
