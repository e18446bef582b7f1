//! Bootstrap tokens: `cluster-info` is signed with each, those that have expired are deleted.
//!
//! Watches: Secrets of type bootstrap.kubernetes.io/token in kube-system, the ConfigMap kube-public/cluster-info. Writes: the signatures in that ConfigMap
//! (`jws-kubeconfig-<token id>`); deletes such Secrets. Never: touches what is signed. Mirrors `pkg/controller/bootstrap` (signer, tokencleaner).

use std::collections::BTreeMap;
use std::sync::Arc;

use api::k8s::api::core::v1::{ConfigMap, Secret};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::meta::{name, until};
use crate::op::{Op, Plan};

pub const SECRET_TYPE: &str = "bootstrap.kubernetes.io/token";
pub const SECRET_NAMESPACE: &str = "kube-system";
pub const SECRET_PREFIX: &str = "bootstrap-token-";
pub const CLUSTER_INFO: &str = "cluster-info";
pub const CLUSTER_INFO_NAMESPACE: &str = "kube-public";

const KUBECONFIG: &str = "kubeconfig";
const SIGNATURE_PREFIX: &str = "jws-kubeconfig-";
const ID_LENGTH: usize = 6;
/// SHA-256 takes its input in blocks of this size.
const BLOCK_BYTES: usize = 64;

/// A text in a Secret; empty when it is not there.
fn datum<'a>(secret: &'a Secret, key: &str) -> &'a str {
    secret.data.as_ref().and_then(|data| data.get(key)).and_then(|bytes| std::str::from_utf8(&bytes.0).ok()).unwrap_or("")
}

/// When it ends to be good; `Err` when it cannot be told, which counts as over.
fn expiration(secret: &Secret) -> Result<Option<Timestamp>, ()> {
    match datum(secret, "expiration") {
        "" => Ok(None),
        text => text.parse().map(Some).map_err(drop),
    }
}

fn expired(secret: &Secret, now: Timestamp) -> bool {
    !expiration(secret).is_ok_and(|at| at.is_none_or(|at| at > now))
}

/// Id and secret of a token that may sign.
fn signing(secret: &Secret, now: Timestamp) -> Option<(&str, &str)> {
    let named = name(secret).strip_prefix(SECRET_PREFIX).filter(|id| id.len() == ID_LENGTH && id.bytes().all(|byte| byte.is_ascii_digit() || byte.is_ascii_lowercase()))?;
    let (id, key) = (datum(secret, "token-id"), datum(secret, "token-secret"));
    (id == named && !key.is_empty() && !expired(secret, now) && datum(secret, "usage-bootstrap-signing") == "true").then_some((id, key))
}

fn hmac(key: &[u8], message: &[u8]) -> [u8; 32] {
    let mut block = [0u8; BLOCK_BYTES];
    if key.len() > BLOCK_BYTES {
        block[..32].copy_from_slice(&Sha256::digest(key));
    } else {
        block[..key.len()].copy_from_slice(key);
    }
    let pad = |byte: u8| block.map(|own| own ^ byte);
    let inner = Sha256::new().chain_update(pad(0x36)).chain_update(message).finalize();
    Sha256::new().chain_update(pad(0x5c)).chain_update(inner).finalize().into()
}

/// A JSON Web Signature (HS256) without the content it is of.
pub fn signature(content: &str, id: &str, key: &str) -> String {
    let header = URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"HS256","kid":"{id}"}}"#));
    let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(content));
    format!("{header}..{}", URL_SAFE_NO_PAD.encode(hmac(key.as_bytes(), signed.as_bytes())))
}

/// What [`sign`] knows.
pub struct View {
    pub cluster_info: Arc<ConfigMap>,
    /// Of the type [`SECRET_TYPE`], in [`SECRET_NAMESPACE`].
    pub secrets: Vec<Arc<Secret>>,
}

pub fn sign(view: &View, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let Some(data) = &view.cluster_info.data else { return plan };
    let Some(content) = data.get(KUBECONFIG) else { return plan };
    let mut wanted = BTreeMap::new();
    for secret in &view.secrets {
        let Some((id, key)) = signing(secret, now) else { continue };
        wanted.insert(format!("{SIGNATURE_PREFIX}{id}"), signature(content, id, key));
        if let Ok(Some(at)) = expiration(secret)
            && let Some(left) = until(at, now)
        {
            plan.look_again(left);
        }
    }
    let mut patch = serde_json::Map::new();
    for key in data.keys().filter(|key| key.starts_with(SIGNATURE_PREFIX) && !wanted.contains_key(*key)) {
        patch.insert(key.clone(), json!(null));
    }
    for (key, signature) in wanted.into_iter().filter(|(key, signature)| data.get(key) != Some(signature)) {
        patch.insert(key, json!(signature));
    }
    if !patch.is_empty() {
        plan.push(Op::merge(view.cluster_info.as_ref(), json!({"data": patch})));
    }
    plan
}

