//! Keys that leave a container's terminal without ending what runs there: `--detach-keys`, ctrl-p and ctrl-q unless said otherwise.
//!
//! Mirrors github.com/moby/term (`ToBytes`, `EscapeProxy`): keys that only begin the sequence are held back until the next one tells. Once it is whole, this input is at its end.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

use crate::error::{Result, fail};

pub const DEFAULT: &str = "ctrl-p,ctrl-q";
const DELETE: u8 = 127;
const CHUNK: usize = 4096;

/// `ctrl-p,ctrl-q`, `a,DEL` as the bytes that a terminal sends for them.
pub fn keys(words: &str) -> Result<Vec<u8>> {
    let mut keys = Vec::new();
    for word in words.split(',') {
        keys.push(match (word.as_bytes(), word.strip_prefix("ctrl-").map(str::as_bytes)) {
            ([key], _) => *key,
            // A terminal takes the upper bits away.
            (_, Some([key @ (b'@' | b'a'..=b'z' | b'['..=b'_')])) => key & 0x1f,
            _ if word == "DEL" => DELETE,
            _ => return fail(format!("could not bind detach keys: Unknown character: '{word}'")),
        });
    }
    Ok(keys)
}

pub struct Detachable<I> {
    inner: I,
    keys: Vec<u8>,
    /// How many of the keys came last.
    matched: usize,
    detached: bool,
    /// Read, and not yet given on.
    ready: Vec<u8>,
}

impl<I> Detachable<I> {
    /// No keys: nothing detaches.
    pub fn new(inner: I, keys: Vec<u8>) -> Self {
        Self { inner, keys, matched: 0, detached: false, ready: Vec::new() }
    }

    fn take(&mut self, typed: &[u8]) {
        for byte in typed {
            if self.keys.get(self.matched) == Some(byte) {
                self.matched += 1;
                if self.matched == self.keys.len() {
                    self.detached = true;
                    return;
                }
                continue;
            }
            // It was not meant; this key may begin it anew.
            self.ready.extend(&self.keys[..self.matched]);
            self.matched = usize::from(self.keys.len() > 1 && self.keys.first() == Some(byte));
            if self.matched == 0 {
                self.ready.push(*byte);
            }
        }
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Detachable<I> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        while self.ready.is_empty() && !self.detached {
            let mut typed = [0; CHUNK];
            let mut typed = ReadBuf::new(&mut typed);
            ready!(Pin::new(&mut self.inner).poll_read(cx, &mut typed))?;
            if typed.filled().is_empty() {
                let held = std::mem::take(&mut self.matched);
                let held = self.keys[..held].to_vec();
                self.ready.extend(held);
                break;
            }
            self.take(typed.filled());
        }
        let length = self.ready.len().min(buffer.remaining());
        buffer.put_slice(&self.ready[..length]);
        self.ready.drain(..length);
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    #[test]
    fn keys_have_names() {
        for (words, want) in [("ctrl-p,ctrl-q", vec![16, 17]), ("a,DEL", vec![b'a', 127]), ("ctrl-@,ctrl-_,ctrl-[", vec![0, 31, 27])] {
            assert_eq!(keys(words).unwrap(), want, "{words}");
        }
        assert_eq!(keys("ctrl-P").unwrap_err().to_string(), "could not bind detach keys: Unknown character: 'ctrl-P'");
    }

    #[tokio::test]
    async fn the_sequence_ends_the_input_and_nothing_else_is_lost() {
        for (typed, read) in [("abc", "abc"), ("a\u{10}\u{11}b", "a"), ("a\u{10}b\u{10}\u{10}\u{11}c", "a\u{10}b\u{10}"), ("a\u{10}", "a\u{10}")] {
            let mut seen = String::new();
            Detachable::new(typed.as_bytes(), vec![16, 17]).read_to_string(&mut seen).await.unwrap();
            assert_eq!(seen, read, "{typed:?}");
        }
    }
}
