//! Admission webhooks and admission policies. Mirrors pkg/apis/admissionregistration; expressions are judged where they are evaluated.

use std::collections::BTreeSet;

use serde_json::Value;

use super::json::{child, child_mut, default, empty, list, list_mut, number, strings, text, default_unset};
use super::policy::{BUILT_IN, Generation, Policy, WHOLE};
use super::workload;
use crate::names;
use crate::validation::{Errors, Path};

const TIMEOUT_SECONDS: i64 = 10;
const TIMEOUT_SECONDS_MAX: i64 = 30;
const OPERATIONS: [&str; 5] = ["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];

fn default_webhooks(object: &mut Value, mutating: bool) {
    for hook in list_mut(object, "webhooks") {
        default_unset(hook, "failurePolicy", "Fail");
        default_unset(hook, "matchPolicy", "Equivalent");
        default(hook, "namespaceSelector", empty());
        default(hook, "objectSelector", empty());
        default(hook, "timeoutSeconds", TIMEOUT_SECONDS);
        if mutating {
            default_unset(hook, "reinvocationPolicy", "Never");
        }
        for rule in list_mut(hook, "rules") {
            default_unset(rule, "scope", "*");
        }
        if let Some(service) = child_mut(hook, "clientConfig.service") {
            default(service, "port", 443);
        }
    }
}

const WEBHOOKS: Policy = Policy { generation: Generation::Content, unconditional_update: false, check: check_webhooks, ..BUILT_IN };

pub static MUTATING_WEBHOOKS: Policy = Policy { metadata_again: WHOLE, defaults: |object| default_webhooks(object, true), ..WEBHOOKS };
pub static VALIDATING_WEBHOOKS: Policy = Policy { metadata_again: WHOLE, defaults: |object| default_webhooks(object, false), ..WEBHOOKS };

fn check_webhooks(errors: &mut Errors, object: &Value) {
    let path = Path::Root("webhooks");
    let mut seen = BTreeSet::new();
    for (index, hook) in list(object, "webhooks").iter().enumerate() {
        let path = path.index(index);
        let name = text(hook, "name");
        qualified(errors, &path.child("name"), name);
        let rules_path = path.child("rules");
        for (at, rule) in list(hook, "rules").iter().enumerate() {
            rule_with_operations(errors, &rules_path.index(at), rule);
        }
        let one_of = |errors: &mut Errors, field: &str, allowed: &[&str]| {
            if let Some(value) = child(hook, field).and_then(Value::as_str).filter(|value| !allowed.contains(value)) {
                errors.not_supported(&path.child(field), value, allowed);
            }
        };
        one_of(errors, "failurePolicy", &["Fail", "Ignore"]);
        one_of(errors, "matchPolicy", &["Equivalent", "Exact"]);
        if child(hook, "sideEffects").is_none() {
            errors.required(&path.child("sideEffects"), "must specify one of None, NoneOnDryRun");
        }
        one_of(errors, "sideEffects", &["None", "NoneOnDryRun"]);
        if let Some(seconds) = number(hook, "timeoutSeconds").filter(|seconds| !(1..=TIMEOUT_SECONDS_MAX).contains(seconds)) {
            errors.invalid(&path.child("timeoutSeconds"), &seconds, "the timeout value must be between 1 and 30 seconds");
        }
        for field in ["namespaceSelector", "objectSelector"] {
            errors.label_selector(&path.child(field), child(hook, field));
        }
        one_of(errors, "reinvocationPolicy", &["IfNeeded", "Never"]);
        client_config(errors, &path.child("clientConfig"), child(hook, "clientConfig").unwrap_or(&Value::Null));
        match_conditions(errors, &path.child("matchConditions"), list(hook, "matchConditions"));
        review_versions(errors, &path.child("admissionReviewVersions"), hook);
        if !name.is_empty() && !seen.insert(name) {
            errors.duplicate(&path.child("name"), name);
        }
    }
}

/// `IsFullyQualifiedName`: three parts at least.
fn qualified(errors: &mut Errors, path: &Path, name: &str) {
    let wrong = names::dns_subdomain(name);
    if name.is_empty() {
        errors.required(path, "");
    } else if !wrong.is_empty() {
        errors.invalid(path, name, &wrong.join(","));
    } else if name.split('.').count() < 3 {
        errors.invalid(path, name, "should be a domain with at least three segments separated by dots");
    }
}

fn rule_with_operations(errors: &mut Errors, path: &Path, rule: &Value) {
    let operations: Vec<&str> = strings(rule, "operations").collect();
    let field = path.child("operations");
    if operations.is_empty() {
        errors.required(&field, "");
    }
    if operations.len() > 1 && operations.contains(&"*") {
        errors.invalid(&field, &Value::from(operations.clone()), "if '*' is present, must not specify other operations");
    }
    for (index, operation) in operations.iter().enumerate().filter(|(_, operation)| !OPERATIONS.contains(operation)) {
        errors.not_supported(&field.index(index), *operation, &OPERATIONS);
    }
    for (name, what) in [("apiGroups", "API groups"), ("apiVersions", "API versions")] {
        let values: Vec<&str> = strings(rule, name).collect();
        let field = path.child(name);
        if values.is_empty() {
            errors.required(&field, "");
        }
        if values.len() > 1 && values.contains(&"*") {
            errors.invalid(&field, &Value::from(values.clone()), &format!("if '*' is present, must not specify other {what}"));
        }
        if name == "apiVersions" {
            for (index, _) in values.iter().enumerate().filter(|(_, value)| value.is_empty()) {
                errors.required(&field.index(index), "");
            }
        }
    }
    let resources: Vec<&str> = strings(rule, "resources").collect();
    let field = path.child("resources");
    if resources.is_empty() {
        errors.required(&field, "");
    }
    for (index, _) in resources.iter().enumerate().filter(|(_, resource)| resource.is_empty()) {
        errors.required(&field.index(index), "");
    }
    if resources.len() > 1 && resources.contains(&"*/*") {
        errors.invalid(&field, &Value::from(resources), "if '*/*' is present, must not specify other resources");
    }
    if let Some(scope) = child(rule, "scope").and_then(Value::as_str).filter(|scope| !matches!(*scope, "*" | "Cluster" | "Namespaced")) {
        errors.not_supported(&path.child("scope"), scope, &["*", "Cluster", "Namespaced"]);
    }
}

fn service_path(errors: &mut Errors, path: &Path, url_path: &str) {
    if matches!(url_path, "" | "/") {
        return;
    }
    if url_path == "//" {
        errors.invalid(path, url_path, "segment[0] may not be empty");
        return;
    }
    if !url_path.starts_with('/') {
        errors.invalid(path, url_path, "must start with a '/'");
    }
    // As upstream: the first character is not looked at, whatever it is.
    let steps: String = url_path.chars().skip(1).collect();
    for (index, step) in steps.strip_suffix('/').unwrap_or(&steps).split('/').enumerate() {
        if step.is_empty() {
            errors.invalid(path, url_path, &format!("segment[{index}] may not be empty"));
            continue;
        }
        for wrong in names::dns_subdomain(step) {
            errors.invalid(path, url_path, &format!("segment[{index}]: {wrong}"));
        }
    }
}

pub(super) fn client_config(errors: &mut Errors, path: &Path, config: &Value) {
    match (child(config, "url").and_then(Value::as_str), child(config, "service")) {
        (Some(_), Some(_)) | (None, None) => errors.required(path, "exactly one of url or service is required"),
        (Some(url), None) => {
            const FORM: &str = "; desired format: https://host[/path]";
            let path = path.child("url");
            match url.split_once("://") {
                Some(("https", rest)) => {
                    let host = rest.split('/').next().unwrap_or_default();
                    if host.is_empty() {
                        errors.invalid(&path, host, &format!("host must be specified{FORM}"));
                    }
                    if host.contains('@') {
                        errors.invalid(&path, host.split('@').next().unwrap_or_default(), "user information is not permitted in the URL");
                    }
                    if rest.contains('#') {
                        errors.invalid(&path, rest.split('#').nth(1).unwrap_or_default(), "fragments are not permitted in the URL");
                    }
                    if rest.contains('?') {
                        errors.invalid(&path, rest.split('?').nth(1).unwrap_or_default(), "query parameters are not permitted in the URL");
                    }
                }
                Some((scheme, _)) => errors.invalid(&path, scheme, &format!("'https' is the only allowed URL scheme{FORM}")),
                // As Go's url.Parse has it: nothing before the first colon.
                None if url.starts_with(':') => errors.required(&path, &format!("url must be a valid URL: parse {}: missing protocol scheme{FORM}", crate::validation::go_quote(url))),
                None => {
                    errors.invalid(&path, "", &format!("'https' is the only allowed URL scheme{FORM}"));
                    errors.invalid(&path, "", &format!("host must be specified{FORM}"));
                }
            }
        }
        (None, Some(service)) => {
            let path = path.child("service");
            // Each under the other's field: upstream's call has them in the wrong order.
            for (field, told) in [("namespace", "name"), ("name", "namespace")] {
                if text(service, field).is_empty() {
                    errors.required(&path.child(told), "");
                }
            }
            let port = number(service, "port").unwrap_or(0);
            let wrong = names::port_number(port);
            if !wrong.is_empty() {
                errors.invalid(&path.child("port"), &port, &format!("port is not valid: {}", wrong.join(", ")));
            }
            if let Some(url_path) = child(service, "path").and_then(Value::as_str) {
                service_path(errors, &path.child("path"), url_path);
            }
        }
    }
}

fn match_conditions(errors: &mut Errors, path: &Path, conditions: &[Value]) {
    const MAX: usize = 64;
    if conditions.len() > MAX {
        errors.too_many(path, conditions.len(), MAX);
    }
    let mut seen = BTreeSet::new();
    for (index, condition) in conditions.iter().enumerate() {
        let path = path.index(index);
        if text(condition, "expression").trim().is_empty() {
            errors.required(&path.child("expression"), "");
        }
        let name = text(condition, "name");
        if name.is_empty() {
            errors.required(&path.child("name"), "");
        } else {
            errors.name(&path.child("name"), name, names::qualified_name);
            if !seen.insert(name) {
                errors.duplicate(&path.child("name"), name);
            }
        }
    }
}

fn review_versions(errors: &mut Errors, path: &Path, hook: &Value) {
    let versions: Vec<&str> = strings(hook, "admissionReviewVersions").collect();
    if versions.is_empty() {
        return errors.required(path, "must specify one of v1, v1beta1");
    }
    let mut seen = BTreeSet::new();
    for (index, version) in versions.iter().enumerate() {
        if !seen.insert(*version) {
            errors.invalid(&path.index(index), *version, "duplicate version");
            continue;
        }
        errors.name(&path.index(index), version, names::dns1035_label);
    }
    if !seen.contains("v1") && !seen.contains("v1beta1") {
        errors.invalid(path, &Value::from(versions), "must include at least one of v1, v1beta1");
    }
}

fn default_match(constraints: Option<&mut Value>) {
    let Some(constraints) = constraints else { return };
    default_unset(constraints, "matchPolicy", "Equivalent");
    default(constraints, "namespaceSelector", empty());
    default(constraints, "objectSelector", empty());
    for rules in ["resourceRules", "excludeResourceRules"] {
        for rule in list_mut(constraints, rules) {
            default_unset(rule, "scope", "*");
        }
    }
}

fn check_match(errors: &mut Errors, path: &Path, constraints: &Value) {
    if let Some(policy) = child(constraints, "matchPolicy").and_then(Value::as_str).filter(|policy| !matches!(*policy, "Equivalent" | "Exact")) {
        errors.not_supported(&path.child("matchPolicy"), policy, &["Equivalent", "Exact"]);
    }
    for field in ["namespaceSelector", "objectSelector"] {
        errors.label_selector(&path.child(field), child(constraints, field));
    }
    for rules in ["resourceRules", "excludeResourceRules"] {
        let list_path = path.child(rules);
        for (index, rule) in list(constraints, rules).iter().enumerate() {
            let names_path = list_path.index(index);
            let names_path = names_path.child("resourceNames");
            let mut seen = BTreeSet::new();
            for (at, name) in strings(rule, "resourceNames").enumerate() {
                errors.name(&names_path.index(at), name, names::path_segment);
                if !seen.insert(name) {
                    errors.duplicate(&names_path.index(at), name);
                }
            }
            rule_with_operations(errors, &list_path.index(index), rule);
        }
    }
}

fn default_policy(object: &mut Value) {
    if let Some(spec) = workload::nested(object, "spec") {
        default_unset(spec, "failurePolicy", "Fail");
        default_match(child_mut(spec, "matchConstraints"));
    }
}

fn check_policy(errors: &mut Errors, object: &Value, list_name: &str) {
    let path = Path::Root("spec");
    let none = Value::Null;
    let spec = child(object, "spec").unwrap_or(&none);
    if let Some(policy) = child(spec, "failurePolicy").and_then(Value::as_str).filter(|policy| !matches!(*policy, "Fail" | "Ignore")) {
        errors.not_supported(&path.child("failurePolicy"), policy, &["Fail", "Ignore"]);
    }
    if let Some(kind) = child(spec, "paramKind") {
        param_kind(errors, &path.child("paramKind"), kind);
    }
    match child(spec, "matchConstraints") {
        None => errors.required(&path.child("matchConstraints"), ""),
        Some(constraints) => {
            let path = path.child("matchConstraints");
            check_match(errors, &path, constraints);
            if list(constraints, "resourceRules").is_empty() {
                errors.required(&path.child("resourceRules"), "");
            }
        }
    }
    match_conditions(errors, &path.child("matchConditions"), list(spec, "matchConditions"));
    variables(errors, &path.child("variables"), list(spec, "variables"));
    let items = list(spec, list_name);
    let list_path = path.child(list_name);
    if items.is_empty() && (list_name == "mutations" || list(spec, "auditAnnotations").is_empty()) {
        let why = if list_name == "mutations" { "mutations must contain at least one item" } else { "validations or auditAnnotations must contain at least one item" };
        errors.required(&list_path, why);
        if list_name == "validations" {
            errors.required(&path.child("auditAnnotations"), why);
        }
    }
    if list_name == "mutations" {
        match text(spec, "reinvocationPolicy") {
            "" => errors.required(&path.child("reinvocationPolicy"), ""),
            "IfNeeded" | "Never" => {}
            other => errors.not_supported(&path.child("reinvocationPolicy"), other, &["IfNeeded", "Never"]),
        }
        if let Some(constraints) = child(spec, "matchConstraints") {
            not_for_deletions(errors, &path.child("matchConstraints"), constraints);
        }
    }
    for (index, item) in items.iter().enumerate() {
        let path = list_path.index(index);
        if list_name == "validations" {
            validation(errors, &path, item);
        } else {
            mutation(errors, &path, item);
        }
    }
    for (index, annotation) in list(spec, "auditAnnotations").iter().enumerate() {
        let list_path = path.child("auditAnnotations");
        let path = list_path.index(index);
        match text(object, "metadata.name") {
            "" => errors.invalid(&path.child("key"), text(annotation, "key"), "requires metadata.name be non-empty"),
            name => errors.name(&path.child("key"), &format!("{name}/{}", text(annotation, "key")), names::qualified_name),
        }
        if text(annotation, "valueExpression").trim().is_empty() {
            errors.required(&path.child("valueExpression"), "valueExpression is not specified");
        }
    }
}

/// What there is to say of a validation before its expressions are compiled.
fn validation(errors: &mut Errors, path: &Path, validation: &Value) {
    if text(validation, "expression").trim().is_empty() {
        errors.required(&path.child("expression"), "expression is not specified");
    }
    for name in ["messageExpression", "message"] {
        let given = text(validation, name);
        if !given.is_empty() && given.trim().is_empty() {
            errors.invalid(&path.child(name), given, "must be non-empty if specified");
        } else if name == "message" && given.trim().contains(['\n', '\r']) {
            errors.invalid(&path.child(name), given, "must not contain line breaks");
        }
    }
    if let Some(reason) = child(validation, "reason").and_then(Value::as_str).filter(|reason| !matches!(*reason, "Forbidden" | "Invalid" | "RequestEntityTooLarge")) {
        errors.not_supported(&path.child("reason"), reason, &["Forbidden", "Invalid", "RequestEntityTooLarge"]);
    }
}

fn param_kind(errors: &mut Errors, path: &Path, kind: &Value) {
    let (field, given) = (path.child("apiVersion"), text(kind, "apiVersion"));
    let (group, version) = given.split_once('/').unwrap_or(("", given));
    if given.is_empty() {
        errors.required(&field, "");
    } else if version.contains('/') {
        errors.invalid(&field, given, &format!("unexpected GroupVersion string: {given}"));
    } else {
        let wrong = names::dns_subdomain(group);
        if !group.is_empty() && !wrong.is_empty() {
            errors.invalid(&field, group, &wrong.join(","));
        }
        let wrong = names::dns1035_label(version);
        if version.is_empty() {
            errors.invalid(&field, given, "version must be specified");
        } else if !wrong.is_empty() {
            errors.invalid(&field, version, &wrong.join(","));
        }
    }
    let (field, given) = (path.child("kind"), text(kind, "kind"));
    let wrong = names::dns1035_label(&given.to_lowercase());
    if given.is_empty() {
        errors.required(&field, "");
    } else if !wrong.is_empty() {
        errors.invalid(&field, given, &format!("may have mixed case, but should otherwise match: {}", wrong.join(",")));
    }
}

fn variables(errors: &mut Errors, path: &Path, variables: &[Value]) {
    for (index, variable) in variables.iter().enumerate() {
        let path = path.index(index);
        let name = text(variable, "name");
        if name.trim().is_empty() {
            errors.required(&path.child("name"), "name is not specified");
        } else if name.starts_with(|ch: char| ch.is_ascii_digit()) || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') || CEL_RESERVED.contains(&name) {
            errors.invalid(&path.child("name"), name, "must be a valid CEL identifier");
        }
        if text(variable, "expression").trim().is_empty() {
            errors.required(&path.child("expression"), "expression is not specified");
        }
    }
}

