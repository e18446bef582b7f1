//! gRPC without etcd: one HTTP/2 connection over any stream, single messages on it, and protobuf's own words. For the few other services that speak it.

pub use crate::body::framed;
pub use crate::connection::Connection;
pub use crate::wire::{Fields, Part};

/// Writing fields.
pub mod wire {
    pub use crate::wire::{bytes, message, number};
}
