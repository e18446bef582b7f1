//! The body of a request, as its length or its chunks say (RFC 9112): ends where the body does, whatever follows.

use std::io::{self, Chain, Cursor, Read};

/// A line that says how long a chunk is; with extensions.
const LINE_BYTES_MAX: usize = 1024;

pub struct Body<R> {
    from: Chain<Cursor<Vec<u8>>, R>,
    /// Of the whole body, or of the chunk.
    left: u64,
    chunks: Chunks,
}

#[derive(PartialEq, Eq)]
enum Chunks {
    None,
    /// The next is a chunk's length; the first has no line's end before it.
    First,
    More,
    Over,
}

impl<R: Read> Body<R> {
    /// `begun` was read already.
    pub fn of_length(length: u64, begun: Vec<u8>, rest: R) -> Self {
        Self { from: Cursor::new(begun).chain(rest), left: length, chunks: Chunks::None }
    }

    pub fn chunked(begun: Vec<u8>, rest: R) -> Self {
        Self { from: Cursor::new(begun).chain(rest), left: 0, chunks: Chunks::First }
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        let mut byte = [0];
        while !line.ends_with(b"\r\n") {
            self.from.read_exact(&mut byte)?;
            line.push(byte[0]);
            if line.len() > LINE_BYTES_MAX {
                return Err(io::Error::other("a line of a chunked body is too long"));
            }
        }
        Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
    }

    fn next_chunk(&mut self) -> io::Result<()> {
        if self.chunks == Chunks::More && !self.line()?.is_empty() {
            return Err(io::Error::other("a chunk is longer than it says"));
        }
        let line = self.line()?;
        let length = line.split(';').next().unwrap_or_default().trim();
        self.left = u64::from_str_radix(length, 16).map_err(|_| io::Error::other("a chunk without a length"))?;
        self.chunks = Chunks::More;
        if self.left == 0 {
            self.chunks = Chunks::Over;
            while !self.line()?.is_empty() {}
        }
        Ok(())
    }
}

impl<R: Read> Read for Body<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 && matches!(self.chunks, Chunks::First | Chunks::More) {
            self.next_chunk()?;
        }
        if self.left == 0 || buffer.is_empty() {
            return Ok(0);
        }
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let length = self.from.read(&mut buffer[..most])?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= length as u64;
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(mut body: Body<&[u8]>) -> Option<String> {
        let mut text = String::new();
        body.read_to_string(&mut text).ok().map(|_| text)
    }

    #[test]
    fn bodies() {
        for (length, begun, rest, expected) in [(0, "", "x", Some("")), (5, "he", "llo and more", Some("hello")), (2, "hello", "", Some("he")), (5, "he", "ll", None)] {
            assert_eq!(all(Body::of_length(length, begun.into(), rest.as_bytes())).as_deref(), expected, "{length} {begun:?} {rest:?}");
        }
        for (begun, rest, expected) in [
            ("5\r\nhel", "lo\r\n6;x=y\r\n world\r\n0\r\n\r\nmore", Some("hello world")),
            ("", "0\r\nTrailer: x\r\n\r\n", Some("")),
            ("", "5\r\nhello!\r\n0\r\n\r\n", None),
            ("", "x\r\n", None),
            ("", "5\r\nhel", None),
            ("", "ffffffffffffffffff\r\n", None),
        ] {
            assert_eq!(all(Body::chunked(begun.into(), rest.as_bytes())).as_deref(), expected, "{begun:?} {rest:?}");
        }
    }
}
