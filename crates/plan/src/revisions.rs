//! ControllerRevisions: the history of a DaemonSet's or StatefulSet's template, for rollouts and for going back. Mirrors `pkg/controller/history`.

use std::collections::HashSet;
use std::sync::Arc;

use api::k8s::Metadata;
use api::k8s::api::apps::v1::ControllerRevision;
use api::k8s::api::core::v1::PodTemplateSpec;
use api::k8s::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use api::k8s::apimachinery::pkg::runtime::RawExtension;
use serde_json::json;

use crate::meta::{Labels, controlled_by, controller_reference, deleting, label, name, namespace, uid};
use crate::op::{Op, value};
use crate::template;

/// The label that says of which revision a pod or revision is.
pub const HASH: &str = "controller-revision-hash";

/// The present revision of an owner's template.
pub struct Current {
    pub name: String,
    pub hash: String,
    pub revision: i64,
}

/// Finds or makes the revision of `template`; it becomes the newest.
pub fn current<O: Metadata<Ty = ObjectMeta>>(
    owner: &O,
    template: &PodTemplateSpec,
    labels: Labels,
    collisions: Option<i32>,
    known: &[Arc<ControllerRevision>],
    ops: &mut Vec<Op>,
) -> Current {
    let mut data = value(template);
    data["$patch"] = json!("replace");
    let data = json!({"spec": {"template": data}});
    let newest = known.iter().map(|revision| revision.revision).max().unwrap_or(0);
    let hash = template::hash(template, collisions);
    // By what it holds; its name and hash may be somebody's who made it by hand. One that holds nothing is known by its hash.
    let same = |revision: &&Arc<ControllerRevision>| {
        let holds = revision.data.as_ref().map_or_else(|| label(revision.as_ref(), HASH) == Some(&hash), |known| known.0 == data);
        holds && controlled_by(revision.as_ref(), uid(owner))
    };
    if let Some(found) = known.iter().filter(same).max_by_key(|revision| revision.revision) {
        let hash = label(found.as_ref(), HASH).unwrap_or(&hash).to_owned();
        if found.revision < newest {
            ops.push(Op::merge(found.as_ref(), json!({"revision": newest + 1})));
            return Current { name: name(found.as_ref()).to_owned(), hash, revision: newest + 1 };
        }
        return Current { name: name(found.as_ref()).to_owned(), hash, revision: found.revision };
    }
    // Another template has the name already: the next hash.
    let (mut hash, mut collisions) = (hash, collisions);
    while known.iter().any(|revision| name(revision.as_ref()) == format!("{}-{hash}", name(owner))) {
        collisions = Some(collisions.unwrap_or(0) + 1);
        hash = template::hash(template, collisions);
    }
    let revision_name = format!("{}-{hash}", name(owner));
    let mut labels = labels;
    labels.insert(HASH.to_owned(), hash.clone());
    let annotations: Labels = owner
        .metadata()
        .annotations
        .clone()
        .unwrap_or_default()
        .into_iter()
        .filter(|(key, _)| key != "kubectl.kubernetes.io/last-applied-configuration")
        .collect();
    let revision = ControllerRevision {
        metadata: ObjectMeta {
            name: Some(revision_name.clone()),
            namespace: Some(namespace(owner).to_owned()),
            labels: Some(labels),
            annotations: (!annotations.is_empty()).then_some(annotations),
            owner_references: Some(vec![controller_reference(owner)]),
            ..ObjectMeta::default()
        },
        data: Some(RawExtension(data)),
        revision: newest + 1,
    };
    ops.push(Op::create(&revision));
    Current { name: revision_name, hash, revision: newest + 1 }
}

/// Deletes the oldest beyond `limit` which neither is the present one nor has pods.
pub fn clean_up(known: &[Arc<ControllerRevision>], live: &HashSet<&str>, limit: i32, ops: &mut Vec<Op>) {
    let mut spare: Vec<_> = known
        .iter()
        .filter(|revision| !deleting(revision.as_ref()) && !label(revision.as_ref(), HASH).is_some_and(|hash| live.contains(hash)))
        .collect();
    spare.sort_by_key(|revision| revision.revision);
    let beyond = spare.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
    ops.extend(spare.into_iter().take(beyond).map(|revision| Op::delete(revision.as_ref())));
}
