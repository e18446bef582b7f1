//! Runs the placement of pods: keeps a snapshot from informers, places pods one after another, binds them concurrently.
//!
//! Mirrors kube-scheduler: priority order, assumed pods, binding through the API, preemption, FailedScheduling events, retries when something changed.

mod evict;
mod measured;
mod note;
mod run;
mod waiting;

pub use measured::Measured;
pub use run::run;
