//! Just enough of redis' protocol (RESP2): send a command, read one reply. The connection is made when first needed and
//! dropped on any error, so that the next command starts afresh, name lookup included.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use crate::client::{RequestError, authority, connect};

const PORT: u16 = 6379;
const REPLY_MAX: usize = 1 << 20;

#[derive(Debug, PartialEq)]
pub enum Reply {
    Simple(String),
    Number(i64),
    Bytes(Option<Vec<u8>>),
}

#[derive(Debug)]
pub enum RedisError {
    Connect(RequestError),
    Transfer(io::Error),
    /// The server said no: `NOAUTH Authentication required.`
    Server(String),
}

impl fmt::Display for RedisError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RedisError::Connect(e) => write!(f, "{e}"),
            RedisError::Transfer(e) => write!(f, "redis: {e}"),
            RedisError::Server(e) => write!(f, "redis: {e}"),
        }
    }
}

impl std::error::Error for RedisError {}

pub struct Redis {
    host: String,
    port: u16,
    stream: Option<BufReader<TcpStream>>,
}

impl Redis {
    /// `redis`, `redis:6380` or `redis://redis:6379`. Does not connect yet.
    pub fn new(address: &str) -> Redis {
        let (host, port) = authority(address, PORT);
        Redis { host, port, stream: None }
    }

    pub fn command(&mut self, words: &[&[u8]]) -> Result<Reply, RedisError> {
        // A connection kept from before may have died with its server: then once more, on a new one.
        let kept = self.stream.is_some();
        match self.attempt(words) {
            Err(RedisError::Transfer(_)) if kept => self.attempt(words),
            other => other,
        }
    }

    fn attempt(&mut self, words: &[&[u8]]) -> Result<Reply, RedisError> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => BufReader::new(connect(&self.host, self.port).map_err(RedisError::Connect)?),
        };
        let mut message = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            message.extend(format!("${}\r\n", word.len()).into_bytes());
            message.extend(*word);
            message.extend(b"\r\n");
        }
        stream.get_mut().write_all(&message).map_err(RedisError::Transfer)?;
        let reply = read_reply(&mut stream).map_err(RedisError::Transfer)?;
        self.stream = Some(stream);
        reply.map_err(RedisError::Server)
    }

    pub fn number(&mut self, words: &[&[u8]]) -> Result<i64, RedisError> {
        match self.command(words)? {
            Reply::Number(n) => Ok(n),
            other => Err(RedisError::Server(format!("unexpected reply {other:?}"))),
        }
    }

    pub fn text(&mut self, words: &[&[u8]]) -> Result<Option<String>, RedisError> {
        match self.command(words)? {
            Reply::Bytes(bytes) => Ok(bytes.map(|b| String::from_utf8_lossy(&b).into_owned())),
            other => Err(RedisError::Server(format!("unexpected reply {other:?}"))),
        }
    }
}

fn read_reply(stream: &mut impl BufRead) -> io::Result<Result<Reply, String>> {
    let bad = || io::Error::new(io::ErrorKind::InvalidData, "not a redis reply");
    let mut line = Vec::new();
    stream.take(REPLY_MAX as u64).read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "connection closed by server"));
    }
    let text = line.strip_suffix(b"\r\n").and_then(|l| std::str::from_utf8(l).ok()).ok_or_else(bad)?;
    let (kind, rest) = text.split_at_checked(1).ok_or_else(bad)?;
    Ok(match kind {
        "+" => Ok(Reply::Simple(rest.to_owned())),
        "-" => Err(rest.to_owned()),
        ":" => Ok(Reply::Number(rest.parse().map_err(|_| bad())?)),
        "$" if rest == "-1" => Ok(Reply::Bytes(None)),
        "$" => {
            let length: usize = rest.parse().ok().filter(|n| *n <= REPLY_MAX).ok_or_else(bad)?;
            let mut bytes = vec![0; length + 2];
            stream.read_exact(&mut bytes)?;
            bytes.truncate(length);
            Ok(Reply::Bytes(Some(bytes)))
        }
        _ => return Err(bad()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies() {
        let read = |bytes: &[u8]| read_reply(&mut &bytes[..]);
        assert_eq!(read(b":42\r\n").unwrap(), Ok(Reply::Number(42)));
        assert_eq!(read(b"$3\r\na\r\n\r\n").unwrap(), Ok(Reply::Bytes(Some(b"a\r\n".to_vec()))));
        assert_eq!(read(b"$-1\r\n").unwrap(), Ok(Reply::Bytes(None)));
        assert_eq!(read(b"-NOAUTH no\r\n").unwrap(), Err("NOAUTH no".to_owned()));
        for bad in [&b""[..], b"x\r\n", b"$9\r\nab", b"$99999999999\r\n", b":x\r\n", b"\r\n"] {
            assert!(read(bad).is_err(), "{bad:?}");
        }
    }
}
