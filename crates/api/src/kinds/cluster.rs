//! Namespaces, Nodes, ServiceAccounts, Leases, Events, PodTemplates.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::affinity::taint_effect;
use super::resources::resource_quantity;
use super::json::{child, child_mut, default, empty, ensure, flag, list, list_mut, map, number, set, strings, text};
use super::policy::{BUILT_IN, CHANGE, Generation, NEITHER, Policy, WHOLE};
use super::{pod_defaults, pod_spec, service, workload};
use crate::names;
use crate::internal::{self, Internal};
use crate::validation::{Errors, Path, Raw, Shown, go_quote, is_empty, same};

const NAME_LABEL: &str = "kubernetes.io/metadata.name";

fn label_with_name(object: &mut Value) {
    let name = text(object, "metadata.name").to_owned();
    if !name.is_empty()
        && let Some(labels) = ensure(object, "metadata.labels")
    {
        labels.insert(NAME_LABEL.to_owned(), name.into());
    }
}

fn finalizer_names(errors: &mut Errors, object: &Value, indexed: bool) {
    let path = Path::Root("spec.finalizers");
    for (index, name) in strings(object, "spec.finalizers").enumerate() {
        let item = path.index(index);
        let path = if indexed { &item } else { &path };
        errors.name(path, name, names::qualified_name);
        if !name.contains('/') && !matches!(name, "kubernetes" | "orphan" | "foregroundDeletion") {
            errors.invalid(path, name, "name is neither a standard finalizer name nor is it fully qualified");
        }
    }
}

pub static NAMESPACE: Policy = Policy {
    status: true,
    defaults: |object| {
        label_with_name(object);
        if let Some(status) = workload::nested(object, "status") {
            default(status, "phase", "Active");
        }
    },
    on_create: |object, _| {
        label_with_name(object);
        set(object, "status", json!({"phase": "Active"}));
        let mut finalizers: Vec<String> = strings(object, "spec.finalizers").map(str::to_owned).collect();
        if !finalizers.iter().any(|one| one == "kubernetes") {
            finalizers.push("kubernetes".to_owned());
        }
        if let Some(spec) = ensure(object, "spec") {
            spec.insert("finalizers".to_owned(), finalizers.into());
        }
    },
    on_update: |new, old, _| {
        label_with_name(new);
        let finalizers = child(old, "spec.finalizers").cloned();
        if let Some(spec) = ensure(new, "spec") {
            match finalizers {
                Some(finalizers) => spec.insert("finalizers".to_owned(), finalizers),
                None => spec.remove("finalizers"),
            };
        }
    },
    check: |errors, object| finalizer_names(errors, object, false),
    check_status: |errors, new, _| {
        let expected = if child(new, "metadata.deletionTimestamp").is_none() { "Active" } else { "Terminating" };
        let phase = text(new, "status.phase");
        if phase != expected {
            let not = if expected == "Active" { "" } else { "not " };
            errors.invalid(&Path::Root("status.Phase"), phase, &format!("may only be '{expected}' if `deletionTimestamp` is {not}empty"));
        }
    },
    selectable: |object, field| match field {
        "status.phase" => Some(text(object, field).to_owned()),
        "name" => Some(text(object, "metadata.name").to_owned()),
        _ => None,
    },
    ..BUILT_IN
};

/// The `finalize` subresource: only `spec.finalizers` and metadata change.
pub fn validate_finalize(namespace: &Value) -> Vec<crate::status::Cause> {
    let mut errors = Errors::new();
    finalizer_names(&mut errors, namespace, true);
    errors.into_causes()
}

