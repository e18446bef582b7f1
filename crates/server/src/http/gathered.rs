//! What an HTTP/2 connection writes, gathered while its task runs: many small frames become one TLS record and one call of the kernel.
//!
//! HTTP/2's codec flushes before each frame with a payload of some size; unbuffered, each would be encrypted and sent by itself. So a flush says nothing here: whoever polls the
//! connection sends what was gathered when that has nothing more to say ([`Sending`]).

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Held back at most; two full TLS records.
const MOST_BYTES: usize = 32 << 10;
/// A connection that is quiet keeps no more than this.
const KEPT_BYTES: usize = 4 << 10;

/// The connection's end of the stream.
pub struct Gathered<S>(Arc<Mutex<Gathering<S>>>);

/// The end of whoever polls the connection. Both are of one task, the lock is never waited for.
pub struct Sending<S>(Arc<Mutex<Gathering<S>>>);

struct Gathering<S> {
    inner: S,
    waiting: Vec<u8>,
    /// How much of `waiting` has been written.
    written: usize,
    /// TLS may keep what it was given while the socket is full: it must be asked again until it has let go of all of it, for nobody else does.
    flushing: bool,
    /// Otherwise everything passes at once: whoever takes an upgraded connection over is polled by another task.
    gathers: bool,
    /// Bytes that the client has taken so far.
    sent: u64,
}

impl<S: AsyncWrite + Unpin> Gathered<S> {
    pub fn new(inner: S, gathers: bool) -> (Self, Sending<S>) {
        let shared = Arc::new(Mutex::new(Gathering { inner, waiting: Vec::new(), written: 0, flushing: false, gathers, sent: 0 }));
        (Self(shared.clone()), Sending(shared))
    }
}

impl<S: AsyncWrite + Unpin> Sending<S> {
    /// Sends what the connection has written since it was polled last.
    pub fn poll(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut gathering = self.0.lock();
        if gathering.waiting.is_empty() && !gathering.flushing {
            return Poll::Ready(Ok(()));
        }
        gathering.poll_flush(cx)
    }

    /// Bytes so far.
    pub fn sent(&self) -> u64 {
        self.0.lock().sent
    }
}

impl<S: AsyncWrite + Unpin> Gathering<S> {
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.waiting.len() {
            let count = ready!(Pin::new(&mut self.inner).poll_write(cx, &self.waiting[self.written..]))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += count;
            self.flushing = true;
            self.sent += count as u64;
        }
        self.written = 0;
        self.waiting.clear();
        self.waiting.shrink_to(KEPT_BYTES);
        Poll::Ready(Ok(()))
    }

    fn poll_take(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        if !self.gathers {
            let count = ready!(Pin::new(&mut self.inner).poll_write_vectored(cx, slices))?;
            self.sent += count as u64;
            return Poll::Ready(Ok(count));
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

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        ready!(Pin::new(&mut self.inner).poll_flush(cx))?;
        self.flushing = false;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gathered<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.lock().inner).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gathered<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.0.lock().poll_take(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.0.lock().poll_take(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        let gathering = self.0.lock();
        gathering.gathers || gathering.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut gathering = self.0.lock();
        if gathering.gathers { Poll::Ready(Ok(())) } else { Pin::new(&mut gathering.inner).poll_flush(cx) }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut gathering = self.0.lock();
        ready!(gathering.poll_drain(cx))?;
        Pin::new(&mut gathering.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn everything_arrives_once_it_is_sent() {
        let (near, mut far) = duplex(1000);
        let reading = tokio::spawn(async move {
            let mut all = Vec::new();
            far.read_to_end(&mut all).await.map(|_| all)
        });
        let (mut gathered, sending) = Gathered::new(near, true);
        let mut sent = Vec::new();
        for round in 0..200usize {
            let piece = vec![round as u8; round * 7];
            gathered.write_all(&piece).await.unwrap();
            sent.extend_from_slice(&piece);
            if round % 50 == 0 {
                poll_fn(|cx| sending.poll(cx)).await.unwrap();
            }
        }
        gathered.shutdown().await.unwrap();
        drop((gathered, sending));
        assert_eq!(reading.await.unwrap().unwrap(), sent);
    }

    #[tokio::test]
    async fn frames_that_are_flushed_one_by_one_leave_together() {
        let (near, mut far) = duplex(1000);
        let (mut gathered, sending) = Gathered::new(near, true);
        for piece in [b"one ", b"two "] {
            gathered.write_all(piece).await.unwrap();
            gathered.flush().await.unwrap();
        }
        let mut read = [0; 100];
        let early = tokio::select! {
            biased;
            count = far.read(&mut read) => count.unwrap(),
            () = std::future::ready(()) => 0,
        };
        assert_eq!(early, 0);
        poll_fn(|cx| sending.poll(cx)).await.unwrap();
        let count = far.read(&mut read).await.unwrap();
        assert_eq!(&read[..count], b"one two ");
    }

    /// As TLS: takes more than the socket does, and keeps the rest until it is flushed.
    struct Keeping<S> {
        socket: S,
        kept: Vec<u8>,
    }

    impl<S: AsyncWrite + Unpin> AsyncWrite for Keeping<S> {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            self.kept.extend_from_slice(bytes);
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            while !self.kept.is_empty() {
                let Self { socket, kept } = &mut *self;
                let count = ready!(Pin::new(socket).poll_write(cx, kept))?;
                kept.drain(..count);
            }
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.poll_flush(cx)
        }
    }

    #[tokio::test]
    async fn what_tls_keeps_while_the_socket_is_full_arrives_when_there_is_room() {
        let (near, mut far) = duplex(10);
        let (mut gathered, sending) = Gathered::new(Keeping { socket: near, kept: Vec::new() }, true);
        gathered.write_all(&[7; 100]).await.unwrap();
        assert!(poll_fn(|cx| Poll::Ready(sending.poll(cx))).await.is_pending());
        let mut all = Vec::new();
        while all.len() < 100 {
            let mut read = [0; 10];
            let count = far.read(&mut read).await.unwrap();
            all.extend_from_slice(&read[..count]);
            let sent = poll_fn(|cx| Poll::Ready(sending.poll(cx))).await;
            assert_eq!(sent.is_ready(), all.len() >= 90, "{}", all.len());
        }
    }

    #[tokio::test]
    async fn nothing_is_held_back_from_whoever_is_upgraded() {
        let (near, mut far) = duplex(1000);
        let (mut passing, _) = Gathered::new(near, false);
        passing.write_all(b"now").await.unwrap();
        let mut read = [0; 3];
        far.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"now");
    }
}
