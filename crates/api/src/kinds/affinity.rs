//! Validation of where a pod may run: affinity, tolerations, topology spread.

use serde_json::{Value, json};

use super::json::{child, child_mut, list, list_mut, number, strings, text};
use crate::names;
use crate::validation::{Errors, Path};

const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

pub fn affinity(errors: &mut Errors, path: &Path, affinity: &Value) {
    if let Some(node) = child(affinity, "nodeAffinity") {
        let path = path.child("nodeAffinity");
        if let Some(required) = child(node, REQUIRED) {
            node_selector(errors, &path.child(REQUIRED), required);
        }
        let path = path.child(PREFERRED);
        for (index, term) in list(node, PREFERRED).iter().enumerate() {
            let path = path.index(index);
            weight(errors, &path, term);
            if let Some(preference) = child(term, "preference") {
                node_selector_term(errors, &path.child("preference"), preference);
            }
        }
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        let Some(pods) = child(affinity, kind) else { continue };
        let path = path.child(kind);
        let required = path.child(REQUIRED);
        for (index, term) in list(pods, REQUIRED).iter().enumerate() {
            pod_term(errors, &required.index(index), term);
        }
        let preferred = path.child(PREFERRED);
        for (index, weighted) in list(pods, PREFERRED).iter().enumerate() {
            let path = preferred.index(index);
            weight(errors, &path, weighted);
            if let Some(term) = child(weighted, "podAffinityTerm") {
                pod_term(errors, &path.child("podAffinityTerm"), term);
            }
        }
    }
}

fn weight(errors: &mut Errors, path: &Path, term: &Value) {
    let weight = number(term, "weight").unwrap_or(0);
    if !(1..=100).contains(&weight) {
        errors.invalid(&path.child("weight"), &weight, "must be in the range 1-100");
    }
}

/// `ValidateNodeSelector`.
pub fn node_selector(errors: &mut Errors, path: &Path, selector: &Value) {
    let path = path.child("nodeSelectorTerms");
    let terms = list(selector, "nodeSelectorTerms");
    if terms.is_empty() {
        errors.required(&path, "must have at least one node selector term");
    }
    for (index, term) in terms.iter().enumerate() {
        let path = path.index(index);
        node_selector_term(errors, &path, term);
        let expressions = path.child("matchExpressions");
        for (index, requirement) in list(term, "matchExpressions").iter().enumerate() {
            let path = expressions.index(index);
            let path = path.child("values");
            for (index, value) in strings(requirement, "values").enumerate() {
                errors.name(&path.index(index), value, names::label_value);
            }
        }
    }
}

fn node_selector_term(errors: &mut Errors, path: &Path, term: &Value) {
    let expressions = path.child("matchExpressions");
    for (index, requirement) in list(term, "matchExpressions").iter().enumerate() {
        let path = expressions.index(index);
        let values = list(requirement, "values");
        match text(requirement, "operator") {
            "In" | "NotIn" if values.is_empty() => errors.required(&path.child("values"), "must be specified when `operator` is 'In' or 'NotIn'"),
            "Exists" | "DoesNotExist" if !values.is_empty() => errors.forbidden(&path.child("values"), "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"),
            "Gt" | "Lt" if values.len() != 1 => errors.required(&path.child("values"), "must be specified single value when `operator` is 'Lt' or 'Gt'"),
            "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
            other => errors.invalid(&path.child("operator"), other, "not a valid selector operator"),
        }
        errors.name(&path.child("key"), text(requirement, "key"), names::qualified_name);
    }
    let fields = path.child("matchFields");
    for (index, requirement) in list(term, "matchFields").iter().enumerate() {
        let path = fields.index(index);
        match text(requirement, "operator") {
            "In" | "NotIn" => {
                if list(requirement, "values").len() != 1 {
                    errors.required(&path.child("values"), "must be only one value when `operator` is 'In' or 'NotIn' for node field selector");
                }
            }
            other => errors.invalid(&path.child("operator"), other, "not a valid selector operator"),
        }
        match text(requirement, "key") {
            "metadata.name" => {
                let path = path.child("values");
                for (index, value) in strings(requirement, "values").enumerate() {
                    errors.name(&path.index(index), value, names::dns_subdomain);
                }
            }
            other => errors.invalid(&path.child("key"), other, "not a valid field selector key"),
        }
    }
}

fn pod_term(errors: &mut Errors, path: &Path, term: &Value) {
    for name in ["labelSelector", "namespaceSelector"] {
        errors.label_selector(&path.child(name), child(term, name));
    }
    for namespace in strings(term, "namespaces") {
        errors.name(&path.child("namespace"), namespace, names::dns_label);
    }
    label_keys(errors, path, term);
    let key = text(term, "topologyKey");
    if key.is_empty() {
        errors.required(&path.child("topologyKey"), "can not be empty");
    }
    errors.name(&path.child("topologyKey"), key, names::qualified_name);
}

/// Label keys stand for "as this pod": their values go into the selectors when the pod is made (KEP-3633, KEP-3243).
pub fn merge_label_keys(pod: &mut Value) {
    let labels = child(pod, "metadata.labels").cloned().unwrap_or(Value::Null);
    let Some(spec) = child_mut(pod, "spec") else { return };
    for kind in ["affinity.podAffinity", "affinity.podAntiAffinity"] {
        let Some(pods) = child_mut(spec, kind) else { continue };
        list_mut(pods, REQUIRED).iter_mut().for_each(|term| merge(term, &labels));
        list_mut(pods, PREFERRED).iter_mut().filter_map(|weighted| child_mut(weighted, "podAffinityTerm")).for_each(|term| merge(term, &labels));
    }
    list_mut(spec, "topologySpreadConstraints").iter_mut().for_each(|constraint| merge(constraint, &labels));
}

