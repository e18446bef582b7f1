//! A request for another server's group, passed on: as the same user, told by headers that only a front proxy's certificate may send.
//!
//! Mirrors kube-aggregator/pkg/apiserver/handler_proxy.go, with its texts.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ::api::Status;
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::Remote;
use crate::api::Api;
use crate::authentication::User;
use crate::http::answer::{self, Answer};
use crate::http::relay::{self as pass, Onward};
use crate::nodes::NodeStream;

const DIAL_TIMEOUT: Duration = Duration::from_secs(30);
/// No document of a server behind is larger.
const DOCUMENT_BYTES_MAX: usize = 32 << 20;
const USER: &str = "x-remote-user";
const UID: &str = "x-remote-uid";
const GROUPS: &str = "x-remote-group";
const EXTRA: &str = "x-remote-extra-";
/// What may not stand in a header's name, and the escape itself.
const EXTRA_ESCAPED: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'%').add(b'(').add(b')').add(b',').add(b'/').add(b':').add(b';').add(b'<').add(b'=').add(b'>').add(b'?').add(b'@').add(b'[').add(b'\\').add(b']').add(b'{').add(b'}');

/// Says who asks; what the client itself says of that is dropped.
fn identify(headers: &mut HeaderMap, user: &User) {
    let forged: Vec<HeaderName> = headers.keys().filter(|name| name.as_str().starts_with("x-remote-")).cloned().collect();
    for name in forged {
        headers.remove(name);
    }
    let mut add = |name: &str, value: &str| {
        // Names may be any text, not just ASCII.
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_bytes(value.as_bytes())) {
            headers.append(name, value);
        }
    };
    add(USER, &user.name);
    if !user.uid.is_empty() {
        add(UID, &user.uid);
    }
    user.groups.iter().for_each(|group| add(GROUPS, group));
    for (key, values) in &user.extra {
        let name = format!("{EXTRA}{}", utf8_percent_encode(&key.to_lowercase(), EXTRA_ESCAPED));
        values.iter().for_each(|value| add(&name, value));
    }
}

async fn connect(addresses: Vec<SocketAddr>, remote: &Remote) -> Result<NodeStream, String> {
    let tls = remote.tls.clone()?;
    let mut last = String::new();
    for address in addresses {
        let stream = match tokio::time::timeout(DIAL_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
                last = format!("dial tcp {address}: connect: connection refused");
                continue;
            }
            Ok(Err(error)) => {
                last = format!("dial tcp {address}: connect: {error}");
                continue;
            }
            Err(_) => {
                last = format!("dial tcp {address}: i/o timeout");
                continue;
            }
        };
        // A socket that cannot be told so works all the same.
        let _ = stream.set_nodelay(true);
        let host = remote.host();
        let name = ServerName::try_from(host.clone()).map_err(|_| format!("x509: invalid host name {host:?}"))?;
        return match tokio::time::timeout(DIAL_TIMEOUT, TlsConnector::from(tls).connect(name, stream)).await {
            Ok(Ok(stream)) => Ok(Box::new(stream)),
            Ok(Err(error)) => Err(crate::outbound::tls_words(&error, &host)),
            Err(_) => Err("net/http: TLS handshake timeout".to_owned()),
        };
    }
    Err(last)
}

/// Answers with what the other server says.
pub async fn relay(api: &Api, remote: &Remote, user: &User, mut parts: Parts, body: &mut Option<Incoming>) -> Result<Answer, Status> {
    let unavailable = || Ok(answer::text(503, "service unavailable\n".to_owned()));
    if !remote.available {
        return unavailable();
    }
    let Ok(addresses) = api.outbound.service(&remote.service_namespace, &remote.service, remote.port).await else { return unavailable() };
    let host = addresses.first().map(ToString::to_string).unwrap_or_default();
    let stream = match connect(addresses, remote).await {
        Ok(stream) => stream,
        Err(why) => return Ok(answer::text(503, format!("error trying to reach service: {why}\n"))),
    };
    // Left out, it would be asked as somebody else.
    if HeaderValue::from_bytes(user.name.as_bytes()).is_err() {
        return Ok(answer::text(503, "error trying to reach service: net/http: invalid header field value for \"X-Remote-User\"\n".to_owned()));
    }
    identify(&mut parts.headers, user);
    let uri = parts.uri.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string);
    pass::relay(stream, Onward { uri, host, prefix: None }, parts, body).await
}

/// GETs a document as the aggregator itself.
pub async fn fetch(api: &Api, remote: &Remote, path: &str, accept: &str) -> Result<(u16, Bytes), String> {
    let addresses = api.outbound.service(&remote.service_namespace, &remote.service, remote.port).await?;
    let stream = connect(addresses, remote).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "connection to an aggregated API server ended");
        }
    });
    let mut request = http::Request::get(path).header(http::header::HOST, remote.host()).header(http::header::ACCEPT, accept).body(Empty::<Bytes>::new()).map_err(|error| error.to_string())?;
    identify(request.headers_mut(), &User { name: "system:kube-aggregator".into(), groups: vec!["system:masters".into()], ..User::default() });
    let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
    let code = response.status().as_u16();
    let body = Limited::new(response.into_body(), DOCUMENT_BYTES_MAX).collect().await.map_err(|error| error.to_string())?;
    Ok((code, body.to_bytes()))
}

/// Of a request that names no resource (`/apis/<group>/<version>`).
pub fn path_owner(api: &Api, path: &str) -> Option<Arc<Remote>> {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    match parts.as_slice() {
        ["apis", group, version] | ["openapi", "v3", "apis", group, version] => super::remote(api, group, version),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_says_themselves_who_they_are() {
        let mut headers = HeaderMap::new();
        headers.insert("x-remote-user", HeaderValue::from_static("admin"));
        headers.insert("x-remote-extra-scopes", HeaderValue::from_static("all"));
        headers.insert("accept", HeaderValue::from_static("a"));
        let user = User { name: "jane".into(), groups: vec!["a".into(), "b".into()], extra: [("example.com/Key".to_owned(), vec!["v".to_owned()])].into(), ..User::default() };
        identify(&mut headers, &user);
        let groups: Vec<&HeaderValue> = headers.get_all("x-remote-group").iter().collect();
        assert_eq!((headers["x-remote-user"].to_str().unwrap(), groups.len(), headers["x-remote-extra-example.com%2fkey"].to_str().unwrap()), ("jane", 2, "v"));
        assert!(!headers.contains_key("x-remote-extra-scopes") && headers.contains_key("accept"));
    }
}
