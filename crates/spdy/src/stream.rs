//! One stream of a connection: a reader of chunks, a writer of bytes, each ending on its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use crate::connection::Shared;
use crate::frame::{Frame, reset};
use crate::headers::Headers;
use crate::limits::CHUNK_BYTES_MAX;

/// The stream or its connection has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("stream closed")]
pub struct Closed;

/// Received bytes and the room that they take up.
pub(crate) struct Chunk {
    pub data: Bytes,
    pub _room: OwnedSemaphorePermit,
}

#[derive(Default)]
pub(crate) struct State {
    /// We have said that no more comes from us.
    pub finished: AtomicBool,
    /// Either side has given the stream up.
    pub reset: AtomicBool,
}

/// Held by both halves; the stream ends with the last of them.
struct Handle {
    id: u32,
    shared: Arc<Shared>,
    state: Arc<State>,
}

impl Handle {
    /// As spdystream: who has finished, says nothing more.
    fn reset(&self) {
        if !self.state.reset.swap(true, Ordering::AcqRel) && !self.state.finished.load(Ordering::Acquire) {
            self.shared.send_now(Frame::RstStream { stream: self.id, status: reset::CANCEL });
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.forget(self.id);
        self.reset();
    }
}

pub struct Stream {
    pub id: u32,
    pub headers: Headers,
    reader: Reader,
    writer: Writer,
}

impl Stream {
    pub(crate) fn new(id: u32, headers: Headers, shared: Arc<Shared>, state: Arc<State>, chunks: mpsc::Receiver<Chunk>) -> Self {
        let handle = Arc::new(Handle { id, shared, state });
        Self { id, headers, reader: Reader { chunks, _handle: handle.clone() }, writer: Writer(handle) }
    }

    /// Answers to a stream that the other side has opened: before that, it does not take our data. A stream that is dropped instead is refused.
    pub async fn accept(&self) -> Result<(), Closed> {
        self.writer.frame(Frame::SynReply { stream: self.id, fin: false, headers: Headers::default() }, 0).await
    }

    pub fn split(self) -> (Reader, Writer) {
        (self.reader, self.writer)
    }
}

pub struct Reader {
    chunks: mpsc::Receiver<Chunk>,
    _handle: Arc<Handle>,
}

impl Reader {
    /// None after the other side's last byte, or when the stream is reset, or its connection has ended.
    pub async fn next(&mut self) -> Option<Bytes> {
        // Its room is free again with this: whoever has it decides how many he takes.
        self.chunks.recv().await.map(|chunk| chunk.data)
    }
}

pub struct Writer(Arc<Handle>);

impl Writer {
    async fn frame(&self, frame: Frame, length: usize) -> Result<(), Closed> {
        let state = &self.0.state;
        if state.reset.load(Ordering::Acquire) || state.finished.load(Ordering::Acquire) {
            return Err(Closed);
        }
        self.0.shared.send(frame, length).await
    }

    /// Waits while too much is unwritten. Empty data is sent too: some protocols use it as a sign of life.
    pub async fn send(&self, data: Bytes) -> Result<(), Closed> {
        let stream = self.0.id;
        let mut rest = data;
        loop {
            let data = rest.split_to(rest.len().min(CHUNK_BYTES_MAX));
            let length = data.len();
            self.frame(Frame::Data { stream, fin: false, data }, length).await?;
            if rest.is_empty() {
                return Ok(());
            }
        }
    }

    /// No more comes from us; the other side may still send.
    pub async fn finish(&self) {
        let fin = Frame::Data { stream: self.0.id, fin: true, data: Bytes::new() };
        if self.frame(fin, 0).await.is_ok() {
            self.0.state.finished.store(true, Ordering::Release);
        }
    }

    /// Gives the stream up, both ways.
    pub fn reset(&self) {
        self.0.reset();
        self.0.shared.forget(self.0.id);
    }

    /// Has the other side, or have we, given up the stream?
    pub fn is_reset(&self) -> bool {
        self.0.state.reset.load(Ordering::Acquire)
    }
}
