//! What must hold once nothing fails any more: everything that was asked for is there, and nothing else.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use api::Object;
use api::k8s::api::apps::v1::{DaemonSet, Deployment};
use api::k8s::api::batch::v1::Job;
use api::k8s::api::core::v1::{Node, Pod, Service};
use api::k8s::api::discovery::v1::EndpointSlice;

use crate::history::State;
use crate::safety::{is_ready, owner, phase};
use crate::workload::{Model, Wanted, image};

/// What is not yet as it should be.
pub fn missing(state: &State, model: &Model, nodes: usize) -> Vec<String> {
    let mut missing = Vec::new();
    let uids: HashSet<&str> = state.objects().map(|object| object.meta().uid.as_str()).collect();
    for object in state.objects() {
        let meta = object.meta();
        if object.kind() == "Event" {
            continue;
        }
        if meta.deletion_timestamp.is_some() {
            missing.push(format!("{object:?} is still being deleted, finalizers {:?}", meta.finalizers));
        }
        if !meta.owner_references.is_empty() && meta.owner_references.iter().all(|owner| !uids.contains(owner.uid.as_str())) {
            missing.push(format!("{object:?} is an orphan"));
        }
    }
    namespaces(state, model, &mut missing);
    let pods = by_owner(state);
    let mut expected = 0;
    for ((kind, namespace, name), wanted) in &model.objects {
        let found = state.of_kind(kind).find(|object| object.meta().namespace.as_deref() == Some(namespace) && object.meta().name == *name);
        let Some(object) = found else {
            missing.push(format!("{kind} {namespace}/{name} is not there"));
            continue;
        };
        let result = match wanted {
            Wanted::Deployment { replicas, version } => {
                expected += *replicas as usize;
                deployment(state, object, *replicas, *version, &pods)
            }
            Wanted::DaemonSet { version } => {
                expected += nodes;
                daemon_set(object, nodes, *version, &pods)
            }
            Wanted::Job { completions } => {
                expected += *completions as usize;
                job(object, *completions)
            }
            Wanted::Service => service(state, object),
        };
        missing.extend(result.err().map(|why| format!("{object:?}: {why}")));
    }
    let there = state.of_kind("Pod").count();
    if there != expected {
        missing.push(format!("{there} pods are there, {expected} are asked for"));
    }
    missing
}

/// What may be the cause: nodes and some pods that are not ready.
pub fn hints(state: &State) -> Vec<String> {
    let nodes = state.of_kind("Node").filter_map(|object| object.typed::<Node>().ok()).map(|node| {
        let ready = node.status.iter().flat_map(|status| status.conditions.iter().flatten()).find(|condition| condition.type_ == "Ready").map(|condition| condition.status.clone());
        format!("{:?}: ready {ready:?}, taints {:?}", node.metadata.name, node.spec.as_ref().and_then(|spec| spec.taints.as_ref()).iter().flat_map(|taints| taints.iter()).map(|taint| &taint.key).collect::<Vec<_>>())
    });
    let pods = state.of_kind("Pod").filter(|object| object.typed::<Pod>().is_ok_and(|pod| !is_ready(&pod) && phase(&pod) != "Succeeded"));
    nodes.chain(pods.take(2).map(|object| String::from_utf8_lossy(object.bytes()).into_owned())).collect()
}

fn by_owner(state: &State) -> BTreeMap<&str, Vec<Arc<Pod>>> {
    let mut pods: BTreeMap<&str, Vec<Arc<Pod>>> = BTreeMap::new();
    for object in state.of_kind("Pod") {
        if let (Some(owner), Ok(pod)) = (owner(object), object.typed::<Pod>()) {
            pods.entry(owner).or_default().push(pod);
        }
    }
    pods
}

fn namespaces(state: &State, model: &Model, missing: &mut Vec<String>) {
    for namespace in &model.gone {
        missing.extend(state.objects().filter(|object| object.meta().namespace.as_ref() == Some(namespace)).map(|object| format!("{object:?} is left of a deleted namespace")));
        if state.of_kind("Namespace").any(|object| object.meta().name == *namespace) {
            missing.push(format!("namespace {namespace} is not gone"));
        }
    }
    for namespace in &model.namespaces {
        if !state.of_kind("Namespace").any(|object| object.meta().name == *namespace) {
            missing.push(format!("namespace {namespace} is not there"));
        }
    }
}

fn runs(pod: &Pod, version: u32) -> bool {
    let image_is = pod.spec.iter().flat_map(|spec| &spec.containers).all(|container| container.image.as_deref() == Some(&image(version)));
    image_is && is_ready(pod) && phase(pod) == "Running"
}

