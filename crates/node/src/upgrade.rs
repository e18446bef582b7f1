//! Leaving HTTP: which protocol is spoken afterwards, and what is said when it cannot be.
//!
//! Mirrors k8s.io/streaming/pkg/httpstream: `X-Stream-Protocol-Version`, and upstream's words and codes, which are plain text: clients show them after
//! "unable to upgrade connection: ".

use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, header};
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;

use crate::http::{Answer, empty, full};

const SPDY: &str = "SPDY/3.1";
const PROTOCOL_VERSION: HeaderName = HeaderName::from_static("x-stream-protocol-version");
const ACCEPTED_PROTOCOLS: HeaderName = HeaderName::from_static("x-accepted-stream-protocol-versions");

/// An answer instead of an upgrade.
#[derive(Debug)]
pub struct Refused {
    status: StatusCode,
    text: String,
    /// What would have been accepted.
    accepted: Vec<&'static str>,
}

impl Refused {
    pub fn new(status: StatusCode, text: impl Into<String>) -> Self {
        Self { status, text: text.into(), accepted: Vec::new() }
    }
}

impl From<Refused> for Answer {
    fn from(refused: Refused) -> Self {
        let mut answer = full(refused.status, "text/plain; charset=utf-8", refused.text);
        for name in refused.accepted {
            answer.headers_mut().append(ACCEPTED_PROTOCOLS, HeaderValue::from_static(name));
        }
        answer
    }
}

/// A list header's values, however many headers it comes in.
pub fn tokens(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).map(str::trim).filter(|token| !token.is_empty())
}

pub fn is_upgrade(headers: &HeaderMap) -> bool {
    headers.get_all(header::CONNECTION).into_iter().filter_map(|value| value.to_str().ok()).any(|value| value.to_ascii_lowercase().contains("upgrade"))
}

/// The first of the client's protocols that is known.
pub fn negotiate(offered: &[String], known: &[&'static str]) -> Result<&'static str, Refused> {
    let chosen = offered.iter().find_map(|offered| known.iter().find(|known| *known == offered));
    chosen.copied().ok_or_else(|| Refused {
        status: StatusCode::FORBIDDEN,
        text: format!("unable to upgrade: unable to negotiate protocol: client supports [{}], server accepts [{}]", offered.join(" "), known.join(" ")),
        accepted: known.to_vec(),
    })
}

fn wanted(headers: &HeaderMap, known: &[&'static str]) -> Result<&'static str, Refused> {
    let bad = |text: String| Refused::new(StatusCode::BAD_REQUEST, text);
    let Some(given) = headers.get(PROTOCOL_VERSION) else {
        return Err(bad(format!("unable to upgrade: header X-Stream-Protocol-Version does not exist in request with {} headers", headers.len())));
    };
    let offered: Vec<String> = tokens(headers, PROTOCOL_VERSION).map(str::to_owned).collect();
    if offered.is_empty() {
        return Err(bad(format!("unable to upgrade: header X-Stream-Protocol-Version contains [{}], but no valid protocols", String::from_utf8_lossy(given.as_bytes()))));
    }
    let chosen = negotiate(&offered, known)?;
    let upgrade = headers.get(header::UPGRADE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !is_upgrade(headers) || !upgrade.to_ascii_lowercase().contains(&SPDY.to_ascii_lowercase()) {
        return Err(bad("unable to upgrade: missing upgrade headers in request".to_owned()));
    }
    Ok(chosen)
}

/// Switches the connection to SPDY/3.1 and the best of `known`. `serve` gets its bytes as soon as the client has seen the answer.
pub fn spdy<F>(request: &mut Request<Incoming>, known: &[&'static str], serve: impl FnOnce(TokioIo<Upgraded>, &'static str) -> F + Send + 'static) -> Result<Answer, Refused>
where
    F: Future<Output = ()> + Send + 'static,
{
    let chosen = wanted(request.headers(), known)?;
    let upgraded = hyper::upgrade::on(&mut *request);
    tokio::spawn(async move {
        match upgraded.await {
            Ok(stream) => serve(TokioIo::new(stream), chosen).await,
            Err(error) => tracing::debug!(%error, "upgrade failed"),
        }
    });
    let mut answer = empty(StatusCode::SWITCHING_PROTOCOLS);
    let headers = answer.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static(SPDY));
    headers.insert(PROTOCOL_VERSION, HeaderValue::from_static(chosen));
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn negotiation_in_upstreams_words() {
        let known = ["v4.channel.k8s.io", "v3.channel.k8s.io"];
        let headers = |all: &[(&'static str, &'static str)]| all.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect::<HeaderMap>();
        let upgrade = [("connection", "Upgrade"), ("upgrade", "SPDY/3.1")];
        let with = |version: &'static str| headers(&[upgrade[0], upgrade[1], ("x-stream-protocol-version", version)]);
        let outcome = |headers: &HeaderMap| wanted(headers, &known).map_err(|refused| (refused.status.as_u16(), refused.text));
        assert_eq!(outcome(&with("v9.channel.k8s.io, v3.channel.k8s.io")), Ok("v3.channel.k8s.io"));
        for (headers, code, text) in [
            (headers(&upgrade), 400, "unable to upgrade: header X-Stream-Protocol-Version does not exist in request with 2 headers"),
            (with(","), 400, "unable to upgrade: header X-Stream-Protocol-Version contains [,], but no valid protocols"),
            (with("v9"), 403, "unable to upgrade: unable to negotiate protocol: client supports [v9], server accepts [v4.channel.k8s.io v3.channel.k8s.io]"),
            (headers(&[("x-stream-protocol-version", "v4.channel.k8s.io")]), 400, "unable to upgrade: missing upgrade headers in request"),
        ] {
            assert_eq!(outcome(&headers), Err((code, text.to_owned())));
        }
        let answer = Answer::from(negotiate(&["v9".to_owned()], &known).unwrap_err());
        assert_eq!(answer.headers().get_all(ACCEPTED_PROTOCOLS).iter().count(), 2);
    }
}
