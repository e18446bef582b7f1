#![doc = include_str!("../README.md")]
//!
//! The table of contents of the name server; the page before is its README.

mod cache;
mod forward;
mod records;
mod server;
mod wire;

pub use forward::Upstreams;
pub use records::{HeadlessEndpoint, Port, Protocol, Records, ServiceRecords, TTL_SECONDS};
pub use server::{BindError, Server};
