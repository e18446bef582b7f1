//! Pods: defaults, what may be created and changed, grace, selectable fields. Mirrors pkg/registry/core/pod/strategy.go and ValidatePod*.

use serde_json::Value;

use super::json::{child, child_mut, list, list_mut, map_mut, number, set, text};
use super::policy::{BUILT_IN, Generation, Policy};
use super::{diff, pod_defaults, pod_spec, pod_warnings};
use crate::names;
use crate::internal::{self, Internal};
use crate::validation::{Errors, IMMUTABLE, Path, same};

const MIRROR: &str = "kubernetes.io/config.mirror";
const UPDATABLE: &str = "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

const SPEC: &str = "core.v1.PodSpec";

pub static POD: Policy = Policy {
    generation: Generation::Spec,
    status: true,
    defaults: pod_defaults::pod,
    on_create: |pod, _| {
        if let Some(spec) = child_mut(pod, "spec") {
            pod_defaults::service_account(spec);
        }
        super::affinity::merge_label_keys(pod);
        let status = pod_defaults::initial_status(pod);
        set(pod, "status", status);
    },
    on_update: |pod, _, _| {
        if let Some(spec) = child_mut(pod, "spec") {
            pod_defaults::service_account(spec);
        }
    },
    on_status: |new, old, _| {
        let owners = child(old, "metadata.ownerReferences").cloned();
        if let Some(metadata) = map_mut(new, "metadata") {
            match owners {
                Some(owners) => metadata.insert("ownerReferences".to_owned(), owners),
                None => metadata.remove("ownerReferences"),
            };
        }
        for (one, many) in [("podIP", "podIPs"), ("hostIP", "hostIPs")] {
            if let Some(status) = child_mut(new, "status") {
                first_address(status, one, many);
            }
        }
        let class = text(old, "status.qosClass").to_owned();
        if let Some(status) = child_mut(new, "status")
            && text(status, "qosClass").is_empty()
            && !class.is_empty()
        {
            set(status, "qosClass", class);
        }
    },
    check,
    check_create: |errors, pod| {
        let path = Path::Root("spec");
        if !list(pod, "spec.ephemeralContainers").is_empty() {
            errors.forbidden(&path.child("ephemeralContainers"), "cannot be set on create");
        }
        if !text(pod, "spec.nodeName").is_empty() && !list(pod, "spec.schedulingGates").is_empty() {
            errors.forbidden(&path.child("nodeName"), "cannot be set until all schedulingGates have been cleared");
        }
    },
    check_update,
    check_status,
    warnings: |pod, warnings| {
        let name = text(pod, "metadata.name");
        let wrong = names::dns_label(name);
        if !wrong.is_empty() {
            warnings.push(format!(
                "metadata.name: this is used in the Pod's hostname, which can result in surprising behavior; a DNS label is recommended: [{}]",
                wrong.join(" ")
            ));
        }
        pod_warnings::pod_spec("spec", pod, warnings);
    },
    delete_grace: |pod, requested| {
        let seconds = requested.or_else(|| number(pod, "spec.terminationGracePeriodSeconds")).unwrap_or(0);
        let unscheduled = text(pod, "spec.nodeName").is_empty();
        let finished = matches!(text(pod, "status.phase"), "Succeeded" | "Failed");
        let seconds = if unscheduled || finished { 0 } else { seconds };
        Some(if seconds < 0 { 1 } else { seconds })
    },
    selectable: |pod, field| {
        Some(match field {
            "spec.nodeName" | "spec.restartPolicy" | "spec.schedulerName" | "spec.serviceAccountName" | "status.phase" | "status.nominatedNodeName" => text(pod, field).to_owned(),
            "spec.hostNetwork" => super::json::flag(pod, field).to_string(),
            "status.podIP" => list(pod, "status.podIPs").first().map_or(text(pod, field), |ip| text(ip, "ip")).to_owned(),
            // Accepted by upstream, yet nothing is ever found by it.
            "status.podIPs" => String::new(),
            _ => return None,
        })
    },
    ..BUILT_IN
};

