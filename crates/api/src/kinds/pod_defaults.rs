//! Defaults of a pod spec, in pods and in templates. Mirrors k8s.io/kubernetes/pkg/apis/core/v1/defaults.go and its generated walk.

use serde_json::{Map, Value, json};

use super::json::{child, child_mut, default, default_number, empty, flag, list, list_mut, map_mut, number, set, text, default_unset};

const CONTAINER_LISTS: [&str; 3] = ["containers", "initContainers", "ephemeralContainers"];
const FILE_MODE: i64 = 0o644;
const TOKEN_SECONDS: i64 = 3600;

/// `SetDefaults_Pod` and everything below. `pod` is a whole Pod.
pub fn pod(pod: &mut Value) {
    default(pod, "status", empty());
    let Some(spec) = child_mut(pod, "spec") else { return };
    pod_spec(spec);
    // Upstream's conversion of a Pod; what a template says stays as it is.
    if number(spec, "terminationGracePeriodSeconds").is_some_and(|seconds| seconds < 0) {
        set(spec, "terminationGracePeriodSeconds", 1);
    }
    for name in ["containers", "initContainers"] {
        let host_network = flag(spec, "hostNetwork");
        for container in list_mut(spec, name) {
            requests_from_limits(container);
            if host_network {
                for port in list_mut(container, "ports") {
                    let container_port = number(port, "containerPort").unwrap_or(0);
                    default_number(port, "hostPort", container_port);
                }
            }
        }
    }
    if child(spec, "resources.limits").is_some() {
        pod_level_requests(spec);
    }
    default(spec, "enableServiceLinks", true);
}

/// What pods and templates have in common. `template` is a PodTemplateSpec.
pub fn template(template: &mut Value) {
    if let Some(spec) = child_mut(template, "spec") {
        pod_spec(spec);
    }
}

fn requests_from_limits(container: &mut Value) {
    let Some(limits) = child(container, "resources.limits").and_then(Value::as_object).cloned() else { return };
    let Some(resources) = map_mut(container, "resources") else { return };
    let requests = resources.entry("requests").or_insert_with(empty);
    if requests.is_null() {
        *requests = empty();
    }
    if let Some(requests) = requests.as_object_mut() {
        for (name, limit) in limits {
            requests.entry(name).or_insert(limit);
        }
    }
}

/// Pod-level requests (KEP-2837): what the containers ask for in sum, else the limit.
fn pod_level_requests(spec: &mut Value) {
    let limits = child(spec, "resources.limits").and_then(Value::as_object).cloned().unwrap_or_default();
    let mut requests = child(spec, "resources.requests").and_then(Value::as_object).cloned().unwrap_or_default();
    for name in ["cpu", "memory"] {
        if let Some(sum) = super::qos::container_requests(spec, name)
            && !requests.contains_key(name)
        {
            requests.insert(name.to_owned(), sum.to_string().into());
        }
    }
    for (name, limit) in limits {
        if matches!(name.as_str(), "cpu" | "memory") || name.starts_with("hugepages-") {
            requests.entry(name).or_insert(limit);
        }
    }
    if !requests.is_empty()
        && let Some(resources) = map_mut(spec, "resources")
    {
        resources.insert("requests".to_owned(), Value::Object(requests));
    }
}

pub fn pod_spec(spec: &mut Value) {
    default(spec, "dnsPolicy", "ClusterFirst");
    default(spec, "restartPolicy", "Always");
    default(spec, "securityContext", empty());
    default(spec, "terminationGracePeriodSeconds", 30);
    default(spec, "schedulerName", "default-scheduler");
    service_account(spec);
    if let Some(resources) = spec.get_mut("resources") {
        round_resources(resources);
    }
    for name in CONTAINER_LISTS {
        list_mut(spec, name).iter_mut().for_each(container);
    }
    list_mut(spec, "volumes").iter_mut().for_each(volume);
}

/// `serviceAccount` is the old name of `serviceAccountName`; both are always shown alike.
pub fn service_account(spec: &mut Value) {
    let name = match (text(spec, "serviceAccountName"), text(spec, "serviceAccount")) {
        ("", "") => return,
        ("", old) => old.to_owned(),
        (name, _) => name.to_owned(),
    };
    set(spec, "serviceAccountName", name.clone());
    set(spec, "serviceAccount", name);
}

