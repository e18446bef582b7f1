//! APIServices: what other servers add to the API.

use serde_json::{Value, json};

use super::json::{child, child_mut, default, flag, number, set, text};
use super::policy::{BUILT_IN, Policy};
use crate::names;
use crate::validation::{Errors, Path};

pub static API_SERVICE: Policy = Policy {
    status: true,
    status_keeps_metadata: true,
    unconditional_update: false,
    defaults: |object| {
        if let Some(service) = child_mut(object, "spec.service") {
            default(service, "port", 443);
        }
        default(object, "status", json!({}));
    },
    on_create: |object, cx| {
        // A local one is available by definition.
        if child(object, "spec.service").is_none() {
            let now = crate::world::rfc3339(cx.now);
            set(
                object,
                "status",
                json!({"conditions": [{"type": "Available", "status": "True", "reason": "Local", "message": "Local APIServices are always available", "lastTransitionTime": now}]}),
            );
        }
    },
    check: check_api_service,
    check_status: |errors, new, _| {
        let path = Path::Root("status.conditions");
        for (index, condition) in super::json::list(new, "status.conditions").iter().enumerate() {
            let status = text(condition, "status");
            if !matches!(status, "True" | "False" | "Unknown") {
                errors.not_supported(&path.index(index).child("status"), status, &["True", "False", "Unknown"]);
            }
        }
    },
    ..BUILT_IN
};

fn check_api_service(errors: &mut Errors, object: &Value) {
    const GROUP_PRIORITY_MAX: i64 = 20_000;
    const VERSION_PRIORITY_MAX: i64 = 1000;
    let path = Path::Root("spec");
    let (name, group, version) = (text(object, "metadata.name"), text(object, "spec.group"), text(object, "spec.version"));
    let wanted = format!("{version}.{group}");
    if name != wanted {
        errors.invalid(&Path::Root("metadata.name"), name, &format!("must be `spec.version+\".\"+spec.group`: {}", crate::validation::go_quote(&wanted)));
    }
    if group.is_empty() && version != "v1" {
        errors.required(&path.child("group"), "only v1 may have an empty group and it better be legacy kube");
    }
    if !group.is_empty() {
        errors.name(&path.child("group"), group, names::dns_subdomain);
    }
    errors.name(&path.child("version"), version, names::dns1035_label);
    for (field, max) in [("groupPriorityMinimum", GROUP_PRIORITY_MAX), ("versionPriority", VERSION_PRIORITY_MAX)] {
        let value = child(object, "spec").and_then(|spec| number(spec, field)).unwrap_or(0);
        if !(1..=max).contains(&value) {
            errors.invalid(&path.child(field), &value, &format!("must be positive and less than {max}"));
        }
    }
    let (bundle, insecure) = (text(object, "spec.caBundle"), flag(object, "spec.insecureSkipTLSVerify"));
    let Some(service) = child(object, "spec.service") else {
        if !bundle.is_empty() {
            errors.invalid(&path.child("caBundle"), format!("{} bytes", bundle.len() * 3 / 4).as_str(), "local APIServices may not have a caBundle");
        }
        if insecure {
            errors.invalid(&path.child("insecureSkipTLSVerify"), &true, "local APIServices may not have insecureSkipTLSVerify");
        }
        return;
    };
    for field in ["namespace", "name"] {
        if text(service, field).is_empty() {
            errors.required(&path.child("service").child(field), "");
        }
    }
    let port = number(service, "port").unwrap_or(0);
    let wrong = names::port_number(port);
    if !wrong.is_empty() {
        errors.invalid(&path.child("service.port"), &port, &format!("port is not valid: {}", wrong.join(", ")));
    }
    if insecure && !bundle.is_empty() {
        errors.invalid(&path.child("insecureSkipTLSVerify"), &true, "may not be true if caBundle is present");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::create;

    #[test]
    fn api_services() {
        let (made, causes) = create("apiregistration.k8s.io", "apiservices", json!({"metadata": {"name": "v1.apps"}, "spec": {"group": "apps", "version": "v1", "groupPriorityMinimum": 100, "versionPriority": 15}}));
        assert!(causes.is_empty(), "{causes:?}");
        assert_eq!(made["status"]["conditions"][0]["reason"], "Local");
    }
}
