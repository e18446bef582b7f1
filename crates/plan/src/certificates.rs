//! CertificateSigningRequests: kubelets' own are approved, approved ones are signed for the four built-in signers, old ones are cleared away.
//!
//! Watches: CertificateSigningRequests. Writes: their approval and status; deletes them when they are old. Never: signs what is not approved, nor for a signer
//! that is not Kubernetes' own. Mirrors `pkg/controller/certificates` (approver, signer, cleaner).

use std::sync::Arc;

use api::k8s::ByteString;
use api::k8s::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition};
use jiff::Timestamp;

use crate::meta::{created, deleting, plus_seconds, time, until};
use crate::op::{At, Op, Plan, value};

const KUBELET_SERVING: &str = "kubernetes.io/kubelet-serving";
const KUBELET_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
const API_SERVER_CLIENT: &str = "kubernetes.io/kube-apiserver-client";
const LEGACY_UNKNOWN: &str = "kubernetes.io/legacy-unknown";

/// By which a node gets serving certificates for itself without being asked about; nobody has it by default.
const SELF_NODE_SERVER: &str = "selfnodeserver";

const HOUR: i64 = 3600;
const SETTLED_SECONDS: i64 = HOUR;
const PENDING_SECONDS: i64 = 24 * HOUR;
/// As long as a certificate lives when nothing else was said (`--cluster-signing-duration`).
pub const DEFAULT_SECONDS: i64 = 365 * 24 * HOUR;
/// A wish for less is not heard, unless no certificate lives that long.
const MIN_SECONDS: i64 = 600;

/// What a request asks for, out of its PKCS#10 form.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    pub common_name: String,
    pub organizations: Vec<String>,
    pub dns_names: Vec<String>,
    pub addresses: usize,
    pub emails: usize,
    pub uris: usize,
}

pub struct View {
    pub request: Arc<CertificateSigningRequest>,
    pub facts: Result<Facts, String>,
    /// Which of the rights that approve a kubelet's request the requester has: `nodeclient`, `selfnodeclient`.
    pub right: Option<&'static str>,
    /// The certificate, where [`signable`] says it may be made.
    pub certificate: Option<Result<String, String>>,
}

fn condition<'a>(request: &'a CertificateSigningRequest, kind: &str) -> Option<&'a CertificateSigningRequestCondition> {
    request.status.as_ref()?.conditions.as_ref()?.iter().find(|condition| condition.type_ == kind)
}

fn issued(request: &CertificateSigningRequest) -> bool {
    request.status.as_ref().and_then(|status| status.certificate.as_ref()).is_some_and(|certificate| !certificate.0.is_empty())
}

fn usages(request: &CertificateSigningRequest) -> Vec<&str> {
    let mut list: Vec<&str> = request.spec.usages.iter().flatten().map(String::as_str).collect();
    list.sort_unstable();
    list.dedup();
    list
}

/// Why it is not a kubelet's: `server` for its serving certificate, else for its client's.
fn kubelet(facts: &Facts, usages: &[&str], server: bool) -> Result<(), String> {
    let auth = if server { "server auth" } else { "client auth" };
    let expected = if server { ["digital signature", "key encipherment", auth] } else { [auth, "digital signature", "key encipherment"] };
    let fits = |list: &[&str]| list.len() == usages.len() && list.iter().all(|usage| usages.contains(usage));
    let refusal = if facts.organizations != ["system:nodes"] {
        "subject organization is not system:nodes".to_owned()
    } else if server && facts.dns_names.is_empty() && facts.addresses == 0 {
        "DNS or IP subjectAltName is required".to_owned()
    } else if !server && !facts.dns_names.is_empty() {
        "DNS subjectAltNames are not allowed".to_owned()
    } else if facts.emails > 0 {
        "Email subjectAltNames are not allowed".to_owned()
    } else if !server && facts.addresses > 0 {
        "IP subjectAltNames are not allowed".to_owned()
    } else if facts.uris > 0 {
        "URI subjectAltNames are not allowed".to_owned()
    } else if !server && !facts.common_name.starts_with("system:node:") {
        "subject common name does not begin with system:node:".to_owned()
    } else if !fits(&expected) && !fits(&["digital signature", auth]) {
        format!("usages did not match [{}]", expected.join(" "))
    } else if !facts.common_name.starts_with("system:node:") {
        "subject common name does not begin with system:node:".to_owned()
    } else {
        return Ok(());
    };
    Err(refusal)
}