fn mutation(errors: &mut Errors, path: &Path, mutation: &Value) {
    let kinds = [("JSONPatch", "jsonPatch"), ("ApplyConfiguration", "applyConfiguration")];
    let kind = text(mutation, "patchType");
    let Some((_, own)) = kinds.iter().find(|(name, _)| *name == kind) else {
        return match kind {
            "" => errors.required(&path.child("patchType"), ""),
            other => errors.not_supported(&path.child("patchType"), other, &["ApplyConfiguration", "JSONPatch"]),
        };
    };
    match child(mutation, own) {
        None => errors.required(&path.child(own), &format!("must be specified when patchType is {kind}")),
        Some(patch) if text(patch, "expression").trim().is_empty() => errors.required(&path.child(own).child("expression"), ""),
        Some(_) => {}
    }
    for (_, other) in kinds.iter().filter(|(name, other)| *name != kind && child(mutation, other).is_some()) {
        errors.invalid(&path.child(other), &format!("{{{other}}}"), &format!("must not be specified when patchType is {kind}"));
    }
}

/// Nothing is left to be changed of what is deleted.
fn not_for_deletions(errors: &mut Errors, path: &Path, constraints: &Value) {
    let list_path = path.child("resourceRules");
    for (index, rule) in list(constraints, "resourceRules").iter().enumerate() {
        let rule_path = list_path.index(index);
        let operations = rule_path.child("operations");
        for (at, operation) in strings(rule, "operations").enumerate().filter(|(_, operation)| *operation == "DELETE") {
            errors.not_supported(&operations.index(at), operation, &["*", "CONNECT", "CREATE", "UPDATE"]);
        }
    }
}