/// Nodes come with their status: the kubelet writes it when it registers.
/// `MyFeature/mySubFeature`, in order, each once.
fn declared_features(errors: &mut Errors, path: &Path, features: &[&str]) {
    let word = |text: &str, upper: bool| text.starts_with(|ch: char| if upper { ch.is_ascii_uppercase() } else { ch.is_ascii_alphabetic() }) && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    for (index, feature) in features.iter().enumerate() {
        let why = if feature.len() > names::DNS_SUBDOMAIN_MAX {
            Some(format!("must be no more than {} characters", names::DNS_SUBDOMAIN_MAX))
        } else if !feature.split('/').enumerate().all(|(at, part)| word(part, at == 0)) {
            Some("must start with an UpperCamelCase segment, with subsequent segments separated by '/' (e.g., MyFeature or MyFeature/mySubFeature), and contain only alphanumeric characters and slashes".to_owned())
        } else {
            None
        };
        if let Some(why) = why {
            errors.invalid(&path.index(index), *feature, &format!("invalid feature name {}: {why}", go_quote(feature)));
        }
        match features.get(index + 1) {
            Some(next) if next == feature => errors.duplicate(&path.index(index + 1), *next),
            Some(next) if feature > next => errors.invalid(&path.index(index + 1), *next, "list must be sorted alphabetically"),
            _ => {}
        }
    }
}

pub static NODE: Policy = Policy {
    defaults: |object| {
        if child(object, "status.allocatable").is_none()
            && let Some(capacity) = child(object, "status.capacity").cloned()
            && let Some(status) = child_mut(object, "status")
        {
            set(status, "allocatable", capacity);
        }
        default(object, "spec", empty());
        default(object, "status", empty());
        if let Some(spec) = child_mut(object, "spec") {
            pod_cidrs(spec);
        }
    },
    on_update: |new, old, _| crate::strategy::keep(new, old, "status"),
    check: |errors, object| {
        taints(errors, &Path::Root("metadata.taints"), list(object, "spec.taints"));
        for name in ["capacity", "allocatable"] {
            node_resources(errors, name, child(object, "status").and_then(|status| status.get(name)));
        }
    },
    check_create: check_ranges,
    check_update: |errors, new, old| {
        check_ranges(errors, new);
        for name in ["capacity", "allocatable"] {
            node_resources(errors, name, child(new, "status").and_then(|status| status.get(name)));
        }
        if !list(old, "spec.podCIDRs").is_empty() && !same(child(new, "spec.podCIDRs"), child(old, "spec.podCIDRs")) {
            errors.forbidden(&Path::Root("spec.podCIDRs"), "node updates may not change podCIDR except from \"\" to valid");
        }
        if !text(old, "spec.providerID").is_empty() && text(new, "spec.providerID") != text(old, "spec.providerID") {
            errors.forbidden(&Path::Root("spec.providerID"), "node updates may not change providerID except from \"\" to valid");
        }
        // Told by both of upstream's functions.
        taints(errors, &Path::Root("metadata.taints"), list(new, "spec.taints"));
        if text(new, "spec.externalID") != text(old, "spec.externalID") {
            errors.forbidden(&Path::Root("spec.externalID"), "may not be updated");
        }
    },
    check_status: |errors, new, _| {
        let path = Path::Root("status.addresses");
        let addresses = list(new, "status.addresses");
        let mut seen = BTreeSet::new();
        for (index, address) in addresses.iter().enumerate() {
            if !seen.insert(address.to_string()) {
                errors.duplicate(&path.index(index), address);
            }
        }
        for name in ["capacity", "allocatable"] {
            node_resources(errors, name, child(new, "status").and_then(|status| status.get(name)));
        }
        declared_features(errors, &Path::Root("status.declaredFeatures"), &strings(new, "status.declaredFeatures").collect::<Vec<_>>());
    },
    selectable: |object, field| (field == "spec.unschedulable").then(|| flag(object, field).to_string()),
    ..BUILT_IN
};

fn check_ranges(errors: &mut Errors, object: &Value) {
    let path = Path::Root("spec.podCIDRs");
    for (index, range) in strings(object, "spec.podCIDRs").enumerate() {
        service::cidr(errors, &path.index(index), range);
    }
    let families: Vec<bool> = strings(object, "spec.podCIDRs").map(|range| range.contains(':')).collect();
    if families.len() > 1 && (families.len() > 2 || families[0] == families[1]) {
        errors.invalid(&path, child(object, "spec.podCIDRs").unwrap_or(&Value::Null), "may specify no more than one CIDR for each IP family");
    }
}

/// `podCIDR` is the first of `podCIDRs`; who writes one writes both.
fn pod_cidrs(spec: &mut Value) {
    let single = text(spec, "podCIDR").to_owned();
    let first = strings(spec, "podCIDRs").next().unwrap_or_default().to_owned();
    if single.is_empty() && !first.is_empty() {
        set(spec, "podCIDR", first);
    } else if first != single {
        // Where they differ, who wrote the one alone is believed.
        set(spec, "podCIDRs", vec![single]);
    }
}