/// Whether `imagePullPolicy` defaults to Always: the tag is `latest`, or there is neither tag nor digest. A reference that does not parse has no tag.
pub fn pulls_always(image: &str) -> bool {
    let (name, digest) = image.split_once('@').map_or((image, false), |(name, _)| (name, true));
    let (path, tag) = match name.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
        _ => (name, None),
    };
    let mut parts: Vec<&str> = path.split('/').collect();
    let host = |part: &str| part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b':' | b'[' | b']'));
    if parts.len() > 1 && parts.first().is_some_and(|first| host(first) && (*first == "localhost" || first.contains(['.', ':']) || first.bytes().any(|byte| byte.is_ascii_uppercase()))) {
        parts.remove(0);
    }
    let fine = |part: &&str| {
        let alnum = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        part.as_bytes().first().is_some_and(alnum) && part.as_bytes().last().is_some_and(alnum) && part.bytes().all(|byte| alnum(&byte) || matches!(byte, b'.' | b'_' | b'-'))
    };
    parts.iter().all(fine) && (tag == Some("latest") || (tag.is_none() && !digest))
}

fn container(container: &mut Value) {
    let policy = if pulls_always(text(container, "image")) { "Always" } else { "IfNotPresent" };
    default(container, "imagePullPolicy", policy);
    default(container, "terminationMessagePath", "/dev/termination-log");
    default(container, "terminationMessagePolicy", "File");
    default(container, "resources", empty());
    if let Some(resources) = container.get_mut("resources") {
        round_resources(resources);
    }
    for port in list_mut(container, "ports") {
        default(port, "protocol", "TCP");
    }
    for variable in list_mut(container, "env") {
        if let Some(reference) = child_mut(variable, "valueFrom.fieldRef") {
            default(reference, "apiVersion", "v1");
        }
        if let Some(reference) = child_mut(variable, "valueFrom.resourceFieldRef") {
            default(reference, "divisor", "0");
        }
        if let Some(reference) = child_mut(variable, "valueFrom.fileKeyRef") {
            default(reference, "optional", false);
        }
    }
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = child_mut(container, name) {
            default_number(probe, "timeoutSeconds", 1);
            default_number(probe, "periodSeconds", 10);
            default_number(probe, "successThreshold", 1);
            default_number(probe, "failureThreshold", 3);
            handler(probe);
        }
    }
    for name in ["lifecycle.postStart", "lifecycle.preStop"] {
        if let Some(hook) = child_mut(container, name) {
            handler(hook);
        }
    }
}

fn handler(handler: &mut Value) {
    if let Some(get) = child_mut(handler, "httpGet") {
        default(get, "path", "/");
        default(get, "scheme", "HTTP");
    }
    if let Some(grpc) = child_mut(handler, "grpc")
        && child(grpc, "service").is_none()
    {
        set(grpc, "service", "");
    }
}

/// Amounts finer than a thousandth are rounded up (`SetDefaults_ResourceList`).
fn round_resources(resources: &mut Value) {
    for name in ["limits", "requests"] {
        if let Some(list) = map_mut(resources, name) {
            round(list);
        }
    }
}

pub fn round(list: &mut Map<String, Value>) {
    use crate::quantity::Quantity;
    for value in list.values_mut() {
        if let Ok(quantity) = Quantity::from_json(value) {
            let rounded = if quantity.is_whole_milli() { quantity } else { Quantity::from_milli(quantity.milli_value(), quantity.format()) };
            *value = rounded.to_string().into();
        }
    }
}

fn volume(volume: &mut Value) {
    // A volume without a source is an emptyDir.
    let sourceless = volume.as_object().is_some_and(|map| map.iter().all(|(name, value)| name == "name" || value.is_null()));
    if sourceless {
        set(volume, "emptyDir", empty());
    }
    for name in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(source) = child_mut(volume, name) {
            default(source, "defaultMode", FILE_MODE);
        }
    }
    for item in list_mut(volume, "downwardAPI.items") {
        downward_item(item);
    }
    for source in list_mut(volume, "projected.sources") {
        if let Some(token) = child_mut(source, "serviceAccountToken") {
            default(token, "expirationSeconds", TOKEN_SECONDS);
        }
        for item in list_mut(source, "downwardAPI.items") {
            downward_item(item);
        }
    }
    if let Some(host_path) = child_mut(volume, "hostPath")
        && child(host_path, "type").is_none()
    {
        set(host_path, "type", "");
    }
    if let Some(image) = child_mut(volume, "image") {
        let policy = if pulls_always(text(image, "reference")) { "Always" } else { "IfNotPresent" };
        default(image, "pullPolicy", policy);
    }
    storage_systems(volume);
    if let Some(claim) = child_mut(volume, "ephemeral.volumeClaimTemplate.spec") {
        default(claim, "volumeMode", "Filesystem");
    }
}