/// Whether a serving certificate would speak for nothing but its node: by whatever else stands in it, a node could pose as another or as the API server. Addresses prove nothing,
/// nodes tell theirs themselves; and a node may be called as the API server is.
fn own_name(facts: &Facts) -> bool {
    let name = facts.common_name.strip_prefix("system:node:").unwrap_or_default();
    let api_server = name == "localhost" || name == "kubernetes" || name.starts_with("kubernetes.");
    facts.addresses == 0 && facts.dns_names == [name] && !name.is_empty() && !api_server
}

/// Whether it is for a signer of ours and as that one wants it; none if the signer is not ours.
fn recognized(request: &CertificateSigningRequest, facts: &Facts) -> Option<Result<(), String>> {
    let usages = usages(request);
    Some(match request.spec.signer_name.as_str() {
        KUBELET_SERVING => kubelet(facts, &usages, true),
        KUBELET_CLIENT => kubelet(facts, &usages, false),
        API_SERVER_CLIENT => match usages.iter().find(|usage| !matches!(**usage, "digital signature" | "key encipherment" | "client auth")) {
            Some(other) => Err(format!("invalid usage for client certificate: {other}")),
            None if !usages.contains(&"client auth") => Err("missing required usage for client certificate: client auth".to_owned()),
            None => Ok(()),
        },
        LEGACY_UNKNOWN => Ok(()),
        _ => return None,
    })
}

/// The rights of which one makes a kubelet's request approved by itself, with upstream's words; in the order in which they are tried.
pub fn rights(request: &CertificateSigningRequest, facts: &Facts) -> Vec<&'static str> {
    let open = !issued(request) && condition(request, "Approved").is_none() && condition(request, "Denied").is_none();
    let own = request.spec.username.as_deref() == Some(&facts.common_name);
    if open && own && request.spec.signer_name == KUBELET_SERVING && kubelet(facts, &usages(request), true).is_ok() {
        // Upstream leaves these to the administrator; who binds the right to nodes has decided, but for the node's own name only.
        return if own_name(facts) { vec![SELF_NODE_SERVER] } else { Vec::new() };
    }
    if !open || request.spec.signer_name != KUBELET_CLIENT || kubelet(facts, &usages(request), false).is_err() {
        return Vec::new();
    }
    if own { vec!["selfnodeclient", "nodeclient"] } else { vec!["nodeclient"] }
}

/// For how many seconds a certificate shall be made now, if one shall; `longest` is what the signer gives at most, and to who has no wish.
pub fn signable(request: &CertificateSigningRequest, facts: &Facts, longest: i64) -> Option<i64> {
    let approved = condition(request, "Approved").is_some() && condition(request, "Denied").is_none();
    if deleting(request) || issued(request) || !approved || condition(request, "Failed").is_some() || recognized(request, facts) != Some(Ok(())) {
        return None;
    }
    Some(request.spec.expiration_seconds.map_or(longest, |seconds| i64::from(seconds).max(MIN_SECONDS).min(longest)))
}

fn with(request: &CertificateSigningRequest, kind: &str, reason: &str, message: &str, now: Timestamp) -> CertificateSigningRequest {
    let mut request = request.clone();
    request.status.get_or_insert_default().conditions.get_or_insert_default().push(CertificateSigningRequestCondition {
        type_: kind.to_owned(),
        status: "True".to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_update_time: Some(time(now)),
        last_transition_time: None,
    });
    request
}