/// The single address is the first of the list: clients that know only one of the two write only that one.
fn first_address(status: &mut Value, one: &str, many: &str) {
    let single = text(status, one).to_owned();
    let first = list(status, many).first().map_or("", |address| text(address, "ip")).to_owned();
    if single.is_empty() && !first.is_empty() {
        set(status, one, first);
    } else if !single.is_empty() && single != first {
        set(status, many, serde_json::json!([{"ip": single}]));
    }
}

fn check(errors: &mut Errors, pod: &Value) {
    pod_spec::annotations(errors, &Path::Root("metadata.annotations"), pod);
    let path = Path::Root("spec");
    pod_spec::pod_spec(errors, &path, pod, true);
    if text(pod, "spec.serviceAccountName").is_empty() {
        let volumes = path.child("volumes");
        for (index, volume) in list(pod, "spec.volumes").iter().enumerate() {
            let item = volumes.index(index);
            let sources = item.child("projected.sources");
            for (at, source) in list(volume, "projected.sources").iter().enumerate() {
                if child(source, "serviceAccountToken").is_some() {
                    errors.forbidden(&sources.index(at).child("serviceAccountToken"), "must not be specified when serviceAccountName is not set");
                }
            }
        }
    }
    for name in ["containers", "initContainers"] {
        let containers = path.child(name);
        for (index, container) in child(pod, "spec").map_or(&[][..], |spec| list(spec, name)).iter().enumerate() {
            let image = text(container, "image");
            if image.trim() != image {
                errors.invalid(&containers.index(index).child("image"), image, "must not have leading or trailing whitespace");
            }
        }
    }
}

fn annotation(pod: &Value, key: &str) -> Option<String> {
    super::json::entry(pod, "metadata.annotations", key).map(str::to_owned)
}

fn check_update(errors: &mut Errors, new: &Value, old: &Value) {
    let annotations = Path::Root("metadata.annotations");
    match (annotation(new, MIRROR), annotation(old, MIRROR)) {
        (new, Some(old)) if new.as_ref() != Some(&old) => errors.forbidden(&annotations.key(MIRROR), "may not remove or update mirror pod annotation"),
        (Some(_), None) => errors.forbidden(&annotations.key(MIRROR), "may not add mirror pod annotation"),
        _ => {}
    }
    let path = Path::Root("spec");
    let none = Value::Null;
    let (new, old) = (child(new, "spec").unwrap_or(&none), child(old, "spec").unwrap_or(&none));
    for name in ["containers", "initContainers"] {
        if list(new, name).len() != list(old, name).len() {
            return errors.forbidden(&path.child(name), "pod updates may not add or remove containers");
        }
    }
    let deadline_path = path.child("activeDeadlineSeconds");
    match (number(new, "activeDeadlineSeconds"), number(old, "activeDeadlineSeconds")) {
        (Some(new), _) if !(0..=i64::from(i32::MAX)).contains(&new) => return errors.invalid(&deadline_path, &new, "must be between 0 and 2147483647, inclusive"),
        (Some(new), Some(old)) if old < new => return errors.invalid(&deadline_path, &new, "must be less than or equal to previous value"),
        (None, Some(_)) => errors.invalid(&deadline_path, &Value::Null, "must not update from a positive integer to nil value"),
        _ => {}
    }
    added_tolerations(errors, &path.child("tolerations"), new, old);
    let gates = path.child("schedulingGates");
    for (index, gate) in list(new, "schedulingGates").iter().enumerate() {
        let name = text(gate, "name");
        if !list(old, "schedulingGates").iter().any(|gate| text(gate, "name") == name) {
            errors.forbidden(&gates.index(index).child("name"), &format!("only deletion is allowed, but found new scheduling gate '{name}'"));
        }
    }
    if !list(old, "schedulingGates").is_empty() {
        narrowed(errors, &path, new, old);
    }
    let munged = munge(new, old);
    if !internal::same(SPEC, Some(&munged), Some(old)) {
        let diff = diff::unified(&Internal(SPEC, Some(old)).lines(true), &Internal(SPEC, Some(&munged)).lines(false));
        errors.forbidden(&path, &format!("pod updates may not change fields other than {UPDATABLE}\n{diff}"));
    }
}

