//! One connection with many streams, over any byte stream, as either side.
//!
//! Behaves as moby/spdystream, which is what Kubernetes' clients run: no windows (a stream whose reader is slow stops the reading of all), answers to pings, the
//! end of the connection at GOAWAY or at the end of its bytes, and RST_STREAM for what is given up.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::BytesMut;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};

use crate::frame::{Decoder, Encoder, Frame, FrameError, going, reset};
use crate::headers::Headers;
use crate::limits::{BUFFERED_BYTES_MAX, CLOSE_PATIENCE, IDLE_MAX, INCOMING_BACKLOG, OPEN_PATIENCE, STREAM_BACKLOG, STREAMS_MAX, UNWRITTEN_BYTES_MAX};
use crate::stream::{Chunk, Closed, State, Stream};

/// Read at once, and written at once.
const BATCH_BYTES: usize = 64 * 1024;
/// What a frame costs beside its data, as unwritten bytes are counted.
const FRAME_COST: usize = 16;

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("the connection is closed")]
    Closed,
    #[error("the stream was refused")]
    Refused,
    #[error("too many streams are open")]
    TooMany,
    #[error("timed out waiting for the answer to a new stream")]
    Timeout,
}

/// Why a connection's reading ended.
#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("idle for too long")]
    Idle,
}

enum Order {
    Frame(Frame, Option<OwnedSemaphorePermit>),
    /// Nothing follows.
    End,
}

struct Entry {
    /// None once the other side has sent its last byte.
    chunks: Option<mpsc::Sender<Chunk>>,
    answered: Option<oneshot::Sender<()>>,
    state: Arc<State>,
}

#[derive(Default)]
struct Table {
    entries: HashMap<u32, Entry>,
    /// The next ID of ours.
    next: u32,
    /// The last ID of theirs.
    last: u32,
    gone: bool,
}

pub(crate) struct Shared {
    table: Mutex<Table>,
    orders: mpsc::UnboundedSender<Order>,
    unwritten: Arc<Semaphore>,
    buffered: Arc<Semaphore>,
    /// Frames written: a sign of life.
    written: AtomicU64,
    ended: watch::Sender<bool>,
    server: bool,
}

impl Shared {
    /// Waits for room. Then it is in order with all other frames.
    pub async fn send(&self, frame: Frame, length: usize) -> Result<(), Closed> {
        let cost = u32::try_from(length + FRAME_COST).unwrap_or(u32::MAX);
        let room = self.unwritten.clone().acquire_many_owned(cost).await.map_err(|_| Closed)?;
        self.orders.send(Order::Frame(frame, Some(room))).map_err(|_| Closed)
    }

    /// For frames of which there is at most one a stream.
    pub fn send_now(&self, frame: Frame) {
        // Nobody is left to hear it.
        let _ = self.orders.send(Order::Frame(frame, None));
    }

    pub fn forget(&self, id: u32) {
        self.table.lock().entries.remove(&id);
    }

    fn end(&self) {
        let mut table = self.table.lock();
        table.gone = true;
        let entries = std::mem::take(&mut table.entries);
        drop(table);
        for entry in entries.values() {
            entry.state.reset.store(true, Ordering::Release);
        }
        self.ended.send_replace(true);
    }

    fn ours(&self, id: u32) -> bool {
        (id % 2 == 0) == self.server
    }
}

/// The streams that the other side opens, in order. Each is taken by [`Stream::accept`] or refused by dropping it.
pub struct Incoming(mpsc::Receiver<Stream>);

impl Incoming {
    /// None when the connection has ended.
    pub async fn next(&mut self) -> Option<Stream> {
        self.0.recv().await
    }
}

/// Dropped: what was sent still goes out, then GOAWAY, then the byte stream is closed.
pub struct Connection {
    shared: Arc<Shared>,
}

