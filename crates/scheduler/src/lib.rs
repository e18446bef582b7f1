//! Runs the placement of pods: keeps a snapshot from informers, places pods one after another, binds them concurrently.
//!
//! Mirrors kube-scheduler: priority order, assumed pods, binding through the API, FailedScheduling events, retries when something changed.

mod run;
mod waiting;

pub use run::run;
