//! Large answers travel compressed when the client takes it: `APIResponseCompression`.
//!
//! Mirrors endpoints/handlers/responsewriters: gzip, from 128 KiB, at the fastest level. Streams are never compressed.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, HeaderValue, VARY};
use http::request::Parts;
use http::{Method, StatusCode};
use http_body::Body as _;
use http_body_util::BodyExt;

use super::answer::{self, Answer};

const THRESHOLD_BYTES: u64 = 128 * 1024;

pub fn accepted(parts: &Parts) -> bool {
    parts.method == Method::GET
        && parts.headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).any(|coding| {
            let (name, weight) = coding.split_once(';').unwrap_or((coding, ""));
            name.trim().eq_ignore_ascii_case("gzip") && weight.trim() != "q=0"
        })
}

/// Compresses a body that is there in whole and large enough; anything else passes.
pub async fn gzip(answer: Answer) -> Answer {
    let large = answer.body().size_hint().exact().is_some_and(|size| size > THRESHOLD_BYTES);
    if answer.status() != StatusCode::OK || !large || answer.headers().contains_key(CONTENT_ENCODING) {
        return answer;
    }
    let (mut parts, body) = answer.into_parts();
    // Reading from memory: at once, and it cannot fail.
    let plain = match body.collect().await {
        Ok(collected) => collected.to_bytes(),
        Err(never) => match never {},
    };
    let source = plain.clone();
    let packed = tokio::task::spawn_blocking(move || {
        let mut encoder = GzEncoder::new(Vec::with_capacity(source.len() / 4), Compression::fast());
        encoder.write_all(&source).and_then(|()| encoder.finish())
    })
    .await;
    let bytes = match packed {
        Ok(Ok(packed)) => {
            parts.headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            parts.headers.append(VARY, HeaderValue::from_static("Accept-Encoding"));
            packed.into()
        }
        // What cannot be compressed is sent as it is.
        _ => plain,
    };
    Answer::from_parts(parts, answer::full(bytes))
}
