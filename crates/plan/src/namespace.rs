//! Namespace: when one is deleted, everything in it goes first, then its finalizer.
//!
//! Watches: namespaces, and (through the garbage collector's eyes) everything in those that are going. Writes: collection deletes, the namespace's conditions,
//! `/finalize`. Mirrors `pkg/controller/namespace/deletion`.

use std::sync::Arc;

use api::k8s::api::core::v1::{Namespace, NamespaceCondition, NamespaceStatus};
use jiff::Timestamp;
use serde_json::json;

use crate::meta::{deleting, time};
use crate::op::{At, Op, PatchKind, Plan, value};

pub const FINALIZER: &str = "kubernetes";

/// What is left of one kind after everything was told to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    /// `pods`, `deployments.apps`.
    pub resource: String,
    pub count: usize,
    /// The finalizers that hold them, each with the number of objects.
    pub finalizers: Vec<(String, usize)>,
}

pub struct View {
    pub namespace: Arc<Namespace>,
    pub left: Vec<Left>,
    /// What went wrong while deleting.
    pub errors: Vec<String>,
}

pub fn plan(view: &View, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let namespace = view.namespace.as_ref();
    if !deleting(namespace) {
        return plan;
    }
    if view.left.is_empty() && view.errors.is_empty() {
        if namespace.spec.iter().flat_map(|spec| spec.finalizers.iter().flatten()).any(|one| one == FINALIZER) {
            let mut object = namespace.clone();
            if let Some(finalizers) = object.spec.as_mut().and_then(|spec| spec.finalizers.as_mut()) {
                finalizers.retain(|one| one != FINALIZER);
            }
            plan.push(Op::Replace { at: At::object(namespace), subresource: Some("finalize"), object: value(&object) });
        }
        return plan;
    }
    let status = status(view, now);
    let known = namespace.status.as_ref();
    if known.and_then(|known| known.conditions.as_ref()) != status.conditions.as_ref()
        || known.and_then(|known| known.phase.as_ref()) != status.phase.as_ref()
    {
        plan.push(Op::Patch {
            at: At::object(namespace),
            subresource: Some("status"),
            kind: PatchKind::Merge,
            patch: json!({"status": value(&status)}),
        });
    }
    plan
}

fn status(view: &View, now: Timestamp) -> NamespaceStatus {
    let mut status = NamespaceStatus {
        phase: Some("Terminating".to_owned()),
        conditions: view.namespace.status.as_ref().and_then(|status| status.conditions.clone()),
    };
    let content: Vec<String> = view.left.iter().map(|left| format!("{} has {} resource instances", left.resource, left.count)).collect();
    let finalizers: Vec<String> = view
        .left
        .iter()
        .flat_map(|left| &left.finalizers)
        .fold(std::collections::BTreeMap::new(), |mut sums: std::collections::BTreeMap<&str, usize>, (name, count)| {
            *sums.entry(name).or_default() += count;
            sums
        })
        .into_iter()
        .map(|(name, count)| format!("{name} in {count} resource instances"))
        .collect();
    let texts = [
        ("NamespaceDeletionDiscoveryFailure", None, "ResourcesDiscovered", "All resources successfully discovered"),
        ("NamespaceDeletionGroupVersionParsingFailure", None, "ParsedGroupVersions", "All legacy kube types successfully parsed"),
        (
            "NamespaceDeletionContentFailure",
            (!view.errors.is_empty()).then(|| {
                ("ContentDeletionFailed", format!("Failed to delete all resource types, {} remaining: {}", view.errors.len(), view.errors.join(", ")))
            }),
            "ContentDeleted",
            "All content successfully deleted, may be waiting on finalization",
        ),
        (
            "NamespaceContentRemaining",
            (!content.is_empty()).then(|| ("SomeResourcesRemain", format!("Some resources are remaining: {}", content.join(", ")))),
            "ContentRemoved",
            "All content successfully removed",
        ),
        (
            "NamespaceFinalizersRemaining",
            (!finalizers.is_empty())
                .then(|| ("SomeFinalizersRemain", format!("Some content in the namespace has finalizers remaining: {}", finalizers.join(", ")))),
            "ContentHasNoFinalizers",
            "All content-preserving finalizers finished",
        ),
    ];
    for (kind, problem, good_reason, good_message) in texts {
        let (state, reason, message) = match problem {
            Some((reason, message)) => ("True", reason, message),
            None => ("False", good_reason, good_message.to_owned()),
        };
        let conditions = status.conditions.get_or_insert_default();
        let known = conditions.iter().find(|condition| condition.type_ == kind);
        let since = known.filter(|known| known.status == state).and_then(|known| known.last_transition_time.clone()).unwrap_or_else(|| time(now));
        let condition = NamespaceCondition {
            type_: kind.into(),
            status: state.into(),
            reason: Some(reason.into()),
            message: Some(message),
            last_transition_time: Some(since),
        };
        match conditions.iter_mut().find(|condition| condition.type_ == kind) {
            Some(known) => *known = condition,
            None => conditions.push(condition),
        }
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(left: Vec<Left>) -> View {
        let namespace = json!({"metadata": {"name": "x", "uid": "N", "deletionTimestamp": "2026-11-22T12:00:00Z"}, "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Terminating"}});
        View { namespace: Arc::new(serde_json::from_value(namespace).unwrap()), left, errors: Vec::new() }
    }

    fn lines(view: &View) -> String {
        plan(view, "2026-11-22T12:00:00Z".parse().unwrap()).to_string()
    }

    #[test]
    fn the_finalizer_goes_last() {
        assert_eq!(lines(&view(Vec::new())), "replace Namespace x/finalize\n");
        let text = lines(&view(vec![Left { resource: "pods".into(), count: 2, finalizers: vec![("a/b".into(), 1)] }]));
        assert!(!text.contains("finalize\n"));
        assert!(text.contains("Some resources are remaining: pods has 2 resource instances"), "{text}");
        assert!(text.contains("Some content in the namespace has finalizers remaining: a/b in 1 resource instances"), "{text}");
    }
}
