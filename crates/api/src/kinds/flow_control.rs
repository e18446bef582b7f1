//! FlowSchemas and PriorityLevelConfigurations. Mirrors pkg/apis/flowcontrol/validation.

use serde_json::{Value, json};

use super::json::{child, child_mut, default, default_number, empty, flag, list, number, strings, text};
use super::policy::{BUILT_IN, Generation, Policy, WHOLE};
use crate::names;
use crate::internal::Internal;
use crate::validation::{Errors, Path};

const PRECEDENCE: i64 = 1000;
const PRECEDENCE_MAX: i64 = 10_000;
const SHARES: i64 = 30;
const QUEUES: (i64, i64, i64) = (64, 8, 50);
const QUEUES_MAX: i64 = 10_000_000;

pub static FLOW_SCHEMA: Policy = Policy {
    metadata_again: WHOLE,
    generation: Generation::Spec,
    status: true,
    status_keeps_metadata: true,
    defaults: |object| {
        if let Some(spec) = child_mut(object, "spec") {
            default_number(spec, "matchingPrecedence", PRECEDENCE);
        }
        default(object, "status", empty());
    },
    check: check_flow_schema,
    check_status: |errors, new, _| check_conditions(errors, new),
    ..BUILT_IN
};

/// Each has a type, and no two have the same.
fn check_conditions(errors: &mut Errors, object: &Value) {
    let path = Path::Root("status.conditions");
    let mut seen = std::collections::BTreeSet::new();
    for (index, condition) in list(object, "status.conditions").iter().enumerate() {
        let (kind, path) = (text(condition, "type"), path.index(index));
        if !seen.insert(kind) {
            errors.duplicate(&path.child("type"), kind);
        }
        if kind.is_empty() {
            errors.required(&path.child("type"), "");
        }
    }
}

/// What a rule of a FlowSchema may speak of.
const VERBS: [&str; 9] = ["create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"];

fn check_flow_schema(errors: &mut Errors, object: &Value) {
    let path = Path::Root("spec");
    let precedence = number(object, "spec.matchingPrecedence").unwrap_or(0);
    if precedence <= 0 {
        errors.invalid(&path.child("matchingPrecedence"), &precedence, "must be a positive value");
    } else if precedence > PRECEDENCE_MAX {
        errors.invalid(&path.child("matchingPrecedence"), &precedence, &format!("must not be greater than {PRECEDENCE_MAX}"));
    } else if precedence == 1 && text(object, "metadata.name") != "exempt" {
        errors.invalid(&path.child("matchingPrecedence"), &precedence, "only the schema named 'exempt' may have matchingPrecedence 1");
    }
    if let Some(method) = child(object, "spec.distinguisherMethod") {
        let kind = text(method, "type");
        if !matches!(kind, "ByNamespace" | "ByUser") {
            errors.not_supported(&path.child("distinguisherMethod.type"), &Internal("flowcontrol.v1.FlowDistinguisherMethod", Some(method)), &["ByNamespace", "ByUser"]);
        }
    }
    let level = path.child("priorityLevelConfiguration.name");
    match text(object, "spec.priorityLevelConfiguration.name") {
        "" => errors.required(&level, "must reference a priority level"),
        name => errors.name(&level, name, names::dns_subdomain),
    }
    let rules = path.child("rules");
    for (index, rule) in list(object, "spec.rules").iter().enumerate() {
        let path = rules.index(index);
        let subjects = list(rule, "subjects");
        let subjects_path = path.child("subjects");
        if subjects.is_empty() {
            errors.required(&subjects_path, "subjects must contain at least one value");
        }
        for (at, subject) in subjects.iter().enumerate() {
            check_subject(errors, &subjects_path.index(at), subject);
        }
        let (resources, others) = (list(rule, "resourceRules"), list(rule, "nonResourceRules"));
        if resources.is_empty() && others.is_empty() {
            errors.required(&path, "at least one of resourceRules and nonResourceRules has to be non-empty");
        }
        let list_path = path.child("resourceRules");
        for (at, rule) in resources.iter().enumerate() {
            let path = list_path.index(at);
            for (field, why) in [
                ("verbs", "verbs must contain at least one value"),
                ("apiGroups", "resource rules must supply at least one api group"),
                ("resources", "resource rules must supply at least one resource"),
            ] {
                wildcards(errors, &path.child(field), rule, field, why);
            }
            let namespaces: Vec<&str> = strings(rule, "namespaces").collect();
            let path = path.child("namespaces");
            if namespaces.is_empty() && !flag(rule, "clusterScope") {
                errors.required(&path, "resource rules that are not cluster scoped must supply at least one namespace");
            } else if namespaces.contains(&"*") {
                if namespaces.len() > 1 {
                    errors.invalid(&path, &Value::from(namespaces), "if '*' is present, must not specify other namespaces");
                }
            } else {
                for (at, namespace) in namespaces.into_iter().enumerate() {
                    for wrong in names::dns_label(namespace) {
                        errors.invalid(&path.index(at), namespace, &format!("each member of this list must be '*' or a DNS-1123 label; {wrong}"));
                    }
                }
            }
        }
        let list_path = path.child("nonResourceRules");
        for (at, rule) in others.iter().enumerate() {
            let path = list_path.index(at);
            wildcards(errors, &path.child("verbs"), rule, "verbs", "verbs must contain at least one value");
            let path = path.child("nonResourceURLs");
            wildcards(errors, &path, rule, "nonResourceURLs", "nonResourceURLs must contain at least one value");
            if strings(rule, "nonResourceURLs").all(|url| url != "*") {
                for (at, url) in strings(rule, "nonResourceURLs").enumerate() {
                    if let Some(wrong) = non_resource_url(url) {
                        errors.invalid(&path.index(at), url, wrong);
                    }
                }
            }
        }
    }
}

