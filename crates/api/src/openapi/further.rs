//! What the documents say of single types that the schema facts do not: unions, maps that are owned value by value, and the values an enumeration has.
//!
//! Mirrors the markers (`+union`, `+mapType=granular`, `+enum`) as kube-openapi's generator publishes them. What each value means is told in upstream's sources only, so it is not told here.

use serde_json::{Value, json};

use crate::schema::Field;

/// Type, field that says which member there is (empty: none does), members with their names in Go.
type Union = (&'static str, &'static str, &'static [(&'static str, &'static str)]);

const UNIONS: &[Union] = &[
    ("io.k8s.api.core.v1.AppArmorProfile", "type", &[("localhostProfile", "LocalhostProfile")]),
    ("io.k8s.api.core.v1.PodSchedulingGroup", "", &[("podGroupName", "PodGroupName")]),
    ("io.k8s.api.core.v1.SeccompProfile", "type", &[("localhostProfile", "LocalhostProfile")]),
    ("io.k8s.api.flowcontrol.v1.LimitResponse", "type", &[("queuing", "Queuing")]),
    ("io.k8s.api.flowcontrol.v1.PriorityLevelConfigurationSpec", "type", &[("exempt", "Exempt"), ("limited", "Limited")]),
    ("io.k8s.api.flowcontrol.v1.Subject", "kind", &[("group", "Group"), ("serviceAccount", "ServiceAccount"), ("user", "User")]),
];
const GRANULAR: &[(&str, &str)] = &[("io.k8s.api.core.v1.PersistentVolumeClaimStatus", "allocatedResourceStatuses"), ("io.k8s.api.core.v1.PersistentVolumeSpec", "claimRef")];
/// Required on paper; nothing refuses an object without.
const REQUIRED: &[(&str, &str)] = &[("io.k8s.api.core.v1.Event", "metadata"), ("io.k8s.api.events.v1.Event", "eventTime")];

/// Constants in Go, which the facts have no value of.
const DEFAULTS: &[(&str, &str, &str)] = &[("io.k8s.api.core.v1.AzureDiskVolumeSource", "cachingMode", "ReadWrite"), ("io.k8s.api.core.v1.AzureDiskVolumeSource", "kind", "Shared")];
/// Types whose fields stand in another order in Go than their tags.
const ORDERS: &[(&str, &[&str])] = &[
    ("io.k8s.api.networking.v1.HTTPIngressPath", &["pathType", "backend"]),
    ("io.k8s.apimachinery.pkg.apis.meta.v1.APIResource", &["name", "singularName", "namespaced", "kind", "verbs"]),
    ("io.k8s.apimachinery.pkg.apis.meta.v1.OwnerReference", &["apiVersion", "kind", "name", "uid"]),
    ("io.k8s.apimachinery.pkg.version.Info", &["major", "minor", "gitVersion", "gitCommit", "gitTreeState", "buildDate", "goVersion", "compiler", "platform"]),
];

/// Where a field stands among those that are required: in Go's order, which is mostly that of the tags.
pub(super) fn place<'a>(ty: &str, field: &'a Field) -> (usize, &'a [u8]) {
    let listed = ORDERS.iter().find(|(name, _)| *name == ty).and_then(|(_, fields)| fields.iter().position(|name| *name == field.name));
    (listed.unwrap_or(0), &field.proto_tag)
}

pub(super) fn default(ty: &str, field: &str) -> Option<&'static str> {
    DEFAULTS.iter().find(|(known, name, _)| (*known, *name) == (ty, field)).map(|(.., value)| *value)
}

/// `x-kubernetes-unions` of a type.
pub(super) fn unions(name: &str) -> Option<Value> {
    let (_, discriminator, members) = UNIONS.iter().find(|(ty, ..)| *ty == name)?;
    let members: Value = members.iter().map(|(json, go)| ((*json).to_owned(), Value::from(*go))).collect();
    let mut union = json!({"fields-to-discriminateBy": members});
    if !discriminator.is_empty() {
        union["discriminator"] = (*discriminator).into();
    }
    Some(json!([union]))
}

pub(super) fn granular(ty: &str, field: &str) -> bool {
    GRANULAR.contains(&(ty, field))
}

pub(super) fn required(ty: &str, field: &str) -> bool {
    REQUIRED.contains(&(ty, field))
}

/// A described field's values, as its description lists them for people.
pub(super) fn choices(value: &mut Value) {
    let Some(choices) = value.get("enum").and_then(Value::as_array) else { return };
    let mut text = value["description"].as_str().unwrap_or_default().trim_end().to_owned();
    text.push_str("\n\nPossible enum values:");
    for choice in choices {
        text.push_str(&format!("\n - `{choice}`"));
    }
    value["description"] = text.into();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_known_types() {
        for (ty, _, members) in UNIONS {
            let info = crate::schema::of(ty).unwrap_or_else(|| panic!("{ty}"));
            assert!(members.iter().all(|(field, _)| info.field(field).is_some()), "{ty}");
        }
        for (ty, field) in GRANULAR.iter().chain(REQUIRED) {
            assert!(crate::schema::of(ty).unwrap().field(field).is_some(), "{ty}.{field}");
        }
    }

    #[test]
    fn values_are_listed() {
        let mut value = json!({"description": "Which one.", "enum": ["", "A"]});
        choices(&mut value);
        assert_eq!(value["description"], "Which one.\n\nPossible enum values:\n - `\"\"`\n - `\"A\"`");
        let mut plain = json!({"description": "Any."});
        choices(&mut plain);
        assert_eq!(plain["description"], "Any.");
    }
}
