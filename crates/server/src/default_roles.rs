//! The roles and bindings every cluster starts with, read from `default_roles.txt`.
//!
//! Mirrors plugin/pkg/auth/authorizer/rbac/bootstrappolicy. Aggregating roles come out with the rules of what they aggregate, as the controller would leave them.

use serde_json::{Map, Value, json};

use crate::aggregation;

const TEXT: &str = include_str!("default_roles.txt");
const LAYERS: usize = 3;
const GROUP: &str = "rbac.authorization.k8s.io";

/// Every role and binding, in the order of the file.
pub fn all() -> Vec<Value> {
    let mut objects: Vec<Value> = Vec::new();
    for line in TEXT.lines().filter(|line| !line.starts_with('#')) {
        if let Some(line) = line.strip_prefix("  ") {
            if let Some(list) = objects.last_mut().and_then(|role| role.get_mut("rules")).and_then(Value::as_array_mut) {
                list.push(rule(line));
            }
        } else {
            objects.extend(head(line));
        }
    }
    // A role may aggregate one that aggregates itself (`admin` of `edit` of `view`): a pass for each layer.
    for _ in 0..LAYERS {
        let roles = objects.clone();
        for role in objects.iter_mut().filter(|object| object.get("aggregationRule").is_some()) {
            role["rules"] = aggregation::rules(role, &roles).into();
        }
    }
    objects
}

fn list(text: &str) -> Vec<&str> {
    text.split(',').map(|word| if word == "\"\"" { "" } else { word }).collect()
}

fn rule(line: &str) -> Value {
    let words: Vec<&str> = line.split(' ').collect();
    match words.as_slice() {
        [verbs, "@", paths] => json!({"verbs": list(verbs), "nonResourceURLs": list(paths)}),
        [verbs, groups, resources] => json!({"verbs": list(verbs), "apiGroups": list(groups), "resources": list(resources)}),
        [verbs, groups, resources, names] => json!({"verbs": list(verbs), "apiGroups": list(groups), "resources": list(resources), "resourceNames": list(names)}),
        _ => Value::Null,
    }
}

fn head(line: &str) -> Option<Value> {
    let mut words = line.split(' ');
    let (kind, name) = (words.next()?, words.next()?);
    let (namespace, name) = name.split_once('/').map_or((None, name), |(namespace, name)| (Some(namespace), name));
    let mut object = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": kind,
        "metadata": {"name": name, "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"}, "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"}},
    });
    if let Some(namespace) = namespace {
        object["metadata"]["namespace"] = namespace.into();
    }
    if kind.ends_with("Binding") {
        let (role_kind, role) = words.next()?.split_once('/')?;
        object["roleRef"] = json!({"apiGroup": GROUP, "kind": role_kind, "name": role});
        let subjects: Vec<Value> = words.filter_map(subject).collect();
        if !subjects.is_empty() {
            object["subjects"] = subjects.into();
        }
        return Some(object);
    }
    object["rules"] = json!([]);
    let mut selectors = Vec::new();
    for word in words {
        let (key, value) = word.split_once('=')?;
        match key.strip_prefix("from:") {
            Some(key) => selectors.push(json!({"matchLabels": Map::from_iter([(key.to_owned(), Value::from(value))])})),
            None => object["metadata"]["labels"][key] = value.into(),
        }
    }
    if !selectors.is_empty() {
        object["aggregationRule"] = json!({"clusterRoleSelectors": selectors});
    }
    Some(object)
}

fn subject(word: &str) -> Option<Value> {
    let (kind, name) = word.split_once(':')?;
    Some(match name.split_once('/') {
        Some((namespace, name)) if kind == "ServiceAccount" => json!({"kind": kind, "name": name, "namespace": namespace}),
        _ => json!({"kind": kind, "name": name, "apiGroup": GROUP}),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_understood() {
        let objects = all();
        let count = |kind: &str| objects.iter().filter(|object| object["kind"] == kind).count();
        assert!(count("ClusterRole") > 60 && count("ClusterRoleBinding") > 40 && count("Role") == 7 && count("RoleBinding") == 7);
        for object in &objects {
            let rules = object.get("rules").and_then(Value::as_array).cloned().unwrap_or_default();
            assert!(rules.iter().all(|rule| rule.is_object()), "{object}");
        }
        let rules = |name: &str| objects.iter().find(|object| object["metadata"]["name"] == name).map(|role| role["rules"].to_string()).unwrap_or_default();
        // `admin` aggregates `edit`, which aggregates `view`.
        for (role, holds) in [("admin", "localsubjectaccessreviews"), ("admin", "pods/exec"), ("admin", "networkpolicies"), ("edit", "serviceaccounts/token"), ("view", "pods/log")] {
            assert!(rules(role).contains(holds), "{role}: {holds}");
        }
        assert!(!rules("view").contains("secrets"));
    }
}