fn wildcards(errors: &mut Errors, path: &Path, rule: &Value, field: &str, why: &str) {
    let values: Vec<&str> = strings(rule, field).collect();
    let what = match field {
        "apiGroups" => "api groups",
        "nonResourceURLs" => "non-resource URLs",
        other => other,
    };
    if values.is_empty() {
        errors.required(path, why);
    } else if values.len() > 1 && values.contains(&"*") {
        errors.invalid(path, &Value::from(values), &format!("if '*' is present, must not specify other {what}"));
    } else if field == "verbs" && !values.contains(&"*") && values.iter().any(|verb| !VERBS.contains(verb)) {
        errors.not_supported(path, &Value::from(values), &VERBS);
    }
}

/// `ValidateNonResourceURLPath`: what is wrong with a path.
fn non_resource_url(url: &str) -> Option<&'static str> {
    if url.is_empty() {
        return Some("must not be empty");
    }
    if url == "/" {
        return None;
    }
    if !url.starts_with('/') {
        return Some("must start with slash");
    }
    if url.contains(' ') {
        return Some("must not contain white-space");
    }
    if url.contains("//") {
        return Some("must not contain double slash");
    }
    url.find('*').filter(|at| *at != url.len() - 1 || !url[..*at].ends_with('/')).map(|_| "wildcard can only do suffix matching")
}

fn check_subject(errors: &mut Errors, path: &Path, subject: &Value) {
    let kind = text(subject, "kind");
    let expected = match kind {
        "ServiceAccount" => "serviceAccount",
        "User" => "user",
        "Group" => "group",
        other => return errors.not_supported(&path.child("kind"), other, &["Group", "ServiceAccount", "User"]),
    };
    match child(subject, expected) {
        None => errors.required(&path.child(expected), &format!("{expected} is required when subject kind is '{kind}'")),
        Some(value) => {
            let name = text(value, "name");
            if name.is_empty() {
                errors.required(&path.child(expected).child("name"), "");
            } else if expected == "serviceAccount" && name != "*" {
                errors.name(&path.child(expected).child("name"), name, names::dns_subdomain);
            }
            if expected == "serviceAccount" {
                match text(value, "namespace") {
                    "" => errors.required(&path.child(expected).child("namespace"), "must specify namespace for service account"),
                    namespace => errors.name(&path.child(expected).child("namespace"), namespace, names::dns_label),
                }
            }
        }
    }
    for (field, owner) in [("serviceAccount", "ServiceAccount"), ("user", "User"), ("group", "Group")] {
        if field != expected && child(subject, field).is_some() {
            errors.forbidden(&path.child(field), &format!("{field} is forbidden when subject kind is not '{owner}'"));
        }
    }
}

