//! Every controller's decision: `plan(view, now) -> Plan`, pure.
//!
//! A `View` holds what the controller knows, a [`Plan`] what it wants done. No I/O, no clock, no chance, no async: the `controllers` crate loads views and
//! applies plans.

pub mod bootstrap;
pub mod certificates;
pub mod claim;
pub mod cronjob;
pub mod daemonset;
pub mod deployment;
pub mod disruption;
pub mod endpoints;
pub mod garbage;
pub mod ip_address;
pub mod job;
pub mod meta;
pub mod namespace;
pub mod node;
pub mod node_fit;
pub mod op;
pub mod pods;
pub mod quota;
pub mod replicaset;
pub mod revisions;
pub mod service_cidr;
pub mod serviceaccount;
pub mod statefulset;
pub mod template;
pub mod volume;

pub use op::{Announce, At, Op, PatchKind, Plan, Propagation};
