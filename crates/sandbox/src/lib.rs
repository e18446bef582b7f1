//! Containers: namespaces, cgroups, overlay roots, and the shim that owns a pod's processes.
//!
//! `cri` is the node's seam (decision 5 of the design): the node knows only that trait and its types.
#![cfg(target_os = "linux")]

pub mod cgroup;
pub mod cri;
pub mod shim;
pub mod sys;
pub mod usage;

mod embedded;
mod layout;
mod protocol;

pub use embedded::{Config, Embedded, Report, reset};
