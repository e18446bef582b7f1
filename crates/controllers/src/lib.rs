//! Runs every plan: load, plan, apply, requeue, back off.
//!
//! The decisions are in the crate `plan`, one file a controller; here is what surrounds them, written once ([`runner`], [`apply`]), and per controller one file
//! that says which changes concern which keys and how a view is loaded from the caches. Mirrors kube-controller-manager.

mod apply;
mod context;
mod informers;
mod run;
mod runner;

mod bootstrap;
mod certificates;
mod cronjob;
mod daemonset;
mod deployment;
mod disruption;
mod endpoints;
mod garbage;
mod job;
mod kinds;
mod namespace;
mod node;
mod quota;
mod replicaset;
mod service_cidr;
mod serviceaccount;
mod statefulset;
mod tokens;
mod volume;

pub use certificates::Signer;
pub use plan::certificates::{DEFAULT_SECONDS as DEFAULT_SIGNING_SECONDS, Facts};
pub use run::{Config, run};
