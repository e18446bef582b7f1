//! CustomResourceDefinitions: defaults, life cycle and validation.
//!
//! Mirrors pkg/apis/apiextensions/validation and registry/customresourcedefinition. As upstream, what all versions have in common is judged once, under `spec.validation`,
//! `spec.subresources` and so on, and told by those names. The expressions of `x-kubernetes-validations` are compiled by the server.

use std::collections::BTreeSet;

use base64::Engine;
use serde_json::{Value, json};

use super::admission::client_config;
use super::json::{child, child_mut, default, ensure, entry, flag, list, set, strings, text};
use super::policy::{BUILT_IN, Generation, Policy};
use super::workload;
use crate::names;
use crate::structural::{Schema, definition, violations::violations};
use crate::validation::{Errors, Path, same};

pub const CLEANUP_FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";
pub const APPROVED_ANNOTATION: &str = "api-approved.kubernetes.io";
const SELECTABLE_FIELDS_MAX: usize = 8;
const DEPRECATION_WARNING_MAX: usize = 256;
const REVIEW_VERSIONS: [&str; 2] = ["v1", "v1beta1"];

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
        set(object, "status", json!({"conditions": null, "acceptedNames": {"plural": "", "kind": ""}, "storedVersions": null}));
        store_version(object);
    },
    on_update: |new, _, _| store_version(new),
    check,
    check_create: |errors, new| {
        conversion(errors, new, None);
        approved(errors, new, None);
        preserving(errors, new, None);
    },
    check_update: |errors, new, old| {
        if crate::custom::has_condition(old, "Established") {
            for name in ["spec.scope", "spec.names.kind"] {
                errors.immutable(&Path::Root(name), child(new, name), child(old, name));
            }
        }
        for name in ["spec.group", "spec.names.plural"] {
            errors.immutable(&Path::Root(name), child(new, name), child(old, name));
        }
        conversion(errors, new, Some(old));
        stored_versions(errors, new);
        approved(errors, new, Some(old));
        preserving(errors, new, Some(old));
    },
    check_status: |errors, new, _| {
        resource_names(errors, &Path::Root("status.acceptedNames"), child(new, "status.acceptedNames").unwrap_or(&Value::Null));
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

/// A deletion asked for: the instances go first.
pub fn prepare_delete(object: &mut Value, now: &str) {
    let mut finalizers: Vec<String> = strings(object, "metadata.finalizers").map(str::to_owned).collect();
    if !finalizers.iter().any(|name| name == CLEANUP_FINALIZER) {
        finalizers.push(CLEANUP_FINALIZER.to_owned());
    }
    if let Some(metadata) = ensure(object, "metadata") {
        metadata.insert("finalizers".to_owned(), finalizers.into());
    }
    set_condition(object, "Terminating", "True", "InstanceDeletionPending", "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon", now);
}

/// Writes a condition; the time changes with the status only.
pub fn set_condition(object: &mut Value, kind: &str, status: &str, reason: &str, message: &str, now: &str) {
    let Some(slot) = ensure(object, "status").map(|status| status.entry("conditions").or_insert(Value::Null)) else { return };
    if !slot.is_array() {
        *slot = json!([]);
    }
    let Some(conditions) = slot.as_array_mut() else { return };
    let fresh = json!({"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": now});
    match conditions.iter_mut().find(|condition| text(condition, "type") == kind) {
        Some(known) => {
            let since = if text(known, "status") == status { known.get("lastTransitionTime").cloned() } else { None };
            *known = fresh;
            if let Some(since) = since {
                known["lastTransitionTime"] = since;
            }
        }
        None => conditions.push(fresh),
    }
}

/// Whether a group is the Kubernetes project's own.
pub fn is_protected(group: &str) -> bool {
    ["k8s.io", "kubernetes.io"].iter().any(|known| group == *known || group.strip_suffix(known).is_some_and(|rest| rest.ends_with('.')))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Approval {
    Missing,
    Bypassed,
    Approved,
    Invalid,
}

/// What the approval annotation says, with upstream's reason.
pub fn approval(annotation: &str) -> (Approval, String) {
    const SEE: &str = "see https://github.com/kubernetes/enhancements/pull/1111";
    let url = annotation.split_once("://").is_some_and(|(scheme, rest)| !scheme.is_empty() && !rest.is_empty() && !rest.starts_with('/'));
    match annotation {
        "" => (Approval::Missing, format!("protected groups must have approval annotation {APPROVED_ANNOTATION:?}, {SEE}")),
        text if text.starts_with("unapproved") => (Approval::Bypassed, format!("not approved: {text:?}")),
        text if url => (Approval::Approved, format!("approved in {text}")),
        _ => (Approval::Invalid, format!("protected groups must have approval annotation {APPROVED_ANNOTATION:?} with either a URL or a reason starting with \"unapproved\", {SEE}")),
    }
}

fn stored_versions(errors: &mut Errors, object: &Value) {
    let path = Path::Root("status.storedVersions");
    let stored: Vec<&str> = strings(object, "status.storedVersions").collect();
    let shown = Value::from(stored.clone());
    if stored.is_empty() {
        errors.invalid(&path, &shown, "must have at least one stored version");
        return;
    }
    let versions = list(object, "spec.versions");
    for version in versions.iter().filter(|version| flag(version, "storage") && !stored.contains(&text(version, "name"))) {
        errors.invalid(&path, &shown, &format!("must have the storage version {}", text(version, "name")));
    }
    for (index, name) in stored.iter().enumerate().filter(|(_, name)| !versions.iter().any(|version| text(version, "name") == **name)) {
        errors.invalid(
            &path.index(index),
            *name,
            &format!("missing from spec.versions; {name} was previously a storage version, and must remain in spec.versions until a storage migration ensures no data remains persisted in {name} and removes {name} from status.storedVersions"),
        );
    }
}

fn joined(errors: &mut Errors, path: &Path, value: &str, shown: &str, intro: &str) {
    let wrong = names::dns1035_label(value);
    if !wrong.is_empty() {
        errors.invalid(path, shown, &format!("{intro}{}", wrong.join(",")));
    }
}

/// Whether all versions say the same in this field, which is then judged once.
fn common<'a>(versions: &'a [Value], field: &str) -> Option<&'a Value> {
    let first = versions.first()?;
    versions.iter().all(|version| same(child(version, field), child(first, field))).then(|| child(first, field)).flatten()
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
    versions(errors, &path, list(spec, "versions"));
    let names_path = path.child("names");
    for field in ["plural", "singular", "kind", "listKind"] {
        if child(spec, "names").is_none_or(|names| text(names, field).is_empty()) {
            errors.required(&names_path.child(field), "");
        }
    }
    resource_names(errors, &names_path, child(spec, "names").unwrap_or(&none));
    shared(errors, &path, list(spec, "versions"));
}