fn deployment(state: &State, object: &Arc<Object>, replicas: i32, version: u32, pods: &BTreeMap<&str, Vec<Arc<Pod>>>) -> Result<(), String> {
    let deployment = object.typed::<Deployment>().map_err(|error| error.to_string())?;
    let (spec, status) = (deployment.spec.as_ref().ok_or("no spec")?, deployment.status.as_ref().ok_or("no status")?);
    if spec.replicas != Some(replicas) {
        return Err(format!("replicas are {:?}, {replicas} were acknowledged", spec.replicas));
    }
    if status.observed_generation != deployment.metadata.generation {
        return Err("the newest generation was not observed".into());
    }
    let counts = [status.replicas, status.ready_replicas, status.available_replicas, status.updated_replicas].map(|count| count.unwrap_or(0));
    if counts != [replicas; 4] {
        return Err(format!("all, ready, available and updated pods are {counts:?}, not {replicas}"));
    }
    let uid = object.meta().uid.as_str();
    let running: Vec<&Arc<Pod>> = state.of_kind("ReplicaSet").filter(|set| owner(set) == Some(uid)).flat_map(|set| pods.get(set.meta().uid.as_str()).into_iter().flatten()).collect();
    if running.len() != replicas as usize || !running.iter().all(|pod| runs(pod, version)) {
        return Err(format!("{} pods, {} of them ready in version {version}; {replicas} are wanted", running.len(), running.iter().filter(|pod| runs(pod, version)).count()));
    }
    Ok(())
}

fn daemon_set(object: &Arc<Object>, nodes: usize, version: u32, pods: &BTreeMap<&str, Vec<Arc<Pod>>>) -> Result<(), String> {
    let set = object.typed::<DaemonSet>().map_err(|error| error.to_string())?;
    let status = set.status.as_ref().ok_or("no status")?;
    let running: BTreeSet<&str> = pods.get(object.meta().uid.as_str()).into_iter().flatten().filter(|pod| runs(pod, version)).filter_map(|pod| pod.spec.as_ref()?.node_name.as_deref()).collect();
    if running.len() != nodes {
        return Err(format!("pods are ready on {running:?} in version {version}, {nodes} nodes are there"));
    }
    let counts = [status.number_ready, status.desired_number_scheduled, status.updated_number_scheduled.unwrap_or(0)];
    if counts != [nodes as i32; 3] {
        return Err(format!("ready, desired and updated pods are {counts:?}, not {nodes}"));
    }
    Ok(())
}

fn job(object: &Arc<Object>, completions: i32) -> Result<(), String> {
    let job = object.typed::<Job>().map_err(|error| error.to_string())?;
    let status = job.status.as_ref().ok_or("no status")?;
    if !status.conditions.iter().flatten().any(|condition| condition.type_ == "Complete" && condition.status == "True") {
        return Err(format!("not complete, {:?} active, {:?} succeeded", status.active, status.succeeded));
    }
    if status.succeeded != Some(completions) {
        return Err(format!("{:?} pods succeeded, {completions} were asked for", status.succeeded));
    }
    Ok(())
}

fn service(state: &State, object: &Arc<Object>) -> Result<(), String> {
    let service = object.typed::<Service>().map_err(|error| error.to_string())?;
    let namespace = object.meta().namespace.as_deref();
    let selector = service.spec.as_ref().and_then(|spec| spec.selector.as_ref()).ok_or("no selector")?;
    let selected = state.of_kind("Pod").filter(|pod| pod.meta().namespace.as_deref() == namespace && selector.iter().all(|(key, value)| pod.meta().labels.get(key) == Some(value)));
    let wanted: BTreeSet<String> = selected.filter_map(|object| object.typed::<Pod>().ok()).filter(|pod| is_ready(pod)).filter_map(|pod| pod.status.as_ref()?.pod_ip.clone()).collect();
    let mut found = BTreeSet::new();
    for slice in state.of_kind("EndpointSlice").filter(|slice| slice.meta().namespace.as_deref() == namespace && slice.meta().labels.get("kubernetes.io/service-name") == Some(&object.meta().name)) {
        let slice = slice.typed::<EndpointSlice>().map_err(|error| error.to_string())?;
        for endpoint in slice.endpoints.iter().flatten() {
            if endpoint.conditions.as_ref().is_some_and(|conditions| conditions.ready == Some(true)) {
                found.extend(endpoint.addresses.iter().cloned());
            }
        }
    }
    if wanted == found { Ok(()) } else { Err(format!("endpoints are {found:?}, ready pods {wanted:?}")) }
}
