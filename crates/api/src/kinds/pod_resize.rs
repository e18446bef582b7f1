//! The `resize` subresource of pods: containers' cpu, memory and resize policy change, nothing else. Mirrors podResizeStrategy of pkg/registry/core/pod and
//! ValidatePodResize of pkg/apis/core/validation.

use serde_json::{Map, Value};

use super::json::{child, child_mut, empty, list, map, map_mut, set, text};
use super::{pod_defaults, pod_spec, qos};
use crate::status::Cause;
use crate::validation::{Errors, Path, same};

const LISTS: [&str; 2] = ["containers", "initContainers"];
const RESIZABLE: [&str; 2] = ["cpu", "memory"];

/// What a resize does not speak of stays. Containers that were added or taken away are left for validation to refuse.
pub fn prepare(new: &mut Value, old: &Value) {
    let asked = new.clone();
    let version = child(new, "metadata.resourceVersion").cloned();
    *new = old.clone();
    let Some(spec) = child_mut(new, "spec") else { return };
    for name in LISTS {
        let wanted = child(&asked, "spec").map_or(&[][..], |spec| list(spec, name));
        let made: Vec<Value> = wanted.iter().map(|wanted| resized(wanted, child(old, "spec").map_or(&[][..], |spec| list(spec, name)))).collect();
        if made.is_empty() && spec.get(name).is_none() {
            continue;
        }
        set(spec, name, Value::Array(made));
    }
    if let (Some(metadata), Some(version)) = (map_mut(new, "metadata"), version) {
        metadata.insert("resourceVersion".to_owned(), version);
    }
    pod_defaults::pod(new);
    crate::strategy::bump_generation(new, old, &[]);
}

fn resized(wanted: &Value, olds: &[Value]) -> Value {
    let Some(old) = olds.iter().find(|old| text(old, "name") == text(wanted, "name")) else { return wanted.clone() };
    let mut container = old.clone();
    set(&mut container, "resources", child(wanted, "resources").cloned().unwrap_or_else(empty));
    if let Some(policy) = child(wanted, "resizePolicy") {
        set(&mut container, "resizePolicy", policy.clone());
    }
    container
}

pub fn validate(new: &Value, old: &Value) -> Vec<Cause> {
    let mut errors = Errors::new();
    let path = Path::Root("spec");
    pod_spec::pod_spec(&mut errors, &path, new, true);
    if qos::class(new) != qos::class(old) {
        let shown = text(new, "status.qosClass");
        errors.invalid(&path, if shown.is_empty() { qos::class(old) } else { shown }, "Pod QOS Class may not change as a result of resizing");
    }
    let before = errors.len();
    for name in LISTS {
        same_containers(&mut errors, &path.child(name), name, containers(new, name), containers(old, name));
    }
    if errors.len() > before {
        return errors.into_causes();
    }
    for name in ["initContainers", "containers"] {
        for (index, (now, then)) in containers(new, name).iter().zip(containers(old, name)).enumerate().filter(|(_, (_, then))| name == "containers" || sidecar(then)) {
            let (list_path, nothing) = (path.child(name), Map::new());
            let container = list_path.index(index);
            let resources = container.child("resources");
            for (kind, what) in [("requests", "resource requests cannot be removed"), ("limits", "resource limits cannot be removed")] {
                let of = |container: &Value| child(container, "resources").and_then(|resources| map(resources, kind)).unwrap_or(&nothing).clone();
                let (now, then) = (of(now), of(then));
                if then.keys().any(|name| !now.contains_key(name)) {
                    errors.forbidden(&resources.child(kind), what);
                }
            }
        }
    }
    for (now, then) in containers(new, "containers").iter().zip(containers(old, "containers")) {
        if !same(Some(&without_resizable(now)), Some(&without_resizable(then))) {
            errors.forbidden(&path, "only cpu and memory resources are mutable");
        }
    }
    for (index, (now, then)) in containers(new, "initContainers").iter().zip(containers(old, "initContainers")).enumerate() {
        if !sidecar(then) {
            if !same(Some(now), Some(then)) {
                errors.forbidden(&path, "resources for non-sidecar init containers are immutable");
            }
        } else if !same(Some(&without_resizable(now)), Some(&without_resizable(then))) {
            errors.forbidden(&path.child("initContainers").index(index), "only cpu and memory resources for init or sidecar containers are mutable");
        }
    }
    errors.into_causes()
}