/// A group of the project needs its approval; whoever had none before may go on so.
fn approved(errors: &mut Errors, new: &Value, old: Option<&Value>) {
    if !is_protected(text(new, "spec.group")) {
        return;
    }
    let annotation = |object| entry(object, "metadata.annotations", APPROVED_ANNOTATION).unwrap_or_default();
    let (state, reason) = approval(annotation(new));
    if old.is_some_and(|old| approval(annotation(old)).0 == state) {
        return;
    }
    let at = Path::Root("metadata.annotations");
    let at = at.key(APPROVED_ANNOTATION);
    match state {
        Approval::Missing => errors.required(&at, &reason),
        Approval::Invalid => errors.invalid(&at, annotation(new), &reason),
        Approval::Approved | Approval::Bypassed => {}
    }
}

fn preserving(errors: &mut Errors, new: &Value, old: Option<&Value>) {
    const FLAG: &str = "spec.preserveUnknownFields";
    if flag(new, FLAG) && !old.is_some_and(|old| flag(old, FLAG)) {
        errors.invalid(&Path::Root(FLAG), &true, "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead");
    }
}

fn versions(errors: &mut Errors, spec: &Path, versions: &[Value]) {
    let path = spec.child("versions");
    let shown = Value::Array(versions.to_vec());
    let mut seen = BTreeSet::new();
    let mut unique = true;
    let one_for_all = |field: &str| common(versions, field).is_some();
    for (index, version) in versions.iter().enumerate().filter(|(_, version)| child(version, "schema.openAPIV3Schema").is_none()) {
        let _ = version;
        errors.required(&path.index(index).child("schema.openAPIV3Schema"), "");
    }
    for (index, version) in versions.iter().enumerate() {
        let path = path.index(index);
        let name = text(version, "name");
        unique &= seen.insert(name);
        joined(errors, &path.child("name"), name, name, "");
        deprecation_warning(errors, &path.child("deprecationWarning"), version);
        if !one_for_all("schema") {
            schema(errors, &path.child("schema"), version, child(version, "subresources.status").is_some());
        }
        if !one_for_all("subresources") {
            subresources(errors, &path.child("subresources"), version);
        }
        if !one_for_all("additionalPrinterColumns") {
            columns(errors, &path.child("additionalPrinterColumns"), version);
        }
        if !one_for_all("selectableFields") {
            selectable_fields(errors, &path.child("selectableFields"), version);
        }
    }
    if !unique {
        errors.invalid(&path, &shown, "must contain unique version names");
    }
    if versions.iter().filter(|version| flag(version, "storage")).count() != 1 {
        errors.invalid(&path, &shown, "must have exactly one version marked as storage version");
    }
}

