//! A request passed on to another HTTP server (a node's agent, a pod, a Service), and its answer passed back; an upgraded connection byte for byte.
//!
//! Mirrors k8s.io/apimachinery/pkg/util/proxy: `UpgradeAwareHandler`, and `Transport` for headers and redirects.

use std::convert::Infallible;
use std::io::{Read, Write};
use std::net::IpAddr;

use ::api::Status;
use bytes::{Bytes, BytesMut};
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use http::header::{CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST, LOCATION, UPGRADE};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;

use super::answer::{self, Answer};
use super::links;
use crate::nodes::NodeStream;

/// Bytes under way in each direction of an upgraded connection.
const COPY_BYTES: usize = 64 * 1024;

/// A page larger than this keeps its links.
const PAGE_BYTES_MAX: usize = 4 << 20;

/// Headers of one hop only, and what says who the client is: that is between it and us.
const HOP_HEADERS: [&str; 10] =
    ["host", "keep-alive", "te", "trailer", "transfer-encoding", "proxy-connection", "proxy-authenticate", "proxy-authorization", "authorization", "http2-settings"];
const IMPERSONATION: &str = "impersonate-";
/// What a backend says on other origins is not said in our name.
const CORS_HEADERS: [&str; 4] = ["access-control-allow-credentials", "access-control-allow-headers", "access-control-allow-methods", "access-control-allow-origin"];

/// The other end of the client's connection.
#[derive(Clone, Copy)]
pub struct Peer(pub IpAddr);

/// How the request looks to the other server.
pub struct Onward {
    /// Path and query.
    pub uri: String,
    /// For the `Host` header, should the client have sent none.
    pub host: String,
    /// For `proxy` subresources: the path under which clients see the other server's `/`. Redirects are moved there.
    pub prefix: Option<String>,
}

pub fn is_upgrade(headers: &HeaderMap) -> bool {
    headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok()).any(|value| value.to_ascii_lowercase().contains("upgrade"))
}

/// An agent that breaks off ends the body early; a log reader sees the end of the stream.
fn until_broken(body: Incoming) -> impl futures_util::Stream<Item = Result<Frame<Bytes>, Infallible>> {
    futures_util::stream::unfold(body, |mut body| async move {
        match body.frame().await? {
            Ok(frame) => Some((Ok(frame), body)),
            Err(error) => {
                tracing::debug!(%error, "the server behind broke off");
                None
            }
        }
    })
}

/// What the other server is sent; without its body.
fn outgoing(parts: &Parts, onward: &Onward, upgrade: bool) -> http::request::Builder {
    let listed: Vec<String> = parts.headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).map(|name| name.trim().to_ascii_lowercase()).collect();
    let mut request = Request::builder().method(parts.method.clone()).uri(&onward.uri);
    for (name, value) in &parts.headers {
        let text = name.as_str();
        let of_upgrade = *name == CONNECTION || *name == UPGRADE;
        let dropped = HOP_HEADERS.contains(&text) || text.starts_with(IMPERSONATION) || (of_upgrade && !upgrade) || (!of_upgrade && listed.iter().any(|name| name == text));
        if !dropped {
            request = request.header(name, value);
        }
    }
    let host = parts.headers.get(HOST).cloned().or_else(|| HeaderValue::from_str(parts.uri.authority()?.as_str()).ok());
    request = match host {
        Some(host) if onward.prefix.is_some() => request.header(HOST, host),
        _ => request.header(HOST, &onward.host),
    };
    if let Some(Peer(address)) = parts.extensions.get() {
        let before = parts.headers.get("x-forwarded-for").and_then(|value| value.to_str().ok()).map(|before| format!("{before}, ")).unwrap_or_default();
        if let Some(headers) = request.headers_mut()
            && let Ok(value) = HeaderValue::from_str(&format!("{before}{address}"))
        {
            headers.insert("x-forwarded-for", value);
        }
    }
    if let Some(prefix) = &onward.prefix
        && !upgrade
    {
        let path = onward.uri.split('?').next().unwrap_or_default();
        request = request.header("x-forwarded-uri", format!("{prefix}{path}"));
    }
    request
}