fn containers<'a>(pod: &'a Value, name: &str) -> &'a [Value] {
    child(pod, "spec").map_or(&[][..], |spec| list(spec, name))
}

fn sidecar(container: &Value) -> bool {
    text(container, "restartPolicy") == "Always"
}

fn same_containers(errors: &mut Errors, path: &Path, name: &str, new: &[Value], old: &[Value]) {
    if new.len() != old.len() {
        return errors.forbidden(path, &format!("{name} may not be added or removed on resize"));
    }
    for (index, _) in new.iter().zip(old).enumerate().filter(|(_, (new, old))| text(new, "name") != text(old, "name")) {
        errors.forbidden(&path.index(index).child("name"), &format!("{name} may not be renamed or reordered on resize"));
    }
}

/// All of a container that a resize may not change.
fn without_resizable(container: &Value) -> Value {
    let mut rest = container.clone();
    let Some(map) = rest.as_object_mut() else { return rest };
    map.remove("resizePolicy");
    let mut kept = Map::new();
    for kind in ["requests", "limits"] {
        let mut amounts = container.get("resources").and_then(|resources| resources.get(kind)).and_then(Value::as_object).cloned().unwrap_or_default();
        amounts.retain(|name, _| !RESIZABLE.contains(&name.as_str()));
        if !amounts.is_empty() {
            kept.insert(kind.to_owned(), Value::Object(amounts));
        }
    }
    map.insert("resources".to_owned(), Value::Object(kept));
    rest
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::tests::lines;

    #[test]
    fn what_a_resize_may_change() {
        let pod = |containers: Value| {
            let mut pod = json!({"metadata": {"name": "p", "namespace": "n", "generation": 1}, "spec": {"containers": containers}, "status": {}});
            super::pod_defaults::pod(&mut pod);
            pod
        };
        let one = |requests: Value, limits: Value| json!([{"name": "c", "image": "i", "resources": {"requests": requests, "limits": limits}}]);
        let old = pod(one(json!({"cpu": "1", "memory": "1Gi"}), json!({})));
        for (containers, told) in [
            (one(json!({"cpu": "2", "memory": "1Gi"}), json!({})), vec![]),
            (one(json!({"cpu": "1"}), json!({})), vec!["spec.containers[0].resources.requests: Forbidden: resource requests cannot be removed"]),
            (one(json!({"cpu": "1", "memory": "1Gi", "ephemeral-storage": "1"}), json!({})), vec!["spec: Forbidden: only cpu and memory resources are mutable"]),
            (json!([{"name": "z", "image": "i", "resources": {"requests": {"cpu": "1"}}}]), vec!["spec.containers[0].name: Forbidden: containers may not be renamed or reordered on resize"]),
            (
                json!([{"name": "c", "image": "i", "resources": {"requests": {"cpu": "1", "memory": "1Gi"}}}, {"name": "z", "image": "i"}]),
                vec!["spec.containers: Forbidden: containers may not be added or removed on resize"],
            ),
            (one(json!({}), json!({})), vec![
                "spec: Invalid value: \"Burstable\": Pod QOS Class may not change as a result of resizing",
                "spec.containers[0].resources.requests: Forbidden: resource requests cannot be removed",
            ]),
        ] {
            let mut new = pod(containers);
            super::prepare(&mut new, &old);
            assert_eq!(lines(&super::validate(&new, &old)), told);
        }
    }
}
