//! Numbered byte channels between a client and a session, whatever frames them on the wire: `websocket.rs` or `spdy_channels.rs`.
//!
//! Numbers and protocol names: k8s.io/apimachinery/pkg/util/remotecommand.

use bytes::Bytes;
use tokio::sync::mpsc;

pub const STDIN: u8 = 0;
pub const STDOUT: u8 = 1;
pub const STDERR: u8 = 2;
/// How it ended: a `metav1.Status`, or text in old protocols.
pub const ERROR: u8 = 3;
pub const RESIZE: u8 = 4;

/// Messages under way in one direction.
pub const BACKLOG: usize = 16;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    Data(u8, Bytes),
    /// The sender is done with this channel.
    Close(u8),
}

pub struct Channels {
    /// Ends when the client is gone.
    pub incoming: mpsc::Receiver<Frame>,
    /// Dropped: the connection is closed in good order.
    pub outgoing: mpsc::Sender<Frame>,
    /// Errors are `metav1.Status`, not text.
    pub status: bool,
}