pub fn plan(view: &View, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let request = view.request.as_ref();
    if deleting(request) {
        return plan;
    }
    if let Some(at) = expires(request) {
        match until(at, now) {
            None => {
                plan.push(Op::delete(request));
                return plan;
            }
            Some(left) => plan.look_again(left),
        }
    }
    if let Some(right) = view.right {
        let message = match right {
            "selfnodeclient" => "Auto approving self kubelet client certificate after SubjectAccessReview.",
            SELF_NODE_SERVER => "Auto approving self kubelet server certificate after SubjectAccessReview.",
            _ => "Auto approving kubelet client certificate after SubjectAccessReview.",
        };
        let approved = with(request, "Approved", "AutoApproved", message, now);
        plan.push(Op::Replace { at: At::object(request), subresource: Some("approval"), object: value(&approved) });
        return plan;
    }
    let approved = condition(request, "Approved").is_some() && condition(request, "Denied").is_none() && condition(request, "Failed").is_none() && !issued(request);
    match (&view.certificate, &view.facts) {
        (Some(Ok(certificate)), _) => {
            let mut signed = request.clone();
            signed.status.get_or_insert_default().certificate = Some(ByteString(certificate.clone().into_bytes()));
            plan.push(Op::status(&signed));
        }
        (Some(Err(why)), _) => plan.push(Op::status(&with(request, "Failed", "SigningFailure", why, now))),
        (None, Ok(facts)) if approved => {
            if let Some(Err(why)) = recognized(request, facts) {
                plan.push(Op::status(&with(request, "Failed", "SignerValidationFailure", &why, now)));
            }
        }
        _ => {}
    }
    plan
}

