#![doc = include_str!("../README.md")]
//!
//! The table of contents of the name server; the page before is its README.

mod cache;
mod corefile;
mod forward;
mod forward_tls;
mod http;
mod metrics;
mod noted;
mod plugins;
mod records;
mod rewrite;
mod routing;
mod server;
mod template;
pub mod udp;
mod wire;

pub use corefile::{Corefile, CorefileError, DEFAULT as DEFAULT_COREFILE, Target, TlsFiles, ZoneConfig};
pub use cache::CacheRule;
pub use forward::{Upstream, Upstreams};
pub use http::{METRICS_PORT, Pages, listen, serve};
pub use records::{HeadlessEndpoint, Port, Protocol, Records, ServiceRecords, TTL_SECONDS};
pub use rewrite::Rewrite;
pub use routing::{Table, Zone};
pub use template::Template;
pub use server::{BindError, Server};