/// Where a gated pod may go is made narrower only (validateNodeSelectorMutation, validateNodeAffinityMutation).
fn narrowed(errors: &mut Errors, path: &Path, new: &Value, old: &Value) {
    const TERMS: &str = "affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms";
    let selector = |spec: &Value| super::json::map(spec, "nodeSelector").cloned().unwrap_or_default();
    let (now, before) = (selector(new), selector(old));
    if before.iter().any(|(label, value)| now.get(label) != Some(value)) {
        errors.invalid(&path.child("nodeSelector"), child(new, "nodeSelector").unwrap_or(&Value::Null), "only additions to spec.nodeSelector are allowed (no mutations or deletions)");
    }
    let (now, before) = (list(new, TERMS), list(old, TERMS));
    let terms = path.child(TERMS);
    if !before.is_empty() && now.len() != before.len() {
        let shown = if child(new, TERMS).is_some() { Value::Array(now.to_vec()) } else { Value::Null };
        return errors.invalid(&terms, &shown, "no additions/deletions to non-empty NodeSelectorTerms list are allowed");
    }
    for (index, (now, before)) in now.iter().zip(before).enumerate() {
        let all = |term: &Value| ["matchExpressions", "matchFields"].map(|name| list(term, name).to_vec());
        let (now_all, before_all) = (all(now), all(before));
        let empty = before_all.iter().all(Vec::is_empty) && !now_all.iter().all(Vec::is_empty);
        if empty || now_all.iter().zip(&before_all).any(|(now, before)| !before.is_empty() && now.get(..before.len()) != Some(before.as_slice())) {
            errors.invalid(&terms.index(index), now, "only additions are allowed (no mutations or deletions)");
        }
    }
}

/// The new spec with everything put back that may change.
fn munge(new: &Value, old: &Value) -> Value {
    let mut munged = new.clone();
    for name in ["containers", "initContainers"] {
        for (container, before) in list_mut(&mut munged, name).iter_mut().zip(list(old, name)) {
            set(container, "image", text(before, "image"));
        }
    }
    let mut put_back = |name: &str| {
        if let Some(map) = munged.as_object_mut() {
            match old.get(name) {
                Some(value) => map.insert(name.to_owned(), value.clone()),
                None => map.remove(name),
            };
        }
    };
    put_back("activeDeadlineSeconds");
    put_back("schedulingGates");
    put_back("tolerations");
    if number(old, "terminationGracePeriodSeconds").is_some_and(|seconds| seconds < 0) && number(new, "terminationGracePeriodSeconds") == Some(1) {
        put_back("terminationGracePeriodSeconds");
    }
    // While a pod is gated, its scheduling directives may be narrowed.
    if !list(old, "schedulingGates").is_empty() {
        put_back("nodeSelector");
        if let Some(affinity) = munged.get_mut("affinity").and_then(Value::as_object_mut) {
            match child(old, "affinity.nodeAffinity") {
                Some(node) => affinity.insert("nodeAffinity".to_owned(), node.clone()),
                None => affinity.remove("nodeAffinity"),
            };
        } else if let Some(node) = child(old, "affinity.nodeAffinity") {
            set(&mut munged, "affinity", serde_json::json!({"nodeAffinity": node}));
        }
    }
    munged
}

fn added_tolerations(errors: &mut Errors, path: &Path, new: &Value, old: &Value) {
    let bare = |toleration: &Value| {
        let mut map = toleration.as_object().cloned().unwrap_or_default();
        map.remove("tolerationSeconds");
        Value::Object(map)
    };
    let kept = |before: &Value| list(new, "tolerations").iter().any(|toleration| same(Some(&bare(toleration)), Some(&bare(before))));
    if !list(old, "tolerations").iter().all(kept) {
        errors.forbidden(path, "existing toleration can not be modified except its tolerationSeconds");
    }
}

