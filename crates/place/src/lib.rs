//! The scheduler's decision: a snapshot of the nodes and one pod give a placement, pure.
//!
//! Mirrors kube-scheduler's default plugins: filters say no with upstream's words, scores choose among the rest, preemption makes room.
//! <https://kubernetes.io/docs/reference/scheduling/config/#scheduling-plugins>

mod affinity;
mod amount;
mod around;
mod constraint;
mod decide;
mod filter;
mod near;
mod node;
mod pod;
mod preempt;
mod question;
mod refusal;
mod score;
mod snapshot;
mod spread;
#[cfg(test)]
mod testing;
mod volumes;

pub use amount::Amounts;
pub use decide::{Placement, place};
pub use filter::{Plugin, Reason};
pub use node::{NodeChange, NodeInfo};
pub use pod::{DEFAULT_SCHEDULER, PREEMPTED, PodInfo};
pub use preempt::{Budget, Preemption, preempt};
pub use refusal::Refusal;
pub use snapshot::Snapshot;
pub use volumes::Storage;