pub static PRIORITY_LEVEL: Policy = Policy {
    metadata_again: WHOLE,
    generation: Generation::Spec,
    status: true,
    status_keeps_metadata: true,
    defaults: |object| {
        if let Some(exempt) = child_mut(object, "spec.exempt") {
            default(exempt, "nominalConcurrencyShares", 0);
            default(exempt, "lendablePercent", 0);
        }
        if let Some(limited) = child_mut(object, "spec.limited") {
            default(limited, "nominalConcurrencyShares", SHARES);
            default(limited, "lendablePercent", 0);
            if let Some(queuing) = child_mut(limited, "limitResponse.queuing") {
                default_number(queuing, "queues", QUEUES.0);
                default_number(queuing, "handSize", QUEUES.1);
                default_number(queuing, "queueLengthLimit", QUEUES.2);
            }
        }
        default(object, "status", json!({}));
    },
    check: check_priority_level,
    check_status: |errors, new, _| check_conditions(errors, new),
    ..BUILT_IN
};

fn check_priority_level(errors: &mut Errors, object: &Value) {
    let path = Path::Root("spec");
    let kind = text(object, "spec.type");
    if (text(object, "metadata.name") == "exempt") != (kind == "Exempt") {
        errors.invalid(&path.child("type"), kind, "must be 'Exempt' if and only if `name` is 'exempt'");
    }
    let (exempt, limited) = (child(object, "spec.exempt"), child(object, "spec.limited"));
    match kind {
        "Exempt" => {
            if limited.is_some() {
                errors.forbidden(&path.child("limited"), "must be nil if the type is not Limited");
            }
        }
        "Limited" => {
            if exempt.is_some() {
                errors.forbidden(&path.child("exempt"), "must be nil if the type is Limited");
            }
            match limited {
                None => errors.required(&path.child("limited"), "must not be empty when type is Limited"),
                Some(limited) => check_limited(errors, &path.child("limited"), limited),
            }
        }
        other => errors.not_supported(&path.child("type"), other, &["Exempt", "Limited"]),
    }
    for (name, value, of) in [("exempt", exempt, "Exempt"), ("limited", limited, "Limited")] {
        // What may not be there is not looked into.
        let Some(value) = value.filter(|_| text(object, "spec.type") == of) else { continue };
        let path = path.child(name);
        if let Some(shares) = number(value, "nominalConcurrencyShares").filter(|shares| *shares < 0) {
            errors.invalid(&path.child("nominalConcurrencyShares"), &shares, "must be a non-negative integer");
        }
        if let Some(percent) = number(value, "lendablePercent").filter(|percent| !(0..=100).contains(percent)) {
            errors.invalid(&path.child("lendablePercent"), &percent, "must be between 0 and 100, inclusive");
        }
    }
}

fn check_limited(errors: &mut Errors, path: &Path, limited: &Value) {
    if let Some(percent) = number(limited, "borrowingLimitPercent").filter(|percent| *percent < 0) {
        errors.invalid(&path.child("borrowingLimitPercent"), &percent, "if specified, must be a non-negative integer");
    }
    let path = path.child("limitResponse");
    let queuing = child(limited, "limitResponse.queuing");
    match (text(limited, "limitResponse.type"), queuing) {
        ("Reject", None) => {}
        ("Reject", Some(_)) => errors.forbidden(&path.child("queuing"), "must be nil if limited.limitResponse.type is not Limited"),
        ("Queue", None) => errors.required(&path.child("queuing"), "must not be empty if limited.limitResponse.type is Limited"),
        ("Queue", Some(queuing)) => {
            let path = path.child("queuing");
            let of = |name: &str| number(queuing, name).unwrap_or(0);
            let (queues, hand) = (of("queues"), of("handSize"));
            for name in ["queueLengthLimit", "queues", "handSize"] {
                if of(name) <= 0 {
                    errors.invalid(&path.child(name), &of(name), "must be positive");
                }
            }
            if queues > QUEUES_MAX {
                errors.invalid(&path.child("queues"), &queues, &format!("must not be greater than {QUEUES_MAX}"));
            }
            if hand > queues {
                errors.invalid(&path.child("handSize"), &hand, &format!("should not be greater than queues ({queues})"));
            }
        }
        (other, _) => errors.not_supported(&path.child("type"), other, &["Queue", "Reject"]),
    }
}
