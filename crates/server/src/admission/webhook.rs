//! One admission webhook: what its configuration says, and one call of it.
//!
//! Mirrors k8s.io/apiserver/pkg/admission/plugin/webhook: texts word for word, clients match on them.

use std::time::{Duration, Instant};

use ::api::{Reason, Resource, Status};
use serde_json::Value;

use super::asked::Asked;
use super::expressions::{Conditions, Has};
use super::review;
use super::rules::Selection;
use crate::api::Api;
use crate::outbound::Hook;
use crate::webhook_metrics::{Call, Rejection};

const DEFAULT_TIMEOUT_SECONDS: u64 = 10;
/// No more of an answer that is no review is told.
const SHOWN_ANSWER_BYTES: usize = 1024;

pub struct Webhook {
    pub name: String,
    pub selection: Selection,
    pub conditions: Conditions,
    /// `failurePolicy: Ignore`
    pub lenient: bool,
    /// `reinvocationPolicy: IfNeeded`
    pub reinvocable: bool,
    /// It may be asked about dry runs.
    dry_runs: bool,
    timeout: Duration,
    versions: Vec<String>,
    client: Result<Hook, String>,
}

/// Why a call did not end with a yes.
#[derive(Debug)]
pub enum Refusal {
    /// The webhook could not be asked, or did not answer as agreed: its failure policy decides.
    Calling(String),
    /// It said no, or may not be asked at all.
    Status(Status),
}

impl Webhook {
    pub fn of(hook: &Value) -> Self {
        let text = |name: &str| hook.get(name).and_then(Value::as_str).unwrap_or_default();
        let client = Hook::from_json(hook.get("clientConfig").unwrap_or(&Value::Null)).map_err(|error| error.to_string());
        Self {
            name: text("name").to_owned(),
            selection: Selection::of_webhook(hook),
            conditions: Conditions::of(hook.get("matchConditions"), Has { params: false, authorizer: true }, text("failurePolicy") == "Ignore"),
            lenient: text("failurePolicy") == "Ignore",
            reinvocable: text("reinvocationPolicy") == "IfNeeded",
            dry_runs: matches!(text("sideEffects"), "None" | "NoneOnDryRun"),
            timeout: Duration::from_secs(hook.get("timeoutSeconds").and_then(Value::as_u64).unwrap_or(DEFAULT_TIMEOUT_SECONDS)),
            versions: hook.get("admissionReviewVersions").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect(),
            client,
        }
    }

    /// The refusal of a webhook that could not be asked.
    pub fn failed(&self, why: &str) -> Status {
        Status::internal(format!("failed calling webhook {:?}: {why}", self.name))
    }

    /// Asks, and counts how it went.
    pub async fn counted(&self, api: &Api, asked: &Asked<'_>, target: &Resource, object: Option<&Value>, old: Option<&Value>, mutating: bool) -> Result<Option<Value>, Refusal> {
        let begun = Instant::now();
        let outcome = self.call(api, asked, target, object, old, mutating).await;
        let call = Call { name: &self.name, kind: if mutating { "admit" } else { "validating" }, operation: asked.operation.as_str() };
        let (code, rejection) = match &outcome {
            Ok(_) => (200, None),
            Err(Refusal::Calling(why)) => (self.failed(why).code, Some(Rejection::Calling)),
            Err(Refusal::Status(status)) => (status.code, Some(Rejection::No)),
        };
        let ignored = self.lenient && matches!(outcome, Err(Refusal::Calling(_)));
        api.outbound.metrics.admission(&call, begun.elapsed(), code, rejection, ignored);
        outcome
    }

