//! Revisions: which number the present template has, the ReplicaSet that stands for it, and the history in its annotations.

use std::sync::Arc;

use api::k8s::api::apps::v1::{ReplicaSet, ReplicaSetSpec};
use api::k8s::api::core::v1::PodTemplateSpec;
use api::k8s::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::conditions::{self, PROGRESSING};
use super::{DESIRED_REPLICAS, MAX_REPLICAS, REVISION, REVISION_HISTORY, Set, Work};
use crate::meta::{controlled_by, controller_reference, name, namespace, uid};
use crate::op::{Announce, At, Op, value};
use crate::template::{self, POD_TEMPLATE_HASH};

/// The history annotation is cut to this many characters, oldest first.
const HISTORY_LENGTH: usize = 2000;

/// Annotations of the Deployment that its ReplicaSets do not get.
const NOT_COPIED: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    REVISION_HISTORY,
    DESIRED_REPLICAS,
    MAX_REPLICAS,
    "deprecated.deployment.rollback.to",
];

impl Work<'_> {
    /// Brings the new set's annotations and the Deployment's revision up to date; creates the new set if there is none and `create` says so.
    pub(super) fn sync_revision(&mut self, create: bool) {
        let revision = self.old.iter().map(Set::revision).max().unwrap_or(0) + 1;
        if let Some(mut new) = self.new.take() {
            if !new.is_new() {
                annotate(self.deployment.metadata.annotations.as_ref(), &mut new, revision);
                new.min_ready_seconds = self.spec.min_ready_seconds.unwrap_or(0);
                self.set_revision(new.annotations.get(REVISION).cloned().unwrap_or_default());
                if self.deadline().is_some() && conditions::find(&self.status, PROGRESSING).is_none() {
                    let message = format!("Found new replica set {:?}", name(new.set.as_ref()));
                    let condition = self.condition(PROGRESSING, true, "FoundNewReplicaSet", message);
                    conditions::set(&mut self.status, condition);
                }
            }
            self.new = Some(new);
        } else if create {
            self.create(revision);
        }
    }

    fn set_revision(&mut self, revision: String) {
        if !revision.is_empty() && super::revision_of(self.deployment) != Some(&revision) {
            self.revision = Some(revision);
        }
    }

    fn create(&mut self, revision: i64) {
        let hash = template::hash(&self.spec.template, self.status.collision_count);
        let set_name = format!("{}-{hash}", name(self.deployment));
        if let Some(other) = (self.view.by_name)(&set_name) {
            // Ours in all but the cache (it will come), or somebody else's: then another name.
            let same = other.spec.as_ref().and_then(|spec| spec.template.as_ref()).is_some_and(|have| template::same(have, &self.spec.template));
            if !(controlled_by(other.as_ref(), uid(self.deployment)) && same) {
                self.status.collision_count = Some(self.status.collision_count.unwrap_or(0) + 1);
            }
            return;
        }
        let with_hash = |labels: Option<&crate::meta::Labels>| {
            let mut labels = labels.cloned().unwrap_or_default();
            labels.insert(POD_TEMPLATE_HASH.to_owned(), hash.clone());
            labels
        };
        let template_meta = self.spec.template.metadata.clone().unwrap_or_default();
        let labels = with_hash(template_meta.labels.as_ref());
        let mut selector = self.spec.selector.clone();
        selector.match_labels = Some(with_hash(selector.match_labels.as_ref()));
        let set = ReplicaSet {
            metadata: ObjectMeta {
                name: Some(set_name.clone()),
                namespace: Some(namespace(self.deployment).to_owned()),
                labels: Some(labels.clone()),
                owner_references: Some(vec![controller_reference(self.deployment)]),
                ..ObjectMeta::default()
            },
            spec: Some(ReplicaSetSpec {
                replicas: Some(0),
                min_ready_seconds: self.spec.min_ready_seconds,
                selector,
                template: Some(PodTemplateSpec {
                    metadata: Some(ObjectMeta { labels: Some(labels), ..template_meta }),
                    spec: self.spec.template.spec.clone(),
                }),
            }),
            status: None,
        };
        let mut new = Set::new(Arc::new(set));
        annotate(self.deployment.metadata.annotations.as_ref(), &mut new, revision);
        new.annotations.insert(DESIRED_REPLICAS.to_owned(), self.replicas().to_string());
        new.annotations.insert(MAX_REPLICAS.to_owned(), (self.replicas() + self.max_surge()).to_string());
        self.new = Some(new);
        let size = self.size_of_new();
        if let Some(new) = &mut self.new {
            new.replicas = size;
        }
        self.creates = true;
        if size > 0 {
            self.events.push(Op::normal(&self.about, "ScalingReplicaSet", format!("Scaled up replica set {set_name} from 0 to {size}")));
        }
        self.set_revision(revision.to_string());
        if self.deadline().is_some() {
            let condition = self.condition(PROGRESSING, true, "NewReplicaSetCreated", format!("Created new replica set {set_name:?}"));
            conditions::set(&mut self.status, condition);
        }
    }
}

/// The operation that creates a set prepared by `create`.
pub(super) fn creation(set: &Set) -> Op {
    let mut object = set.set.as_ref().clone();
    object.metadata.annotations = Some(set.annotations.clone());
    if let Some(spec) = &mut object.spec {
        spec.replicas = Some(set.replicas);
    }
    let mut op = Op::Create { at: At::object(&object), object: value(&object), or_exists: false, announce: None };
    if let Some(owner) = object.metadata.owner_references.iter().flatten().next() {
        let about = api::k8s::api::core::v1::ObjectReference {
            api_version: Some(owner.api_version.clone()),
            kind: Some(owner.kind.clone()),
            namespace: object.metadata.namespace.clone(),
            name: Some(owner.name.clone()),
            uid: Some(owner.uid.clone()),
            ..Default::default()
        };
        let failed = Some(("ReplicaSetCreateError", format!("Failed to create new replica set {:?}: ", name(&object))));
        op = op.announced(Announce { about, done: None, failed });
    }
    op
}

/// Copies the Deployment's annotations and notes the revision; the number it had before goes to the history.
fn annotate(from: Option<&crate::meta::Labels>, set: &mut Set, revision: i64) {
    for (key, value) in from.into_iter().flatten().filter(|(key, _)| !NOT_COPIED.contains(&key.as_str())) {
        set.annotations.insert(key.clone(), value.clone());
    }
    let before = set.annotations.get(REVISION).cloned();
    let number = before.as_deref().and_then(|text| text.parse::<i64>().ok()).unwrap_or(0);
    if number >= revision {
        return;
    }
    set.annotations.insert(REVISION.to_owned(), revision.to_string());
    if let Some(before) = before.filter(|before| !before.is_empty()) {
        let mut history = set.annotations.get(REVISION_HISTORY).cloned().unwrap_or_default();
        if history.is_empty() {
            history = before;
        } else {
            history = format!("{history},{before}");
            while history.len() > HISTORY_LENGTH
                && let Some((_, rest)) = history.split_once(',')
            {
                history = rest.to_owned();
            }
        }
        set.annotations.insert(REVISION_HISTORY.to_owned(), history);
    }
}