/// Sends the request over `stream` and gives back what comes.
pub async fn relay(stream: NodeStream, onward: Onward, parts: Parts, body: &mut Option<Incoming>) -> Result<Answer, Status> {
    let failed = |error: hyper::Error| Status::internal(format!("error dialing backend: {error}"));
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "connection to the server behind ended");
        }
    });
    let Some(body) = body.take() else { return Err(Status::internal("the request's body was read before")) };
    let upgrade = is_upgrade(&parts.headers);
    let mut request = Request::from_parts(parts, body);
    let client_side = upgrade.then(|| hyper::upgrade::on(&mut request));
    let (parts, body) = request.into_parts();
    let outgoing = outgoing(&parts, &onward, upgrade).body(body).map_err(Status::internal)?;
    let mut response = sender.send_request(outgoing).await.map_err(failed)?;
    let switched = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    match client_side {
        Some(client_side) if switched => join(client_side, hyper::upgrade::on(&mut response)),
        Some(_) if response.status().as_u16() < 400 => return Err(Status::internal(format!("invalid upgrade response: status code {}", response.status().as_u16()))),
        // The connection lives as long as the body is read; the sender may go.
        _ => {
            for name in HOP_HEADERS.into_iter().chain(["connection", "upgrade"]) {
                response.headers_mut().remove(name);
            }
        }
    }
    let Some(prefix) = &onward.prefix else { return Ok(unchanged(response)) };
    for name in CORS_HEADERS {
        response.headers_mut().remove(HeaderName::from_static(name));
    }
    let asked = parts.headers.get(HOST).and_then(|host| host.to_str().ok()).or(parts.uri.authority().map(|authority| authority.as_str())).unwrap_or_default();
    let moved = |url: &str| moved(url, prefix, &[&onward.host, asked]);
    let location = response.headers().get(LOCATION).and_then(|location| location.to_str().ok());
    if location.is_some() {
        if let Some(moved) = location.and_then(moved).and_then(|moved| HeaderValue::from_str(&moved).ok()) {
            response.headers_mut().insert(LOCATION, moved);
        }
        return Ok(unchanged(response));
    }
    Ok(with_links(response, moved).await)
}

fn unchanged(response: http::Response<Incoming>) -> Answer {
    let (parts, body) = response.into_parts();
    http::Response::from_parts(parts, StreamBody::new(until_broken(body)).boxed_unsync())
}

/// A page whose links are `moved`; anything else as it is.
async fn with_links(response: http::Response<Incoming>, moved: impl Fn(&str) -> Option<String>) -> Answer {
    let says = |name: HeaderName| response.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let is_page = says(CONTENT_TYPE).split(';').next().unwrap_or_default().trim() == "text/html";
    let packed = match says(CONTENT_ENCODING) {
        "" => false,
        "gzip" => true,
        _ => return unchanged(response),
    };
    if !is_page || response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return unchanged(response);
    }
    let (mut parts, mut body) = response.into_parts();
    let mut page = BytesMut::new();
    while let Some(Ok(frame)) = body.frame().await {
        page.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
        if page.len() > PAGE_BYTES_MAX {
            let first = futures_util::stream::iter([Ok(Frame::data(page.freeze()))]);
            return http::Response::from_parts(parts, StreamBody::new(futures_util::StreamExt::chain(first, until_broken(body))).boxed_unsync());
        }
    }
    let page = page.freeze();
    let rewritten = if packed { repacked(&page, moved).unwrap_or_else(|| page.clone()) } else { links::rewrite(&page, moved).into() };
    // A HEAD's answer speaks of a body that is not there.
    if !page.is_empty() {
        parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(rewritten.len()));
    }
    Answer::from_parts(parts, answer::full(rewritten))
}