/// What all versions have in common.
fn shared(errors: &mut Errors, spec: &Path, versions: &[Value]) {
    let Some(first) = versions.first() else { return };
    if common(versions, "schema").is_some() {
        let status = versions.iter().any(|version| child(version, "subresources.status").is_some());
        schema(errors, &spec.child("validation"), first, status);
    }
    if common(versions, "subresources").is_some() {
        subresources(errors, &spec.child("subresources"), first);
    }
    if common(versions, "additionalPrinterColumns").is_some() {
        columns(errors, &spec.child("additionalPrinterColumns"), first);
    }
    if common(versions, "selectableFields").is_some() {
        selectable_fields(errors, &spec.child("selectableFields"), first);
    }
}

fn deprecation_warning(errors: &mut Errors, path: &Path, version: &Value) {
    let Some(warning) = version.get("deprecationWarning").and_then(Value::as_str) else { return };
    if !flag(version, "deprecated") {
        errors.invalid(path, warning, "can only be set for deprecated versions");
        return;
    }
    if warning.len() > DEPRECATION_WARNING_MAX {
        errors.invalid(path, warning, "must be <= 256 characters long");
    }
    if warning.is_empty() {
        errors.invalid(path, warning, "must not be an empty string");
    }
    if let Some((at, _)) = warning.char_indices().find(|(_, c)| !is_print(*c)) {
        errors.invalid(path, warning, &format!("must only contain printable UTF-8 characters; non-printable character found at index {at}"));
    }
}

/// Go's `unicode.IsPrint`: of spaces only the plain one, nothing invisible.
fn is_print(c: char) -> bool {
    let invisible = matches!(u32::from(c), 0xad | 0x600..=0x605 | 0x61c | 0x6dd | 0x70f | 0x180e | 0x200b..=0x200f | 0x202a..=0x202e | 0x2060..=0x206f
        | 0xe000..=0xf8ff | 0xfeff | 0xfff9..=0xfffb | 0xe0000..=0xe007f | 0xf0000..=0x10ffff);
    !(c.is_control() || invisible || (c.is_whitespace() && c != ' '))
}

fn schema(errors: &mut Errors, path: &Path, version: &Value, status: bool) {
    const AT_ROOT: &[&str] = &[
        "description", "type", "format", "title", "maximum", "exclusiveMaximum", "minimum", "exclusiveMinimum", "maxLength", "minLength", "pattern", "maxItems", "minItems", "uniqueItems", "multipleOf",
        "required", "items", "properties", "externalDocs", "example", "x-kubernetes-preserve-unknown-fields", "x-kubernetes-validations",
    ];
    let Some(root) = child(version, "schema.openAPIV3Schema") else { return };
    let before = errors.len();
    let path = path.child("openAPIV3Schema");
    if status {
        if !matches!(text(root, "type"), "object" | "") {
            errors.invalid(&path.child("type"), text(root, "type"), "only \"object\" is allowed as the type at the root of the schema if the status subresource is enabled");
        } else if root.as_object().is_some_and(|map| map.keys().any(|key| !AT_ROOT.contains(&key.as_str()) && key != "nullable")) {
            let go: Vec<String> = AT_ROOT.iter().map(|name| go_field(name)).collect();
            errors.invalid(&path, root, &format!("only [{}] fields are allowed at the root of the schema if the status subresource is enabled", go.join(" ")));
        }
    }
    if flag(root, "nullable") {
        errors.forbidden(&path.child("nullable"), "nullable cannot be true at the root");
    }
    errors.extend(violations(&path, root));
    if errors.len() == before {
        definition::defaults(errors, &path, &Schema::parse(root));
    }
    definition::rules(errors, &path, root);
}

