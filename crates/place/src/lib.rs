//! The scheduler's decision: a snapshot of the nodes and one pod give a placement, pure.
//!
//! Mirrors kube-scheduler's default plugins: filters say no with upstream's words, scores choose among the rest.
//! <https://kubernetes.io/docs/reference/scheduling/config/#scheduling-plugins>

mod affinity;
mod amount;
mod decide;
mod filter;
mod node;
mod pod;
mod score;
mod snapshot;
mod spread;

pub use amount::Amounts;
pub use decide::{Placement, Refusal, place};
pub use filter::Reason;
pub use node::NodeInfo;
pub use pod::{DEFAULT_SCHEDULER, PodInfo};
pub use snapshot::Snapshot;
