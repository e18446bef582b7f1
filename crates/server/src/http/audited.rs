//! Requests that stand in the audit log: begun when their sender is known, ended when their answer has been made, or sent.
//!
//! Mirrors apiserver/pkg/endpoints/filters/audit.go and authorization.go's annotations.

use std::panic::{AssertUnwindSafe, resume_unwind};
use std::sync::Arc;
use std::time::Instant;

use ::api::Status;
use futures_util::FutureExt;
use http::request::Parts;
use http_body::Body as _;
use http_body_util::BodyExt;

use super::answer::{self, Answer};
use super::held;
use super::negotiate::Asked;
use super::relay::Peer;
use crate::api::Api;
use crate::audit::{Completed, Record, Stage};
use crate::authentication::User;
use crate::authorization::{self, Attributes};
use crate::flow_control::Kind;
use crate::path::Route;

/// Err: the audit log is to have every request, and does not take this one.
pub async fn begin(api: &Api, id: &str, parts: &Parts, found: &Route, asked: &Attributes, user: &User) -> Result<Option<Arc<Record>>, Status> {
    let Some(record) = record(api, id, parts, found, asked, user) else { return Ok(None) };
    record.stage(Stage::RequestReceived);
    if !record.delivered().await {
        record.rejected();
        return Err(Status::internal("failed to store audit event"));
    }
    Ok(Some(record))
}

/// Somebody who could not say who they are: rules for users are not for them (`WithFailedAuthenticationAudit`).
pub fn unknown(api: &Api, id: &str, parts: &Parts, found: &Route, asked: &Attributes, status: &Status) {
    if let Some(record) = record(api, id, parts, found, asked, &User::default()) {
        let mut attempted = status.clone();
        attempted.message = "Authentication failed, attempted: bearer".into();
        record.refused(&attempted);
        record.stage(Stage::ResponseStarted);
    }
}

fn record(api: &Api, id: &str, parts: &Parts, found: &Route, asked: &Attributes, user: &User) -> Option<Arc<Record>> {
    let audit = api.config.audit.as_ref()?;
    let version = if let Route::Resource(target) = found { target.version.as_str() } else { "" };
    let uri = parts.uri.path_and_query().map_or("/", |uri| uri.as_str());
    audit.begin(id, uri, asked, version, user, parts.extensions.get::<Peer>().map(|peer| peer.0), &parts.headers)
}

/// Refuses what is not allowed, and writes down which it was, and why.
pub async fn require(api: &Api, parts: &Parts, user: &User, asked: &Attributes) -> Result<(), Status> {
    let begun = Instant::now();
    let decision = authorization::decide(api, user, asked).await;
    api.measured.authorized(&decision, begun.elapsed());
    if let Some(record) = parts.extensions.get::<Arc<Record>>() {
        record.annotate("authorization.k8s.io/decision", if decision.allowed { "allow" } else { "forbid" });
        record.annotate("authorization.k8s.io/reason", &decision.reason);
    }
    decision.required(user, asked)
}

/// Serves, and writes down how it went.
pub async fn complete(record: Arc<Record>, kind: Kind, asked: &Asked, serving: impl Future<Output = Result<Answer, Status>>) -> Answer {
    let answer = match AssertUnwindSafe(serving).catch_unwind().await {
        Ok(Ok(answer)) => answer,
        Ok(Err(status)) => {
            record.refused(&status);
            answer::refusal(&status, asked)
        }
        Err(panic) => {
            record.refused(&Status::internal("APIServer panic'd"));
            record.stage(Stage::Panic);
            // Whoever guards the connection answers the client.
            resume_unwind(panic)
        }
    };
    let code = answer.status().as_u16();
    if kind != Kind::Ordinary {
        record.answered(code, None);
        record.stage(Stage::ResponseStarted);
        record.delivered().await;
        return held::until_sent(answer, Completed(record));
    }
    // A failure says why, at any level.
    if !record.wants_response() && code < 400 {
        record.answered(code, None);
        if answer.body().size_hint().exact().is_none() {
            return held::until_sent(answer, Completed(record));
        }
        record.stage(Stage::ResponseComplete);
        record.delivered().await;
        return answer;
    }
    let (parts, body) = answer.into_parts();
    let bytes = match body.collect().await {
        Ok(collected) => collected.to_bytes(),
        Err(never) => match never {},
    };
    record.answered(code, Some(&bytes));
    record.stage(Stage::ResponseComplete);
    record.delivered().await;
    Answer::from_parts(parts, answer::full(bytes))
}
