//! Runs [`plan::volume`]: claims by theirs, volumes by their names.

use std::sync::Arc;

use api::Status;
use api::k8s::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use client::{BoxFuture, ObjectKey, Queue};
use jiff::Timestamp;
use plan::Plan;
use plan::replicaset::Failure;
use plan::volume::{claim, ephemeral, matching, volume};

use crate::informers::{Informers, itself};
use crate::runner::Controller;

pub struct Claims(pub Arc<Informers>);

/// The claim that a volume is bound to or set aside for.
fn claimed(volume: &PersistentVolume) -> Option<ObjectKey> {
    let reference = volume.spec.as_ref()?.claim_ref.as_ref()?;
    Some(ObjectKey::new(reference.namespace.as_deref()?, reference.name.as_deref()?))
}

impl Claims {
    pub fn keys(&self) -> Queue<ObjectKey> {
        let queue = Queue::new();
        itself(&self.0.claims, &queue);
        let (claims, inbox) = (self.0.claims.cache().clone(), queue.clone());
        self.0.volumes.on_change(move |change| {
            for volume in [&change.old, &change.new].into_iter().flatten().filter_map(|object| object.typed::<PersistentVolume>().ok()) {
                claimed(&volume).into_iter().for_each(|key| inbox.add(key));
                // Whoever waits for a volume of this class, or for this one, may have found it.
                for claim in claims.list() {
                    let named = claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref()).unwrap_or("");
                    if named == &*change.key.name || named.is_empty() && matching::claim_class(&claim) == matching::volume_class(&volume) {
                        inbox.add(ObjectKey::new(plan::meta::namespace(claim.as_ref()), plan::meta::name(claim.as_ref())));
                    }
                }
            }
        });
        let (claims, inbox) = (self.0.claims.cache().clone(), queue.clone());
        self.0.storage_classes.on_change(move |change| {
            for claim in claims.list().iter().filter(|claim| matching::claim_class(claim) == &*change.key.name) {
                inbox.add(ObjectKey::new(plan::meta::namespace(claim.as_ref()), plan::meta::name(claim.as_ref())));
            }
        });
        let (claims, inbox) = (self.0.claims.cache().clone(), queue.clone());
        self.0.pods.on_change(move |change| {
            let typed = |object: &Arc<api::Object>| object.typed::<Pod>().ok();
            let placed = |pod: &Option<Arc<Pod>>| pod.as_ref().is_some_and(|pod| !plan::pods::node(pod).is_empty());
            let (before, after) = (change.old.as_ref().and_then(typed), change.new.as_ref().and_then(typed));
            if placed(&after) && !placed(&before) {
                // The first consumer that some claims wait for.
                for volume in after.iter().filter_map(|pod| pod.spec.as_ref()).flat_map(|spec| spec.volumes.iter().flatten()) {
                    if let Some(source) = &volume.persistent_volume_claim {
                        inbox.add(ObjectKey::new(&change.key.namespace, &source.claim_name));
                    } else if volume.ephemeral.is_some() {
                        inbox.add(ObjectKey::new(&change.key.namespace, &format!("{}-{}", change.key.name, volume.name)));
                    }
                }
            }
            // A claim that is going waits for who lets go.
            let Some(old) = before else { return };
            let ended = after.is_none_or(|pod| plan::pods::finished(&pod));
            if ended && old.spec.as_ref().is_some_and(|spec| spec.volumes.iter().flatten().any(|volume| volume.persistent_volume_claim.is_some() || volume.ephemeral.is_some())) {
                for claim in claims.list_in(&change.key.namespace).iter().filter(|claim| plan::meta::deleting(claim.as_ref())) {
                    inbox.add(ObjectKey::new(&change.key.namespace, plan::meta::name(claim.as_ref())));
                }
            }
        });
        queue
    }
}

impl Controller for Claims {
    type Key = ObjectKey;
    const NAME: &'static str = "persistentvolume-controller";
    const QUEUE: &'static str = "claims";

