//! Preemption: whom to send away so that a more important pod fits, on which node.
//!
//! Mirrors kube-scheduler's DefaultPreemption: on each node where it could help, all pods of lower priority are thought away, and as many as possible are kept,
//! first those whose PodDisruptionBudget would be violated, the most important first. The node is chosen by what it costs.
//! <https://kubernetes.io/docs/concepts/scheduling-eviction/pod-priority-preemption/>

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api::k8s::api::policy::v1::PodDisruptionBudget;
use api::selector::LabelSelector;

use crate::affinity::selector;
use crate::filter::Reason;
use crate::node::NodeInfo;
use crate::pod::PodInfo;
use crate::question::Question;
use crate::refusal::{Refusal, available};
use crate::snapshot::Snapshot;

/// At least this many candidates are looked for (`minCandidateNodesAbsolute`), and this part of the nodes in percent (`minCandidateNodesPercentage`).
const MIN_CANDIDATES: usize = 100;
const MIN_CANDIDATES_PERCENT: usize = 10;

/// What preemption needs to know of a PodDisruptionBudget.
#[derive(Debug, Clone)]
pub struct Budget {
    namespace: String,
    selector: LabelSelector,
    allowed: i32,
    /// Evictions that are counted in `allowed` already.
    disrupted: BTreeSet<String>,
}

impl Budget {
    pub fn of(budget: &PodDisruptionBudget) -> Self {
        let status = budget.status.as_ref();
        Self {
            namespace: budget.metadata.namespace.clone().unwrap_or_default(),
            selector: selector(budget.spec.as_ref().and_then(|spec| spec.selector.as_ref())),
            allowed: status.and_then(|status| status.disruptions_allowed).unwrap_or(0),
            disrupted: status.iter().flat_map(|status| status.disrupted_pods.iter().flatten()).map(|(name, _)| name.clone()).collect(),
        }
    }

    /// Here an empty selector covers nobody, as upstream.
    fn covers(&self, pod: &PodInfo) -> bool {
        self.namespace == pod.namespace && !pod.labels.is_empty() && !self.selector.is_empty() && self.selector.matches(&pod.labels) && !self.disrupted.contains(&pod.name)
    }
}

#[derive(Debug, Clone)]
pub enum Preemption {
    /// These have to go, and the node is the pod's then.
    Victims { node: Arc<str>, victims: Vec<Arc<PodInfo>> },
    /// Evicting others does not help anywhere: what the event says. A nomination the pod had is void.
    Hopeless(String),
    /// The pod must not, or has done so already and waits.
    Ineligible(String),
}

struct Candidate {
    node: Arc<str>,
    /// The most important first.
    victims: Vec<Arc<PodInfo>>,
    violations: usize,
}

impl Candidate {
    /// The smaller the better, in upstream's order: violated budgets, highest priority, sum of priorities, number of pods, and how long the most important ones run.
    fn cost(&self) -> (usize, i32, i64, usize, Reverse<i64>) {
        let highest = self.victims.iter().map(|victim| victim.priority).max().unwrap_or(i32::MIN);
        // Shifted so that none is negative: one more victim always costs more.
        let sum = self.victims.iter().map(|victim| i64::from(victim.priority) + i64::from(i32::MAX) + 1).sum();
        let earliest = self.victims.iter().filter(|victim| victim.priority == highest).map(|victim| victim.started).min().unwrap_or(i64::MAX);
        (self.violations, highest, sum, self.victims.len(), Reverse(earliest))
    }
}

