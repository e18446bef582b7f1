//! The FlowSchemas and PriorityLevelConfigurations every cluster has: upstream's, value for value.
//!
//! Mirrors apiserver/pkg/apis/flowcontrol/bootstrap. The mandatory ones are kept as they are; the suggested ones are the administrator's to change.

use serde_json::{Value, json};

use super::classify::{CATCH_ALL, EXEMPT};

/// Says whether a suggested object is kept up to date; an administrator who changes one sets it to `false`.
pub const AUTO_UPDATE: &str = "apf.kubernetes.io/autoupdate-spec";
const API_VERSION: &str = "flowcontrol.apiserver.k8s.io/v1";

pub struct Bootstrap {
    pub mandatory: bool,
    pub object: Value,
}

fn object(kind: &str, name: &str, spec: Value) -> Bootstrap {
    let object = json!({"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name, "annotations": {(AUTO_UPDATE): "true"}}, "spec": spec});
    Bootstrap { mandatory: matches!(name, EXEMPT | CATCH_ALL), object }
}

fn limited(name: &str, shares: i64, lendable: i64, queues: Option<(i64, i64)>) -> Bootstrap {
    let response = match queues {
        Some((queues, hand)) => json!({"type": "Queue", "queuing": {"queues": queues, "handSize": hand, "queueLengthLimit": 50}}),
        None => json!({"type": "Reject"}),
    };
    object("PriorityLevelConfiguration", name, json!({"type": "Limited", "limited": {"nominalConcurrencyShares": shares, "lendablePercent": lendable, "limitResponse": response}}))
}

/// Those that are referred to come first.
pub fn priority_levels() -> Vec<Bootstrap> {
    vec![
        limited("system", 30, 33, Some((64, 6))),
        limited("node-high", 40, 25, Some((64, 6))),
        limited("leader-election", 10, 0, Some((16, 4))),
        limited("workload-high", 40, 50, Some((128, 6))),
        limited("workload-low", 100, 90, Some((128, 6))),
        limited("global-default", 20, 50, Some((128, 6))),
        limited(CATCH_ALL, 5, 0, None),
        object("PriorityLevelConfiguration", EXEMPT, json!({"type": "Exempt", "exempt": {"nominalConcurrencyShares": 0, "lendablePercent": 0}})),
    ]
}

fn groups(names: &[&str]) -> Vec<Value> {
    names.iter().map(|name| json!({"kind": "Group", "group": {"name": name}})).collect()
}

fn users(names: &[&str]) -> Vec<Value> {
    names.iter().map(|name| json!({"kind": "User", "user": {"name": name}})).collect()
}

fn kube_system() -> Value {
    json!({"kind": "ServiceAccount", "serviceAccount": {"name": "*", "namespace": "kube-system"}})
}

fn resources(verbs: &[&str], group: &str, resources: &[&str], cluster_scope: bool) -> Value {
    let mut rule = json!({"verbs": verbs, "apiGroups": [group], "resources": resources, "namespaces": ["*"]});
    if cluster_scope {
        rule["clusterScope"] = true.into();
    }
    rule
}

fn everything(subjects: Vec<Value>) -> Value {
    json!({"subjects": subjects, "resourceRules": [resources(&["*"], "*", &["*"], true)], "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}]})
}

fn schema(name: &str, level: &str, precedence: i64, distinguisher: &str, rule: Value) -> Bootstrap {
    let mut spec = json!({"priorityLevelConfiguration": {"name": level}, "matchingPrecedence": precedence, "rules": [rule]});
    if !distinguisher.is_empty() {
        spec["distinguisherMethod"] = json!({"type": distinguisher});
    }
    object("FlowSchema", name, spec)
}

pub fn flow_schemas() -> Vec<Bootstrap> {
    let all = ["system:unauthenticated", "system:authenticated"];
    let mut electing = users(&["system:kube-controller-manager", "system:kube-scheduler"]);
    electing.push(kube_system());
    let nodes = || groups(&["system:nodes"]);
    vec![
        schema("system-nodes", "system", 500, "ByUser", everything(nodes())),
        schema(
            "system-node-high",
            "node-high",
            400,
            "ByUser",
            json!({"subjects": nodes(), "resourceRules": [resources(&["*"], "", &["nodes", "nodes/status"], true), resources(&["*"], "coordination.k8s.io", &["leases"], false)]}),
        ),
        schema("probes", EXEMPT, 2, "", json!({"subjects": groups(&all), "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/healthz", "/readyz", "/livez"]}]})),
        schema(
            "system-leader-election",
            "leader-election",
            100,
            "ByUser",
            json!({"subjects": electing, "resourceRules": [resources(&["get", "create", "update"], "coordination.k8s.io", &["leases"], false)]}),
        ),
        schema("kube-controller-manager", "workload-high", 800, "ByNamespace", everything(users(&["system:kube-controller-manager"]))),
        schema("kube-scheduler", "workload-high", 800, "ByNamespace", everything(users(&["system:kube-scheduler"]))),
        schema("kube-system-service-accounts", "workload-high", 900, "ByNamespace", everything(vec![kube_system()])),
        schema("service-accounts", "workload-low", 9000, "ByUser", everything(groups(&["system:serviceaccounts"]))),
        schema("global-default", "global-default", 9900, "ByUser", everything(groups(&all))),
        schema(EXEMPT, EXEMPT, 1, "", everything(groups(&["system:masters"]))),
        schema(CATCH_ALL, CATCH_ALL, 10_000, "ByUser", everything(groups(&all))),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::text;

    #[test]
    fn every_schema_has_its_level_and_two_of_each_are_mandatory() {
        let (levels, schemas) = (priority_levels(), flow_schemas());
        assert_eq!((levels.len(), schemas.len()), (8, 11));
        for list in [&levels, &schemas] {
            let mandatory: Vec<&str> = list.iter().filter(|default| default.mandatory).map(|default| text(&default.object, "/metadata/name")).collect();
            assert_eq!(mandatory.len(), 2, "{mandatory:?}");
        }
        for schema in &schemas {
            let level = text(&schema.object, "/spec/priorityLevelConfiguration/name");
            assert!(levels.iter().any(|known| text(&known.object, "/metadata/name") == level), "{level}");
        }
    }
}