/// Words of CEL that name nothing.
const CEL_RESERVED: [&str; 22] = [
    "true", "false", "null", "in", "as", "break", "const", "continue", "else", "for", "function", "if", "import", "let", "loop", "package", "namespace", "return", "var", "void", "while", "__namespace__",
];

const POLICY: Policy = Policy { generation: Generation::Spec, unconditional_update: false, defaults: default_policy, ..BUILT_IN };

pub static VALIDATING_POLICY: Policy = Policy {
    metadata_again: WHOLE,
    status: true,
    status_keeps_metadata: true,
    check: |errors, object| check_policy(errors, object, "validations"),
    check_status: |errors, new, _| {
        let path = Path::Root("status.typeChecking.expressionWarnings");
        for (index, warning) in list(new, "status.typeChecking.expressionWarnings").iter().enumerate() {
            for name in ["warning", "fieldRef"].into_iter().filter(|name| text(warning, name).trim().is_empty()) {
                errors.required(&path.index(index).child(name), "");
            }
        }
        super::conditions::check(errors, &Path::Root("status.conditions"), list(new, "status.conditions"));
    },
    ..POLICY
};
pub static MUTATING_POLICY: Policy = Policy { metadata_again: WHOLE, check: |errors, object| check_policy(errors, object, "mutations"), ..POLICY };

