//! The documents that clients keep: aggregated discovery and OpenAPI v2, with the tag that tells a client that what it has is still right.
//!
//! Mirrors apiserver's endpoints/discovery/aggregated (`ServeHTTPWithETag`) and kube-openapi's handler.

use ::api::openapi;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, EXPIRES, HeaderValue, IF_NONE_MATCH, LOCATION, VARY};
use http::request::Parts;
use http::{HeaderName, StatusCode};
use jiff::{Timestamp, ToSpan as _};
use serde_json::Value;
use sha2::{Digest, Sha512};

use super::answer::{self, Answer};
use super::negotiate::{Asked, Wanted};
use crate::path::Query;

const JSON: &str = "application/json";
/// How long a document may be kept that never changes.
const KEPT_HOURS: i64 = 365 * 24;
/// As old clients spell it; the answer has the newer spelling.
const PROTOBUF_WITH_AT: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";

/// `APIGroupDiscoveryList`
pub fn aggregated(wanted: &Wanted, value: &Value, parts: &Parts) -> Answer {
    let tag = tag(value);
    let mut answer = if known(parts, &tag) { unchanged() } else { wanted.value(200, value) };
    if answer.status() == StatusCode::OK {
        set(&mut answer, CONTENT_TYPE, &format!("{};g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList", wanted.media.content_type()));
    }
    set(&mut answer, ETAG, &tag);
    set(&mut answer, VARY, "Accept");
    set(&mut answer, CACHE_CONTROL, "public");
    answer
}

/// `/openapi/v2`, as JSON or as the protobuf that kubectl asked for until 1.26.
pub fn openapi_v2(asked: &Asked, parts: &Parts, document: impl FnOnce() -> Value) -> Answer {
    let Some(media) = asked.first_of(&[JSON, PROTOBUF_WITH_AT, openapi::PROTOBUF_CONTENT_TYPE]) else {
        let mut answer = answer::bytes(406, JSON, "");
        answer.headers_mut().remove(CONTENT_TYPE);
        set(&mut answer, VARY, "Accept");
        return answer;
    };
    let document = document();
    let tag = tag(&document);
    let mut answer = match media {
        _ if known(parts, &tag) => unchanged(),
        JSON => answer::json(200, &document),
        _ => answer::bytes(200, openapi::PROTOBUF_CONTENT_TYPE, openapi::v2_protobuf(&document)),
    };
    set(&mut answer, ETAG, &tag);
    set(&mut answer, VARY, "Accept");
    answer
}

/// `/openapi/v3`: as upstream's, which passes it through an aggregator, it says that it is text.
pub fn openapi_v3_index(index: &Value) -> Answer {
    answer::bytes(200, "text/plain; charset=utf-8", index.to_string())
}

/// One document of the index. Who asked for it by its hash may keep it for good; by an old hash one is sent on to the new.
pub fn openapi_v3(parts: &Parts, query: &Query, path: &str, hash: &str, document: impl FnOnce() -> Option<Value>) -> Option<Answer> {
    let asked = query.get("hash").filter(|asked| !asked.is_empty());
    let tag = format!("\"{hash}\"");
    let mut answer = match asked {
        Some(asked) if asked != hash => {
            let mut moved = answer::bytes(301, JSON, "");
            set(&mut moved, LOCATION, &openapi::v3_url(path, hash));
            moved
        }
        _ if known(parts, &tag) => unchanged(),
        _ => answer::json(200, &document()?),
    };
    if asked == Some(hash) {
        set(&mut answer, CACHE_CONTROL, "public, immutable");
        let expires = Timestamp::now().checked_add(KEPT_HOURS.hours()).unwrap_or(Timestamp::MAX);
        set(&mut answer, EXPIRES, &expires.strftime("%a, %d %b %Y %H:%M:%S UTC").to_string());
    }
    set(&mut answer, ETAG, &tag);
    set(&mut answer, VARY, "Accept");
    Some(answer)
}

/// The same for every encoding: `Vary` keeps them apart.
fn tag(value: &Value) -> String {
    let digest: String = Sha512::digest(value.to_string()).iter().map(|byte| format!("{byte:02X}")).collect();
    format!("\"{digest}\"")
}

fn known(parts: &Parts, tag: &str) -> bool {
    parts.headers.get(IF_NONE_MATCH).and_then(|value| value.to_str().ok()).is_some_and(|known| known.split(',').any(|one| one.trim() == tag))
}

fn unchanged() -> Answer {
    let mut answer = answer::bytes(304, JSON, "");
    answer.headers_mut().remove(CONTENT_TYPE);
    answer
}

fn set(answer: &mut Answer, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        answer.headers_mut().insert(name, value);
    }
}
