//! Default roles and bindings of an older version, or with something taken out of them, made whole at the start.
//!
//! Mirrors component-helpers/auth/rbac/reconciliation as kube-apiserver uses it: what is missing is added, what people added stays, and an object with the annotation
//! `rbac.authorization.kubernetes.io/autoupdate: "false"` is left alone.
//! <https://kubernetes.io/docs/reference/access-authn-authz/rbac/#auto-reconciliation>

use serde_json::{Map, Value, json};

use crate::escalation;
use crate::registry::text;

const AUTO_UPDATE: &str = "/metadata/annotations/rbac.authorization.kubernetes.io~1autoupdate";

/// What is to be done with the object that exists.
#[derive(Debug, PartialEq)]
pub enum Step {
    Nothing,
    Update(Value),
    /// A binding's role cannot be changed: it is deleted and made again.
    Recreate,
}

pub fn reconcile(existing: &Value, expected: &Value) -> Step {
    if text(existing, AUTO_UPDATE) == "false" {
        return Step::Nothing;
    }
    let mut wanted = existing.clone();
    for field in ["annotations", "labels"] {
        merge(&mut wanted, expected, field);
    }
    if text(expected, "/kind").ends_with("Binding") {
        if role(existing) != role(expected) {
            return Step::Recreate;
        }
        append(&mut wanted, "subjects", missing(list(existing, "/subjects"), list(expected, "/subjects")));
    } else {
        aggregate(&mut wanted, existing, expected);
    }
    if wanted == *existing { Step::Nothing } else { Step::Update(wanted) }
}

fn list<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    object.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn missing(has: &[Value], wanted: &[Value]) -> Vec<Value> {
    wanted.iter().filter(|item| !has.contains(item)).cloned().collect()
}

fn role(binding: &Value) -> [&str; 3] {
    ["/roleRef/apiGroup", "/roleRef/kind", "/roleRef/name"].map(|pointer| text(binding, pointer))
}

fn append(object: &mut Value, field: &str, more: Vec<Value>) {
    if more.is_empty() {
        return;
    }
    match object.get_mut(field).and_then(Value::as_array_mut) {
        Some(items) => items.extend(more),
        None => object[field] = more.into(),
    }
}

/// Expected labels and annotations are added; a value that is there stays.
fn merge(object: &mut Value, expected: &Value, field: &str) {
    let Some(expected) = expected.pointer(&format!("/metadata/{field}")).and_then(Value::as_object) else { return };
    let Some(meta) = object.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    let Some(present) = meta.entry(field).or_insert_with(|| Value::Object(Map::new())).as_object_mut() else { return };
    for (key, value) in expected {
        present.entry(key.as_str()).or_insert_with(|| value.clone());
    }
}

fn aggregate(wanted: &mut Value, existing: &Value, expected: &Value) {
    const SELECTORS: &str = "/aggregationRule/clusterRoleSelectors";
    if expected.get("aggregationRule").is_none() {
        if let Some(role) = wanted.as_object_mut() {
            role.remove("aggregationRule");
        }
        return append(wanted, "rules", escalation::uncovered(list(existing, "/rules"), list(expected, "/rules")));
    }
    // Its rules are the aggregation's to keep.
    let more = missing(list(existing, SELECTORS), list(expected, SELECTORS));
    if more.is_empty() {
        return;
    }
    if wanted.pointer(SELECTORS).is_none() {
        wanted["aggregationRule"] = json!({"clusterRoleSelectors": []});
    }
    if let Some(selectors) = wanted.pointer_mut(SELECTORS).and_then(Value::as_array_mut) {
        selectors.extend(more);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster_role(rules: Value) -> Value {
        json!({"kind": "ClusterRole", "metadata": {"name": "r", "labels": {"a": "1"}, "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"}}, "rules": rules})
    }

    #[test]
    fn what_is_missing_is_added_and_what_was_added_stays() {
        let expected = cluster_role(json!([{"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods"]}]));
        assert_eq!(reconcile(&expected, &expected), Step::Nothing);
        let own = json!({"verbs": ["delete"], "apiGroups": ["apps"], "resources": ["deployments"]});
        let mut changed = cluster_role(json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["*"]}, own]));
        changed["metadata"]["labels"] = json!({"a": "2", "b": "3"});
        let Step::Update(made) = reconcile(&changed, &expected) else { panic!("not updated") };
        assert_eq!(made["metadata"]["labels"], json!({"a": "2", "b": "3"}));
        assert_eq!(made["rules"], json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["*"]}, own, {"verbs": ["list"], "apiGroups": [""], "resources": ["pods"]}]));
        changed["metadata"]["annotations"] = json!({"rbac.authorization.kubernetes.io/autoupdate": "false"});
        assert_eq!(reconcile(&changed, &expected), Step::Nothing);
        changed["metadata"].as_object_mut().unwrap().remove("annotations");
        assert!(matches!(reconcile(&changed, &expected), Step::Update(made) if made["metadata"]["annotations"] == expected["metadata"]["annotations"]));
    }

    #[test]
    fn aggregation_and_bindings() {
        let mut expected = cluster_role(json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]));
        let mut plain = cluster_role(json!([]));
        plain["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": {"x": "y"}}]});
        let Step::Update(made) = reconcile(&plain, &expected) else { panic!("not updated") };
        assert_eq!((made.get("aggregationRule"), &made["rules"]), (None, &expected["rules"]));
        expected["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]});
        let Step::Update(made) = reconcile(&plain, &expected) else { panic!("not updated") };
        assert_eq!(made["aggregationRule"], json!({"clusterRoleSelectors": [{"matchLabels": {"x": "y"}}, {"matchLabels": {"a": "b"}}]}));

        let group = |name: &str| json!({"kind": "Group", "name": name, "apiGroup": "rbac.authorization.k8s.io"});
        let binding = |role: &str, subjects: Value| json!({"kind": "ClusterRoleBinding", "metadata": {"name": "b"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role}, "subjects": subjects});
        let expected = binding("r", json!([group("a")]));
        assert_eq!(reconcile(&binding("other", json!([])), &expected), Step::Recreate);
        assert_eq!(reconcile(&binding("r", json!([group("b")])), &expected), Step::Update(binding("r", json!([group("b"), group("a")]))));
        assert_eq!(reconcile(&binding("r", json!([group("b"), group("a")])), &expected), Step::Nothing);
    }
}
