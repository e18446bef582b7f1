//! PriorityClasses, RuntimeClasses, gang scheduling, and the dynamic resource allocation kinds.


use serde_json::{Value, json};

use super::{claim_status, devices};
use super::affinity::tolerations;
use super::json::{child, child_mut, default, flag, list, list_mut, map, number, set, text};
use super::policy::{BUILT_IN, CHANGE, Generation, Policy};
use super::resources::{container_resource_name, resource_quantity};
use crate::names;
use crate::internal;
use crate::strategy::Context;
use crate::validation::{Path, same};
use crate::world::rfc3339;

const USER_PRIORITY_MAX: i64 = 1_000_000_000;
const SYSTEM_CLASSES: [(&str, i64); 2] = [("system-cluster-critical", 2_000_000_000), ("system-node-critical", 2_000_001_000)];

pub static PRIORITY_CLASS: Policy = Policy {
    metadata_again: CHANGE,
    generation: Generation::None,
    defaults: |object| {
        super::json::default_unset(object, "preemptionPolicy", "PreemptLowerPriority");
        if number(object, "value").is_none() {
            set(object, "value", 0);
        }
    },
    on_create: |object, _| super::json::set_generation(object, 1),
    check_create: |errors, object| {
        let (name, value) = (text(object, "metadata.name"), number(object, "value").unwrap_or(0));
        if name.starts_with("system-") {
            let why = match SYSTEM_CLASSES.iter().find(|(known, _)| *known == name) {
                None => Some(format!("{name} is not a known system priority class")),
                Some((_, known)) if *known != value => Some(format!("value of {name} PriorityClass must be {known}")),
                Some(_) if flag(object, "globalDefault") => Some(format!("globalDefault of {name} PriorityClass must be false")),
                Some(_) => None,
            };
            if let Some(why) = why {
                errors.forbidden(&Path::Root("metadata.name"), &format!("priority class names with 'system-' prefix are reserved for system use only. error: {why}"));
            }
        } else if value > USER_PRIORITY_MAX {
            errors.forbidden(&Path::Root("value"), &format!("maximum allowed value of a user defined priority is {USER_PRIORITY_MAX}"));
        }
        match text(object, "preemptionPolicy") {
            "PreemptLowerPriority" | "Never" => {}
            "" => errors.required(&Path::Root("preemptionPolicy"), ""),
            policy => errors.not_supported(&Path::Root("preemptionPolicy"), policy, &["PreemptLowerPriority", "Never"]),
        }
    },
    check_update: |errors, new, old| {
        if number(new, "value") != number(old, "value") {
            errors.forbidden(&Path::Root("value"), "may not be changed in an update.");
        }
        errors.immutable(&Path::Root("preemptionPolicy"), new.get("preemptionPolicy"), old.get("preemptionPolicy"));
    },
    ..BUILT_IN
};

pub static RUNTIME_CLASS: Policy = Policy {
    create_on_update: true,
    unconditional_update: false,
    check: |errors, object| {
        match text(object, "handler") {
            "" => errors.required(&Path::Root("handler"), ""),
            handler => errors.name(&Path::Root("handler"), handler, names::dns_label),
        }
        let limits = Path::Root("overhead.limits");
        for (name, value) in map(object, "overhead.podFixed").into_iter().flatten() {
            container_resource_name(errors, &limits.key(name), name);
            resource_quantity(errors, &limits.key(name), name, value);
        }
        errors.labels(&Path::Root("scheduling.nodeSelector"), child(object, "scheduling.nodeSelector"));
        let path = Path::Root("scheduling.tolerations");
        let all = list(object, "scheduling.tolerations");
        tolerations(errors, &path, all);
        for (index, toleration) in all.iter().enumerate().filter(|(index, toleration)| all[..*index].contains(toleration)) {
            errors.duplicate(&path.index(index), &internal::Internal("core.v1.Toleration", Some(toleration)));
        }
    },
    check_update: |errors, new, old| internal::immutable(errors, &Path::Root(""), "node.v1.RuntimeClass", "handler", Some(new), Some(old)),
    ..BUILT_IN
};

pub static POD_GROUP: Policy = Policy { status: true, status_keeps_metadata: true, ..BUILT_IN };

fn default_requests(devices: Option<&mut Value>) {
    let one = |request: &mut Value| {
        for toleration in list_mut(request, "tolerations") {
            default(toleration, "operator", "Equal");
        }
        if child(request, "deviceClassName").is_some() {
            default(request, "allocationMode", "ExactCount");
            if text(request, "allocationMode") == "ExactCount" {
                super::json::default_number(request, "count", 1);
            }
        }
    };
    let Some(devices) = devices else { return };
    for request in list_mut(devices, "requests") {
        // In v1beta1 the request itself has the fields.
        one(request);
        if let Some(exactly) = child_mut(request, "exactly") {
            one(exactly);
        }
        list_mut(request, "firstAvailable").iter_mut().for_each(one);
    }
}

