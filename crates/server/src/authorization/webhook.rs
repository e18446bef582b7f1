//! What a webhook says of requests: asked by SubjectAccessReview, its answers kept for a while.
//!
//! Mirrors apiserver/plugin/pkg/authorizer/webhook: https://kubernetes.io/docs/reference/access-authn-authz/webhook/

use std::collections::HashMap;
use std::time::{Duration, Instant};

use cel::{Activation, Budget, Program, Value as Cel};
use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::{Attributes, Decision};
use crate::expressions_measured;
use crate::authentication::User;
use crate::outbound::{Hook, Outbound};
use crate::registry::text;

/// Answers that are kept; should there be more, all are forgotten.
const KEPT_MAX: usize = 10_000;

/// A webhook and how it is asked.
pub struct WebhookConfig {
    /// Told in reasons.
    pub name: String,
    pub hook: Hook,
    /// `v1` or `v1beta1`.
    pub version: String,
    pub timeout: Duration,
    pub authorized_ttl: SignedDuration,
    pub unauthorized_ttl: SignedDuration,
    /// Who cannot be asked refuses.
    pub fails_closed: bool,
    /// Only requests of which all are true, with their text.
    pub conditions: Vec<(Program, String)>,
}

pub struct AuthorizationWebhook {
    config: WebhookConfig,
    kept: Mutex<HashMap<String, (Timestamp, Decision)>>,
}

impl AuthorizationWebhook {
    pub fn new(config: WebhookConfig) -> Self {
        Self { config, kept: Mutex::default() }
    }

    pub async fn decide(&self, outbound: &Outbound, now: Timestamp, user: &User, asked: &Attributes) -> Decision {
        let spec = spec(user, asked);
        match self.wanted(&spec) {
            Ok(true) => {}
            Ok(false) => return Decision::none(""),
            Err(why) => return self.failed(&why),
        }
        let key = spec.to_string();
        if let Some((until, decision)) = self.kept.lock().get(&key)
            && *until > now
        {
            return decision.clone();
        }
        let review = json!({"kind": "SubjectAccessReview", "apiVersion": format!("authorization.k8s.io/{}", self.config.version), "metadata": {"creationTimestamp": null}, "spec": shown(spec, &self.config.version), "status": {"allowed": false}});
        let begun = Instant::now();
        let answer = match outbound.post_again(&self.config.hook, &review, self.config.timeout).await {
            Ok(reply) if (200..300).contains(&reply.status) => serde_json::from_slice::<Value>(&reply.body).map_err(|error| error.to_string()),
            Ok(reply) => Err(format!("the server responded with the status code {}", reply.status)),
            Err(error) => Err(error.to_string()),
        };
        let result = match &answer {
            Ok(_) => "success",
            Err(why) if why.ends_with("context deadline exceeded") => "timeout",
            Err(_) => "error",
        };
        outbound.metrics.authorization(&self.config.name, result, begun.elapsed(), answer.is_err() && !self.config.fails_closed);
        let decision = match answer {
            Ok(answer) => judge(&answer),
            Err(why) => return self.failed(&why),
        };
        let life = if decision.allowed { self.config.authorized_ttl } else { self.config.unauthorized_ttl };
        let mut kept = self.kept.lock();
        if kept.len() >= KEPT_MAX {
            kept.clear();
        }
        kept.insert(key, (now.checked_add(life).unwrap_or(now), decision.clone()));
        decision
    }

    fn failed(&self, why: &str) -> Decision {
        tracing::warn!(why, webhook = self.config.name, "an authorization webhook could not be asked");
        Decision { allowed: false, denied: self.config.fails_closed, reason: String::new() }
    }

