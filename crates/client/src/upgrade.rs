//! Connections that leave HTTP, for WebSockets and SPDY/3.1: an answer 101, or the server's whole word on why not.
//!
//! SPDY mirrors k8s.io/streaming/pkg/httpstream/spdy `SpdyRoundTripper`: a POST.

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

pub(crate) fn header<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

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
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        for protocol in protocols.iter().filter_map(|protocol| HeaderValue::from_str(protocol).ok()) {
            headers.append(PROTOCOL_VERSION, protocol);
        }
        let (stream, answer) = self.upgrade(Method::POST, path_and_query, PROTOCOL, headers).await?;
        Ok((stream, header(&answer, PROTOCOL_VERSION).to_owned()))
    }

    /// Asks for another protocol on a connection of its own. The headers are those of the answer.
    pub(crate) async fn upgrade(&self, method: Method, path_and_query: &str, protocol: &'static str, extra: HeaderMap) -> Result<(Box<dyn Stream>, HeaderMap), WebSocketError> {
        let failed = |error: hyper::Error| WebSocketError::Protocol(error.to_string());
        let common = self.common_headers().await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(self.raw().await?)).await.map_err(failed)?;
        tokio::spawn(async move {
            // Its end is seen by whoever uses it.
            let _ = connection.with_upgrades().await;
        });
        let request = Request::builder().method(method).uri(self.path(path_and_query)).body(Empty::<Bytes>::new());
        let mut request = request.map_err(|error| WebSocketError::Protocol(error.to_string()))?;
        let headers: &mut HeaderMap = request.headers_mut();
        *headers = extra;
        for (name, value) in &common {
            headers.append(name.clone(), value.clone());
        }
        if let Ok(host) = HeaderValue::from_str(&self.authority()) {
            headers.insert(HOST, host);
        }
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static(protocol));
        let mut response = sender.send_request(request).await.map_err(failed)?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS || !header(response.headers(), UPGRADE.as_str()).eq_ignore_ascii_case(protocol) {
            let status = response.status();
            let body = Limited::new(response.into_body(), REFUSAL_BYTES_MAX).collect().await.map(|body| body.to_bytes()).unwrap_or_default();
            return Err(refused(status, &body));
        }
        let answer = std::mem::take(response.headers_mut());
        let upgraded = hyper::upgrade::on(response).await.map_err(failed)?;
        Ok((Box::new(TokioIo::new(upgraded)), answer))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::kubeconfig::Config;

    /// A server that answers every connection with this, once the request's head is there.
    async fn serve(answer: String) -> HttpClient {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    request.push(stream.read_u8().await.unwrap());
                }
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        HttpClient::new(&Config { server, ..Config::default() }, "test").unwrap()
    }

    /// A refusal may be longer than what comes with the head.
    #[tokio::test]
    async fn refusals_are_read_to_their_end() {
        let message = "container not found ".repeat(2000);
        let body = serde_json::json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "reason": "NotFound", "code": 404}).to_string();
        let client = serve(format!("HTTP/1.1 404 Not Found\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len())).await;
        for error in [client.websocket("/exec", &["v5.channel.k8s.io"]).await.err(), client.spdy("/exec", &["v4.channel.k8s.io"]).await.err()] {
            assert!(matches!(error, Some(WebSocketError::Refused(status)) if status.message == message));
        }
    }

    #[tokio::test]
    async fn another_protocol_is_a_refusal() {
        let client = serve("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n".to_owned()).await;
        assert!(client.spdy("/exec", &["v4.channel.k8s.io"]).await.is_err_and(|error| error.is_refusal()));
        assert!(matches!(client.websocket("/exec", &["v5.channel.k8s.io"]).await.err(), Some(WebSocketError::Protocol(text)) if text.contains("Sec-WebSocket-Accept")));
    }
}
