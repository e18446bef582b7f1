//! DaemonSet: one pod on every node that fits.
//!
//! Watches: the DaemonSet, its pods, its ControllerRevisions, nodes. Writes: pod create and delete, revisions, the status.
//! Pods are bound by the scheduler: each carries a node affinity to its node. Mirrors `pkg/controller/daemon`.

mod rolling;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use api::k8s::api::apps::v1::{ControllerRevision, DaemonSet, DaemonSetSpec, DaemonSetStatus};
use api::k8s::api::core::v1::{
    Affinity, Node, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec, PodTemplateSpec, Toleration,
};
use jiff::Timestamp;

use crate::claim::claim;
use crate::meta::{
    Labels, annotation, controller_reference, created, deleting, generation, label, name, namespace, non_zero, reference, selects, selects_all, until,
};
use crate::node_fit::{taints, untolerated, wants};
use crate::op::{Announce, Op, Plan};
use crate::pods;
use crate::revisions::{self, Current, HASH};

/// Pods created or deleted in one plan, at most (upstream's `BurstReplicas`).
pub const BURST: usize = 250;
const GENERATION: &str = "pod-template-generation";
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

pub struct View {
    pub set: Arc<DaemonSet>,
    /// Pods of the namespace that it manages or that nobody does.
    pub pods: Vec<Arc<Pod>>,
    pub revisions: Vec<Arc<ControllerRevision>>,
    pub nodes: Vec<Arc<Node>>,
}

/// What is on one node.
struct OnNode {
    pods: Vec<Arc<Pod>>,
    should_run: bool,
    should_continue: bool,
}

struct Work<'a> {
    set: &'a DaemonSet,
    spec: &'a DaemonSetSpec,
    now: Timestamp,
    current: Current,
    on: BTreeMap<String, OnNode>,
    plan: Plan,
}

pub fn plan(view: &View, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let set = view.set.as_ref();
    let Some(spec) = set.spec.as_ref() else { return plan };
    if selects_all(&spec.selector) {
        plan.push(Op::warning(
            &reference(set),
            "SelectingAll",
            "This daemon set is selecting all pods. A non-empty selector is required.".to_owned(),
        ));
        return plan;
    }
    if deleting(set) {
        return plan;
    }
    let owned = claim(set, &view.pods, |pod| selects(&spec.selector, pod.metadata.labels.as_ref()), &mut plan.ops);
    let known = claim(set, &view.revisions, |revision| selects(&spec.selector, revision.metadata.labels.as_ref()), &mut plan.ops);
    let labels = spec.template.metadata.as_ref().and_then(|meta| meta.labels.clone()).unwrap_or_default();
    let collisions = set.status.as_ref().and_then(|status| status.collision_count);
    let current = revisions::current(set, &spec.template, labels, collisions, &known, &mut plan.ops);

    let mut on: BTreeMap<String, OnNode> = BTreeMap::new();
    let probe = daemon_template(set, spec, "").spec.unwrap_or_default();
    for node in &view.nodes {
        let (should_run, should_continue) = fits(&probe, spec.template.spec.as_ref(), node);
        on.insert(name(node.as_ref()).to_owned(), OnNode { pods: Vec::new(), should_run, should_continue });
    }
    let mut homeless = Vec::new();
    for pod in &owned {
        match on.get_mut(&target_node(pod)) {
            Some(here) => here.pods.push(pod.clone()),
            // The node is gone: unbound ones nobody else would remove.
            None if pods::node(pod).is_empty() && !deleting(pod.as_ref()) => homeless.push(pod.clone()),
            None => {}
        }
    }
    for here in on.values_mut() {
        here.pods.sort_by(|one, other| {
            (pods::node(one).is_empty())
                .cmp(&pods::node(other).is_empty())
                .then_with(|| created(one.as_ref()).cmp(&created(other.as_ref())))
                .then_with(|| name(one.as_ref()).cmp(name(other.as_ref())))
        });
    }
    let mut work = Work { set, spec, now, current, on, plan };
    let (mut create, mut delete) = work.manage();
    delete.extend(homeless);
    work.update(&mut create, &mut delete);
    work.carry_out(create, delete);
    let live: HashSet<&str> = owned.iter().filter_map(|pod| label(pod.as_ref(), HASH)).chain([work.current.hash.as_str()]).collect();
    revisions::clean_up(&known, &live, spec.revision_history_limit.unwrap_or(10), &mut work.plan.ops);
    work.status();
    work.plan
}

