//! What extends the API: CustomResourceDefinitions and APIServices.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::json::{child, child_mut, default, ensure, flag, list, number, set, strings, text};
use super::policy::{BUILT_IN, Generation, Policy};
use super::workload;
use crate::names;
use crate::validation::{Errors, Path};

pub static CUSTOM_RESOURCE_DEFINITION: Policy = Policy {
    generation: Generation::Spec,
    status: true,
    defaults: |object| {
        let kind = text(object, "spec.names.kind").to_owned();
        if let Some(spec) = child_mut(object, "spec") {
            if let Some(names) = workload::nested(spec, "names") {
                default(names, "singular", kind.to_lowercase());
                if !kind.is_empty() {
                    default(names, "listKind", format!("{kind}List"));
                }
            }
            default(spec, "conversion", json!({"strategy": "None"}));
            if let Some(service) = child_mut(spec, "conversion.webhook.clientConfig.service") {
                default(service, "port", 443);
            }
        }
    },
    on_create: |object, _| {
        set(object, "status", json!({"conditions": [], "acceptedNames": {"plural": "", "kind": ""}}));
        store_version(object);
    },
    on_update: |new, _, _| store_version(new),
    check,
    check_update: |errors, new, old| {
        let established = list(old, "status.conditions").iter().any(|condition| text(condition, "type") == "Established" && text(condition, "status") == "True");
        if established {
            for name in ["spec.scope", "spec.names.kind"] {
                errors.immutable(&Path::Root(name), child(new, name), child(old, name));
            }
        }
        for name in ["spec.group", "spec.names.plural"] {
            errors.immutable(&Path::Root(name), child(new, name), child(old, name));
        }
    },
    ..BUILT_IN
};

/// The storage version is among those objects may have been stored in.
fn store_version(object: &mut Value) {
    let Some(version) = list(object, "spec.versions").iter().find(|version| flag(version, "storage")).map(|version| text(version, "name").to_owned()) else { return };
    let mut stored: Vec<String> = strings(object, "status.storedVersions").map(str::to_owned).collect();
    if !stored.contains(&version) {
        stored.push(version);
    }
    if let Some(status) = ensure(object, "status") {
        status.insert("storedVersions".to_owned(), stored.into());
    }
}

fn joined(errors: &mut Errors, path: &Path, value: &str, shown: &str, intro: &str) {
    let wrong = names::dns1035_label(value);
    if !wrong.is_empty() {
        errors.invalid(path, shown, &format!("{intro}{}", wrong.join(",")));
    }
}

fn check(errors: &mut Errors, object: &Value) {
    let path = Path::Root("spec");
    let none = Value::Null;
    let spec = child(object, "spec").unwrap_or(&none);
    let (name, group, plural) = (text(object, "metadata.name"), text(spec, "group"), text(spec, "names.plural"));
    if name != format!("{plural}.{group}") {
        errors.invalid(&Path::Root("metadata.name"), name, "must be spec.names.plural+\".\"+spec.group");
    }
    if group.is_empty() {
        errors.required(&path.child("group"), "");
    } else {
        let wrong = names::dns_subdomain(group);
        if !wrong.is_empty() {
            errors.invalid(&path.child("group"), group, &wrong.join(","));
        } else if !group.contains('.') {
            errors.invalid(&path.child("group"), group, "should be a domain with at least one dot");
        }
    }
    match text(spec, "scope") {
        "Cluster" | "Namespaced" => {}
        "" => errors.required(&path.child("scope"), ""),
        other => errors.not_supported(&path.child("scope"), other, &["Cluster", "Namespaced"]),
    }
    versions(errors, &path.child("versions"), list(spec, "versions"));
    let names_path = path.child("names");
    for field in ["plural", "singular", "kind", "listKind"] {
        if child(spec, "names").is_none_or(|names| text(names, field).is_empty()) {
            errors.required(&names_path.child(field), "");
        }
    }
    resource_names(errors, &names_path, child(spec, "names").unwrap_or(&none));
    conversion(errors, &path.child("conversion"), spec);
    if flag(spec, "preserveUnknownFields") {
        errors.invalid(&path.child("preserveUnknownFields"), &true, "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead");
    }
}

