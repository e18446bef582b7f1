//! Responses: objects, statuses, texts.

use std::convert::Infallible;

use ::api::{Reason, Status};
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, WARNING};
use http::{HeaderValue, Response, StatusCode};
use http_body::Body as _;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use serde_json::Value;

use super::negotiate::Asked;
use super::pieces::Pieces;
use crate::encode::{self, List};

pub type Body = UnsyncBoxBody<Bytes, Infallible>;
pub type Answer = Response<Body>;

pub const JSON: &str = "application/json";
pub const YAML: &str = "application/yaml";

pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).boxed_unsync()
}

pub fn bytes(code: u16, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    whole(code, content_type, full(body))
}

/// A list, which is sent while it is made.
pub fn list(list: List) -> Answer {
    whole(200, JSON, Pieces::new(list).boxed_unsync())
}

fn whole(code: u16, content_type: &'static str, body: Body) -> Answer {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

pub fn json(code: u16, value: &Value) -> Answer {
    bytes(code, JSON, value.to_string())
}

pub fn text(code: u16, body: String) -> Answer {
    bytes(code, "text/plain; charset=utf-8", body)
}

/// What is no API object: JSON, in lines (`WriteRawJSON`).
pub fn raw_json(code: u16, value: &Value) -> Answer {
    bytes(code, JSON, encode::indented(value.to_string().as_bytes()))
}

pub fn code_of(status: &Status) -> u16 {
    if status.code == 0 { 200 } else { status.code }
}

/// A status nobody negotiated about.
pub fn status(status: &Status) -> Answer {
    bytes(code_of(status), JSON, encode::indented(&serde_json::to_vec(status).unwrap_or_default()))
}

/// A refusal, in what the client takes; in plain JSON, when it takes nothing that we have.
pub fn refusal(what: &Status, asked: &Asked) -> Answer {
    let mut response = asked.refusal().map_or_else(|| status(what), |wanted| wanted.status(what));
    if let Some(seconds) = what.details.retry_after_seconds {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// What the mux answers for a path that nothing serves.
pub fn no_page() -> Answer {
    text(404, "404 page not found\n".to_owned())
}

pub fn method_not_allowed() -> Status {
    Status::generic(405, Reason::MethodNotAllowed, "the server does not allow this method on the requested resource")
}

/// For HEAD: the head says how long the body would have been.
pub fn without_body(response: &mut Answer) {
    let body = std::mem::replace(response.body_mut(), full(Bytes::new()));
    if let Some(length) = body.size_hint().exact() {
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
}

/// `Warning: 299 - "text"`, one a warning, as KEP-1693.
pub fn warn(response: &mut Answer, warnings: Vec<String>) {
    for text in warnings {
        let quoted = text.replace('\\', "\\\\").replace('"', "\\\"").replace(['\n', '\r'], " ");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
            response.headers_mut().append(WARNING, value);
        }
    }
}