fn check_status(errors: &mut Errors, new: &Value, old: &Value) {
    let path = Path::Root("status");
    const SYSTEM: [&str; 3] = ["PodScheduled", "Ready", "Initialized"];
    let conditions = path.child("conditions");
    for (index, condition) in list(new, "status.conditions").iter().enumerate() {
        let kind = text(condition, "type");
        if !SYSTEM.contains(&kind) {
            errors.name(&conditions.index(index).child("Type"), kind, names::qualified_name);
        }
    }
    let nominated = text(new, "status.nominatedNodeName");
    if nominated != text(old, "status.nominatedNodeName") && !nominated.is_empty() {
        errors.name(&path.child("nominatedNodeName"), nominated, names::dns_subdomain);
        if !text(old, "spec.nodeName").is_empty() {
            errors.forbidden(&path.child("nominatedNodeName"), "may not be set on pods that are already bound to a node");
        }
    }
    if text(new, "status.qosClass") != text(old, "status.qosClass") {
        errors.invalid(&path.child("qosClass"), text(new, "status.qosClass"), IMMUTABLE);
    }
    for name in ["podIPs", "hostIPs"] {
        let list_path = path.child(name);
        let addresses = child(new, "status").map_or(&[][..], |status| list(status, name));
        for (index, address) in addresses.iter().enumerate() {
            pod_spec::ip(errors, &list_path.index(index), text(address, "ip"));
        }
        if addresses.len() > 2 {
            errors.invalid(&list_path, child(new, "status").and_then(|status| child(status, name)).unwrap_or(&Value::Null), "may specify no more than one IP for each IP family");
        }
    }
    container_transitions(errors, &path.child("containerStatuses"), new, old);
}

/// A container that has ended for good does not come back.
fn container_transitions(errors: &mut Errors, path: &Path, new: &Value, old: &Value) {
    let policy = text(old, "spec.restartPolicy");
    for (index, before) in list(old, "status.containerStatuses").iter().enumerate() {
        let Some(terminated) = child(before, "state.terminated") else { continue };
        let name = text(before, "name");
        let container = list(old, "spec.containers").iter().find(|container| text(container, "name") == name);
        let own = container.map_or("", |container| text(container, "restartPolicy"));
        let has_rules = list(old, "spec.containers").iter().any(|container| !list(container, "restartPolicyRules").is_empty());
        let policy = if own.is_empty() { policy } else { own };
        let failed = number(terminated, "exitCode").unwrap_or(0) != 0;
        if has_rules || policy == "Always" || (policy == "OnFailure" && failed) {
            continue;
        }
        let revived = list(new, "status.containerStatuses").iter().any(|status| text(status, "name") == name && child(status, "state.terminated").is_none());
        if revived {
            errors.forbidden(&path.index(index).child("state"), "may not be transitioned to non-terminated state");
        }
    }
}

/// The `ephemeralcontainers` subresource: only that list changes.
pub fn prepare_ephemeral_containers(new: &mut Value, old: &Value) {
    let containers = child(new, "spec.ephemeralContainers").cloned();
    let version = child(new, "metadata.resourceVersion").cloned();
    *new = old.clone();
    if let (Some(spec), Some(containers)) = (map_mut(new, "spec"), containers) {
        spec.insert("ephemeralContainers".to_owned(), containers);
    }
    if let (Some(metadata), Some(version)) = (map_mut(new, "metadata"), version) {
        metadata.insert("resourceVersion".to_owned(), version);
    }
    pod_defaults::pod(new);
    crate::strategy::bump_generation(new, old, &[]);
}