fn versions(errors: &mut Errors, path: &Path, versions: &[Value]) {
    let shown = Value::Array(versions.to_vec());
    let mut seen = BTreeSet::new();
    let mut unique = true;
    for (index, version) in versions.iter().enumerate() {
        let path = path.index(index);
        let name = text(version, "name");
        unique &= seen.insert(name);
        let schema = path.child("schema.openAPIV3Schema");
        match child(version, "schema.openAPIV3Schema") {
            None => errors.required(&schema, ""),
            Some(root) => structural(errors, &schema, root, true),
        }
        joined(errors, &path.child("name"), name, name, "");
        if !flag(version, "deprecated") && child(version, "deprecationWarning").is_some() {
            errors.invalid(&path.child("deprecationWarning"), text(version, "deprecationWarning"), "can only be set for deprecated versions");
        }
        let columns = path.child("additionalPrinterColumns");
        for (at, column) in list(version, "additionalPrinterColumns").iter().enumerate() {
            let path = columns.index(at);
            if text(column, "name").is_empty() {
                errors.required(&path.child("name"), "");
            }
            match text(column, "type") {
                "" => errors.required(&path.child("type"), "must be one of boolean,date,integer,number,string"),
                "boolean" | "date" | "integer" | "number" | "string" => {}
                other => errors.not_supported(&path.child("type"), other, &["boolean", "date", "integer", "number", "string"]),
            }
            if text(column, "jsonPath").is_empty() {
                errors.required(&path.child("JSONPath"), "");
            }
        }
        if child(version, "subresources.scale").is_some() {
            let path = path.child("subresources.scale");
            for (field, start) in [("specReplicasPath", ".spec."), ("statusReplicasPath", ".status.")] {
                let value = child(version, "subresources.scale").map_or("", |scale| text(scale, field));
                if value.is_empty() {
                    errors.required(&path.child(field), "");
                } else if !value.starts_with(start) {
                    errors.invalid(&path.child(field), value, &format!("should be a json path under {}", start.trim_end_matches('.')));
                }
            }
        }
    }
    if !unique {
        errors.invalid(path, &shown, "must contain unique version names");
    }
    if versions.iter().filter(|version| flag(version, "storage")).count() != 1 {
        errors.invalid(path, &shown, "must have exactly one version marked as storage version");
    }
}

/// The first rules of a structural schema: every node has a type, and arrays say what their items are.
fn structural(errors: &mut Errors, path: &Path, schema: &Value, root: bool) {
    const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];
    let kind = text(schema, "type");
    if kind.is_empty() {
        if root || !(flag(schema, "x-kubernetes-int-or-string") || flag(schema, "x-kubernetes-preserve-unknown-fields")) {
            let why = if root { "must not be empty at the root" } else { "must not be empty for specified object fields" };
            errors.required(&path.child("type"), why);
        }
    } else if !TYPES.contains(&kind) {
        errors.not_supported(&path.child("type"), kind, &TYPES);
    } else if root && kind != "object" {
        errors.invalid(&path.child("type"), kind, "must be object at the root");
    }
    let properties = path.child("properties");
    for (name, field) in child(schema, "properties").and_then(Value::as_object).into_iter().flatten() {
        // apiVersion, kind and metadata are the API's own.
        if !(root && matches!(name.as_str(), "apiVersion" | "kind" | "metadata")) {
            structural(errors, &properties.key(name), field, false);
        }
    }
    if let Some(items) = child(schema, "items").filter(|items| items.is_object()) {
        structural(errors, &path.child("items"), items, false);
    } else if kind == "array" {
        errors.required(&path.child("items"), "must be specified");
    }
    if let Some(more) = child(schema, "additionalProperties").filter(|more| more.is_object()) {
        structural(errors, &path.child("additionalProperties"), more, false);
        if root {
            errors.forbidden(&path.child("additionalProperties"), "must not be used at the root");
        }
    }
}

