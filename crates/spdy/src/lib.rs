//! SPDY/3.1, as much of it as Kubernetes' streaming protocols use: <https://www.chromium.org/spdy/spdy-protocol/spdy-protocol-draft3-1/>.
//!
//! From bytes upwards: `dictionary` and `headers` (compressed name/value blocks), `frame` (encoder and decoder, pure), `connection` (both sides of one, over any
//! byte stream), `stream` (one of its many). `limits` names every bound.

mod connection;
mod dictionary;
pub mod frame;
mod headers;
pub mod limits;
mod stream;

pub use connection::{Connection, Incoming, OpenError};
pub use frame::FrameError;
pub use headers::Headers;
pub use stream::{Closed, Reader, Stream, Writer};