/// What can be done for a pod that `place` refused. The snapshot must be the one that it was refused by.
pub fn preempt(snapshot: &Snapshot, pod: &PodInfo, refusal: &Refusal, budgets: &[Budget]) -> Preemption {
    if pod.never_preempts {
        return Preemption::Ineligible("not eligible due to preemptionPolicy=Never.".to_owned());
    }
    if let Some(nominated) = snapshot.nomination(&pod.uid)
        && refusal.helpful.contains(nominated)
        && snapshot.node(nominated).is_some_and(|node| node.pods.values().any(|other| other.priority < pod.priority && other.preempted))
    {
        return Preemption::Ineligible("not eligible due to a terminating pod on the nominated node.".to_owned());
    }
    let wanted = MIN_CANDIDATES.max(refusal.helpful.len() * MIN_CANDIDATES_PERCENT / 100);
    let hopeless = || available(refusal.nodes, &BTreeMap::from([(Cow::Borrowed("Preemption is not helpful for scheduling"), refusal.nodes)]));
    let Ok(question) = Question::of(pod, snapshot) else { return Preemption::Hopeless(hopeless()) };
    let mut candidates: Vec<Candidate> = Vec::new();
    let mut harmless = false;
    let mut why: BTreeMap<Cow<'static, str>, usize> = BTreeMap::new();
    let mut told = 0;
    for node in refusal.helpful.iter().filter_map(|name| snapshot.node(name)) {
        match victims(&question, node, budgets) {
            Ok(candidate) => {
                harmless |= candidate.violations == 0;
                candidates.push(candidate);
                if harmless && candidates.len() >= wanted {
                    break;
                }
            }
            Err(reasons) => {
                told += 1;
                reasons.into_iter().for_each(|reason| *why.entry(reason).or_default() += 1);
            }
        }
    }
    // The first of equals: the search began at another node than the last one.
    if let Some(best) = candidates.into_iter().min_by_key(Candidate::cost) {
        return Preemption::Victims { node: best.node, victims: best.victims };
    }
    if refusal.nodes > told {
        why.insert(Cow::Borrowed("Preemption is not helpful for scheduling"), refusal.nodes - told);
    }
    Preemption::Hopeless(available(refusal.nodes, &why))
}

/// The fewest and least important pods of the node that must go; or why that does not help.
fn victims<'a>(question: &Question<'a>, node: &'a NodeInfo, budgets: &[Budget]) -> Result<Candidate, Vec<Cow<'static, str>>> {
    let pod = question.pod;
    let mut possible: Vec<&'a Arc<PodInfo>> = node.pods.values().filter(|other| other.priority < pod.priority).collect();
    if possible.is_empty() {
        return Err(vec![Cow::Borrowed("No preemption victims found for incoming pod")]);
    }
    // By importance: priority, then who runs longest. The uid makes it the same every time.
    possible.sort_by(|a, b| (Reverse(a.priority), a.started, &a.uid).cmp(&(Reverse(b.priority), b.started, &b.uid)));
    let (mut state, mut around) = (node.clone(), question.around.clone());
    for other in &possible {
        state.remove(&other.uid);
        around.shift(other, node, -1);
    }
    let texts = |reasons: Vec<Reason>| reasons.into_iter().map(|reason| reason.text).collect::<Vec<_>>();
    question.would_fit(node, &state, &around).map_err(texts)?;
    let (violating, others) = split(possible, budgets);
    let mut candidate = Candidate { node: node.name.clone(), victims: Vec::new(), violations: 0 };
    for (list, violates) in [(violating, true), (others, false)] {
        for other in list {
            state.add(other.clone());
            around.shift(other, node, 1);
            if question.would_fit(node, &state, &around).is_err() {
                state.remove(&other.uid);
                around.shift(other, node, -1);
                candidate.violations += usize::from(violates);
                candidate.victims.push(other.clone());
            }
        }
    }
    if candidate.victims.is_empty() {
        // The pod fits as things are: whoever refused it is not asked here. Upstream treats it as an error of the plugin.
        return Err(vec![Cow::Owned(format!("expected at least one victim pod on node {:?}", &*node.name))]);
    }
    candidate.victims.sort_by_key(|victim| (Reverse(victim.priority), victim.started));
    Ok(candidate)
}