fn resource_names(errors: &mut Errors, path: &Path, names: &Value) {
    for field in ["plural", "singular"] {
        let value = text(names, field);
        if !value.is_empty() {
            joined(errors, &path.child(field), value, value, "");
        }
    }
    for field in ["kind", "listKind"] {
        let value = text(names, field);
        if !value.is_empty() {
            joined(errors, &path.child(field), &value.to_lowercase(), value, "may have mixed case, but should otherwise match: ");
        }
    }
    let (kind, list_kind) = (text(names, "kind"), text(names, "listKind"));
    for field in ["shortNames", "categories"] {
        let list_path = path.child(field);
        for (index, value) in strings(names, field).enumerate() {
            joined(errors, &list_path.index(index), value, value, "");
        }
    }
    if !kind.is_empty() && kind == list_kind {
        errors.invalid(&path.child("listKind"), list_kind, "kind and listKind may not be the same");
    }
}

fn conversion(errors: &mut Errors, path: &Path, spec: &Value) {
    match text(spec, "conversion.strategy") {
        "None" | "" => {
            if child(spec, "conversion.webhook").is_some() {
                errors.forbidden(&path.child("webhookClientConfig"), "should not be set when strategy is not set to Webhook");
            }
        }
        "Webhook" => {
            let config = child(spec, "conversion.webhook.clientConfig");
            if config.is_none_or(|config| child(config, "url").is_some() == child(config, "service").is_some()) {
                errors.required(&path.child("webhookClientConfig"), "exactly one of url or service is required");
            }
            let versions: Vec<&str> = strings(spec, "conversion.webhook.conversionReviewVersions").collect();
            if versions.is_empty() {
                errors.required(&path.child("conversionReviewVersions"), "");
            } else if !versions.iter().any(|version| matches!(*version, "v1" | "v1beta1")) {
                errors.invalid(&path.child("conversionReviewVersions"), &Value::from(versions), "must include at least one of v1, v1beta1");
            }
        }
        other => errors.not_supported(&path.child("strategy"), other, &["None", "Webhook"]),
    }
}

pub static API_SERVICE: Policy = Policy {
    status: true,
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

    use super::super::tests::{create, lines};

    #[test]
    fn definitions() {
        let object = json!({"metadata": {"name": "foos.example.com"}, "spec": {"group": "example.com", "scope": "Namespaced", "names": {"plural": "foos", "kind": "Foo"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object", "properties": {"metadata": {}, "spec": {"type": "array"}}}}}]}});
        let (made, causes) = create("apiextensions.k8s.io", "customresourcedefinitions", object);
        assert_eq!(lines(&causes), ["spec.versions[0].schema.openAPIV3Schema.properties[spec].items: Required value: must be specified"]);
        assert_eq!(made["spec"]["names"], json!({"plural": "foos", "kind": "Foo", "singular": "foo", "listKind": "FooList"}));
        assert_eq!((&made["status"]["storedVersions"], &made["spec"]["conversion"]), (&json!(["v1"]), &json!({"strategy": "None"})));
        let bad = json!({"metadata": {"name": "x"}, "spec": {"group": "g", "versions": []}});
        assert_eq!(
            lines(&create("apiextensions.k8s.io", "customresourcedefinitions", bad).1),
            [
                "metadata.name: Invalid value: \"x\": must be spec.names.plural+\".\"+spec.group",
                "spec.group: Invalid value: \"g\": should be a domain with at least one dot",
                "spec.scope: Required value",
                "spec.versions: Invalid value: []: must have exactly one version marked as storage version",
                "spec.names.plural: Required value",
                "spec.names.singular: Required value",
                "spec.names.kind: Required value",
                "spec.names.listKind: Required value",
            ]
        );
    }

    #[test]
    fn api_services() {
        let (made, causes) = create("apiregistration.k8s.io", "apiservices", json!({"metadata": {"name": "v1.apps"}, "spec": {"group": "apps", "version": "v1", "groupPriorityMinimum": 100, "versionPriority": 15}}));
        assert!(causes.is_empty(), "{causes:?}");
        assert_eq!(made["status"]["conditions"][0]["reason"], "Local");
    }
}