pub static RESOURCE_CLAIM: Policy = Policy {
    status: true,
    status_keeps_metadata: true,
    defaults: |object| default_requests(child_mut(object, "spec.devices")),
    // Of a claim that is there, nothing but a change of its spec can be wrong.
    check_create: |errors, object| devices::claim(errors, &Path::Root("spec.devices"), child(object, "spec.devices")),
    check_update: |errors, new, old| internal::immutable(errors, &Path::Root(""), "resource.v1.ResourceClaim", "spec", Some(new), Some(old)),
    on_status: |new, old, _| claim_status::forget_given_back(new, old),
    check_status: claim_status::check,
    ..BUILT_IN
};

pub static RESOURCE_CLAIM_TEMPLATE: Policy = Policy {
    defaults: |object| default_requests(child_mut(object, "spec.spec.devices")),
    check: |errors, object| {
        devices::template_meta(errors, &Path::Root("spec.metadata"), child(object, "spec.metadata"));
        devices::claim(errors, &Path::Root("spec.spec.devices"), child(object, "spec.spec.devices"));
    },
    check_update: |errors, new, old| internal::immutable(errors, &Path::Root(""), "resource.v1.ResourceClaimTemplate", "spec", Some(new), Some(old)),
    ..BUILT_IN
};

pub static DEVICE_CLASS: Policy = Policy { generation: Generation::Spec, check: devices::class, ..BUILT_IN };

pub static RESOURCE_SLICE: Policy = Policy {
    metadata_again: CHANGE,
    generation: Generation::Spec,
    on_create: stamp_taints,
    on_update: |new, _, cx| stamp_taints(new, cx),
    check: devices::slice,
    check_update: |errors, new, old| {
        for name in ["driver", "nodeName"] {
            internal::immutable(errors, &Path::Root("spec"), "resource.v1.ResourceSliceSpec", name, child(new, "spec"), child(old, "spec"));
        }
        if !same(child(new, "spec.pool.name"), child(old, "spec.pool.name")) {
            errors.invalid(&Path::Root("spec.pool.name"), text(new, "spec.pool.name"), crate::validation::IMMUTABLE);
        }
    },
    selectable: |object, field| matches!(field, "spec.nodeName" | "spec.driver").then(|| text(object, field).to_owned()),
    ..BUILT_IN
};

/// A device taint says since when it holds.
fn stamp_taints(object: &mut Value, cx: &Context) {
    for device in list_mut(object, "spec.devices") {
        for taint in list_mut(device, "taints") {
            default(taint, "timeAdded", rfc3339(cx.now));
        }
    }
}

pub static DEVICE_TAINT_RULE: Policy = Policy {
    generation: Generation::Spec,
    status: true,
    status_keeps_metadata: true,
    on_create: |object, cx| {
        if let Some(taint) = child_mut(object, "spec.taint") {
            default(taint, "timeAdded", rfc3339(cx.now));
        }
        set(object, "status", json!({}));
    },
    ..BUILT_IN
};

pub static POOL_STATUS_REQUEST: Policy = Policy { status: true, status_keeps_metadata: true, unconditional_update: false, ..BUILT_IN };

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::{create, lines, update};

    #[test]
    fn priority_classes() {
        let (made, causes) = create("scheduling.k8s.io", "priorityclasses", json!({"metadata": {"name": "p"}, "value": 5}));
        assert!(causes.is_empty());
        let mut changed = made.clone();
        changed["value"] = 6.into();
        assert_eq!(lines(&update("scheduling.k8s.io", "priorityclasses", changed, &made).1), ["value: Forbidden: may not be changed in an update."]);
        let high = json!({"metadata": {"name": "p"}, "value": 1_000_000_001});
        assert_eq!(lines(&create("scheduling.k8s.io", "priorityclasses", high).1), ["value: Forbidden: maximum allowed value of a user defined priority is 1000000000"]);
    }

    #[test]
    fn claims() {
        let (made, causes) = create("resource.k8s.io", "resourceclaims", json!({"metadata": {"name": "c"}, "spec": {"devices": {"requests": [{"name": "a", "exactly": {"deviceClassName": "gpu"}}]}}}));
        assert!(causes.is_empty(), "{causes:?}");
        assert_eq!(made["spec"]["devices"]["requests"][0]["exactly"], json!({"deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 1}));
    }
}