/// A token's end.
pub fn clean(secret: &Secret, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    if expired(secret, now) {
        plan.push(Op::delete(secret));
    } else if let Ok(Some(at)) = expiration(secret)
        && let Some(left) = until(at, now)
    {
        plan.look_again(left);
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::k8s::ByteString;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn token(name: &str, data: &[(&str, &str)]) -> Arc<Secret> {
        let mut secret: Secret = serde_json::from_value(json!({"metadata": {"name": name, "namespace": SECRET_NAMESPACE}, "type": SECRET_TYPE})).unwrap();
        secret.data = Some(data.iter().map(|(key, value)| ((*key).to_owned(), ByteString(value.as_bytes().to_vec()))).collect());
        Arc::new(secret)
    }

    #[test]
    fn signatures_are_those_of_others() {
        // RFC 4231, case 2.
        assert_eq!(hmac(b"Jefe", b"what do ya want for nothing?")[..4], [0x5b, 0xdc, 0xc1, 0x46]);
        // cluster-bootstrap/token/jws/jws_test.go
        assert_eq!(signature("Hello from the other side. I must have called a thousand times.", "joshua", "my voice is my passcode"), "eyJhbGciOiJIUzI1NiIsImtpZCI6Impvc2h1YSJ9..VShe2taLd-YTrmWuRkcL_8QTNDHYxQIEBsAYYiIj1_8");
    }

    #[test]
    fn each_token_signs_while_it_is_good() {
        let good = [("token-id", "abcdef"), ("token-secret", "0123456789abcdef"), ("usage-bootstrap-signing", "true")];
        let with = |more: &[(&'static str, &'static str)]| good.iter().copied().filter(|(key, _)| !more.iter().any(|(other, _)| other == key)).chain(more.iter().copied()).collect::<Vec<_>>();
        let now = at("2026-01-01T00:00:00Z");
        let signed = signature("config", "abcdef", "0123456789abcdef");
        let run = |data: &[(&str, &str)], tokens: Vec<Arc<Secret>>| {
            let cluster_info: ConfigMap = serde_json::from_value(json!({"metadata": {"name": CLUSTER_INFO, "namespace": CLUSTER_INFO_NAMESPACE}, "data": data.iter().copied().collect::<BTreeMap<_, _>>()})).unwrap();
            sign(&View { cluster_info: Arc::new(cluster_info), secrets: tokens }, now).to_string()
        };
        let patch = format!("patch ConfigMap kube-public/cluster-info {{\"data\":{{\"jws-kubeconfig-abcdef\":\"{signed}\"}}}}\n");
        let one = |data: &[(&str, &str)]| vec![token("bootstrap-token-abcdef", data)];
        assert_eq!(run(&[("kubeconfig", "config")], one(&good)), patch);
        assert_eq!(run(&[("kubeconfig", "config"), ("jws-kubeconfig-abcdef", "old")], one(&good)), patch);
        assert_eq!(run(&[("kubeconfig", "config"), ("jws-kubeconfig-abcdef", &signed)], one(&good)), "");
        assert_eq!(run(&[("other", "x")], one(&good)), "");
        assert_eq!(run(&[("kubeconfig", "config")], one(&with(&[("expiration", "2026-01-01T01:00:00Z")]))), format!("{patch}again in 3600s\n"));
        let gone = "patch ConfigMap kube-public/cluster-info {\"data\":{\"jws-kubeconfig-abcdef\":null}}\n";
        let before = [("kubeconfig", "config"), ("jws-kubeconfig-abcdef", signed.as_str())];
        assert_eq!(run(&before, Vec::new()), gone);
        for bad in [("expiration", "2025-12-31T23:59:59Z"), ("expiration", "tomorrow"), ("usage-bootstrap-signing", "false"), ("token-id", "fedcba"), ("token-secret", "")] {
            assert_eq!(run(&before, one(&with(&[bad]))), gone, "{bad:?}");
        }
        assert_eq!(run(&before, vec![token("bootstrap-token-ABCDEF", &good)]), gone);
    }

    #[test]
    fn what_has_expired_goes() {
        let now = at("2026-01-01T00:00:00Z");
        for (expiration, want) in [("", ""), ("2026-01-01T00:00:10Z", "again in 10s\n"), ("2026-01-01T00:00:00Z", "delete Secret kube-system/t\n"), ("nonsense", "delete Secret kube-system/t\n")] {
            assert_eq!(clean(&token("t", &[("expiration", expiration)]), now).to_string(), want);
        }
    }
}