    fn plan<'a>(&'a self, key: &'a ObjectKey, _now: Timestamp, _last: Option<Failure>) -> BoxFuture<'a, Result<Plan, Status>> {
        let view = self.0.claims.cache().get(&key.namespace, &key.name).map(|claim| {
            let class = self.0.storage_classes.cache().get("", matching::claim_class(&claim));
            let waits = class.as_ref().is_some_and(|class| class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer"));
            let pods = if waits || plan::meta::deleting(claim.as_ref()) { self.0.pods.cache().list_in(&key.namespace) } else { Vec::new() };
            let node = claim::first_node(&claim, &pods).and_then(|node| self.0.nodes.cache().get("", &node));
            claim::View { volumes: self.0.volumes.cache().list(), class, pods, node, claim }
        });
        let plan = view.map(|view| claim::plan(&view)).unwrap_or_default();
        Box::pin(async move { Ok(plan) })
    }
}

pub struct Volumes(pub Arc<Informers>);

impl Volumes {
    pub fn keys(&self) -> Queue<ObjectKey> {
        let queue = Queue::new();
        itself(&self.0.volumes, &queue);
        let (volumes, inbox) = (self.0.volumes.cache().clone(), queue.clone());
        self.0.claims.on_change(move |change| {
            for claim in [&change.old, &change.new].into_iter().flatten().filter_map(|object| object.typed::<PersistentVolumeClaim>().ok()) {
                if let Some(named) = claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref()).filter(|named| !named.is_empty()) {
                    inbox.add(ObjectKey::new("", named));
                }
            }
            for volume in volumes.list().iter().filter(|volume| claimed(volume).as_ref() == Some(&change.key)) {
                inbox.add(ObjectKey::new("", plan::meta::name(volume.as_ref())));
            }
        });
        queue
    }
}

impl Controller for Volumes {
    type Key = ObjectKey;
    const NAME: &'static str = "persistentvolume-controller";
    const QUEUE: &'static str = "volumes";

    fn plan<'a>(&'a self, key: &'a ObjectKey, _now: Timestamp, _last: Option<Failure>) -> BoxFuture<'a, Result<Plan, Status>> {
        let view = self.0.volumes.cache().get("", &key.name).map(|volume| volume::View { claim: claimed(&volume).and_then(|key| self.0.claims.cache().get(&key.namespace, &key.name)), volume });
        let plan = view.map(|view| volume::plan(&view)).unwrap_or_default();
        Box::pin(async move { Ok(plan) })
    }
}

pub struct EphemeralVolumes(pub Arc<Informers>);

impl EphemeralVolumes {
    pub fn keys(&self) -> Queue<ObjectKey> {
        let queue = Queue::new();
        let inbox = queue.clone();
        self.0.pods.on_change(move |change| {
            let Some(pod) = change.new.as_ref().and_then(|object| object.typed::<Pod>().ok()) else { return };
            if change.old.is_none() && !ephemeral::claim_names(&pod).is_empty() {
                inbox.add(change.key.clone());
            }
        });
        let (pods, inbox) = (self.0.pods.cache().clone(), queue.clone());
        self.0.claims.on_change(move |change| {
            // A claim that went while its pod is there is made again.
            if let (Some(old), None) = (&change.old, &change.new)
                && let Some(owner) = old.meta().owner_references.iter().find(|owner| owner.controller == Some(true) && owner.kind == "Pod")
                && pods.contains(&change.key.namespace, &owner.name)
            {
                inbox.add(ObjectKey::new(&change.key.namespace, &owner.name));
            }
        });
        queue
    }
}

impl Controller for EphemeralVolumes {
    type Key = ObjectKey;
    const NAME: &'static str = "ephemeral-volume-controller";
    const QUEUE: &'static str = "ephemeral_volume";

    fn plan<'a>(&'a self, key: &'a ObjectKey, _now: Timestamp, _last: Option<Failure>) -> BoxFuture<'a, Result<Plan, Status>> {
        let view = self.0.pods.cache().get(&key.namespace, &key.name).map(|pod| ephemeral::View {
            claims: ephemeral::claim_names(&pod).iter().filter_map(|name| self.0.claims.cache().get(&key.namespace, name)).collect(),
            pod,
        });
        let plan = view.map(|view| ephemeral::plan(&view)).unwrap_or_default();
        Box::pin(async move { Ok(plan) })
    }
}