    /// Asks. The patch of a mutating one, if it wants something changed.
    pub async fn call(&self, api: &Api, asked: &Asked<'_>, target: &Resource, object: Option<&Value>, old: Option<&Value>, mutating: bool) -> Result<Option<Value>, Refusal> {
        if asked.cx.dry_run && !self.dry_runs {
            return Err(Refusal::Status(Status::bad_request(format!("admission webhook {:?} does not support dry run", self.name))));
        }
        let version = self.versions.iter().find(|version| review::SPOKEN.contains(&version.as_str()));
        let version = version.ok_or_else(|| Refusal::Calling("could not create admission objects: webhook does not accept known AdmissionReview versions (v1, v1beta1)".into()))?;
        let client = self.client.as_ref().map_err(|why| Refusal::Calling(format!("could not get REST client: {why}")))?;
        let uid = api.uid();
        let body = review::question(version, &uid, asked.request(target), object, old);
        let called = |why: String| Refusal::Calling(format!("failed to call webhook: {why}"));
        let reply = api.outbound.post(client, &body, self.timeout).await.map_err(|error| called(error.to_string()))?;
        if !(200..300).contains(&reply.status) {
            return Err(called(server_error(reply.status, &reply.body)));
        }
        let answer: Value = serde_json::from_slice(&reply.body).map_err(|error| called(format!("couldn't get version/kind; json parse error: {error}")))?;
        let answer = review::answer(&answer, version, &uid, mutating).map_err(|why| Refusal::Calling(format!("received invalid webhook response: {why}")))?;
        for (key, value) in answer.annotations {
            asked.cx.annotate(&format!("{}/{key}", self.name), &value);
        }
        for warning in answer.warnings {
            asked.cx.warn(warning);
        }
        if !answer.allowed {
            return Err(Refusal::Status(denied(&self.name, answer.result)));
        }
        answer.patch.map(|patch| review::decode_patch(&patch)).transpose().map_err(|why| Refusal::Calling(format!("received undecodable patch in webhook response: {why}")))
    }
}

/// ToStatusErr: a refusal is an error, whatever the webhook says of it.
fn denied(webhook: &str, result: Option<Status>) -> Status {
    let mut status = result.unwrap_or_default();
    let by = format!("admission webhook {webhook:?} denied the request");
    let reason = serde_json::to_value(&status.reason).ok().and_then(|reason| reason.as_str().map(str::to_owned)).unwrap_or_default();
    status.message = match (status.message.is_empty(), status.reason == Reason::Unknown) {
        (false, _) => format!("{by}: {}", status.message),
        (true, false) => format!("{by}: {reason}"),
        (true, true) => format!("{by} without explanation"),
    };
    status.code = status.code.max(400);
    if status.status.is_empty() || status.status == "Success" {
        status.status = "Failure".into();
    }
    status
}

/// NewGenericServerResponse: what a client makes of an answer that is an error.
fn server_error(code: u16, body: &[u8]) -> String {
    let body = String::from_utf8_lossy(&body[..body.len().min(SHOWN_ANSWER_BYTES)]);
    let body = body.trim();
    match code {
        400 => "the server rejected our request for an unknown reason".into(),
        401 => "the server has asked for the client to provide credentials".into(),
        403 => body.to_owned(),
        404 => "the server could not find the requested resource".into(),
        405 => "the server does not allow this method on the requested resource".into(),
        429 => "the server has received too many requests and has asked us to try again later".into(),
        503 => "the server is currently unable to handle the request".into(),
        504 => "the server was unable to return a response in the time allotted, but may still be processing the request".into(),
        500.. => format!("an error on the server ({:?}) has prevented the request from succeeding", if body.is_empty() { "unknown" } else { body }),
        _ => format!("the server responded with the status code {code} but did not return more information"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn refusals_say_who_and_why() {
        let status = |value: Value| serde_json::from_value::<Status>(value).unwrap();
        for (result, message, code) in [
            (None, r#"admission webhook "x.y.z" denied the request without explanation"#, 400),
            (Some(status(json!({"message": "no"}))), r#"admission webhook "x.y.z" denied the request: no"#, 400),
            (Some(status(json!({"reason": "words of its own"}))), r#"admission webhook "x.y.z" denied the request: words of its own"#, 400),
            (Some(status(json!({"reason": "Forbidden", "code": 403}))), r#"admission webhook "x.y.z" denied the request: Forbidden"#, 403),
            (Some(status(json!({"status": "Success", "message": "no", "code": 200}))), r#"admission webhook "x.y.z" denied the request: no"#, 400),
        ] {
            let got = denied("x.y.z", result);
            assert_eq!((&*got.message, got.code, &*got.status), (message, code, "Failure"));
        }
    }
}