/// The node a pod is on or waits for.
fn target_node(pod: &Pod) -> String {
    if !pods::node(pod).is_empty() {
        return pods::node(pod).to_owned();
    }
    let required = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.affinity.as_ref()?.node_affinity.as_ref()?.required_during_scheduling_ignored_during_execution.as_ref());
    let terms = required.into_iter().flat_map(|selector| &selector.node_selector_terms).flat_map(|term| term.match_fields.iter().flatten());
    let mut names = terms.filter(|field| field.key == "metadata.name").filter_map(|field| field.values.as_ref()?.first().cloned());
    names.next().unwrap_or_default()
}

/// Whether a pod should be started there, and whether one that is there may stay.
fn fits(probe: &PodSpec, template: Option<&PodSpec>, node: &Node) -> (bool, bool) {
    let bound_elsewhere = template.and_then(|spec| spec.node_name.as_deref()).is_some_and(|wanted| !wanted.is_empty() && wanted != name(node));
    if bound_elsewhere || !template.is_none_or(|spec| wants(spec, node)) {
        return (false, false);
    }
    let tolerations = probe.tolerations.as_deref().unwrap_or(&[]);
    if untolerated(tolerations, taints(node), &["NoSchedule", "NoExecute"]).is_some() {
        return (false, untolerated(tolerations, taints(node), &["NoExecute"]).is_none());
    }
    (true, true)
}

/// The template as a pod for `node` gets it.
fn daemon_template(set: &DaemonSet, spec: &DaemonSetSpec, node: &str) -> PodTemplateSpec {
    let mut template = spec.template.clone();
    let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
    if let Some(number) = annotation(set, TEMPLATE_GENERATION) {
        labels.insert(GENERATION.to_owned(), number.to_owned());
    }
    let pod = template.spec.get_or_insert_default();
    let mut tolerated = vec![
        ("node.kubernetes.io/not-ready", "NoExecute"),
        ("node.kubernetes.io/unreachable", "NoExecute"),
        ("node.kubernetes.io/disk-pressure", "NoSchedule"),
        ("node.kubernetes.io/memory-pressure", "NoSchedule"),
        ("node.kubernetes.io/pid-pressure", "NoSchedule"),
        ("node.kubernetes.io/unschedulable", "NoSchedule"),
    ];
    if pod.host_network == Some(true) {
        tolerated.push(("node.kubernetes.io/network-unavailable", "NoSchedule"));
    }
    for (key, effect) in tolerated {
        let toleration =
            Toleration { key: Some(key.to_owned()), operator: Some("Exists".to_owned()), effect: Some(effect.to_owned()), ..Toleration::default() };
        let list = pod.tolerations.get_or_insert_default();
        if !list.contains(&toleration) {
            list.push(toleration);
        }
    }
    if !node.is_empty() {
        let term = NodeSelectorTerm {
            match_fields: Some(vec![NodeSelectorRequirement {
                key: "metadata.name".to_owned(),
                operator: "In".to_owned(),
                values: Some(vec![node.to_owned()]),
            }]),
            match_expressions: None,
        };
        let affinity: &mut Affinity = pod.affinity.get_or_insert_default();
        let node_affinity: &mut NodeAffinity = affinity.node_affinity.get_or_insert_default();
        node_affinity.required_during_scheduling_ignored_during_execution = Some(NodeSelector { node_selector_terms: vec![term] });
    }
    template
}