impl Connection {
    pub fn client<S: AsyncRead + AsyncWrite + Send + 'static>(io: S) -> Self {
        Self::start(io, false).0
    }

    pub fn server<S: AsyncRead + AsyncWrite + Send + 'static>(io: S) -> (Self, Incoming) {
        Self::start(io, true)
    }

    fn start<S: AsyncRead + AsyncWrite + Send + 'static>(io: S, server: bool) -> (Self, Incoming) {
        let (orders, written) = mpsc::unbounded_channel();
        let (opened, incoming) = mpsc::channel(INCOMING_BACKLOG);
        let shared = Arc::new(Shared {
            table: Mutex::new(Table { next: if server { 2 } else { 1 }, ..Table::default() }),
            orders,
            unwritten: Arc::new(Semaphore::new(UNWRITTEN_BYTES_MAX)),
            buffered: Arc::new(Semaphore::new(BUFFERED_BYTES_MAX)),
            written: AtomicU64::new(0),
            ended: watch::Sender::new(false),
            server,
        });
        tokio::spawn(drive(io, shared.clone(), written, opened));
        (Self { shared }, Incoming(incoming))
    }

    /// Opens a stream and waits until the other side has taken it.
    pub async fn open(&self, headers: Headers) -> Result<Stream, OpenError> {
        let (chunks, received) = mpsc::channel(STREAM_BACKLOG);
        let (answered, answer) = oneshot::channel();
        let state = Arc::new(State::default());
        let id = {
            let mut table = self.shared.table.lock();
            if table.gone {
                return Err(OpenError::Closed);
            }
            if table.entries.len() >= STREAMS_MAX || table.next > i32::MAX as u32 {
                return Err(OpenError::TooMany);
            }
            let id = table.next;
            table.next += 2;
            table.entries.insert(id, Entry { chunks: Some(chunks), answered: Some(answered), state: state.clone() });
            // Under the lock: IDs must grow on the wire.
            self.shared.send_now(Frame::SynStream { stream: id, associated: 0, priority: 0, fin: false, unidirectional: false, headers: headers.clone() });
            id
        };
        let stream = Stream::new(id, headers, self.shared.clone(), state, received);
        match tokio::time::timeout(OPEN_PATIENCE, answer).await {
            Ok(Ok(())) => Ok(stream),
            Ok(Err(_)) if self.shared.table.lock().gone => Err(OpenError::Closed),
            Ok(Err(_)) => Err(OpenError::Refused),
            Err(_) => Err(OpenError::Timeout),
        }
    }

    /// Waits for a sign of life's answer being on its way; a dead connection is then found by its transport.
    pub async fn ping(&self) -> Result<(), Closed> {
        self.shared.send(Frame::Ping(if self.shared.server { 2 } else { 1 }), 0).await
    }

    /// Until the other side is gone, or the connection is broken.
    pub async fn ended(&self) {
        let mut ended = self.shared.ended.subscribe();
        // It cannot be dropped while we are here.
        let _ = ended.wait_for(|ended| *ended).await;
    }

    /// As dropping it; and waits until the other side is gone too, though not for ever.
    pub async fn close(self) {
        let shared = self.shared.clone();
        drop(self);
        let mut ended = shared.ended.subscribe();
        let _ = ended.wait_for(|ended| *ended).await;
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let last = self.shared.table.lock().last;
        self.shared.send_now(Frame::GoAway { last, status: going::OK });
        let _ = self.shared.orders.send(Order::End);
    }
}

async fn drive<S: AsyncRead + AsyncWrite + Send + 'static>(io: S, shared: Arc<Shared>, orders: mpsc::UnboundedReceiver<Order>, opened: mpsc::Sender<Stream>) {
    let (read, write) = tokio::io::split(io);
    let reading = reading(read, &shared, &opened);
    let writing = writing(write, orders, &shared);
    tokio::pin!(reading, writing);
    tokio::select! {
        read = &mut reading => {
            match read {
                Ok(()) => {}
                Err(ReadError::Frame(error)) => {
                    tracing::debug!(%error, "SPDY connection broken");
                    let last = shared.table.lock().last;
                    shared.send_now(Frame::GoAway { last, status: going::PROTOCOL_ERROR });
                }
                Err(error) => tracing::debug!(%error, "SPDY connection ended"),
            }
            shared.end();
            let _ = shared.orders.send(Order::End);
            let _ = tokio::time::timeout(CLOSE_PATIENCE, writing).await;
        }
        written = &mut writing => {
            if let Err(error) = written {
                tracing::debug!(%error, "SPDY connection ended");
            } else {
                // What the other side still sends is read: closing before that would cut off what it has not read of ours.
                let _ = tokio::time::timeout(CLOSE_PATIENCE, reading).await;
            }
            shared.end();
        }
    }
    // Whoever still waits for room is told.
    shared.unwritten.close();
}

async fn writing(mut io: impl AsyncWrite + Unpin, mut orders: mpsc::UnboundedReceiver<Order>, shared: &Shared) -> std::io::Result<()> {
    let (mut encoder, mut buffer, mut rooms) = (Encoder::default(), BytesMut::with_capacity(BATCH_BYTES), Vec::new());
    let mut more = true;
    while more {
        let mut next = orders.recv().await;
        loop {
            match next {
                Some(Order::Frame(frame, room)) => {
                    encoder.encode(&frame, &mut buffer).map_err(std::io::Error::other)?;
                    rooms.push(room);
                }
                Some(Order::End) | None => {
                    more = false;
                    break;
                }
            }
            // What else is there goes with it.
            match orders.try_recv() {
                Ok(order) if buffer.len() < BATCH_BYTES => next = Some(order),
                Ok(order) => {
                    flush(&mut io, &mut buffer, &mut rooms, shared).await?;
                    next = Some(order);
                }
                Err(_) => break,
            }
        }
        flush(&mut io, &mut buffer, &mut rooms, shared).await?;
    }
    io.shutdown().await
}

