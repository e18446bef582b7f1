//! CertificateSigningRequests, ClusterTrustBundles, PodCertificateRequests. Mirrors pkg/apis/certificates and pkg/registry/certificates.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::json::{child, child_mut, list, list_mut, number, set, strings, take, text};
use super::policy::{BUILT_IN, Policy};
use super::{config, diff};
use crate::names;
use crate::status::Cause;
use crate::strategy::Context;
use crate::internal::Internal;
use crate::validation::{Errors, Path, go_quote, same};
use crate::world::rfc3339;

const SECONDS_MIN: i64 = 600;
const SIGNER_MAX: usize = 571;
const BEGIN: &str = "-----BEGIN CERTIFICATE REQUEST-----";
const USAGES: [&str; 23] = [
    "any", "cert sign", "client auth", "code signing", "content commitment", "crl sign", "data encipherment", "decipher only", "digital signature", "email protection", "encipher only", "ipsec end system",
    "ipsec tunnel", "ipsec user", "key agreement", "key encipherment", "microsoft sgc", "netscape sgc", "ocsp signing", "s/mime", "server auth", "signing", "timestamping",
];

pub static SIGNING_REQUEST: Policy = Policy {
    status: true,
    on_create: |object, cx| {
        let Some(spec) = child_mut(object, "spec") else { return };
        for name in ["username", "uid", "groups", "extra"] {
            take(spec, name);
        }
        let Some(requester) = &cx.requester else { return };
        set(spec, "username", requester.name.clone());
        if !requester.uid.is_empty() {
            set(spec, "uid", requester.uid.clone());
        }
        if !requester.groups.is_empty() {
            set(spec, "groups", requester.groups.clone());
        }
        if !requester.extra.is_empty() {
            let extra: Map<String, Value> = requester.extra.iter().map(|(key, values)| (key.clone(), values.clone().into())).collect();
            set(spec, "extra", Value::Object(extra));
        }
    },
    on_update: |new, old, _| crate::strategy::keep(new, old, "spec"),
    on_status: |new, old, cx| {
        // Approval is its own subresource: those conditions stay as they were.
        for kind in ["Approved", "Denied"] {
            let before: Vec<Value> = conditions(old, kind).cloned().collect();
            if conditions(new, kind).count() == before.len() {
                let mut before = before.into_iter();
                for condition in list_mut(new, "status.conditions").iter_mut().filter(|condition| text(condition, "type") == kind) {
                    if let Some(kept) = before.next() {
                        *condition = kept;
                    }
                }
            }
        }
        stamp_conditions(new, old, cx);
    },
    check: check_request,
    check_status: |errors, new, old| {
        check_conditions(errors, new);
        check_certificate(errors, new, old);
        check_kept(errors, new, old, false);
    },
    selectable: |object, field| (field == "spec.signerName").then(|| text(object, field).to_owned()),
    ..BUILT_IN
};

fn conditions<'a>(object: &'a Value, kind: &'a str) -> impl Iterator<Item = &'a Value> {
    list(object, "status.conditions").iter().filter(move |condition| text(condition, "type") == kind)
}

/// A new certificate is PEM, and nothing else is in it.
fn check_certificate(errors: &mut Errors, new: &Value, old: &Value) {
    let certificate = text(new, "status.certificate");
    if certificate.is_empty() || certificate == text(old, "status.certificate") {
        return;
    }
    let decoded = config::decode(certificate).and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default();
    let kinds: Vec<&str> = decoded.lines().filter_map(|line| line.trim_end().strip_prefix("-----BEGIN ")?.strip_suffix("-----")).collect();
    let why = match kinds.iter().find(|kind| **kind != "CERTIFICATE") {
        Some(kind) => format!("only CERTIFICATE PEM blocks are allowed, found {}", go_quote(kind)),
        None if kinds.is_empty() => "must contain at least one CERTIFICATE PEM block".to_owned(),
        None => return,
    };
    errors.invalid(&Path::Root("status.certificate"), "<certificate data>", &why);
}

fn stamp_conditions(new: &mut Value, old: &Value, cx: &Context) {
    let now = rfc3339(cx.now);
    for condition in list_mut(new, "status.conditions") {
        if text(condition, "lastUpdateTime").is_empty() {
            set(condition, "lastUpdateTime", now.clone());
        }
        if text(condition, "lastTransitionTime").is_empty() {
            let (kind, status) = (text(condition, "type"), text(condition, "status"));
            let before = list(old, "status.conditions").iter().find(|before| text(before, "type") == kind && text(before, "status") == status).map(|before| text(before, "lastTransitionTime"));
            let at = before.filter(|at| !at.is_empty()).unwrap_or(&now).to_owned();
            set(condition, "lastTransitionTime", at);
        }
    }
}

