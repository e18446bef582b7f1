//! Runs [`plan::endpoints`]: EndpointSlices and Endpoints by Service, and the slices of Endpoints written by hand.

use std::collections::HashMap;
use std::sync::Arc;

use api::Status;
use api::k8s::api::core::v1::{Node, Pod, Service};
use client::{BoxFuture, ObjectKey, Queue};
use jiff::Timestamp;
use plan::Plan;
use plan::endpoints::hints::{self, Wanted, ZONE};
use plan::endpoints::{legacy, mirror, slices};
use plan::meta;
use plan::replicaset::Failure;

use crate::informers::{Informers, itself};
use crate::runner::Controller;

pub struct EndpointSlices(pub Arc<Informers>);
pub struct LegacyEndpoints(pub Arc<Informers>);

/// A change of a pod is work on every Service that selects it, before or after.
fn services_of_pods(informers: &Informers, queue: &Queue<ObjectKey>) {
    let (services, queue) = (informers.services.cache().clone(), queue.clone());
    informers.pods.on_change(move |change| {
        for service in services.list_in(&change.key.namespace) {
            let selects =
                |object: &Arc<api::Object>| selector(&service).is_some_and(|selector| meta::selects_map(selector, Some(&object.meta().labels)));
            if change.old.iter().chain(&change.new).any(selects) {
                queue.add(ObjectKey::new(&change.key.namespace, meta::name(service.as_ref())));
            }
        }
    });
}

fn selector(service: &Service) -> Option<&meta::Labels> {
    service.spec.as_ref()?.selector.as_ref().filter(|selector| !selector.is_empty())
}

fn pods_of(informers: &Informers, service: &Service) -> Vec<Arc<Pod>> {
    let Some(selector) = selector(service) else { return Vec::new() };
    let mut pods = informers.pods.cache().list_in(meta::namespace(service));
    pods.retain(|pod| meta::selects_map(selector, pod.metadata.labels.as_ref()));
    pods
}

impl EndpointSlices {
    pub fn keys(&self) -> Queue<ObjectKey> {
        let queue = Queue::new();
        itself(&self.0.services, &queue);
        services_of_pods(&self.0, &queue);
        let slices = queue.clone();
        self.0.endpoint_slices.on_change(move |change| {
            for object in change.old.iter().chain(&change.new) {
                if let (Some(slices::MANAGER), Some(service)) =
                    (object.meta().labels.get(slices::MANAGED_BY).map(String::as_str), object.meta().labels.get(slices::SERVICE_NAME))
                {
                    slices.add(ObjectKey::new(&change.key.namespace, service));
                }
            }
        });
        // A node's zone is in the slices of its pods, if there is that node.
        let (pods, services, nodes) = (self.0.pods.cache().clone(), self.0.services.cache().clone(), queue.clone());
        self.0.nodes.on_change(move |change| {
            let zone = |object: &Option<Arc<api::Object>>| object.as_ref().map(|object| object.meta().labels.get(ZONE).cloned());
            if zone(&change.old) == zone(&change.new) {
                return;
            }
            for pod in pods.list_by(crate::informers::NODE, &change.key.name) {
                for service in services.list_in(meta::namespace(pod.as_ref())) {
                    if selector(&service).is_some_and(|selector| meta::selects_map(selector, pod.metadata.labels.as_ref())) {
                        nodes.add(ObjectKey::new(meta::namespace(pod.as_ref()), meta::name(service.as_ref())));
                    }
                }
            }
        });
        // Any node counts for the shares of the zones.
        let (services, all) = (self.0.services.cache().clone(), queue.clone());
        self.0.nodes.on_change(move |change| {
            let capacity = |object: &Option<Arc<api::Object>>| object.as_ref().and_then(|object| object.typed::<Node>().ok()).map(|node| hints::capacity(&node));
            if capacity(&change.old) == capacity(&change.new) {
                return;
            }
            for service in services.list().iter().filter(|service| hints::wanted(service) == Wanted::Auto) {
                all.add(ObjectKey::new(meta::namespace(service.as_ref()), meta::name(service.as_ref())));
            }
        });
        queue
    }