impl Work<'_> {
    fn min_ready(&self) -> i32 {
        self.spec.min_ready_seconds.unwrap_or(0)
    }

    fn available(&self, pod: &Pod) -> bool {
        pods::available(pod, self.min_ready(), self.now)
    }

    fn updated(&self, pod: &Pod) -> bool {
        label(pod, HASH) == Some(&self.current.hash)
    }

    /// The nodes that lack a pod and the pods that should not be.
    fn manage(&mut self) -> (Vec<String>, Vec<Arc<Pod>>) {
        let (mut create, mut delete, mut events) = (Vec::new(), Vec::new(), Vec::new());
        let about = reference(self.set);
        let surge = self.surge_and_unavailable().0 > 0;
        for (node, here) in &self.on {
            if here.should_run && here.pods.is_empty() {
                create.push(node.clone());
            } else if here.should_continue {
                let mut running = Vec::new();
                for pod in here.pods.iter().filter(|pod| !deleting(pod.as_ref())) {
                    let (reason, state, verb) = match pods::phase(pod) {
                        "Failed" => ("FailedDaemonPod", "failed", "kill"),
                        "Succeeded" => ("SucceededDaemonPod", "succeeded", "delete"),
                        _ => {
                            running.push(pod);
                            continue;
                        }
                    };
                    let message =
                        format!("Found {state} daemon pod {}/{} on node {node}, will try to {verb} it", namespace(pod.as_ref()), name(pod.as_ref()));
                    events.push(if state == "failed" { Op::warning(&about, reason, message) } else { Op::normal(&about, reason, message) });
                    delete.push(pod.clone());
                }
                // Oldest first; with a surge one old and one new may be there together.
                let (new, old): (Vec<_>, Vec<_>) = running.iter().copied().partition(|pod| self.updated(pod));
                if surge {
                    delete.extend(new.into_iter().skip(1).chain(old.into_iter().skip(1)).cloned());
                } else {
                    delete.extend(running.into_iter().skip(1).cloned());
                }
            } else {
                delete.extend(here.pods.iter().filter(|pod| !deleting(pod.as_ref())).cloned());
            }
        }
        self.plan.ops.append(&mut events);
        (create, delete)
    }

    fn carry_out(&mut self, create: Vec<String>, delete: Vec<Arc<Pod>>) {
        let about = reference(self.set);
        for node in create.into_iter().take(BURST) {
            let mut template = daemon_template(self.set, self.spec, &node);
            let labels: &mut Labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
            labels.insert(HASH.to_owned(), self.current.hash.clone());
            let pod = pods::from_template(&template, namespace(self.set), name(self.set), controller_reference(self.set));
            self.plan.push(Op::create(&pod).announced(Announce {
                about: about.clone(),
                done: Some(("SuccessfulCreate", "Created pod: ".to_owned())),
                failed: Some(("FailedCreate", "Error creating: ".to_owned())),
            }));
        }
        let mut seen = HashSet::new();
        for pod in delete.iter().filter(|pod| seen.insert(name(pod.as_ref()).to_owned())).take(BURST) {
            self.plan.push(Op::delete(pod.as_ref()).announced(Announce {
                about: about.clone(),
                done: Some(("SuccessfulDelete", "Deleted pod: ".to_owned())),
                failed: Some(("FailedDelete", "Error deleting: ".to_owned())),
            }));
        }
    }

    fn status(&mut self) {
        let mut status = DaemonSetStatus {
            observed_generation: Some(generation(self.set)),
            collision_count: self.set.status.as_ref().and_then(|status| status.collision_count),
            conditions: self.set.status.as_ref().and_then(|status| status.conditions.clone()),
            ..DaemonSetStatus::default()
        };
        let (mut updated, mut available) = (0, 0);
        for here in self.on.values() {
            if !here.should_run {
                status.number_misscheduled += i32::from(!here.pods.is_empty());
                continue;
            }
            status.desired_number_scheduled += 1;
            let Some(pod) = here.pods.first() else { continue };
            status.current_number_scheduled += 1;
            if pods::ready(pod) {
                status.number_ready += 1;
                available += i32::from(self.available(pod));
                if let Some(next) = pods::available_at(pod, self.min_ready()).and_then(|at| until(at, self.now)) {
                    self.plan.look_again(next);
                }
            }
            updated += i32::from(self.updated(pod));
        }
        status.updated_number_scheduled = non_zero(updated);
        status.number_available = non_zero(available);
        status.number_unavailable = non_zero(status.desired_number_scheduled - available);
        if self.set.status.as_ref() != Some(&status) {
            self.plan.push(Op::status(&DaemonSet { status: Some(status), ..self.set.clone() }));
        }
    }
}