/// Go's name of a field of JSONSchemaProps.
fn go_field(name: &str) -> String {
    match name {
        "x-kubernetes-preserve-unknown-fields" => "XPreserveUnknownFields".to_owned(),
        "x-kubernetes-validations" => "XValidations".to_owned(),
        _ => name[..1].to_uppercase() + &name[1..],
    }
}

fn simple_path(errors: &mut Errors, path: &Path, value: &str) -> bool {
    if value.starts_with('.') {
        return true;
    }
    errors.invalid(path, value, "must be a simple json path starting with .");
    false
}

fn subresources(errors: &mut Errors, path: &Path, version: &Value) {
    let Some(scale) = child(version, "subresources.scale") else { return };
    let path = path.child("scale");
    for (field, start) in [("specReplicasPath", ".spec"), ("statusReplicasPath", ".status")] {
        let (at, value) = (path.child(field), text(scale, field));
        if value.is_empty() {
            errors.required(&at, "");
        } else if simple_path(errors, &at, value) && !value.strip_prefix(start).is_some_and(|rest| rest.starts_with('.')) {
            errors.invalid(&at, value, &format!("should be a json path under {start}"));
        }
    }
    let (at, value) = (path.child("labelSelectorPath"), text(scale, "labelSelectorPath"));
    if !value.is_empty() && simple_path(errors, &at, value) && !value.starts_with(".spec.") && !value.starts_with(".status.") {
        errors.invalid(&at, value, "should be a json path under either .spec or .status");
    }
}

fn columns(errors: &mut Errors, path: &Path, version: &Value) {
    const TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
    const FORMATS: [&str; 8] = ["byte", "date", "date-time", "double", "float", "int32", "int64", "password"];
    for (at, column) in list(version, "additionalPrinterColumns").iter().enumerate() {
        let path = path.index(at);
        if text(column, "name").is_empty() {
            errors.required(&path.child("name"), "");
        }
        let one_of = |all: &[&str]| format!("must be one of {}", all.join(","));
        match text(column, "type") {
            "" => errors.required(&path.child("type"), &one_of(&TYPES)),
            known if TYPES.contains(&known) => {}
            other => errors.invalid(&path.child("type"), other, &one_of(&TYPES)),
        }
        let format = text(column, "format");
        if !format.is_empty() && !FORMATS.contains(&format) {
            errors.invalid(&path.child("format"), format, &one_of(&FORMATS));
        }
        match text(column, "jsonPath") {
            "" => errors.required(&path.child("JSONPath"), ""),
            value => {
                simple_path(errors, &path.child("JSONPath"), value);
            }
        }
    }
}