fn merge(term: &mut Value, labels: &Value) {
    let mut added = Vec::new();
    for (keys, operator) in [("matchLabelKeys", "In"), ("mismatchLabelKeys", "NotIn")] {
        for key in strings(term, keys) {
            if let Some(value) = labels.get(key).and_then(Value::as_str) {
                added.push(json!({"key": key, "operator": operator, "values": [value]}));
            }
        }
    }
    if added.is_empty() {
        return;
    }
    if let Some(selector) = child_mut(term, "labelSelector").and_then(Value::as_object_mut)
        && let Some(expressions) = selector.entry("matchExpressions").or_insert_with(|| json!([])).as_array_mut()
    {
        expressions.extend(added);
    }
}

fn label_keys(errors: &mut Errors, path: &Path, term: &Value) {
    for name in ["matchLabelKeys", "mismatchLabelKeys"] {
        let list_path = path.child(name);
        if !list(term, name).is_empty() && child(term, "labelSelector").is_none() {
            errors.forbidden(&list_path, "must not be specified when labelSelector is not set");
        }
        for (index, key) in strings(term, name).enumerate() {
            errors.name(&list_path.index(index), key, names::qualified_name);
        }
    }
}

pub fn taint_effect(errors: &mut Errors, path: &Path, effect: &str, allow_empty: bool) {
    if effect.is_empty() && !allow_empty {
        errors.required(path, "");
    } else if !EFFECTS.contains(&effect) {
        errors.not_supported(path, effect, &EFFECTS);
    }
}

pub fn tolerations(errors: &mut Errors, path: &Path, tolerations: &[Value]) {
    for (index, toleration) in tolerations.iter().enumerate() {
        let path = path.index(index);
        let (key, operator, value, effect) = (text(toleration, "key"), text(toleration, "operator"), text(toleration, "value"), text(toleration, "effect"));
        if !key.is_empty() {
            errors.name(&path.child("key"), key, names::qualified_name);
        } else if operator != "Exists" {
            errors.invalid(&path.child("operator"), operator, "operator must be Exists when `key` is empty, which means \"match all values and all keys\"");
        }
        if number(toleration, "tolerationSeconds").is_some() && effect != "NoExecute" {
            errors.invalid(&path.child("effect"), effect, "effect must be 'NoExecute' when `tolerationSeconds` is set");
        }
        match operator {
            "Equal" | "" => {
                let wrong = names::label_value(value);
                if !wrong.is_empty() {
                    errors.invalid(&path.child("operator"), value, &wrong.join(";"));
                }
            }
            "Exists" if !value.is_empty() => errors.invalid(&path.child("operator"), value, "value must be empty when `operator` is 'Exists'"),
            "Exists" => {}
            "Lt" | "Gt" => errors.not_supported(&path.child("operator"), operator, &["Equal", "Exists", "Lt", "Gt"]),
            other => errors.not_supported(&path.child("operator"), other, &["Equal", "Exists"]),
        }
        if !effect.is_empty() {
            taint_effect(errors, &path.child("effect"), effect, true);
        }
    }
}

pub fn topology_spread(errors: &mut Errors, path: &Path, constraints: &[Value]) {
    for (index, constraint) in constraints.iter().enumerate() {
        let path = path.index(index);
        let positive = |errors: &mut Errors, name: &str, value: i64| {
            if value <= 0 {
                errors.invalid(&path.child(name), &value, "must be greater than zero");
            }
        };
        positive(errors, "maxSkew", number(constraint, "maxSkew").unwrap_or(0));
        let (key, action) = (text(constraint, "topologyKey"), text(constraint, "whenUnsatisfiable"));
        if key.is_empty() {
            errors.required(&path.child("topologyKey"), "can not be empty");
        }
        if !matches!(action, "DoNotSchedule" | "ScheduleAnyway") {
            errors.not_supported(&path.child("whenUnsatisfiable"), action, &["DoNotSchedule", "ScheduleAnyway"]);
        }
        if constraints[index + 1..].iter().any(|other| text(other, "topologyKey") == key && text(other, "whenUnsatisfiable") == action) {
            errors.duplicate(&path.child("{topologyKey, whenUnsatisfiable}"), format!("{{{key}, {action}}}").as_str());
        }
        if let Some(domains) = number(constraint, "minDomains") {
            positive(errors, "minDomains", domains);
            if action != "DoNotSchedule" {
                errors.invalid(&path.child("minDomains"), &domains, &format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}"));
            }
        }
        for name in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            if let Some(policy) = child(constraint, name).and_then(Value::as_str).filter(|policy| !matches!(*policy, "Honor" | "Ignore")) {
                errors.not_supported(&path.child(name), policy, &["Honor", "Ignore"]);
            }
        }
        label_keys(errors, &path, constraint);
        errors.label_selector(&path.child("labelSelector"), child(constraint, "labelSelector"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_keys_become_requirements() {
        let mut pod = json!({"metadata": {"labels": {"pod-template-hash": "abc"}}, "spec": {
            "affinity": {"podAntiAffinity": {REQUIRED: [{"topologyKey": "h", "labelSelector": {"matchLabels": {"app": "web"}}, "matchLabelKeys": ["pod-template-hash", "absent"]}]}},
            "topologySpreadConstraints": [{"matchLabelKeys": ["pod-template-hash"]}]}});
        merge_label_keys(&mut pod);
        assert_eq!(
            pod["spec"]["affinity"]["podAntiAffinity"][REQUIRED][0]["labelSelector"],
            json!({"matchLabels": {"app": "web"}, "matchExpressions": [{"key": "pod-template-hash", "operator": "In", "values": ["abc"]}]})
        );
        assert!(pod["spec"]["topologySpreadConstraints"][0].get("labelSelector").is_none());
    }
}