/// The `approval` subresource: only conditions change.
pub fn prepare_approval(new: &mut Value, old: &Value, cx: &Context) {
    stamp_conditions(new, old, cx);
    let conditions = child(new, "status.conditions").cloned();
    crate::strategy::keep(new, old, "spec");
    crate::strategy::keep(new, old, "status");
    let Some(status) = super::json::ensure(new, "status") else { return };
    match conditions {
        Some(conditions) => status.insert("conditions".to_owned(), conditions),
        // Taken away, and perhaps refused for it: never silently kept.
        None => status.remove("conditions"),
    };
}

pub fn validate_approval(new: &Value, old: &Value) -> Vec<Cause> {
    let mut errors = Errors::new();
    check_conditions(&mut errors, new);
    check_kept(&mut errors, new, old, true);
    errors.into_causes()
}

fn check_conditions(errors: &mut Errors, object: &Value) {
    let path = Path::Root("status.conditions");
    let mut seen = BTreeSet::new();
    for (index, condition) in list(object, "status.conditions").iter().enumerate() {
        let item = path.index(index);
        let (kind, status) = (text(condition, "type"), text(condition, "status"));
        if kind.is_empty() {
            errors.required(&item.child("type"), "");
        }
        let only_true = matches!(kind, "Approved" | "Denied" | "Failed");
        match status {
            "" => errors.required(&item.child("status"), ""),
            "True" => {}
            "False" | "Unknown" if !only_true => {}
            other => errors.not_supported(&item.child("status"), other, if only_true { &["True"] } else { &["False", "True", "Unknown"] }),
        }
        if (kind == "Approved" && seen.contains("Denied")) || (kind == "Denied" && seen.contains("Approved")) {
            errors.invalid(&path, kind, "Approved and Denied conditions are mutually exclusive");
        }
        if !seen.insert(kind) {
            errors.duplicate(&item.child("type"), kind);
        }
    }
}

fn check_kept(errors: &mut Errors, new: &Value, old: &Value, approving: bool) {
    let path = Path::Root("status.conditions");
    for kind in ["Approved", "Denied", "Failed"] {
        let (now, before) = (conditions(new, kind).count(), conditions(old, kind).count());
        if now < before {
            errors.forbidden(&path, &format!("updates may not remove a condition of type {}", go_quote(kind)));
        } else if !approving && kind != "Failed" {
            let lines = |list, stored| Internal("[]certificates.v1.CertificateSigningRequestCondition", Some(list)).lines(stored);
            let (now_list, before_list) = (Value::Array(conditions(new, kind).cloned().collect()), Value::Array(conditions(old, kind).cloned().collect()));
            if now > before {
                errors.forbidden(&path, &format!("updates may not add a condition of type {}", go_quote(kind)));
            } else if !same(Some(&now_list), Some(&before_list)) {
                errors.forbidden(&path, &format!("updates may not modify a condition of type {}\n{}", go_quote(kind), diff::unified(&lines(&before_list, true), &lines(&now_list, false))));
            }
        }
    }
    let (now, before) = (text(new, "status.certificate"), text(old, "status.certificate"));
    if now != before {
        let path = Path::Root("status.certificate");
        if approving {
            errors.forbidden(&path, "updates may not set certificate content");
        } else if !before.is_empty() {
            errors.forbidden(&path, "updates may not modify existing certificate content");
        }
    }
}

fn check_request(errors: &mut Errors, object: &Value) {
    let path = Path::Root("spec");
    let request = text(object, "spec.request");
    let decoded = config::decode(request).and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default();
    if !decoded.contains(BEGIN) {
        errors.invalid(&path.child("request"), request, "PEM block type must be CERTIFICATE REQUEST");
    }
    let usages = path.child("usages");
    if list(object, "spec.usages").is_empty() {
        errors.required(&usages, "");
    }
    let mut seen = BTreeSet::new();
    for (index, usage) in strings(object, "spec.usages").enumerate() {
        if !USAGES.contains(&usage) {
            errors.not_supported(&usages.index(index), usage, &USAGES);
        }
        if !seen.insert(usage) {
            errors.duplicate(&usages.index(index), usage);
        }
    }
    let signer = text(object, "spec.signerName");
    if signer == "kubernetes.io/legacy-unknown" {
        errors.invalid(&path.child("signerName"), signer, "the legacy signerName is not allowed via this API version");
    } else {
        signer_name(errors, &path.child("signerName"), signer);
    }
    if let Some(seconds) = number(object, "spec.expirationSeconds").filter(|seconds| *seconds < SECONDS_MIN) {
        errors.invalid(&path.child("expirationSeconds"), &seconds, "may not specify a duration less than 600 seconds (10 minutes)");
    }
    check_conditions(errors, object);
}