    fn load(&self, key: &ObjectKey) -> Option<slices::View> {
        let service = self.0.services.cache().get(&key.namespace, &key.name)?;
        let mut slices = self.0.endpoint_slices.cache().list_by(slices::SERVICE_NAME, &key.name);
        slices.retain(|slice| meta::namespace(slice.as_ref()) == &*key.namespace && slices::ours(slice));
        let nodes = self.0.nodes.cache().objects().iter().map(|node| (node.meta().name.clone(), node.meta().labels.get(ZONE).cloned())).collect::<HashMap<_, _>>();
        let shares = (hints::wanted(&service) == Wanted::Auto).then(|| hints::shares(self.0.nodes.cache().list().iter().map(AsRef::as_ref))).flatten();
        Some(slices::View { pods: pods_of(&self.0, &service), slices, nodes, shares, service })
    }
}

impl Controller for EndpointSlices {
    type Key = ObjectKey;
    const NAME: &'static str = "endpoint-slice-controller";
    const QUEUE: &'static str = "endpoint_slice";

    fn plan<'a>(&'a self, key: &'a ObjectKey, _now: Timestamp, _last: Option<Failure>) -> BoxFuture<'a, Result<Plan, Status>> {
        let plan = self.load(key).map(|view| slices::plan(&view)).unwrap_or_default();
        Box::pin(async move { Ok(plan) })
    }
}

impl LegacyEndpoints {
    pub fn keys(&self) -> Queue<ObjectKey> {
        let queue = Queue::new();
        itself(&self.0.services, &queue);
        itself(&self.0.endpoints, &queue);
        services_of_pods(&self.0, &queue);
        queue
    }
}

impl Controller for LegacyEndpoints {
    type Key = ObjectKey;
    const NAME: &'static str = "endpoint-controller";
    const QUEUE: &'static str = "endpoint";

    fn plan<'a>(&'a self, key: &'a ObjectKey, _now: Timestamp, _last: Option<Failure>) -> BoxFuture<'a, Result<Plan, Status>> {
        let endpoints = self.0.endpoints.cache().get(&key.namespace, &key.name);
        let plan = match (self.0.services.cache().get(&key.namespace, &key.name), endpoints) {
            (Some(service), endpoints) => legacy::plan(&legacy::View { pods: pods_of(&self.0, &service), service, endpoints }),
            (None, Some(endpoints)) if legacy::ours(&endpoints) => legacy::after(&endpoints),
            (None, _) => Plan::default(),
        };
        Box::pin(async move { Ok(plan) })
    }
}

pub struct MirroredEndpoints(pub Arc<Informers>);

impl MirroredEndpoints {
    pub fn keys(&self) -> Queue<ObjectKey> {
        let queue = Queue::new();
        itself(&self.0.endpoints, &queue);
        itself(&self.0.services, &queue);
        let slices = queue.clone();
        self.0.endpoint_slices.on_change(move |change| {
            for object in change.old.iter().chain(&change.new) {
                if let (Some(mirror::MANAGER), Some(service)) =
                    (object.meta().labels.get(slices::MANAGED_BY).map(String::as_str), object.meta().labels.get(slices::SERVICE_NAME))
                {
                    slices.add(ObjectKey::new(&change.key.namespace, service));
                }
            }
        });
        queue
    }
}

impl Controller for MirroredEndpoints {
    type Key = ObjectKey;
    const NAME: &'static str = "endpoint-slice-mirroring-controller";
    const QUEUE: &'static str = "endpoint_slice_mirroring";

    fn plan<'a>(&'a self, key: &'a ObjectKey, _now: Timestamp, _last: Option<Failure>) -> BoxFuture<'a, Result<Plan, Status>> {
        let mut slices = self.0.endpoint_slices.cache().list_by(slices::SERVICE_NAME, &key.name);
        slices.retain(|slice| meta::namespace(slice.as_ref()) == &*key.namespace && mirror::ours(slice));
        let plan = mirror::plan(&mirror::View {
            service: self.0.services.cache().get(&key.namespace, &key.name),
            endpoints: self.0.endpoints.cache().get(&key.namespace, &key.name),
            slices,
        });
        Box::pin(async move { Ok(plan) })
    }
}