/// What an update of the `ephemeralcontainers` subresource may not do: change or remove one that is there.
pub fn validate_ephemeral_containers(new: &Value, old: &Value) -> Vec<crate::status::Cause> {
    let mut errors = Errors::new();
    pod_spec::pod_spec(&mut errors, &Path::Root("spec"), new, true);
    let path = Path::Root("spec.ephemeralContainers");
    if child(old, "metadata.annotations").and_then(Value::as_object).is_some_and(|annotations| annotations.contains_key(MIRROR)) {
        errors.forbidden(&Path::Root(""), "static pods do not support ephemeral containers");
    }
    for before in list(old, "spec.ephemeralContainers") {
        let name = text(before, "name");
        match list(new, "spec.ephemeralContainers").iter().enumerate().find(|(_, container)| text(container, "name") == name) {
            None => errors.forbidden(&path, &format!("existing ephemeral containers {} may not be removed\n", crate::validation::go_quote(name))),
            Some((_, container)) if !same(Some(container), Some(before)) => {
                let lines = |container, stored| Internal("core.v1.EphemeralContainer", Some(container)).lines(stored);
                errors.forbidden(&path, &format!("existing ephemeral containers {} may not be changed\n{}", crate::validation::go_quote(name), diff::unified(&lines(before, true), &lines(container, false))));
            }
            Some(_) => {}
        }
    }
    errors.into_causes()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::tests::{create, lines, update};

    fn pod(spec: Value) -> Value {
        json!({"metadata": {"name": "p", "namespace": "default"}, "spec": spec})
    }

    #[test]
    fn a_pod_of_kubectl_run() {
        let (made, causes) = create("", "pods", pod(json!({"containers": [{"name": "pingpong", "image": "alpine", "args": ["ping", "8.8.8.8"]}]})));
        assert!(causes.is_empty(), "{causes:?}");
        assert_eq!(made["status"], json!({"phase": "Pending", "qosClass": "BestEffort"}));
        assert_eq!(made["metadata"]["generation"], 1);
    }

    #[test]
    fn refusals() {
        let one = json!([{"name": "a", "image": "b"}]);
        let cases = [
            (json!({}), vec!["spec.containers: Required value"]),
            (
                json!({"containers": [{"name": "A_", "image": ""}, {"name": "b", "image": "c"}, {"name": "b", "image": "c"}]}),
                vec![
                    "spec.containers[0].name: Invalid value: \"A_\": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
                    "spec.containers[0].image: Required value",
                    "spec.containers[2].name: Duplicate value: \"b\"",
                ],
            ),
            (
                json!({"restartPolicy": "Sometimes", "dnsPolicy": "Foo", "containers": one}),
                vec![
                    "spec.restartPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"OnFailure\", \"Never\"",
                    "spec.dnsPolicy: Unsupported value: \"Foo\": supported values: \"ClusterFirstWithHostNet\", \"ClusterFirst\", \"Default\", \"None\"",
                ],
            ),
            (
                json!({"containers": [{"name": "a", "image": "b", "volumeMounts": [{"name": "v", "mountPath": "/x"}]}], "volumes": [{"name": "w", "hostPath": {}, "emptyDir": {}}]}),
                vec!["spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type", "spec.containers[0].volumeMounts[0].name: Not found: \"v\""],
            ),
            (
                json!({"containers": [{"name": "a", "image": "b", "resources": {"requests": {"cpu": "2", "foo": "1"}, "limits": {"cpu": "1"}}, "ports": [{"containerPort": 99999}]}]}),
                vec![
                    "spec.containers[0].ports[0].containerPort: Invalid value: 99999: must be between 1 and 65535, inclusive",
                    "spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1",
                    "spec.containers[0].resources.requests[foo]: Invalid value: \"foo\": must be a standard resource type or fully qualified",
                    "spec.containers[0].resources.requests[foo]: Invalid value: \"foo\": must be a standard resource for containers",
                ],
            ),
            (
                json!({"containers": [{"name": "a", "image": "b", "livenessProbe": {}, "env": [{"name": "A=B"}, {"name": "C", "valueFrom": {"fieldRef": {"fieldPath": "spec.foo"}}}]}]}),
                vec![
                    "spec.containers[0].env[0].name: Invalid value: \"A=B\": a valid environment variable name must consist only of printable ASCII characters other than '='",
                    "spec.containers[0].env[1].valueFrom.fieldRef.fieldPath: Invalid value: \"spec.foo\": error converting fieldPath: field label not supported: spec.foo",
                    "spec.containers[0].livenessProbe: Required value: must specify a handler type",
                ],
            ),
            (json!({"containers": one, "initContainers": [{"name": "a", "image": "b", "readinessProbe": {"exec": {"command": ["x"]}}}]}), vec![
                "spec.initContainers[0].name: Duplicate value: \"a\"",
                "spec.initContainers[0].readinessProbe: Forbidden: may not be set for init containers without restartPolicy=Always",
            ]),
            (json!({"containers": one, "tolerations": [{"operator": "Equal"}]}), vec![
                "spec.tolerations[0].operator: Invalid value: \"Equal\": operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
            ]),
        ];
        for (spec, expected) in cases {
            assert_eq!(lines(&create("", "pods", pod(spec)).1), expected);
        }
    }

    /// validateNodeSelectorMutation and validateNodeAffinityMutation.
    #[test]
    fn gated_pods_may_only_be_narrowed() {
        let terms = |terms: Value| json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}});
        let zone = json!({"key": "zone", "operator": "In", "values": ["a"]});
        let disk = json!({"key": "disk", "operator": "Exists"});
        let spec = json!({"containers": [{"name": "a", "image": "b:1"}], "schedulingGates": [{"name": "x/y"}], "nodeSelector": {"a": "b"}, "affinity": terms(json!([{"matchExpressions": [zone]}]))});
        let (old, causes) = create("", "pods", pod(spec));
        assert!(causes.is_empty(), "{causes:?}");
        const TERMS: &str = "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms";
        for (field, value, wanted) in [
            ("nodeSelector", json!({"a": "b", "c": "d"}), vec![]),
            ("nodeSelector", json!({"c": "d"}), vec!["spec.nodeSelector: only additions".to_owned()]),
            ("affinity", terms(json!([{"matchExpressions": [zone, disk]}])), vec![]),
            ("affinity", terms(json!([{"matchExpressions": [disk]}])), vec![format!("{TERMS}[0]: only additions")]),
            ("affinity", Value::Null, vec![format!("{TERMS}: no additions/deletions")]),
        ] {
            let mut new = old.clone();
            new["spec"][field] = value;
            let found = lines(&update("", "pods", new, &old).1);
            let short: Vec<String> = found.iter().map(|line| format!("{}: {}", line.split(": ").next().unwrap(), line.rsplit(": ").next().unwrap())).collect();
            assert_eq!(short.len(), wanted.len(), "{found:?}");
            assert!(short.iter().zip(&wanted).all(|(short, wanted)| short.starts_with(wanted.as_str())), "{found:?}");
        }
    }

    #[test]
    fn updates_change_the_image_and_little_else() {
        let (old, _) = create("", "pods", pod(json!({"containers": [{"name": "a", "image": "b:1"}]})));
        let mut image = old.clone();
        image["spec"]["containers"][0]["image"] = "b:2".into();
        image["spec"]["tolerations"] = json!([{"key": "x", "operator": "Exists"}]);
        image["status"] = json!({"phase": "Failed"});
        let (image, causes) = update("", "pods", image, &old);
        assert!(causes.is_empty(), "{causes:?}");
        assert_eq!((&image["metadata"]["generation"], &image["status"]), (&json!(2), &old["status"]));
        let mut node = old.clone();
        node["spec"]["nodeName"] = "n".into();
        let (_, causes) = update("", "pods", node, &old);
        assert_eq!(causes[0].field, "spec");
        assert!(causes[0].message.starts_with("Forbidden: pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"), "{}", causes[0].message);
        assert!(causes[0].message.contains("\n+ \"NodeName\": \"n\",\n"), "{}", causes[0].message);
        let mut more = old.clone();
        more["spec"]["containers"] = json!([]);
        let (_, causes) = update("", "pods", more, &old);
        assert_eq!(lines(&causes).last().map(String::as_str), Some("spec.containers: Forbidden: pod updates may not add or remove containers"));
    }

    #[test]
    fn grace() {
        let strategy = super::super::strategy("", "pods");
        let running = json!({"spec": {"nodeName": "n", "terminationGracePeriodSeconds": 30}, "status": {"phase": "Running"}});
        for (pod, requested, expected) in [
            (running.clone(), None, 30),
            (running.clone(), Some(5), 5),
            (running, Some(-1), 1),
            (json!({"spec": {"terminationGracePeriodSeconds": 30}}), None, 0),
            (json!({"spec": {"nodeName": "n", "terminationGracePeriodSeconds": 30}, "status": {"phase": "Succeeded"}}), None, 0),
        ] {
            assert_eq!(strategy.delete_grace(&pod, requested), Some(expected));
        }
    }
}
