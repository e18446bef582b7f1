//! Roles, ClusterRoles and their bindings. Mirrors pkg/apis/rbac/validation.

use serde_json::Value;

use super::json::{child, child_mut, default, list, list_mut, text};
use super::policy::{BUILT_IN, Policy};
use crate::names;
use crate::validation::{Errors, Path, Raw};

const GROUP: &str = "rbac.authorization.k8s.io";

pub static ROLE: Policy = Policy { create_on_update: true, check: |errors, object| rules(errors, object, true), ..BUILT_IN };

pub static CLUSTER_ROLE: Policy = Policy {
    create_on_update: true,
    check: |errors, object| {
        rules(errors, object, false);
        let selectors = Path::Root("aggregationRule.clusterRoleSelectors");
        if child(object, "aggregationRule").is_some() {
            let list = list(object, "aggregationRule.clusterRoleSelectors");
            if list.is_empty() {
                errors.required(&selectors, "at least one clusterRoleSelector required if aggregationRule is non-nil");
            }
            for (index, selector) in list.iter().enumerate() {
                let before = errors.len();
                errors.label_selector(&selectors.index(index), Some(selector));
                if errors.len() > before {
                    errors.invalid(&selectors.index(index), &Value::Null, "invalid label selector.");
                }
            }
        }
    },
    ..BUILT_IN
};

pub static ROLE_BINDING: Policy = Policy { check: |errors, object| binding(errors, object, true), ..BINDING };
pub static CLUSTER_ROLE_BINDING: Policy = Policy { check: |errors, object| binding(errors, object, false), ..BINDING };

const BINDING: Policy = Policy {
    create_on_update: true,
    defaults: |object| {
        if let Some(role) = child_mut(object, "roleRef") {
            default(role, "apiGroup", GROUP);
        }
        for subject in list_mut(object, "subjects") {
            if matches!(text(subject, "kind"), "User" | "Group") {
                default(subject, "apiGroup", GROUP);
            }
        }
    },
    check_update: |errors, new, old| {
        if new.get("roleRef") != old.get("roleRef") {
            let role = new.get("roleRef").unwrap_or(&Value::Null);
            let shown = format!(
                "{{\"APIGroup\":\"{}\",\"Kind\":\"{}\",\"Name\":\"{}\"}}",
                text(role, "apiGroup"),
                text(role, "kind"),
                text(role, "name")
            );
            errors.invalid(&Path::Root("roleRef"), &Raw(&shown), "cannot change roleRef");
        }
    },
    ..BUILT_IN
};

fn rules(errors: &mut Errors, object: &Value, namespaced: bool) {
    let path = Path::Root("rules");
    for (index, rule) in list(object, "rules").iter().enumerate() {
        let path = path.index(index);
        if list(rule, "verbs").is_empty() {
            errors.required(&path.child("verbs"), "verbs must contain at least one value");
        }
        let urls = list(rule, "nonResourceURLs");
        if !urls.is_empty() {
            let shown = Value::Array(urls.to_vec());
            if namespaced {
                errors.invalid(&path.child("nonResourceURLs"), &shown, "namespaced rules cannot apply to non-resource URLs");
            }
            if ["apiGroups", "resources", "resourceNames"].iter().any(|name| !list(rule, name).is_empty()) {
                errors.invalid(&path.child("nonResourceURLs"), &shown, "rules cannot apply to both regular resources and non-resource URLs");
            }
            continue;
        }
        if list(rule, "apiGroups").is_empty() {
            errors.required(&path.child("apiGroups"), "resource rules must supply at least one api group");
        }
        if list(rule, "resources").is_empty() {
            errors.required(&path.child("resources"), "resource rules must supply at least one resource");
        }
    }
}

fn binding(errors: &mut Errors, object: &Value, namespaced: bool) {
    let path = Path::Root("roleRef");
    let (group, kind, name) = (text(object, "roleRef.apiGroup"), text(object, "roleRef.kind"), text(object, "roleRef.name"));
    if group != GROUP {
        errors.not_supported(&path.child("apiGroup"), group, &[GROUP]);
    }
    if !(kind == "ClusterRole" || (namespaced && kind == "Role")) {
        errors.not_supported(&path.child("kind"), kind, if namespaced { &["Role", "ClusterRole"] } else { &["ClusterRole"] });
    }
    if name.is_empty() {
        errors.required(&path.child("name"), "");
    } else {
        errors.name(&path.child("name"), name, names::path_segment);
    }
    let subjects = Path::Root("subjects");
    for (index, subject) in list(object, "subjects").iter().enumerate() {
        let path = subjects.index(index);
        let (kind, group, name, namespace) = (text(subject, "kind"), text(subject, "apiGroup"), text(subject, "name"), text(subject, "namespace"));
        if name.is_empty() {
            errors.required(&path.child("name"), "");
        }
        match kind {
            "ServiceAccount" => {
                if !name.is_empty() {
                    errors.name(&path.child("name"), name, names::dns_subdomain);
                }
                if !group.is_empty() {
                    errors.not_supported(&path.child("apiGroup"), group, &[""]);
                }
                if !namespaced && namespace.is_empty() {
                    errors.required(&path.child("namespace"), "");
                }
            }
            "User" | "Group" => {
                if group != GROUP {
                    errors.not_supported(&path.child("apiGroup"), group, &[GROUP]);
                }
            }
            other => errors.not_supported(&path.child("kind"), other, &["ServiceAccount", "User", "Group"]),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::{create, lines, update};

    #[test]
    fn bindings() {
        let object = json!({"metadata": {"name": "b"}, "roleRef": {"kind": "ClusterRole", "name": "admin"}, "subjects": [{"kind": "User", "name": "u"}, {"kind": "ServiceAccount", "name": "s"}]});
        let (made, causes) = create("rbac.authorization.k8s.io", "clusterrolebindings", object);
        assert_eq!(lines(&causes), ["subjects[1].namespace: Required value"]);
        assert_eq!((&made["roleRef"]["apiGroup"], &made["subjects"][0]["apiGroup"]), (&json!("rbac.authorization.k8s.io"), &json!("rbac.authorization.k8s.io")));
        let mut changed = made.clone();
        changed["roleRef"]["name"] = "view".into();
        let (_, causes) = update("rbac.authorization.k8s.io", "rolebindings", changed, &made);
        assert_eq!(lines(&causes), ["roleRef: Invalid value: {\"APIGroup\":\"rbac.authorization.k8s.io\",\"Kind\":\"ClusterRole\",\"Name\":\"view\"}: cannot change roleRef"]);
    }

    #[test]
    fn rules() {
        let object = json!({"metadata": {"name": "r"}, "rules": [{"verbs": ["get"]}, {"nonResourceURLs": ["/healthz"], "verbs": ["get"]}, {"apiGroups": [""], "resources": ["pods"]}]});
        assert_eq!(
            lines(&create("rbac.authorization.k8s.io", "roles", object).1),
            [
                "rules[0].apiGroups: Required value: resource rules must supply at least one api group",
                "rules[0].resources: Required value: resource rules must supply at least one resource",
                "rules[1].nonResourceURLs: Invalid value: [\"/healthz\"]: namespaced rules cannot apply to non-resource URLs",
                "rules[2].verbs: Required value: verbs must contain at least one value",
            ]
        );
    }
}
