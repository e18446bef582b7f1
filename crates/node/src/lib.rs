//! The node agent: runs the pods bound to this node, as the kubelet does. See README.md.

mod backoff;
mod channels;
mod conditions;
mod config;
mod container;
mod cx;
mod dns;
mod env;
mod expand;
mod fd;
mod fields;
mod forward;
pub mod hollow;
mod hooks;
mod http;
mod images;
mod kill;
mod launch;
mod lease;
mod log_line;
mod logs;
mod machine;
pub mod names;
pub mod networking;
mod node;
mod objects;
mod observe;
mod patch;
mod pod;
mod probe;
mod probe_http;
mod probes;
pub mod proxy;
mod pull;
mod quantity;
mod register;
mod resources;
mod rotate;
mod sandbox_config;
mod security;
pub mod services;
mod session;
mod stats;
mod status;
#[cfg(test)]
mod status_tests;
mod sync;
#[cfg(test)]
mod sync_tests;
mod view;
mod volumes;
mod worker;

pub use config::{Config, KUBELET_PORT, MAX_PODS};
pub use http::{Answer, BoxBody};
pub use images::{Credentials, ImageError, ImageInfo, Images, RunConfig};
pub use node::Node;
