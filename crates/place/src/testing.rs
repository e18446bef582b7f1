//! Nodes and pods for the tables.

use std::sync::Arc;

use api::k8s::api::core::v1::{Node, Pod};
use serde_json::{Value, json};

use crate::pod::PodInfo;
use crate::snapshot::Snapshot;

fn merge(value: &mut Value, extra: Value) {
    match (value, extra) {
        (Value::Object(map), Value::Object(extra)) => extra.into_iter().for_each(|(key, part)| merge(map.entry(key).or_insert(Value::Null), part)),
        (value, extra) => *value = extra,
    }
}

/// `extra` is merged into the node.
pub fn node(name: &str, cpu: &str, extra: Value) -> Node {
    let mut value = json!({"metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}}, "spec": {}, "status": {"allocatable": {"cpu": cpu, "memory": "4Gi", "pods": "110"}}});
    merge(&mut value, extra);
    serde_json::from_value(value).unwrap()
}

/// `spec` is merged into the pod's.
pub fn pod(name: &str, cpu: &str, spec: Value) -> PodInfo {
    let mut value = json!({"metadata": {"name": name, "namespace": "default", "uid": name, "labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}});
    merge(&mut value["spec"], spec);
    PodInfo::of(&serde_json::from_value::<Pod>(value).unwrap())
}

pub fn snapshot(nodes: &[Node]) -> Snapshot {
    let mut snapshot = Snapshot::default();
    for node in nodes {
        snapshot.set_node(node);
    }
    snapshot
}

/// The pod is on the node.
pub fn on(snapshot: &mut Snapshot, place: &str, mut pod: PodInfo) {
    pod.node_name = place.to_owned();
    snapshot.set_pod(Arc::new(pod));
}