    /// Whether the webhook is for such requests.
    fn wanted(&self, spec: &Value) -> Result<bool, String> {
        let mut budget = Budget::new(cel::limits::RUNTIME_COST_BUDGET_MATCH_CONDITIONS);
        let mut fault = None;
        for (program, text) in &self.config.conditions {
            let activation = Activation::new().bind("request", Cel::json(spec));
            match expressions_measured::evaluated(|| program.evaluate(&activation, &mut budget)) {
                // One that is false settles it, whatever became of the others.
                Ok(value) if value.as_bool() == Some(false) => return Ok(false),
                Ok(_) => {}
                Err(error) => fault = Some(format!("cel evaluation error: expression '{text}' resulted in error: {error}")),
            }
        }
        fault.map_or(Ok(true), Err)
    }
}

/// What is asked, as v1 has it.
fn spec(user: &User, asked: &Attributes) -> Value {
    let mut spec = json!({"user": user.name, "groups": user.groups});
    if !user.uid.is_empty() {
        spec["uid"] = user.uid.as_str().into();
    }
    if !user.extra.is_empty() {
        spec["extra"] = json!(user.extra);
    }
    if !asked.path.is_empty() {
        spec["nonResourceAttributes"] = json!({"path": asked.path, "verb": asked.verb});
        return spec;
    }
    let mut attributes = serde_json::Map::new();
    for (name, value) in [("namespace", &asked.namespace), ("verb", &asked.verb), ("group", &asked.group), ("version", &asked.version), ("resource", &asked.resource), ("subresource", &asked.subresource), ("name", &asked.name)] {
        if !value.is_empty() {
            attributes.insert(name.into(), value.as_str().into());
        }
    }
    if !asked.fields.is_empty() {
        let terms: Vec<Value> = asked.fields.iter().map(|term| json!({"key": term.field, "operator": if term.negated { "NotIn" } else { "In" }, "values": [term.value]})).collect();
        attributes.insert("fieldSelector".into(), json!({"requirements": terms}));
    }
    spec["resourceAttributes"] = attributes.into();
    spec
}

/// In v1beta1 groups are called otherwise.
fn shown(mut spec: Value, version: &str) -> Value {
    if version == "v1beta1"
        && let Some(fields) = spec.as_object_mut()
        && let Some(groups) = fields.remove("groups")
    {
        fields.insert("group".into(), groups);
    }
    spec
}

fn judge(answer: &Value) -> Decision {
    let flag = |name: &str| answer.pointer(&format!("/status/{name}")) == Some(&Value::Bool(true));
    let reason = text(answer, "/status/reason").to_owned();
    match (flag("denied"), flag("allowed")) {
        (true, true) => Decision { allowed: false, denied: true, reason: "webhook subject access review returned both allow and deny response".to_owned() },
        (true, false) => Decision { allowed: false, denied: true, reason },
        (false, allowed) => Decision { allowed, denied: false, reason },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_and_answers() {
        let user = User { name: "jane".into(), groups: vec!["dev".into()], ..User::default() };
        let asked = Attributes { verb: "get".into(), version: "v1".into(), resource: "pods".into(), namespace: "a".into(), ..Attributes::default() };
        let question = spec(&user, &asked);
        assert_eq!(question, json!({"user": "jane", "groups": ["dev"], "resourceAttributes": {"namespace": "a", "verb": "get", "version": "v1", "resource": "pods"}}));
        assert_eq!(shown(question, "v1beta1")["group"], json!(["dev"]));
        let path = Attributes { verb: "get".into(), path: "/x".into(), ..Attributes::default() };
        assert_eq!(spec(&user, &path)["nonResourceAttributes"], json!({"path": "/x", "verb": "get"}));
        assert_eq!(judge(&json!({"status": {"allowed": true, "reason": "r"}})), Decision::allow("r"));
        assert_eq!(judge(&json!({"status": {"allowed": false, "reason": "r"}})), Decision::none("r"));
        assert!(judge(&json!({"status": {"allowed": false, "denied": true}})).denied);
        assert!(judge(&json!({"status": {"allowed": true, "denied": true}})).denied);
    }
}