/// `example.com/signer`: a domain of at least two parts and one path segment of subdomain form.
fn signer_name(errors: &mut Errors, path: &Path, name: &str) {
    const SHAPE: &str = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
    if name.is_empty() {
        return errors.required(path, "");
    }
    let Some((domain, rest)) = name.split_once('/').filter(|(_, rest)| !rest.contains('/')) else { return errors.invalid(path, name, SHAPE) };
    if domain.is_empty() || !domain.contains('.') {
        errors.invalid(path, domain, "should be a domain with at least two segments separated by dots");
    } else {
        let wrong = names::dns_subdomain(domain);
        if !wrong.is_empty() {
            errors.invalid(path, domain, &format!("validating label: {}", wrong.join(",")));
        }
    }
    if rest.is_empty() {
        errors.required(path, "validating label \"\": must not be empty");
    } else {
        errors.invalid_each(path, rest, names::dns_subdomain(rest));
    }
    if name.len() > SIGNER_MAX {
        errors.too_long(path, SIGNER_MAX);
    }
}

pub static TRUST_BUNDLE: Policy = Policy {
    unconditional_update: false,
    check: |errors, object| {
        let (name, signer) = (text(object, "metadata.name"), text(object, "spec.signerName"));
        let path = Path::Root("metadata.name");
        if signer.is_empty() {
            if name.contains(':') {
                errors.invalid(&path, name, "ClusterTrustBundle without signer name must not have \":\" in its name");
            }
            errors.name(&path, name, names::dns_subdomain);
        } else {
            let prefix = format!("{}:", signer.replace('/', ":"));
            if !name.starts_with(&prefix) {
                errors.invalid(&path, name, &format!("ClusterTrustBundle for signerName {signer} must be named with prefix {prefix}"));
            }
            signer_name(errors, &Path::Root("spec.signerName"), signer);
        }
        let bundle = text(object, "spec.trustBundle");
        if !bundle.contains("-----BEGIN CERTIFICATE-----") {
            errors.invalid(&Path::Root("spec.trustBundle"), "<value omitted>", "at least one trust anchor must be provided");
        }
    },
    check_update: |errors, new, old| errors.immutable(&Path::Root("spec.signerName"), child(new, "spec.signerName"), child(old, "spec.signerName")),
    selectable: |object, field| (field == "spec.signerName").then(|| text(object, field).to_owned()),
    ..BUILT_IN
};

pub static POD_CERTIFICATE_REQUEST: Policy = Policy {
    status: true,
    status_keeps_metadata: true,
    unconditional_update: false,
    on_create: |object, _| set(object, "status", json!({})),
    check_update: |errors, new, old| errors.immutable(&Path::Root("spec"), new.get("spec"), old.get("spec")),
    selectable: |object, field| matches!(field, "spec.signerName" | "spec.podName" | "spec.nodeName").then(|| text(object, field).to_owned()),
    ..BUILT_IN
};

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::{create, lines};
    use super::*;

    #[test]
    fn requests() {
        let bad = json!({"metadata": {"name": "c"}, "spec": {"request": "eA==", "usages": ["foo"], "signerName": "x"}});
        let got = lines(&create("certificates.k8s.io", "certificatesigningrequests", bad).1);
        assert_eq!(got[0], "spec.request: Invalid value: \"eA==\": PEM block type must be CERTIFICATE REQUEST");
        assert!(got[1].starts_with("spec.usages[0]: Unsupported value: \"foo\": supported values: \"any\", \"cert sign\","), "{}", got[1]);
        assert_eq!(got[2], "spec.signerName: Invalid value: \"x\": must be a fully qualified domain and path of the form 'example.com/signer-name'");
    }

    #[test]
    fn approval() {
        let cx = Context::at("2026-01-01T00:00:00Z".parse().unwrap());
        let old = json!({"metadata": {"name": "c"}, "spec": {"a": 1}, "status": {}});
        let mut new = json!({"metadata": {"name": "c"}, "spec": {"a": 2}, "status": {"certificate": "x", "conditions": [{"type": "Approved", "status": "True"}]}});
        prepare_approval(&mut new, &old, &cx);
        assert_eq!(
            new,
            json!({"metadata": {"name": "c"}, "spec": {"a": 1}, "status": {"conditions": [{"type": "Approved", "status": "True", "lastUpdateTime": "2026-01-01T00:00:00Z", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}})
        );
        assert!(validate_approval(&new, &old).is_empty());
        let mut emptied = json!({"metadata": {"name": "c"}, "status": {}});
        prepare_approval(&mut emptied, &new, &cx);
        assert_eq!(emptied["status"], json!({}), "what was taken away is not kept silently");
        let gone = validate_approval(&emptied, &new);
        assert_eq!(lines(&gone), ["status.conditions: Forbidden: updates may not remove a condition of type \"Approved\""]);
    }
}