async fn flush(io: &mut (impl AsyncWrite + Unpin), buffer: &mut BytesMut, rooms: &mut Vec<Option<OwnedSemaphorePermit>>, shared: &Shared) -> std::io::Result<()> {
    io.write_all(buffer).await?;
    io.flush().await?;
    buffer.clear();
    shared.written.fetch_add(rooms.len() as u64, Ordering::Relaxed);
    rooms.clear();
    Ok(())
}

/// Until the other side goes.
async fn reading(mut io: impl AsyncRead + Unpin, shared: &Arc<Shared>, opened: &mpsc::Sender<Stream>) -> Result<(), ReadError> {
    let (mut decoder, mut buffer) = (Decoder::default(), BytesMut::with_capacity(BATCH_BYTES));
    let mut written = 0;
    loop {
        while let Some(frame) = decoder.decode(&mut buffer)? {
            if matches!(frame, Frame::GoAway { .. }) {
                return Ok(());
            }
            take(frame, shared, opened).await;
        }
        buffer.reserve(BATCH_BYTES);
        match tokio::time::timeout(IDLE_MAX, io.read_buf(&mut buffer)).await {
            Ok(Ok(0)) => return Ok(()),
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(error.into()),
            Err(_) if written == shared.written.load(Ordering::Relaxed) => return Err(ReadError::Idle),
            Err(_) => written = shared.written.load(Ordering::Relaxed),
        }
    }
}

async fn take(frame: Frame, shared: &Arc<Shared>, opened: &mpsc::Sender<Stream>) {
    match frame {
        Frame::SynStream { stream, fin, headers, .. } => {
            let (chunks, received) = mpsc::channel(STREAM_BACKLOG);
            let state = Arc::new(State::default());
            let refused = {
                let mut table = shared.table.lock();
                if table.gone {
                    return;
                }
                if shared.ours(stream) || stream <= table.last {
                    Some(reset::PROTOCOL_ERROR)
                } else if table.entries.len() >= STREAMS_MAX {
                    table.last = stream;
                    Some(reset::REFUSED_STREAM)
                } else {
                    table.last = stream;
                    table.entries.insert(stream, Entry { chunks: (!fin).then_some(chunks), answered: None, state: state.clone() });
                    None
                }
            };
            match refused {
                Some(status) => drop(shared.send(Frame::RstStream { stream, status }, 0).await),
                // Nobody takes streams: dropping it refuses it.
                None => drop(opened.send(Stream::new(stream, headers, shared.clone(), state, received)).await),
            }
        }
        Frame::SynReply { stream, fin, .. } => {
            let mut table = shared.table.lock();
            let Some(entry) = table.entries.get_mut(&stream) else { return };
            if let Some(answered) = entry.answered.take() {
                let _ = answered.send(());
            }
            if fin {
                entry.chunks = None;
            }
        }
        Frame::Data { stream, fin, data } => {
            // Data for a stream that is no more is let go, as spdystream does.
            let chunks = shared.table.lock().entries.get(&stream).and_then(|entry| entry.chunks.clone());
            let Some(chunks) = chunks else { return };
            if !data.is_empty() {
                let size = u32::try_from(data.len()).unwrap_or(u32::MAX);
                let give = async {
                    let Ok(room) = shared.buffered.clone().acquire_many_owned(size).await else { return };
                    // A copy: else a byte would hold on to the whole buffer that it came in.
                    let _ = chunks.send(Chunk { data: bytes::Bytes::copy_from_slice(&data), _room: room }).await;
                };
                tokio::select! {
                    () = give => {}
                    () = chunks.closed() => {}
                }
            }
            if fin && let Some(entry) = shared.table.lock().entries.get_mut(&stream) {
                entry.chunks = None;
            }
        }
        Frame::Headers { stream, fin: true, .. } => {
            if let Some(entry) = shared.table.lock().entries.get_mut(&stream) {
                entry.chunks = None;
            }
        }
        Frame::RstStream { stream, .. } => {
            if let Some(entry) = shared.table.lock().entries.remove(&stream) {
                entry.state.reset.store(true, Ordering::Release);
            }
        }
        // The answer to ours has our parity.
        Frame::Ping(id) if !shared.ours(id) => drop(shared.send(Frame::Ping(id), 0).await),
        Frame::Ping(_) | Frame::Headers { .. } | Frame::Settings(_) | Frame::WindowUpdate { .. } | Frame::GoAway { .. } => {}
    }
}