fn node_resources(errors: &mut Errors, list_name: &str, resources: Option<&Value>) {
    let root = Path::Root("status");
    let path = root.child(list_name);
    for (name, value) in resources.and_then(Value::as_object).into_iter().flatten() {
        resource_quantity(errors, &path.child(name), name, value);
    }
}

fn taints(errors: &mut Errors, path: &Path, taints: &[Value]) {
    let mut seen = BTreeSet::new();
    for (index, taint) in taints.iter().enumerate() {
        let path = path.index(index);
        let (key, value, effect) = (text(taint, "key"), text(taint, "value"), text(taint, "effect"));
        errors.name(&path.child("key"), key, names::qualified_name);
        let wrong = names::label_value(value);
        if !wrong.is_empty() {
            errors.invalid(&path.child("value"), value, &wrong.join(";"));
        }
        taint_effect(errors, &path.child("effect"), effect, false);
        if !seen.insert((effect, key)) {
            errors.duplicate(&path, &Raw(&format!("{}: taints must be unique by key and effect pair", Internal("core.v1.Taint", Some(taint)).shown())));
        }
    }
}

/// Of the secrets an account names, nothing but the names is kept (`cleanSecretReferences`).
fn only_names(object: &mut Value) {
    for secret in list_mut(object, "secrets") {
        if let Some(map) = secret.as_object_mut() {
            map.retain(|field, _| field == "name");
        }
    }
}

pub static SERVICE_ACCOUNT: Policy = Policy { on_create: |object, _| only_names(object), on_update: |new, _, _| only_names(new), ..BUILT_IN };

pub static LEASE: Policy = Policy {
    metadata_again: CHANGE,
    create_on_update: true,
    unconditional_update: false,
    defaults: |object| {
        default(object, "spec", empty());
        // Coordinated leader election is behind a gate that is closed (CoordinatedLeaderElection).
        if let Some(spec) = super::json::map_mut(object, "spec") {
            ["strategy", "preferredHolder"].into_iter().for_each(|name| drop(spec.remove(name)));
        }
    },
    check: |errors, object| {
        let path = Path::Root("spec");
        if let Some(seconds) = number(object, "spec.leaseDurationSeconds").filter(|seconds| *seconds <= 0) {
            errors.invalid(&path.child("leaseDurationSeconds"), &seconds, "must be greater than 0");
        }
        errors.not_negative(&path.child("leaseTransitions"), number(object, "spec.leaseTransitions"));
    },
    ..BUILT_IN
};

/// Of the core group, and of `events.k8s.io`.
pub static EVENT: Policy = Policy { metadata_again: NEITHER, ..ANY_EVENT };
pub static NEW_EVENT: Policy = Policy { metadata_again: CHANGE, ..ANY_EVENT };

const ANY_EVENT: Policy = Policy {
    create_on_update: true,
    defaults: |object| {
        if child(object, "regarding").is_some() || child(object, "note").is_some() || child(object, "reportingController").is_some() {
            return;
        }
        // Upstream's struct always shows these.
        for name in ["reportingComponent", "reportingInstance"] {
            if object.get(name).is_none() {
                set(object, name, "");
            }
        }
        for name in ["metadata", "involvedObject", "source"] {
            default(object, name, empty());
        }
    },
    check: check_event,
    selectable: |object, field| {
        let either = |a: &str, b: &str| Some(if text(object, a).is_empty() { text(object, b) } else { text(object, a) }.to_owned());
        match field {
            "reason" | "type" => Some(text(object, field).to_owned()),
            "source" => {
                let source = either("source.component", "deprecatedSource.component")?;
                if source.is_empty() { either("reportingComponent", "reportingController") } else { Some(source) }
            }
            "reportingComponent" | "reportingController" => either("reportingComponent", "reportingController"),
            _ => {
                let field = field.strip_prefix("involvedObject.").or_else(|| field.strip_prefix("regarding."))?;
                matches!(field, "kind" | "namespace" | "name" | "uid" | "apiVersion" | "resourceVersion" | "fieldPath").then(|| either(&format!("involvedObject.{field}"), &format!("regarding.{field}")))?
            }
        }
    },
    ..BUILT_IN
};