/// When nobody cares about it any more.
fn expires(request: &CertificateSigningRequest) -> Option<Timestamp> {
    let since = |kind: &str| condition(request, kind).and_then(|condition| condition.last_update_time.as_ref()).map(|time| time.0);
    if request.status.as_ref().and_then(|status| status.conditions.as_ref()).is_none_or(Vec::is_empty) {
        return Some(plus_seconds(created(request), PENDING_SECONDS));
    }
    let approved = since("Approved").map(|at| plus_seconds(at, if issued(request) { SETTLED_SECONDS } else { PENDING_SECONDS }));
    [since("Denied"), since("Failed")].into_iter().flatten().map(|at| plus_seconds(at, SETTLED_SECONDS)).chain(approved).min()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const NOW: &str = "2026-01-01T12:00:00Z";

    fn request(signer: &str, usages: &[&str], conditions: Value) -> CertificateSigningRequest {
        serde_json::from_value(json!({"metadata": {"name": "r", "creationTimestamp": "2026-01-01T11:00:00Z"}, "spec": {"request": "", "signerName": signer, "usages": usages, "username": "system:node:a"}, "status": {"conditions": conditions}})).unwrap()
    }

    fn node() -> Facts {
        Facts { common_name: "system:node:a".into(), organizations: vec!["system:nodes".into()], ..Facts::default() }
    }

    fn outcome(request: CertificateSigningRequest, facts: Facts, right: Option<&'static str>, certificate: Option<Result<String, String>>) -> String {
        let plan = plan(&View { request: Arc::new(request), facts: Ok(facts), right, certificate }, NOW.parse().unwrap());
        plan.ops
            .iter()
            .map(|op| match op {
                Op::Replace { subresource, object, .. } => {
                    let last = object["status"]["conditions"].as_array().and_then(|list| list.last()).cloned().unwrap_or_default();
                    format!("{} {} {} {}", subresource.unwrap_or(""), last["type"].as_str().unwrap_or(""), last["reason"].as_str().unwrap_or(""), object["status"]["certificate"].as_str().unwrap_or("-"))
                }
                other => other.to_string(),
            })
            .collect::<Vec<_>>()
            .join("; ")
    }

    #[test]
    fn requests_are_approved_signed_and_cleared() {
        const CLIENT: &[&str] = &["digital signature", "client auth"];
        let at = |kind: &str, time: &str| json!([{"type": kind, "status": "True", "lastUpdateTime": time, "reason": "Because"}]);
        let approved = || at("Approved", "2026-01-01T11:59:00Z");
        let fresh = |signer: &str| request(signer, CLIENT, approved());
        assert_eq!(rights(&request(KUBELET_CLIENT, CLIENT, json!([])), &node()), ["selfnodeclient", "nodeclient"]);
        assert!(rights(&fresh(KUBELET_CLIENT), &node()).is_empty());
        assert!(rights(&request(API_SERVER_CLIENT, CLIENT, json!([])), &node()).is_empty());
        assert_eq!(outcome(request(KUBELET_CLIENT, CLIENT, json!([])), node(), Some("nodeclient"), None), "approval Approved AutoApproved -");

        const SERVER: &[&str] = &["digital signature", "server auth"];
        let serving = |node: &str, dns_names: &[&str], addresses: usize| {
            let name = format!("system:node:{node}");
            let mut request = request(KUBELET_SERVING, SERVER, json!([]));
            request.spec.username = Some(name.clone());
            rights(&request, &Facts { common_name: name, organizations: vec!["system:nodes".into()], dns_names: dns_names.iter().map(|name| (*name).to_owned()).collect(), addresses, ..Facts::default() })
        };
        assert_eq!(serving("a", &["a"], 0), [SELF_NODE_SERVER]);
        for (node, dns_names, addresses) in [("a", &["b"][..], 0), ("a", &["a", "kubernetes.default.svc"], 0), ("a", &["a"], 1), ("a", &[], 1), ("kubernetes.default.svc", &["kubernetes.default.svc"], 0), ("kubernetes", &["kubernetes"], 0), ("localhost", &["localhost"], 0)] {
            assert!(serving(node, dns_names, addresses).is_empty(), "{node} {dns_names:?} {addresses}");
        }

        let for_seconds = |request: &CertificateSigningRequest| signable(request, &Facts::default(), DEFAULT_SECONDS);
        assert_eq!(for_seconds(&fresh(API_SERVER_CLIENT)), Some(DEFAULT_SECONDS));
        assert_eq!(for_seconds(&fresh("example.com/signer")), None);
        assert_eq!(for_seconds(&request(API_SERVER_CLIENT, CLIENT, json!([]))), None);
        assert_eq!(for_seconds(&request(API_SERVER_CLIENT, &["server auth"], approved())), None);
        for (wish, longest, seconds) in [(None, 30, 30), (Some(3600), DEFAULT_SECONDS, 3600), (Some(3600), 1800, 1800), (Some(1), DEFAULT_SECONDS, MIN_SECONDS), (Some(600), 30, 30)] {
            let mut request = fresh(API_SERVER_CLIENT);
            request.spec.expiration_seconds = wish;
            assert_eq!(signable(&request, &Facts::default(), longest), Some(seconds), "{wish:?} {longest}");
        }
        assert_eq!(outcome(fresh(API_SERVER_CLIENT), Facts::default(), None, Some(Ok("x".into()))), "status Approved Because eA==");
        assert_eq!(outcome(request(API_SERVER_CLIENT, &["server auth"], approved()), Facts::default(), None, None), "status Failed SignerValidationFailure -");
        assert_eq!(outcome(fresh(KUBELET_SERVING), node(), None, None), "status Failed SignerValidationFailure -");
        assert_eq!(outcome(fresh("example.com/signer"), Facts::default(), None, None), "");

        assert_eq!(outcome(request("example.com/signer", CLIENT, at("Denied", "2026-01-01T10:00:00Z")), Facts::default(), None, None), "delete CertificateSigningRequest r");
        assert_eq!(outcome(request("example.com/signer", CLIENT, at("Approved", "2026-01-01T10:00:00Z")), Facts::default(), None, None), "");
    }
}
