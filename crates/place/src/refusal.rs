//! Why no node would do, in the words of upstream's FailedScheduling event.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::filter::{Plugin, Reason};

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Refusal {
    pub nodes: usize,
    /// What the pod itself asks for that no node can give: nothing is said of single nodes then.
    pub of_all: Option<Reason>,
    pub reasons: BTreeMap<Reason, usize>,
    /// Nodes where evicting others could help.
    pub helpful: Vec<Arc<str>>,
}

/// `2 Insufficient cpu, 3 node(s) were unschedulable`: sorted as text, as upstream.
fn histogram(counts: &BTreeMap<Cow<'_, str>, usize>) -> String {
    let mut list: Vec<String> = counts.iter().map(|(text, count)| format!("{count} {text}")).collect();
    list.sort();
    list.join(", ")
}

/// `0/3 nodes are available: <what>.`
pub(crate) fn available(nodes: usize, counts: &BTreeMap<Cow<'_, str>, usize>) -> String {
    format!("0/{nodes} nodes are available: {}.", histogram(counts))
}

impl Refusal {
    pub(crate) fn note(&mut self, node: &Arc<str>, reasons: Vec<Reason>) {
        if reasons.iter().all(|reason| reason.resolvable) {
            self.helpful.push(node.clone());
        }
        for reason in reasons {
            *self.reasons.entry(reason).or_default() += 1;
        }
    }

    /// Who refused.
    pub fn plugins(&self) -> BTreeSet<Plugin> {
        self.reasons.keys().chain(&self.of_all).map(|reason| reason.plugin).collect()
    }

    /// `0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, preemption: …`; `preemption` says why evicting others does not help,
    /// and is None when it does.
    pub fn message(&self, preemption: Option<&str>) -> String {
        if self.nodes == 0 {
            return "no nodes available to schedule pods".to_owned();
        }
        let mut message = match &self.of_all {
            Some(reason) => format!("0/{} nodes are available: {}.", self.nodes, reason.text),
            None => {
                // A reason may be resolvable on one node and final on another; its text counts once.
                let mut texts: BTreeMap<Cow<'_, str>, usize> = BTreeMap::new();
                for (reason, count) in &self.reasons {
                    *texts.entry(Cow::Borrowed(&*reason.text)).or_default() += count;
                }
                available(self.nodes, &texts)
            }
        };
        if let Some(why) = preemption {
            // The first half is DynamicResources', which is asked before.
            message.push_str(" no new claims to deallocate, preemption: ");
            message.push_str(why);
        }
        message
    }
}