/// What events have to be beyond `check_event` when they come by events.k8s.io (`ValidateEventCreate` and `…Update`), in the form they are stored in.
pub fn new_event(new: &Value, old: Option<&Value>) -> Vec<crate::status::Cause> {
    const SERIES_MIN: i64 = 2;
    let mut errors = Errors::new();
    if child(new, "series").is_some() && old.is_none_or(|old| !same(new.get("series"), old.get("series"))) {
        if number(new, "series.count").unwrap_or(0) < SERIES_MIN {
            errors.invalid(&Path::Root("series.count"), "", "should be at least 2");
        }
        if text(new, "series.lastObservedTime").is_empty() {
            errors.required(&Path::Root("series.lastObservedTime"), "");
        }
    }
    let Some(old) = old else {
        if text(new, "eventTime").is_empty() {
            errors.required(&Path::Root("eventTime"), "");
        }
        let kind = text(new, "type");
        if !matches!(kind, "Normal" | "Warning") {
            errors.invalid(&Path::Root("type"), "", &format!("has invalid value: {kind}"));
        }
        for name in ["firstTimestamp", "lastTimestamp", "count", "source"] {
            let given = match new.get(name) {
                Some(Value::Object(source)) => source.values().any(|value| !is_empty(Some(value))),
                Some(Value::Number(count)) => count.as_i64() != Some(0),
                other => !is_empty(other),
            };
            if given {
                errors.invalid(&Path::Root(name), "", "needs to be unset");
            }
        }
        return errors.into_causes();
    };
    for name in [
        "involvedObject", "reason", "message", "source", "firstTimestamp", "lastTimestamp", "count", "type", "eventTime", "action", "related", "reportingComponent", "reportingInstance",
    ] {
        let before = errors.len();
        internal::immutable(&mut errors, &Path::Root(""), "core.v1.Event", name, Some(new), Some(old));
        if name == "reportingComponent" && errors.len() > before {
            errors.rename_last("reportingController");
        }
    }
    errors.into_causes()
}

/// `legacyValidateEvent`: an event with an `eventTime` has to say who reports what.
fn check_event(errors: &mut Errors, object: &Value) {
    const REASON_MAX: usize = 128;
    const NOTE_MAX: usize = 1024;
    let involved = child(object, "involvedObject").map_or("", |involved| text(involved, "namespace"));
    let namespace = text(object, "metadata.namespace");
    let timed = !text(object, "eventTime").is_empty();
    let fits = match involved {
        "" => matches!(namespace, "" | "default") || (timed && namespace == "kube-system"),
        involved => timed || namespace == involved,
    };
    if !fits {
        errors.invalid(&Path::Root("involvedObject.namespace"), involved, "does not match event.namespace");
    }
    if !timed {
        return;
    }
    let controller = "reportingComponent";
    match text(object, controller) {
        "" => {
            errors.required(&Path::Root(controller), "");
            errors.name(&Path::Root(controller), "", names::qualified_name);
        }
        name => errors.name(&Path::Root(controller), name, names::qualified_name),
    }
    let long = |errors: &mut Errors, name: &str, max: usize| {
        if text(object, name).len() > max {
            errors.invalid(&Path::Root(name), "", &format!("can have at most {max} characters"));
        }
    };
    for name in ["reportingInstance", "action", "reason"] {
        if text(object, name).is_empty() {
            errors.required(&Path::Root(name), "");
        }
        long(errors, name, REASON_MAX);
    }
    long(errors, "message", NOTE_MAX);
}

pub static POD_TEMPLATE: Policy = Policy {
    metadata_again: CHANGE,
    generation: Generation::Content,
    defaults: |object| {
        if let Some(template) = child_mut(object, "template") {
            pod_defaults::template(template);
        }
    },
    check: |errors, object| {
        let none = Value::Null;
        pod_spec::template(errors, &Path::Root("template"), child(object, "template").unwrap_or(&none));
    },
    warnings: |object, warnings| {
        if let Some(template) = child(object, "template") {
            super::pod_warnings::pod_spec("template.spec", template, warnings);
        }
    },
    ..BUILT_IN
};

