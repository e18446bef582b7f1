//! One pod and one snapshot: would a node do?

use crate::around::Around;
use crate::filter::{self, Reason};
use crate::node::NodeInfo;
use crate::pod::PodInfo;
use crate::snapshot::Snapshot;
use crate::volumes::Needs;

pub struct Question<'a> {
    pub pod: &'a PodInfo,
    pub snapshot: &'a Snapshot,
    pub around: Around<'a>,
    needs: Needs<'a>,
}

impl<'a> Question<'a> {
    /// Err: no node will do, for this reason.
    pub fn of(pod: &'a PodInfo, snapshot: &'a Snapshot) -> Result<Self, Reason> {
        let needs = Needs::of(pod, snapshot)?;
        Ok(Self { pod, snapshot, around: Around::of(pod, snapshot), needs })
    }

    /// Whether the pod can run on the node as it is.
    pub fn fits(&self, node: &'a NodeInfo) -> Result<(), Vec<Reason>> {
        self.would_fit(node, node, &self.around)
    }

    /// Whether the pod could run on `node` if things were as in `state` and `around`. Room that pods of its priority or above were nominated for is taken;
    /// but as they are not there yet, the pod must fit without them too (an affinity to them would not hold).
    pub fn would_fit(&self, node: &'a NodeInfo, state: &NodeInfo, around: &Around<'a>) -> Result<(), Vec<Reason>> {
        let mut claims = self.snapshot.nominated(&node.name).iter().filter(|other| other.priority >= self.pod.priority && other.uid != self.pod.uid).peekable();
        if claims.peek().is_some() {
            let (mut state, mut around) = (state.clone(), around.clone());
            for other in claims {
                state.add(other.clone());
                around.shift(other, node, 1);
            }
            self.check(node, &state, &around)?;
        }
        self.check(node, state, around)
    }

    fn check(&self, node: &NodeInfo, state: &NodeInfo, around: &Around<'a>) -> Result<(), Vec<Reason>> {
        filter::node(self.pod, state)?;
        self.needs.filter(self.pod, node, state)?;
        around.filter(state).map_err(|reason| vec![reason])
    }
}
