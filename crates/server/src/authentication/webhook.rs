//! Tokens that a webhook knows: asked by TokenReview, its answers kept for a while.
//!
//! Mirrors apiserver/plugin/pkg/authenticator/token/webhook: `--authentication-token-webhook-config-file`.
//! https://kubernetes.io/docs/reference/access-authn-authz/authentication/#webhook-token-authentication

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{Authenticated, User};
use crate::outbound::{Hook, Outbound};
use crate::references::list;
use crate::registry::text;

const TIMEOUT: Duration = Duration::from_secs(30);
/// Answers that are kept; should there be more, all are forgotten.
const KEPT_MAX: usize = 10_000;

/// A token's digest and the audiences it was asked about.
type Question = ([u8; 32], Vec<String>);

pub struct TokenWebhook {
    hook: Hook,
    /// `v1` or `v1beta1`.
    version: String,
    /// `--authentication-token-webhook-cache-ttl`
    ttl: SignedDuration,
    kept: Mutex<HashMap<Question, (Timestamp, Option<Authenticated>)>>,
}

impl TokenWebhook {
    pub fn new(hook: Hook, version: &str, ttl: SignedDuration) -> Self {
        Self { hook, version: version.to_owned(), ttl, kept: Mutex::default() }
    }

    /// `own` are the API server's audiences, of whose tokens a webhook that knows nothing of audiences speaks.
    pub async fn authenticate(&self, outbound: &Outbound, now: Timestamp, token: &str, audiences: &[String], own: &[String]) -> Result<Option<Authenticated>, String> {
        let question: Question = (Sha256::digest(token).into(), audiences.to_vec());
        if let Some((until, answer)) = self.kept.lock().get(&question)
            && *until > now
        {
            return Ok(answer.clone());
        }
        let review = json!({"kind": "TokenReview", "apiVersion": format!("authentication.k8s.io/{}", self.version), "metadata": {"creationTimestamp": null}, "spec": {"token": token, "audiences": audiences}});
        let reply = outbound.post_again(&self.hook, &review, TIMEOUT).await.map_err(|error| format!("webhook token authenticator failed: {error}"))?;
        if !(200..300).contains(&reply.status) {
            return Err(format!("webhook token authenticator failed: the server responded with the status code {}", reply.status));
        }
        let answer: Value = serde_json::from_slice(&reply.body).map_err(|error| format!("webhook token authenticator failed: {error}"))?;
        let answer = judge(&answer, audiences, own)?;
        let mut kept = self.kept.lock();
        if kept.len() >= KEPT_MAX {
            kept.clear();
        }
        kept.insert(question, (now.checked_add(self.ttl).unwrap_or(now), answer.clone()));
        Ok(answer)
    }
}

fn judge(review: &Value, audiences: &[String], own: &[String]) -> Result<Option<Authenticated>, String> {
    let texts = |value: &Value, pointer: &str| list(value, pointer).filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>();
    if review.pointer("/status/authenticated") != Some(&Value::Bool(true)) {
        return match text(review, "/status/error") {
            "" => Ok(None),
            error => Err(error.to_owned()),
        };
    }
    let told = texts(review, "/status/audiences");
    let told = if told.is_empty() { own.to_vec() } else { told };
    let accepted: Vec<String> = audiences.iter().filter(|audience| told.contains(audience)).cloned().collect();
    if accepted.is_empty() {
        return Ok(None);
    }
    let extra = review.pointer("/status/user/extra").and_then(Value::as_object).into_iter().flatten();
    let extra: BTreeMap<String, Vec<String>> = extra.map(|(key, values)| (key.clone(), values.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect())).collect();
    let user = User { name: text(review, "/status/user/username").to_owned(), uid: text(review, "/status/user/uid").to_owned(), groups: texts(review, "/status/user/groups"), extra };
    Ok(Some(Authenticated { user, audiences: accepted }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers() {
        let asked = ["api".to_owned(), "x".to_owned()];
        let own = ["api".to_owned()];
        let yes = json!({"status": {"authenticated": true, "user": {"username": "jane", "groups": ["dev"], "extra": {"a": ["b"]}}}});
        let found = judge(&yes, &asked, &own).unwrap().unwrap();
        assert_eq!((found.user.name.as_str(), found.audiences), ("jane", vec!["api".to_owned()]));
        let other = json!({"status": {"authenticated": true, "audiences": ["y"]}});
        assert_eq!(judge(&other, &asked, &own), Ok(None));
        assert_eq!(judge(&json!({"status": {}}), &asked, &own), Ok(None));
        assert_eq!(judge(&json!({"status": {"error": "no"}}), &asked, &own), Err("no".to_owned()));
    }
}