const BINDING: Policy = Policy {
    generation: Generation::Spec,
    unconditional_update: false,
    defaults: |object| default_match(child_mut(object, "spec.matchResources")),
    check: |errors, object| check_binding(errors, object, false),
    ..BUILT_IN
};

pub static MUTATING_BINDING: Policy = Policy { metadata_again: WHOLE, ..BINDING };
pub static VALIDATING_BINDING: Policy = Policy { metadata_again: WHOLE, check: |errors, object| check_binding(errors, object, true), ..BINDING };

fn check_binding(errors: &mut Errors, object: &Value, validating: bool) {
    let path = Path::Root("spec");
    match text(object, "spec.policyName") {
        "" => errors.required(&path.child("policyName"), ""),
        name => errors.name(&path.child("policyName"), name, names::dns_subdomain),
    }
    if let Some(reference) = child(object, "spec.paramRef") {
        let path = path.child("paramRef");
        const BOTH: &str = "name and selector are mutually exclusive";
        let (name, selector) = (text(reference, "name"), child(reference, "selector"));
        if !name.is_empty() {
            errors.name(&path.child("name"), name, names::path_segment);
            if selector.is_some() {
                errors.forbidden(&path.child("name"), BOTH);
            }
        }
        if selector.is_some() {
            errors.label_selector(&path.child("selector"), selector);
            if !name.is_empty() {
                errors.forbidden(&path.child("selector"), BOTH);
            }
        } else if name.is_empty() {
            errors.required(&path, "one of name or selector must be specified");
        }
        match text(reference, "parameterNotFoundAction") {
            "Allow" | "Deny" => {}
            "" => errors.required(&path.child("parameterNotFoundAction"), ""),
            other => errors.not_supported(&path.child("parameterNotFoundAction"), other, &["Deny", "Allow"]),
        }
    }
    if let Some(constraints) = child(object, "spec.matchResources") {
        check_match(errors, &path.child("matchResources"), constraints);
        if !validating {
            not_for_deletions(errors, &path.child("matchResources"), constraints);
        }
    }
    if validating {
        let actions: Vec<&str> = strings(object, "spec.validationActions").collect();
        let field = path.child("validationActions");
        if actions.is_empty() {
            errors.required(&field, "at least one validation action is required");
        }
        for (index, action) in actions.iter().enumerate() {
            if !matches!(*action, "Audit" | "Deny" | "Warn") {
                errors.not_supported(&field.index(index), *action, &["Audit", "Deny", "Warn"]);
            }
            if actions[..index].contains(action) {
                errors.duplicate(&field.index(index), *action);
            }
        }
        if actions.contains(&"Deny") && actions.contains(&"Warn") {
            errors.invalid(&field, &Value::from(actions), "must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)");
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::{create, lines};

    #[test]
    fn webhooks() {
        let (made, causes) = create(
            "admissionregistration.k8s.io",
            "mutatingwebhookconfigurations",
            json!({"metadata": {"name": "w"}, "webhooks": [{"name": "a.b.c", "sideEffects": "None", "admissionReviewVersions": ["v1"], "clientConfig": {"service": {"namespace": "n", "name": "s"}},
                "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}]}]}),
        );
        assert!(causes.is_empty(), "{causes:?}");
        assert_eq!((&made["webhooks"][0]["clientConfig"]["service"]["port"], &made["webhooks"][0]["reinvocationPolicy"]), (&json!(443), &json!("Never")));
        let bad = json!({"metadata": {"name": "w"}, "webhooks": [{"name": "a", "clientConfig": {"url": "http://x"}, "rules": [{}]}]});
        assert_eq!(
            lines(&create("admissionregistration.k8s.io", "validatingwebhookconfigurations", bad).1),
            [
                "webhooks[0].name: Invalid value: \"a\": should be a domain with at least three segments separated by dots",
                "webhooks[0].rules[0].operations: Required value",
                "webhooks[0].rules[0].apiGroups: Required value",
                "webhooks[0].rules[0].apiVersions: Required value",
                "webhooks[0].rules[0].resources: Required value",
                "webhooks[0].sideEffects: Required value: must specify one of None, NoneOnDryRun",
                "webhooks[0].clientConfig.url: Invalid value: \"http\": 'https' is the only allowed URL scheme; desired format: https://host[/path]",
                "webhooks[0].admissionReviewVersions: Required value: must specify one of v1, v1beta1",
            ]
        );
    }

    #[test]
    fn what_a_binding_refers_to() {
        let both = json!({"metadata": {"name": "b"}, "spec": {"policyName": "p", "paramRef": {"name": "a/b", "selector": {}, "parameterNotFoundAction": "Deny"}, "validationActions": ["Deny", "Deny"]}});
        assert_eq!(
            lines(&create("admissionregistration.k8s.io", "validatingadmissionpolicybindings", both).1),
            [
                "spec.paramRef.name: Invalid value: \"a/b\": may not contain '/'",
                "spec.paramRef.name: Forbidden: name and selector are mutually exclusive",
                "spec.paramRef.selector: Forbidden: name and selector are mutually exclusive",
                "spec.validationActions[1]: Duplicate value: \"Deny\"",
            ]
        );
    }
}
