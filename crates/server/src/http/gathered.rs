//! What a connection writes, gathered until it is flushed: many small frames become one TLS record and one call of the kernel.
//!
//! HTTP/2 hands over each frame with a payload of some size by itself; unbuffered, each would be encrypted and sent by itself.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Held back at most; two full TLS records.
const MOST_BYTES: usize = 32 << 10;
/// A connection that is quiet keeps no more than this.
const KEPT_BYTES: usize = 4 << 10;

pub struct Gathered<S> {
    inner: S,
    waiting: Vec<u8>,
    /// How much of `waiting` has been written.
    written: usize,
    /// Otherwise everything passes at once: whoever takes an upgraded connection over may not flush.
    gathers: bool,
}

impl<S: AsyncWrite + Unpin> Gathered<S> {
    pub fn new(inner: S, gathers: bool) -> Self {
        Self { inner, waiting: Vec::new(), written: 0, gathers }
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.waiting.len() {
            let count = ready!(Pin::new(&mut self.inner).poll_write(cx, &self.waiting[self.written..]))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += count;
        }
        self.written = 0;
        self.waiting.clear();
        self.waiting.shrink_to(KEPT_BYTES);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gathered<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gathered<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        if !self.gathers {
            return Pin::new(&mut self.inner).poll_write_vectored(cx, slices);
        }
        if self.waiting.len() >= MOST_BYTES {
            ready!(self.poll_drain(cx))?;
        }
        let mut taken = 0;
        for slice in slices {
            let room = MOST_BYTES.saturating_sub(self.waiting.len());
            if room == 0 {
                break;
            }
            let part = &slice[..slice.len().min(room)];
            self.waiting.extend_from_slice(part);
            taken += part.len();
        }
        Poll::Ready(Ok(taken))
    }

    fn is_write_vectored(&self) -> bool {
        self.gathers || self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn everything_arrives_once_it_is_flushed() {
        let (near, mut far) = duplex(1000);
        let reading = tokio::spawn(async move {
            let mut all = Vec::new();
            far.read_to_end(&mut all).await.map(|_| all)
        });
        let mut gathered = Gathered::new(near, true);
        let mut sent = Vec::new();
        for round in 0..200usize {
            let piece = vec![round as u8; round * 7];
            gathered.write_all(&piece).await.unwrap();
            sent.extend_from_slice(&piece);
            if round % 50 == 0 {
                gathered.flush().await.unwrap();
            }
        }
        gathered.shutdown().await.unwrap();
        drop(gathered);
        assert_eq!(reading.await.unwrap().unwrap(), sent);
    }

    #[tokio::test]
    async fn nothing_is_held_back_from_whoever_may_not_flush() {
        let (near, mut far) = duplex(1000);
        let mut passing = Gathered::new(near, false);
        passing.write_all(b"now").await.unwrap();
        let mut read = [0; 3];
        far.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"now");
    }
}
