//! The node agent: runs the pods bound to this node, as the kubelet does. See README.md.

mod backoff;
mod conditions;
mod config;
mod container;
mod cx;
mod dns;
mod env;
mod expand;
mod fields;
mod hooks;
mod images;
mod kill;
mod launch;
mod lease;
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
mod sandbox_config;
mod security;
pub mod services;
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
pub use images::{Credentials, ImageError, ImageInfo, Images, RunConfig};
pub use node::Node;