/// None for what cannot be unpacked.
fn repacked(page: &[u8], moved: impl Fn(&str) -> Option<String>) -> Option<Bytes> {
    let mut plain = Vec::new();
    GzDecoder::new(page).take(PAGE_BYTES_MAX as u64 + 1).read_to_end(&mut plain).ok()?;
    if plain.len() > PAGE_BYTES_MAX {
        return None;
    }
    let mut packer = GzEncoder::new(Vec::new(), Compression::fast());
    packer.write_all(&links::rewrite(&plain, moved)).ok()?;
    packer.finish().ok().map(Bytes::from)
}

fn join(client: hyper::upgrade::OnUpgrade, server: hyper::upgrade::OnUpgrade) {
    tokio::spawn(async move {
        match tokio::join!(client, server) {
            (Ok(client), Ok(server)) => {
                // Either side's end ends the session; errors say no more than that.
                let _ = tokio::io::copy_bidirectional_with_sizes(&mut TokioIo::new(client), &mut TokioIo::new(server), COPY_BYTES, COPY_BYTES).await;
            }
            (Err(error), _) | (_, Err(error)) => tracing::debug!(%error, "upgrade failed"),
        }
    });
}

/// A redirect to the other server's own, as clients reach it. None: it goes elsewhere, or is relative, and stays.
fn moved(location: &str, prefix: &str, own: &[&str]) -> Option<String> {
    let absolute = location.strip_prefix("http://").or_else(|| location.strip_prefix("https://")).or_else(|| location.strip_prefix("//"));
    let path = match absolute {
        Some(rest) => {
            let (host, path) = rest.find(['/', '?', '#']).map_or((rest, ""), |at| rest.split_at(at));
            own.contains(&host).then_some(path)?
        }
        None => location.starts_with('/').then_some(location)?,
    };
    if path.starts_with(prefix) {
        return Some(path.to_owned());
    }
    Some(if path.starts_with('/') { format!("{prefix}{path}") } else { format!("{prefix}/{path}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects() {
        let to = |location| moved(location, "/api/v1/namespaces/n/services/s/proxy", &["10.0.0.1:80", "localhost:8001"]);
        for (location, want) in [
            ("/login?a=b", Some("/api/v1/namespaces/n/services/s/proxy/login?a=b")),
            ("http://10.0.0.1:80/x/", Some("/api/v1/namespaces/n/services/s/proxy/x/")),
            ("http://localhost:8001/api/v1/namespaces/n/services/s/proxy/x", Some("/api/v1/namespaces/n/services/s/proxy/x")),
            ("https://example.com/x", None),
            ("next", None),
        ] {
            assert_eq!(to(location).as_deref(), want, "{location}");
        }
    }

    #[test]
    fn what_is_sent_on() {
        let headers = [("connection", "keep-alive, x-mine"), ("x-mine", "1"), ("authorization", "Bearer x"), ("impersonate-user", "me"), ("accept", "a"), ("upgrade", "h2c"), ("host", "api:6443")];
        let (mut parts, ()) = headers.iter().fold(Request::builder().uri("/p"), |request, (name, value)| request.header(*name, *value)).body(()).unwrap().into_parts();
        parts.extensions.insert(Peer(IpAddr::from([192, 0, 2, 7])));
        let onward = Onward { uri: "/x?y".into(), host: "10.0.0.1:80".into(), prefix: Some("/p".into()) };
        let sent = outgoing(&parts, &onward, false).body(()).unwrap();
        let names: Vec<&str> = sent.headers().keys().map(HeaderName::as_str).collect();
        assert_eq!((names.len(), sent.uri().to_string()), (4, "/x?y".to_owned()), "{names:?}");
        assert_eq!((&sent.headers()["host"], &sent.headers()["x-forwarded-for"], &sent.headers()["x-forwarded-uri"]), (&"api:6443".parse().unwrap(), &"192.0.2.7".parse().unwrap(), &"/p/x".parse().unwrap()));
    }
}
