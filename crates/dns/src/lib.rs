#![doc = include_str!("../README.md")]
//!
//! The table of contents of the name server; the page before is its README.

mod cache;
mod corefile;
mod forward;
mod http;
mod metrics;
mod records;
mod rewrite;
mod routing;
mod server;
pub mod udp;
mod wire;

pub use corefile::{Corefile, CorefileError, DEFAULT as DEFAULT_COREFILE, Target, ZoneConfig};
pub use forward::Upstreams;
pub use http::{METRICS_PORT, Pages, listen, serve};
pub use records::{HeadlessEndpoint, Port, Protocol, Records, ServiceRecords, TTL_SECONDS};
pub use rewrite::Rewrite;
pub use routing::{Table, Zone};
pub use server::{BindError, Server};
