//! What depends on the pods of other nodes too: inter-pod affinity and topology spread.

use crate::filter::Reason;
use crate::near::Neighbours;
use crate::node::NodeInfo;
use crate::pod::PodInfo;
use crate::snapshot::Snapshot;
use crate::spread::Spread;

/// What the pods already placed mean for one pod. A copy can be shifted, to see what would be.
#[derive(Clone)]
pub struct Around<'a> {
    spread: Spread<'a>,
    neighbours: Neighbours<'a>,
}

impl<'a> Around<'a> {
    pub fn of(pod: &'a PodInfo, snapshot: &'a Snapshot) -> Self {
        Self { spread: Spread::of(pod, snapshot), neighbours: Neighbours::of(pod, snapshot) }
    }

    /// As if `other` came to `node` (`by` = 1) or left it (-1).
    pub fn shift(&mut self, other: &'a PodInfo, node: &'a NodeInfo, by: i64) {
        self.spread.shift(other, node, by);
        self.neighbours.shift(other, node, by);
    }

    pub fn filter(&self, node: &NodeInfo) -> Result<(), Reason> {
        self.spread.filter(node)?;
        self.neighbours.filter(node)
    }
}
