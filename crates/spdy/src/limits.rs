//! How much a connection may cost, whatever the other side does.

use std::time::Duration;

/// A control frame's payload. Kubernetes' own are below 1 KiB; the protocol allows 16 MiB.
pub const CONTROL_FRAME_BYTES_MAX: usize = 256 * 1024;
/// One header block, unpacked.
pub const HEADER_BYTES_MAX: usize = 64 * 1024;
pub const HEADERS_MAX: usize = 256;
/// Streams of one connection at a time: port-forward needs two for each of the program's connections.
pub const STREAMS_MAX: usize = 2048;
/// A data frame is given on in pieces of at most this; ours are never larger.
pub const CHUNK_BYTES_MAX: usize = 32 * 1024;
/// Received pieces that wait for one stream's reader. Then the whole connection waits, as spdystream's does.
pub const STREAM_BACKLOG: usize = 16;
/// Received bytes that wait for all readers of a connection together.
pub const BUFFERED_BYTES_MAX: usize = 8 << 20;
/// Bytes that wait to be written.
pub const UNWRITTEN_BYTES_MAX: usize = 256 * 1024;
/// Streams opened by the other side that nobody has taken yet.
pub const INCOMING_BACKLOG: usize = 32;
/// How long the other side may take to answer to a new stream: upstream's createStreamResponseTimeout.
pub const OPEN_PATIENCE: Duration = Duration::from_secs(30);
/// How long the other side may take to read our last words and go.
pub const CLOSE_PATIENCE: Duration = Duration::from_secs(5);
/// A connection on which nothing moves for this long is given up: the kubelet's streamingConnectionIdleTimeout.
pub const IDLE_MAX: Duration = Duration::from_secs(4 * 60 * 60);