/// Those whose leaving breaks a budget, when all leave in this order; and the rest.
fn split<'a>(pods: Vec<&'a Arc<PodInfo>>, budgets: &[Budget]) -> (Vec<&'a Arc<PodInfo>>, Vec<&'a Arc<PodInfo>>) {
    let mut left: Vec<i32> = budgets.iter().map(|budget| budget.allowed).collect();
    pods.into_iter().partition(|pod| {
        let mut violates = false;
        for (_, left) in budgets.iter().zip(&mut left).filter(|(budget, _)| budget.covers(pod)) {
            *left -= 1;
            violates |= *left < 0;
        }
        violates
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::decide::{Placement, place};
    use crate::testing::{node, on, pod, snapshot};

    fn of(name: &str, cpu: &str, priority: i32) -> PodInfo {
        pod(name, cpu, json!({"priority": priority}))
    }

    fn budget(app: &str, allowed: i32) -> Budget {
        Budget { namespace: "default".into(), selector: LabelSelector::parse(&format!("app={app}")).unwrap(), allowed, disrupted: BTreeSet::new() }
    }

    /// `node: victims`, or why not.
    fn outcome(snapshot: &mut Snapshot, pod: &PodInfo, budgets: &[Budget]) -> String {
        let Placement::Nowhere(refusal) = place(snapshot, pod) else { panic!("there is room") };
        match preempt(snapshot, pod, &refusal, budgets) {
            Preemption::Victims { node, victims } => format!("{node}: {}", victims.iter().map(|victim| victim.name.as_str()).collect::<Vec<_>>().join(" ")),
            Preemption::Hopeless(why) | Preemption::Ineligible(why) => why,
        }
    }

    #[test]
    fn the_node_that_costs_least_is_taken() {
        // Each line: what is on n1, what is on n2 (name, CPU, priority, since when), and what the pod of priority 100 that wants 4 CPUs gets.
        type Pods = &'static [(&'static str, &'static str, i32, i64)];
        let cases: [(Pods, Pods, &str); 7] = [
            (&[("a", "4", 10, 1)], &[("b", "4", 5, 1)], "n2: b"),
            (&[("a", "2", 10, 1), ("b", "2", 1, 1)], &[("c", "4", 10, 1)], "n2: c"),
            (&[("a", "2", 10, 1), ("b", "2", 2, 1)], &[("c", "2", 10, 1), ("d", "2", 3, 1)], "n1: a b"),
            (&[("a", "4", -5, 1)], &[("b", "2", -5, 1), ("c", "2", -5, 1)], "n1: a"),
            (&[("a", "4", 10, 1)], &[("b", "4", 10, 9)], "n2: b"),
            (&[("a", "4", 100, 1)], &[("b", "4", 99, 9)], "n2: b"),
            // What need not go stays.
            (&[("a", "3", 1, 1), ("b", "1", 2, 1)], &[("c", "4", 200, 9)], "n1: b a"),
        ];
        for (index, (first, second, want)) in cases.into_iter().enumerate() {
            let mut two = snapshot(&[node("n1", "4", json!({})), node("n2", "4", json!({}))]);
            for (place, list) in [("n1", first), ("n2", second)] {
                for (name, cpu, priority, started) in list {
                    on(&mut two, place, PodInfo { started: *started, ..of(name, cpu, *priority) });
                }
            }
            assert_eq!(outcome(&mut two, &of("new", "4", 100), &[]), want, "case {index}");
        }
    }

    #[test]
    fn the_more_important_and_the_protected_stay() {
        let mut one = snapshot(&[node("n1", "4", json!({}))]);
        for (name, priority, started) in [("a", 1, 5), ("b", 1, 4), ("c", 2, 9), ("d", 0, 1)] {
            on(&mut one, "n1", PodInfo { started, ..of(name, "1", priority) });
        }
        assert_eq!(outcome(&mut one, &of("new", "1", 100), &[]), "n1: d");
        assert_eq!(outcome(&mut one, &of("new", "2", 100), &[]), "n1: a d");
        // `d` has labels of its own, and its budget is spent: it is kept before all others.
        on(&mut one, "n1", PodInfo { labels: BTreeMap::from([("app".to_owned(), "db".to_owned())]), ..of("d", "1", 0) });
        assert_eq!(outcome(&mut one, &of("new", "2", 100), &[budget("db", 0)]), "n1: b a");
        // Two of three may go: the third in the order of importance would break the budget, so it is kept before the others.
        assert_eq!(outcome(&mut one, &of("new", "3", 100), &[budget("web", 2)]), "n1: c b d");
        let mut two = snapshot(&[node("n1", "1", json!({})), node("n2", "1", json!({}))]);
        on(&mut two, "n1", of("low", "1", 1));
        on(&mut two, "n2", PodInfo { labels: BTreeMap::from([("app".to_owned(), "db".to_owned())]), ..of("high", "1", 50) });
        assert_eq!(outcome(&mut two, &of("new", "1", 100), &[budget("web", 0)]), "n2: high");
        assert_eq!(outcome(&mut two, &of("new", "1", 100), &[Budget { disrupted: BTreeSet::from(["low".to_owned()]), ..budget("web", 0) }]), "n1: low");
    }

    #[test]
    fn those_who_may_not_say_why() {
        let mut one = snapshot(&[node("n1", "1", json!({})), node("n2", "1", json!({"spec": {"unschedulable": true}}))]);
        on(&mut one, "n1", of("a", "1", 10));
        assert_eq!(outcome(&mut one, &of("new", "1", 10), &[]), "0/2 nodes are available: 1 No preemption victims found for incoming pod, 1 Preemption is not helpful for scheduling.");
        assert_eq!(outcome(&mut one, &of("new", "2", 100), &[]), "0/2 nodes are available: 2 Preemption is not helpful for scheduling.");
        assert_eq!(outcome(&mut one, &pod("new", "1", json!({"priority": 100, "preemptionPolicy": "Never"})), &[]), "not eligible due to preemptionPolicy=Never.");
        on(&mut one, "n1", of("b", "1", 200));
        assert_eq!(outcome(&mut one, &of("new", "1", 100), &[]), "0/2 nodes are available: 1 Insufficient cpu, 1 Preemption is not helpful for scheduling.");
        // It has sent one away already.
        one.remove_pod("b");
        on(&mut one, "n1", PodInfo { deleting: true, preempted: true, ..of("a", "1", 10) });
        let new = of("new", "1", 100);
        one.nominate(Arc::new(new.clone()), "n1".into());
        assert_eq!(outcome(&mut one, &new, &[]), "not eligible due to a terminating pod on the nominated node.");
    }

    #[test]
    fn room_is_kept_for_the_nominated() {
        let mut one = snapshot(&[node("n1", "2", json!({}))]);
        one.nominate(Arc::new(of("first", "2", 100)), "n1".into());
        assert!(matches!(place(&mut one, &of("equal", "1", 100)), Placement::Nowhere(_)));
        assert!(matches!(place(&mut one, &of("lower", "1", 0)), Placement::Nowhere(_)));
        assert!(matches!(place(&mut one, &of("higher", "1", 101)), Placement::Node(_)));
        assert!(matches!(place(&mut one, &of("first", "2", 100)), Placement::Node(_)));
        assert!(one.withdraw("first") && !one.withdraw("first"));
        assert!(matches!(place(&mut one, &of("lower", "1", 0)), Placement::Node(_)));
    }

    #[test]
    fn pods_that_repel_are_sent_away() {
        let mut one = snapshot(&[node("n1", "8", json!({}))]);
        let term = json!({"labelSelector": {"matchLabels": {"app": "web"}}, "topologyKey": "kubernetes.io/hostname"});
        on(&mut one, "n1", pod("a", "1", json!({"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}})));
        on(&mut one, "n1", PodInfo { labels: BTreeMap::new(), ..of("b", "1", 0) });
        assert_eq!(outcome(&mut one, &of("new", "1", 100), &[]), "n1: a");
    }

    #[test]
    fn an_uneven_spread_takes_as_many_as_it_needs() {
        // Upstream's end-to-end test: one of 9 on n1, three of 3 on n2; one lesser pod's room would do, the spread asks for two.
        let labelled = |name: &str| node(name, "10", json!({"metadata": {"labels": {"zone": name}}}));
        let mut two = snapshot(&[labelled("n1"), labelled("n2")]);
        on(&mut two, "n1", of("high", "9", 1000));
        ["low-1", "low-2", "low-3"].iter().for_each(|name| on(&mut two, "n2", of(name, "3", 1)));
        let spread = json!([{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": {"app": "web"}}}]);
        let medium = pod("medium", "3", json!({"priority": 100, "topologySpreadConstraints": spread}));
        let Placement::Nowhere(refusal) = place(&mut two, &medium) else { panic!("there is room") };
        let Preemption::Victims { node, victims } = preempt(&two, &medium, &refusal, &[]) else { panic!("no victims") };
        assert_eq!((&*node, victims.len()), ("n2", 2));
    }
}
