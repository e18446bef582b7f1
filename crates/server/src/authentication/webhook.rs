//! Tokens that a webhook knows: asked by TokenReview, its answers kept for a while.
//!
//! Mirrors apiserver/plugin/pkg/authenticator/token/webhook: `--authentication-token-webhook-config-file`.
//! https://kubernetes.io/docs/reference/access-authn-authz/authentication/#webhook-token-authentication

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{Authenticated, User};
use crate::metrics::{Counters, Histograms, Levels};
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
    pub(crate) metrics: TokenWebhookMetrics,
}

/// Names, labels and bounds of apiserver/pkg/authentication/token/cache/stats.go and authenticatorfactory/metrics.go. Who comes with a token that is being asked about
/// asks as well: nobody is `blocked`.
pub(crate) struct TokenWebhookMetrics {
    questions: Counters,
    waits: Histograms,
    fetches: Counters,
    fetching: Levels,
    requests: Counters,
    latencies: Histograms,
}

impl Default for TokenWebhookMetrics {
    fn default() -> Self {
        const CACHE: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
        const REQUEST: &[f64] = &[0.25, 0.5, 0.7, 1.0, 1.5, 3.0, 5.0, 10.0];
        Self {
            questions: Counters::new("authentication_token_cache_request_total", "[ALPHA] ", &["status"]),
            waits: Histograms::new("authentication_token_cache_request_duration_seconds", "[ALPHA] ", &["status"], CACHE),
            fetches: Counters::new("authentication_token_cache_fetch_total", "[ALPHA] ", &["status"]),
            fetching: Levels::new("authentication_token_cache_active_fetch_count", "[ALPHA] ", &["status"]),
            requests: Counters::new("apiserver_delegated_authn_request_total", "[ALPHA] Number of HTTP requests partitioned by status code.", &["code"]),
            latencies: Histograms::new("apiserver_delegated_authn_request_duration_seconds", "[ALPHA] Request latency in seconds. Broken down by status code.", &["code"], REQUEST),
        }
    }
}

impl TokenWebhookMetrics {
    fn asked(&self, status: &str, took: Duration) {
        self.questions.add(&[status], 1);
        self.waits.observe(&[status], took.as_secs_f64());
    }

    fn fetched(&self, code: Option<u16>, took: Duration, well: bool) {
        let code = code.map_or_else(|| "<error>".to_owned(), |code| code.to_string());
        self.requests.add(&[&code], 1);
        self.latencies.observe(&[&code], took.as_secs_f64());
        self.fetches.add(&[if well { "ok" } else { "error" }], 1);
    }

    pub(crate) fn text(&self, out: &mut String) {
        self.questions.text(out);
        self.waits.text(out);
        self.fetches.text(out);
        self.fetching.text(out);
        self.requests.text(out);
        self.latencies.text(out);
    }
}

impl TokenWebhook {
    pub fn new(hook: Hook, version: &str, ttl: SignedDuration) -> Self {
        Self { hook, version: version.to_owned(), ttl, kept: Mutex::default(), metrics: TokenWebhookMetrics::default() }
    }

    /// `own` are the API server's audiences, of whose tokens a webhook that knows nothing of audiences speaks.
    pub async fn authenticate(&self, outbound: &Outbound, now: Timestamp, token: &str, audiences: &[String], own: &[String]) -> Result<Option<Authenticated>, String> {
        let begun = Instant::now();
        let question: Question = (Sha256::digest(token).into(), audiences.to_vec());
        let known = self.kept.lock().get(&question).filter(|(until, _)| *until > now).map(|(_, answer)| answer.clone());
        if let Some(answer) = known {
            self.metrics.asked("hit", begun.elapsed());
            return Ok(answer);
        }
        let fetching = self.metrics.fetching.hold(&["in_flight"]);
        let mut code = None;
        let outcome = self.fetch(outbound, token, audiences, own, &mut code).await;
        drop(fetching);
        self.metrics.fetched(code, begun.elapsed(), outcome.is_ok());
        self.metrics.asked("miss", begun.elapsed());
        let answer = outcome?;
        let mut kept = self.kept.lock();
        if kept.len() >= KEPT_MAX {
            kept.clear();
        }
        kept.insert(question, (now.checked_add(self.ttl).unwrap_or(now), answer.clone()));
        Ok(answer)
    }

    async fn fetch(&self, outbound: &Outbound, token: &str, audiences: &[String], own: &[String], code: &mut Option<u16>) -> Result<Option<Authenticated>, String> {
        let review = json!({"kind": "TokenReview", "apiVersion": format!("authentication.k8s.io/{}", self.version), "metadata": {"creationTimestamp": null}, "spec": {"token": token, "audiences": audiences}});
        let reply = outbound.post_again(&self.hook, &review, TIMEOUT).await.map_err(|error| format!("webhook token authenticator failed: {error}"))?;
        *code = Some(reply.status);
        if !(200..300).contains(&reply.status) {
            return Err(format!("webhook token authenticator failed: the server responded with the status code {}", reply.status));
        }
        let answer: Value = serde_json::from_slice(&reply.body).map_err(|error| format!("webhook token authenticator failed: {error}"))?;
        judge(&answer, audiences, own)
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
