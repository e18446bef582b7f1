//! Connections that leave HTTP: SPDY/3.1, for servers that know no WebSocket for what is asked.
//!
//! Mirrors k8s.io/streaming/pkg/httpstream/spdy `SpdyRoundTripper`: a POST whose answer is 101; anything else is the server's word on why not.

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, UPGRADE};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;

use crate::http::{HttpClient, Stream};
use crate::remote::status_of;
use crate::websocket::WebSocketError;

const PROTOCOL: &str = "SPDY/3.1";
const PROTOCOL_VERSION: &str = "x-stream-protocol-version";
/// Of a refusal this much is read.
const REFUSAL_BYTES_MAX: usize = 64 * 1024;

/// The server answered something else than an upgrade: its Status, or its text after upstream's words.
pub(crate) fn refused(status: StatusCode, body: &[u8]) -> WebSocketError {
    if serde_json::from_slice::<serde_json::Value>(body).is_ok_and(|value| value["kind"] == "Status") {
        return WebSocketError::Refused(Box::new(status_of(status.as_u16(), body)));
    }
    let text = String::from_utf8_lossy(body).trim().to_owned();
    WebSocketError::Upgrade(if text.is_empty() { status.to_string() } else { text })
}

impl HttpClient {
    /// A connection that speaks SPDY from now on, and the protocol that the server chose to be carried by it.
    pub async fn spdy(&self, path_and_query: &str, protocols: &[&str]) -> Result<(Box<dyn Stream>, String), WebSocketError> {
        let failed = |error: hyper::Error| WebSocketError::Protocol(error.to_string());
        let (mut sender, connection) = http1::handshake(TokioIo::new(self.raw().await?)).await.map_err(failed)?;
        tokio::spawn(async move {
            // Its end is seen by whoever uses it.
            let _ = connection.with_upgrades().await;
        });
        let request = Request::builder().method(Method::POST).uri(self.path(path_and_query)).body(Empty::<Bytes>::new());
        let mut request = request.map_err(|error| WebSocketError::Protocol(error.to_string()))?;
        let headers: &mut HeaderMap = request.headers_mut();
        for (name, value) in self.common_headers() {
            headers.append(name.clone(), value.clone());
        }
        if let Ok(host) = HeaderValue::from_str(&self.authority()) {
            headers.insert(HOST, host);
        }
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static(PROTOCOL));
        headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        for protocol in protocols.iter().filter_map(|protocol| HeaderValue::from_str(protocol).ok()) {
            headers.append(PROTOCOL_VERSION, protocol);
        }
        let response = sender.send_request(request).await.map_err(failed)?;
        let says = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
        if response.status() != StatusCode::SWITCHING_PROTOCOLS || !says("upgrade").eq_ignore_ascii_case(PROTOCOL) {
            let status = response.status();
            let body = Limited::new(response.into_body(), REFUSAL_BYTES_MAX).collect().await.map(|body| body.to_bytes()).unwrap_or_default();
            return Err(refused(status, &body));
        }
        let chosen = says(PROTOCOL_VERSION);
        let upgraded = hyper::upgrade::on(response).await.map_err(failed)?;
        Ok((Box::new(TokioIo::new(upgraded)), chosen))
    }
}