pub static LIMIT_RANGE: Policy = Policy {
    metadata_again: WHOLE,
    create_on_update: true,
    defaults: |object| {
        for item in list_mut(object, "spec.limits") {
            if text(item, "type") != "Container" {
                continue;
            }
            let mut defaults = map(item, "default").cloned().unwrap_or_default();
            for (name, value) in map(item, "max").into_iter().flatten() {
                defaults.entry(name.clone()).or_insert_with(|| value.clone());
            }
            let mut requests = map(item, "defaultRequest").cloned().unwrap_or_default();
            for (name, value) in defaults.iter().chain(map(item, "min").into_iter().flatten()) {
                requests.entry(name.clone()).or_insert_with(|| value.clone());
            }
            for (name, values) in [("default", defaults), ("defaultRequest", requests)] {
                if !values.is_empty() {
                    set(item, name, Value::Object(values));
                }
            }
        }
    },
    check: super::quota::check_limit_range,
    ..BUILT_IN
};

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::{create, lines, update};

    #[test]
    fn namespaces() {
        let (made, causes) = create("", "namespaces", json!({"metadata": {"name": "blue"}}));
        assert!(causes.is_empty());
        assert_eq!(made, json!({"metadata": {"name": "blue", "labels": {"kubernetes.io/metadata.name": "blue"}}, "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}}));
        let mut changed = made.clone();
        changed["metadata"]["labels"] = json!({"a": "b"});
        changed["spec"] = json!({});
        let (changed, _) = update("", "namespaces", changed, &made);
        assert_eq!(changed["metadata"]["labels"], json!({"a": "b", "kubernetes.io/metadata.name": "blue"}));
        assert_eq!(changed["spec"], made["spec"]);
    }

    #[test]
    fn nodes() {
        let (made, causes) = create("", "nodes", json!({"metadata": {"name": "n"}, "status": {"capacity": {"cpu": "2"}}}));
        assert!(causes.is_empty());
        assert_eq!(made["status"]["allocatable"], json!({"cpu": "2"}));
        let mut tainted = made.clone();
        tainted["spec"]["taints"] = json!([{"key": "a", "effect": "Foo"}]);
        let (_, causes) = update("", "nodes", tainted, &made);
        // Twice, as upstream.
        assert_eq!(lines(&causes), ["metadata.taints[0].effect: Unsupported value: \"Foo\": supported values: \"NoSchedule\", \"PreferNoSchedule\", \"NoExecute\""; 2]);
    }

    #[test]
    fn events() {
        let old = json!({"apiVersion": "v1", "metadata": {"name": "e", "namespace": "default"}, "involvedObject": {"kind": "Node", "name": "n"}});
        assert!(create("", "events", old).1.is_empty());
        let bad = json!({"apiVersion": "v1", "metadata": {"name": "e", "namespace": "blue"}, "involvedObject": {"namespace": "red"}});
        assert_eq!(lines(&create("", "events", bad).1), ["involvedObject.namespace: Invalid value: \"red\": does not match event.namespace"]);
        // As it is stored.
        let new = json!({"metadata": {"name": "e", "namespace": "default"}, "type": "Odd", "reason": "r", "action": "a", "count": 1, "source": {}, "series": {"count": 1}});
        assert_eq!(
            lines(&super::new_event(&new, None)),
            [
                "series.count: Invalid value: \"\": should be at least 2",
                "series.lastObservedTime: Required value",
                "eventTime: Required value",
                "type: Invalid value: \"\": has invalid value: Odd",
                "count: Invalid value: \"\": needs to be unset",
            ]
        );
        let mut changed = new.clone();
        changed["reason"] = json!("other");
        assert_eq!(lines(&super::new_event(&changed, Some(&new))), ["reason: Invalid value: \"other\": field is immutable"]);
        let timed = json!({"apiVersion": "v1", "metadata": {"name": "e", "namespace": "default"}, "eventTime": "2026-01-01T00:00:00.000000Z", "reason": "r", "action": "a"});
        assert_eq!(lines(&create("", "events", timed).1), [
                "reportingComponent: Required value",
                "reportingComponent: Invalid value: \"\": name part must be non-empty",
                "reportingComponent: Invalid value: \"\": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')",
                "reportingInstance: Required value",
            ]);
    }
}