fn selectable_fields(errors: &mut Errors, path: &Path, version: &Value) {
    let fields = list(version, "selectableFields");
    if fields.is_empty() {
        return;
    }
    let Some(schema) = child(version, "schema.openAPIV3Schema").map(Schema::parse) else {
        // Upstream's words.
        errors.invalid(path, "", "may only be set when `version.schema.openAPIV3Schema` is not included");
        return;
    };
    let mut seen = BTreeSet::new();
    for (index, field) in fields.iter().enumerate() {
        let at = path.index(index);
        let at = at.child("jsonPath");
        let value = text(field, "jsonPath");
        if value.is_empty() {
            errors.required(&at, "");
            continue;
        }
        let (names, found) = match definition::field_path(value, &schema, definition::Brackets::Refused) {
            Ok(found) => found,
            Err(error) => {
                errors.invalid(&at, value, &format!("is an invalid path: {error}"));
                continue;
            }
        };
        if names.first().is_some_and(|name| name == "metadata") {
            errors.invalid(&at, value, "must not point to fields in metadata");
        }
        if !definition::selectable(found) {
            errors.invalid(&at, value, "must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed.");
        }
        if !seen.insert(names) {
            errors.duplicate(&at, value);
        }
    }
    if seen.len() > SELECTABLE_FIELDS_MAX {
        errors.too_many(path, seen.len(), SELECTABLE_FIELDS_MAX);
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
    let each = |errors: &mut Errors, field: &str| {
        let list_path = path.child(field);
        for (index, value) in strings(names, field).enumerate() {
            joined(errors, &list_path.index(index), value, value, "");
        }
    };
    each(errors, "shortNames");
    if !kind.is_empty() && kind == list_kind {
        errors.invalid(&path.child("listKind"), list_kind, "kind and listKind may not be the same");
    }
    each(errors, "categories");
}

fn conversion(errors: &mut Errors, new: &Value, old: Option<&Value>) {
    const VERSIONS: &str = "spec.conversion.webhook.conversionReviewVersions";
    const BUNDLE: &str = "spec.conversion.webhook.clientConfig.caBundle";
    let path = &Path::Root("spec.conversion");
    let webhook = child(new, "spec.conversion.webhook");
    let known = |object: &Value| strings(object, VERSIONS).any(|version| REVIEW_VERSIONS.contains(&version));
    let strategy = text(new, "spec.conversion.strategy");
    if !matches!(strategy, "" | "None") && flag(new, "spec.preserveUnknownFields") {
        errors.invalid(&path.child("strategy"), strategy, "must be None if spec.preserveUnknownFields is true");
    }
    match strategy {
        "None" => {
            if webhook.is_some_and(|webhook| child(webhook, "clientConfig").is_some()) {
                errors.forbidden(&path.child("webhookClientConfig"), "should not be set when strategy is not set to Webhook");
            }
            if strings(new, VERSIONS).next().is_some() {
                errors.forbidden(&path.child("conversionReviewVersions"), "should not be set when strategy is not set to Webhook");
            }
        }
        "Webhook" => {
            let at = path.child("webhookClientConfig");
            match webhook.and_then(|webhook| child(webhook, "clientConfig")) {
                None => errors.required(&at, "required when strategy is set to Webhook"),
                Some(config) => {
                    client_config(errors, &at, config);
                    // Until it is established, and where it was wrong already, a definition may carry a broken bundle.
                    let lenient = old.is_none_or(|old| !crate::custom::has_condition(old, "Established") || (!text(old, BUNDLE).is_empty() && broken_bundle(text(old, BUNDLE))));
                    if !lenient && !text(new, BUNDLE).is_empty() && broken_bundle(text(new, BUNDLE)) {
                        errors.invalid(&at.child("caBundle"), text(new, BUNDLE), "unable to load root certificates: unable to parse bytes as PEM block");
                    }
                }
            }
            let versions: Vec<&str> = strings(new, VERSIONS).collect();
            let at = path.child("conversionReviewVersions");
            if versions.is_empty() {
                errors.required(&at, "");
            } else {
                let mut seen = BTreeSet::new();
                for (index, version) in versions.iter().enumerate() {
                    if !seen.insert(*version) {
                        errors.invalid(&at.index(index), *version, "duplicate version");
                    } else {
                        errors.invalid_each(&at.index(index), *version, names::dns1035_label(version));
                    }
                }
                let required = old.is_none_or(|old| known(old) || strings(old, VERSIONS).next().is_none());
                if required && !known(new) {
                    errors.invalid(&at, &Value::from(versions), &format!("must include at least one of {}", REVIEW_VERSIONS.join(", ")));
                }
            }
        }
        "" => errors.required(&path.child("strategy"), ""),
        other => errors.not_supported(&path.child("strategy"), other, &["None", "Webhook"]),
    }
}

/// Whether there is not one certificate in a bundle (base64 of PEM).
fn broken_bundle(bundle: &str) -> bool {
    let pem = base64::engine::general_purpose::STANDARD.decode(bundle).unwrap_or_default();
    let text = String::from_utf8_lossy(&pem);
    let body = text.split_once("-----BEGIN CERTIFICATE-----").and_then(|(_, rest)| rest.split_once("-----END CERTIFICATE-----"));
    body.is_none_or(|(body, _)| {
        let body: String = body.split_whitespace().collect();
        base64::engine::general_purpose::STANDARD.decode(body).map_or(true, |der| der.is_empty())
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::tests::{create, lines};
    use super::*;

    fn definition(schema: Value) -> Value {
        json!({"metadata": {"name": "foos.example.com"}, "spec": {"group": "example.com", "scope": "Namespaced", "names": {"plural": "foos", "kind": "Foo"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}]}})
    }

    fn made(object: Value) -> (Value, Vec<String>) {
        let (made, causes) = create("apiextensions.k8s.io", "customresourcedefinitions", object);
        (made, lines(&causes))
    }

    #[test]
    fn definitions() {
        let (made_object, wrong) = made(definition(json!({"type": "object", "properties": {"metadata": {"type": "object"}, "spec": {"type": "array"}}})));
        assert_eq!(wrong, ["spec.validation.openAPIV3Schema.properties[spec].items: Required value: must be specified"]);
        assert_eq!(made_object["spec"]["names"], json!({"plural": "foos", "kind": "Foo", "singular": "foo", "listKind": "FooList"}));
        assert_eq!((&made_object["status"]["storedVersions"], &made_object["spec"]["conversion"]), (&json!(["v1"]), &json!({"strategy": "None"})));
        let bad = json!({"metadata": {"name": "x"}, "spec": {"group": "g", "versions": []}});
        assert_eq!(
            made(bad).1,
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
    fn schemas() {
        const AT: &str = "spec.validation.openAPIV3Schema";
        for (schema, wanted) in [
            (json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}), vec![]),
            (json!({"type": "object", "properties": {"a": {}}}), vec![".properties[a].type: Required value: must not be empty for specified object fields"]),
            (json!({"type": "object", "anyOf": [{"properties": {"b": {"type": "string"}}}]}), vec![
                ".anyOf[0].properties[b].type: Forbidden: must be empty to be structural",
                ".properties[b]: Required value: because it is defined in spec.validation.openAPIV3Schema.anyOf[0].properties[b]",
            ]),
            (json!({"type": "object", "properties": {"a": {"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]}}}), vec![]),
            (json!({"type": "object", "properties": {"a": {"type": "integer", "default": "x"}}}), vec![
                ".properties[a].default: Invalid value: \"string\":  in body must be of type integer: \"string\"",
            ]),
            (json!({"type": "object", "properties": {"a": {"type": "object", "default": {"x": 1}}}}), vec![".properties[a].default: Invalid value: {\"x\":1}: must not have unknown fields"]),
            (json!({"type": "object", "properties": {"a": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"], "items": {"type": "object", "properties": {"k": {"type": "string"}}}}}}), vec![
                ".properties[a].items.properties[k].default: Required value: this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property",
            ]),
            (json!({"type": "object", "properties": {"a": {"type": "object", "additionalProperties": {"type": "string"}, "properties": {"b": {"type": "string"}}}}}), vec![
                ".properties[a].additionalProperties: Forbidden: additionalProperties and properties are mutual exclusive",
            ]),
            (json!({"type": "object", "properties": {"a": {"type": "string", "pattern": "("}}}), vec![
                ".properties[a].pattern: Invalid value: \"(\": must be a valid regular expression, but isn't: error parsing regexp: missing closing ): `(`",
            ]),
            (json!({"type": "object", "properties": {"metadata": {"type": "object", "properties": {"labels": {"type": "object"}}}}}), vec![
                ".properties[metadata]: Forbidden: must not specify anything other than name and generateName, but metadata is implicitly specified",
            ]),
        ] {
            let wanted: Vec<String> = wanted.iter().map(|line| format!("{AT}{line}")).collect();
            let wrong: Vec<String> = made(definition(schema)).1;
            assert_eq!(wrong, wanted);
        }
    }

    #[test]
    fn groups_of_the_project_need_approval() {
        assert!(is_protected("k8s.io") && is_protected("a.kubernetes.io") && !is_protected("notk8s.io"));
        assert_eq!(approval("https://github.com/kubernetes/kubernetes/pull/1").0, Approval::Approved);
        assert_eq!(approval("unapproved, legacy").0, Approval::Bypassed);
        assert_eq!(approval("x").0, Approval::Invalid);
    }

    #[test]
    fn selectable_fields_and_paths() {
        let schema = json!({"type": "object", "properties": {"metadata": {"type": "object", "properties": {"name": {"type": "string"}}}, "spec": {"type": "object", "properties": {
            "color": {"type": "string"}, "list": {"type": "array", "items": {"type": "string"}}, "map": {"type": "object", "additionalProperties": {"type": "integer"}}}}}});
        const AT: &str = "spec.selectableFields";
        for (paths, wanted) in [
            (vec![".spec.color", ".spec.map.any"], vec![]),
            (vec![""], vec!["[0].jsonPath: Required value".to_owned()]),
            (vec!["spec.color"], vec!["[0].jsonPath: Invalid value: \"spec.color\": is an invalid path: expected [ or . but got: spec".to_owned()]),
            (vec![".spec['color']"], vec!["[0].jsonPath: Invalid value: \".spec['color']\": is an invalid path: array notation is not allowed".to_owned()]),
            (vec![".spec."], vec!["[0].jsonPath: Invalid value: \".spec.\": is an invalid path: unexpected end of JSON path".to_owned()]),
            (vec![".spec.none"], vec!["[0].jsonPath: Invalid value: \".spec.none\": is an invalid path: does not refer to a valid field".to_owned()]),
            (vec![".spec.color.x"], vec!["[0].jsonPath: Invalid value: \".spec.color.x\": is an invalid path: does not refer to a valid field".to_owned()]),
            (vec![".metadata.name"], vec!["[0].jsonPath: Invalid value: \".metadata.name\": must not point to fields in metadata".to_owned()]),
            (vec![".spec.list"], vec!["[0].jsonPath: Invalid value: \".spec.list\": must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed.".to_owned()]),
            (vec![".spec.color", ".spec.color"], vec!["[1].jsonPath: Duplicate value: \".spec.color\"".to_owned()]),
        ] {
            let mut object = definition(schema.clone());
            object["spec"]["versions"][0]["selectableFields"] = paths.iter().map(|path| json!({"jsonPath": path})).collect();
            let wanted: Vec<String> = wanted.iter().map(|line| format!("{AT}{line}")).collect();
            assert_eq!(made(object).1, wanted);
        }
        let parsed = Schema::parse(&schema);
        let at = |path: &str| definition::field_path(path, &parsed, definition::Brackets::Allowed).map(|(names, _)| names);
        assert_eq!(at(".spec['color']"), Ok(vec!["spec".to_owned(), "color".to_owned()]));
        assert_eq!(at(".spec.map['it\\'s.one']"), Ok(vec!["spec".to_owned(), "map".to_owned(), "it's.one".to_owned()]));
        assert_eq!(at(".spec[color]"), Err("expected single quoted string but got color".to_owned()));
        assert_eq!(at(".spec['color'"), Err("unexpected end of JSON path".to_owned()));
    }

    /// What was wrong before may stay; what is newly wrong may not come.
    #[test]
    fn updates_are_held_against_what_was() {
        let config = |bundle: &str| json!({"strategy": "Webhook", "webhook": {"clientConfig": {"url": "https://a", "caBundle": bundle}, "conversionReviewVersions": ["v1"]}});
        let mut old = definition(json!({"type": "object"}));
        old["metadata"]["name"] = "foos.x.k8s.io".into();
        old["spec"]["group"] = "x.k8s.io".into();
        old["spec"]["conversion"] = config("");
        let (old, wrong) = made(old);
        assert_eq!(wrong.len(), 1, "a group of the project: {wrong:?}");
        let update = |change: &dyn Fn(&mut Value), established: bool| {
            let (mut old, mut new) = (old.clone(), old.clone());
            change(&mut new);
            if established {
                set_condition(&mut old, "Established", "True", "a", "b", "2026-01-01T00:00:00Z");
            }
            lines(&crate::kinds::strategy("apiextensions.k8s.io", "customresourcedefinitions").validate_update(&new, &old))
        };
        assert_eq!(update(&|_| {}, true), Vec::<String>::new());
        assert_eq!(update(&|new| new["spec"]["conversion"] = config("eHg="), false), Vec::<String>::new());
        assert_eq!(
            update(&|new| new["spec"]["conversion"] = config("eHg="), true),
            ["spec.conversion.webhookClientConfig.caBundle: Invalid value: \"eHg=\": unable to load root certificates: unable to parse bytes as PEM block"]
        );
        let annotated = update(&|new| new["metadata"]["annotations"] = json!({APPROVED_ANNOTATION: "x"}), true);
        assert!(annotated[0].starts_with("metadata.annotations[api-approved.kubernetes.io]: Invalid value: \"x\": protected groups must have"), "{annotated:?}");
        assert_eq!(update(&|new| new["spec"]["preserveUnknownFields"] = true.into(), true).len(), 2);
    }

    #[test]
    fn deleting_marks() {
        let mut object = json!({"metadata": {}, "status": {}});
        prepare_delete(&mut object, "2026-01-01T00:00:00Z");
        assert_eq!(object["metadata"]["finalizers"], json!([CLEANUP_FINALIZER]));
        assert!(crate::custom::has_condition(&object, "Terminating"));
    }
}
