//! Deployments, ReplicaSets, ReplicationControllers, DaemonSets, StatefulSets, ControllerRevisions.

use serde_json::Value;

use super::format::{NONE, containers, count, labels, name, selector};
use super::{Printer, age};
use crate::kinds::json::{flag, list, map, number, text};

const CONTAINERS: &str = "spec.template.spec.containers";

fn ready_of_desired(object: &Value) -> Value {
    format!("{}/{}", number(object, "status.readyReplicas").unwrap_or(0), number(object, "spec.replicas").unwrap_or(0)).into()
}

const DEPLOYMENTS: Printer = Printer {
    columns: "Name|Ready|Up-to-date|Available|Age|Containers*|Images*|Selector*",
    cells: |object, now| {
        let [names, images] = containers(object, CONTAINERS);
        let selector = selector(object, "spec.selector");
        let selector = if selector == NONE { "" } else { &selector };
        vec![name(object), ready_of_desired(object), count(object, "status.updatedReplicas"), count(object, "status.availableReplicas"), age(object, now).into(), names, images, selector.into()]
    },
};

const REPLICA_SETS: Printer = Printer {
    columns: "Name|Desired:i|Current:i|Ready:i|Age|Containers*|Images*|Selector*",
    cells: |object, now| {
        let [names, images] = containers(object, CONTAINERS);
        vec![
            name(object), count(object, "spec.replicas"), count(object, "status.replicas"), count(object, "status.readyReplicas"), age(object, now).into(),
            names, images, selector(object, "spec.selector").into(),
        ]
    },
};

const REPLICATION_CONTROLLERS: Printer = Printer {
    columns: REPLICA_SETS.columns,
    cells: |object, now| {
        let [names, images] = containers(object, CONTAINERS);
        vec![
            name(object), count(object, "spec.replicas"), count(object, "status.replicas"), count(object, "status.readyReplicas"), age(object, now).into(),
            names, images, labels(map(object, "spec.selector")).into(),
        ]
    },
};

const DAEMON_SETS: Printer = Printer {
    columns: "Name|Desired:i|Current:i|Ready:i|Up-to-date:i|Available:i|Node Selector|Age|Containers*|Images*|Selector*",
    cells: |object, now| {
        let [names, images] = containers(object, CONTAINERS);
        vec![
            name(object),
            count(object, "status.desiredNumberScheduled"),
            count(object, "status.currentNumberScheduled"),
            count(object, "status.numberReady"),
            count(object, "status.updatedNumberScheduled"),
            count(object, "status.numberAvailable"),
            labels(map(object, "spec.template.spec.nodeSelector")).into(),
            age(object, now).into(),
            names,
            images,
            selector(object, "spec.selector").into(),
        ]
    },
};

const STATEFUL_SETS: Printer = Printer {
    columns: "Name|Ready|Age|Containers*|Images*",
    cells: |object, now| {
        let [names, images] = containers(object, CONTAINERS);
        vec![name(object), ready_of_desired(object), age(object, now).into(), names, images]
    },
};

const CONTROLLER_REVISIONS: Printer = Printer {
    columns: "Name|Controller|Revision|Age",
    cells: |object, now| {
        let owner = list(object, "metadata.ownerReferences").iter().find(|owner| flag(owner, "controller"));
        let owner = owner.map_or(NONE.to_owned(), |owner| {
            let kind = text(owner, "kind").to_lowercase();
            match text(owner, "apiVersion").split_once('/') {
                Some((group, _)) => format!("{kind}.{group}/{}", text(owner, "name")),
                None => format!("{kind}/{}", text(owner, "name")),
            }
        });
        vec![name(object), owner.into(), count(object, "revision"), age(object, now).into()]
    },
};

pub fn printer(group: &str, plural: &str) -> Option<&'static Printer> {
    Some(match (group, plural) {
        ("apps", "deployments") => &DEPLOYMENTS,
        ("apps", "replicasets") => &REPLICA_SETS,
        ("", "replicationcontrollers") => &REPLICATION_CONTROLLERS,
        ("apps", "daemonsets") => &DAEMON_SETS,
        ("apps", "statefulsets") => &STATEFUL_SETS,
        ("apps", "controllerrevisions") => &CONTROLLER_REVISIONS,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::line;
    use serde_json::json;

    #[test]
    fn workloads() {
        let template = json!({"spec": {"containers": [{"name": "a", "image": "i:1"}, {"name": "b", "image": "j"}], "nodeSelector": {"disk": "ssd"}}});
        let selector = json!({"matchLabels": {"app": "web"}, "matchExpressions": [{"key": "t", "operator": "In", "values": ["y", "x"]}]});
        let cases = [
            ("deployments", json!({"spec": {"replicas": 3, "template": template, "selector": selector}, "status": {"readyReplicas": 2, "updatedReplicas": 1}}), "x|2/3|1|0|5m|a,b|i:1,j|app=web,t in (x,y)"),
            ("replicasets", json!({"spec": {"replicas": 3, "template": template, "selector": selector}, "status": {"replicas": 2}}), "x|3|2|0|5m|a,b|i:1,j|app=web,t in (x,y)"),
            ("daemonsets", json!({"spec": {"template": template, "selector": {"matchLabels": {"app": "web"}}}, "status": {"desiredNumberScheduled": 2, "numberReady": 1}}), "x|2|0|1|0|0|disk=ssd|5m|a,b|i:1,j|app=web"),
            ("statefulsets", json!({"spec": {"replicas": 1, "template": template}}), "x|0/1|5m|a,b|i:1,j"),
            ("controllerrevisions", json!({"revision": 4, "metadata": {"ownerReferences": [{"controller": true, "apiVersion": "apps/v1", "kind": "DaemonSet", "name": "d"}]}}), "x|daemonset.apps/d|4|5m"),
        ];
        for (plural, object, expected) in cases {
            assert_eq!(line("apps", "v1", plural, object), expected);
        }
    }
}