/// What is said of storage systems that say nothing themselves, in pods and in PersistentVolumes.
pub fn storage_systems(holder: &mut Value) {
    if let Some(iscsi) = child_mut(holder, "iscsi") {
        default(iscsi, "iscsiInterface", "default");
    }
    if let Some(rbd) = child_mut(holder, "rbd") {
        default(rbd, "pool", "rbd");
        default(rbd, "user", "admin");
        default(rbd, "keyring", "/etc/ceph/keyring");
    }
    if let Some(disk) = child_mut(holder, "azureDisk") {
        default_unset(disk, "cachingMode", "ReadWrite");
        default_unset(disk, "fsType", "ext4");
        default_unset(disk, "readOnly", false);
        default_unset(disk, "kind", "Shared");
    }
    if let Some(scale_io) = child_mut(holder, "scaleIO") {
        default(scale_io, "storageMode", "ThinProvisioned");
        default(scale_io, "fsType", "xfs");
    }
}

fn downward_item(item: &mut Value) {
    if let Some(reference) = child_mut(item, "fieldRef") {
        default(reference, "apiVersion", "v1");
    }
    if let Some(reference) = child_mut(item, "resourceFieldRef") {
        default(reference, "divisor", "0");
    }
}

/// The status a new pod starts with.
pub fn initial_status(pod: &Value) -> Value {
    let mut status = json!({"phase": "Pending", "qosClass": super::qos::class(pod)});
    if !list(pod, "spec.schedulingGates").is_empty() {
        status["conditions"] = json!([{
            "type": "PodScheduled", "status": "False", "reason": "SchedulingGated", "message": "Scheduling is blocked due to non-empty scheduling gates",
            "lastProbeTime": null, "lastTransitionTime": null
        }]);
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pull_policies() {
        for (image, always) in [
            ("alpine", true), ("alpine:latest", true), ("alpine:3.19", false), ("localhost:5000/rng", true), ("localhost:5000/rng:v1", false), ("a.example/b/c@sha256:00", false),
            ("", false), ("/rng", false), ("/rng:v0.3", false), ("Foo", false), ("$USERNAME/rng", false), ("dockercoins/worker:v0.1", false), ("REG/x", true),
        ] {
            assert_eq!(pulls_always(image), always, "{image}");
        }
    }

    #[test]
    fn negative_grace_is_one_second_in_pods() {
        let spec = || json!({"terminationGracePeriodSeconds": -1, "containers": []});
        let (mut object, mut of_template) = (json!({"spec": spec()}), json!({"spec": spec()}));
        pod(&mut object);
        template(&mut of_template);
        assert_eq!((&object["spec"]["terminationGracePeriodSeconds"], &of_template["spec"]["terminationGracePeriodSeconds"]), (&json!(1), &json!(-1)));
    }

    #[test]
    fn a_small_pod() {
        let mut object = json!({"metadata": {"name": "p"}, "spec": {"serviceAccount": "sa", "containers": [{
            "name": "a", "image": "alpine", "ports": [{"containerPort": 80}], "resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "0.0001"}},
            "env": [{"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}], "livenessProbe": {"httpGet": {"port": 80}}}],
            "volumes": [{"name": "v"}, {"name": "c", "configMap": {"name": "m"}}]}});
        pod(&mut object);
        assert_eq!(
            object,
            json!({"metadata": {"name": "p"}, "status": {}, "spec": {"serviceAccount": "sa", "serviceAccountName": "sa", "dnsPolicy": "ClusterFirst", "restartPolicy": "Always",
                "securityContext": {}, "terminationGracePeriodSeconds": 30, "schedulerName": "default-scheduler", "enableServiceLinks": true,
                "containers": [{"name": "a", "image": "alpine", "imagePullPolicy": "Always", "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
                    "ports": [{"containerPort": 80, "protocol": "TCP"}], "resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1m", "memory": "1Gi"}},
                    "env": [{"name": "N", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "spec.nodeName"}}}],
                    "livenessProbe": {"httpGet": {"port": 80, "path": "/", "scheme": "HTTP"}, "timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3}}],
                "volumes": [{"name": "v", "emptyDir": {}}, {"name": "c", "configMap": {"name": "m", "defaultMode": 420}}]}})
        );
        let once = object.clone();
        pod(&mut object);
        assert_eq!(object, once, "defaulting twice changes nothing");
    }
}
