//! One HTTP/2 connection to one member, with gRPC's few rules on it: framed messages, and a status behind the answer.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use basics::errors::with_causes;
use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_TYPE, TE};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Version};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use percent_encoding::percent_decode_str;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::body::{FRAME_HEAD, Messages};
use crate::error::{Code, Error};

/// A page of a large range waits for no window updates.
const WINDOW_BYTES: u32 = 4 << 20;
/// One answer, at most: etcd limits requests, not answers.
pub const MAX_ANSWER_BYTES: usize = 512 << 20;
/// A member that is silent for so long while something is asked of it is asked for a sign of life. etcd forbids less than 5 s.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(6);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(4);

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// `https://host:2379`
#[derive(Debug, Clone)]
pub struct Endpoint {
    pub secure: bool,
    pub host: String,
    pub port: u16,
}

impl Endpoint {
    pub fn parse(text: &str) -> Result<Self, Error> {
        let wrong = || Error::Config(format!("etcd endpoint {text:?}: want https://HOST:PORT"));
        let text = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let uri: http::Uri = text.parse().map_err(|_| wrong())?;
        let secure = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(wrong()),
        };
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(wrong)?.trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Self { secure, host, port: uri.port_u16().unwrap_or(2379) })
    }

    fn authority(&self) -> String {
        if self.host.contains(':') { format!("[{}]:{}", self.host, self.port) } else { format!("{}:{}", self.host, self.port) }
    }
}

#[derive(Clone)]
pub struct Connection {
    sender: http2::SendRequest<Messages>,
    origin: Arc<str>,
    pub id: u64,
    /// The other side is an etcd.
    etcd: bool,
}

impl Connection {
    pub async fn open(endpoint: &Endpoint, addresses: Vec<IpAddr>, tls: Option<&Arc<rustls::ClientConfig>>, id: u64) -> Result<Self, Error> {
        let authority = endpoint.authority();
        let failed = |why: String| Error::Connect(format!("dial tcp {authority}: {why}"));
        let mut last = failed("no address".into());
        for address in addresses {
            let tcp = match TcpStream::connect(SocketAddr::new(address, endpoint.port)).await {
                Ok(tcp) => tcp,
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    last = failed("connect: connection refused".into());
                    continue;
                }
                Err(error) => {
                    last = failed(format!("connect: {error}"));
                    continue;
                }
            };
            let _ = tcp.set_nodelay(true);
            let io: Box<dyn Stream> = match tls.filter(|_| endpoint.secure) {
                Some(tls) => {
                    let name = ServerName::try_from(endpoint.host.clone()).map_err(|error| Error::Config(error.to_string()))?;
                    Box::new(TlsConnector::from(tls.clone()).connect(name, tcp).await.map_err(|error| failed(format!("tls: {error}")))?)
                }
                None => Box::new(tcp),
            };
            let sender = speak(io).await.map_err(|error| failed(with_causes(&error)))?;
            let scheme = if endpoint.secure { "https" } else { "http" };
            return Ok(Self { sender, origin: format!("{scheme}://{authority}").into(), id, etcd: true });
        }
        Err(last)
    }

    /// Over a stream that is open already: to whoever speaks gRPC. `origin` is what requests name.
    pub async fn over(io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, origin: &str) -> Result<Self, Error> {
        let sender = speak(Box::new(io)).await.map_err(|error| Error::Connect(with_causes(&error)))?;
        Ok(Self { sender, origin: origin.into(), id: 0, etcd: false })
    }

    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// The answer's body, once its head has come.
    pub async fn send(&self, path: &str, body: Messages) -> Result<Incoming, Error> {
        let mut sender = self.sender.clone();
        sender.ready().await.map_err(|error| Error::Connect(format!("{}: {}", self.origin, with_causes(&error))))?;
        let mut request = Request::builder()
            .method(Method::POST)
            .version(Version::HTTP_2)
            .uri(format!("{}{path}", self.origin))
            .body(body)
            .map_err(|error| Error::Config(error.to_string()))?;
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(TE, HeaderValue::from_static("trailers"));
        // A member that has lost its leader says so instead of keeping us waiting for what the others know.
        if self.etcd {
            headers.insert("hasleader", HeaderValue::from_static("true"));
        }
        let response = sender.send_request(request).await.map_err(|error| self.broken(&error))?;
        if response.status() != StatusCode::OK {
            return Err(Error::Broken(format!("{}: HTTP status {}", self.origin, response.status())));
        }
        // An answer that has only a status has it in its head.
        status(response.headers())?;
        Ok(response.into_body())
    }

    /// One message there, one back.
    pub async fn unary(&self, path: &str, message: Bytes) -> Result<Bytes, Error> {
        let mut body = self.send(path, Messages::One(Some(message))).await?;
        let mut answer = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| self.broken(&error))?;
            if let Some(trailers) = frame.trailers_ref() {
                status(trailers)?;
            } else if let Ok(data) = frame.into_data() {
                if answer.len() + data.len() > MAX_ANSWER_BYTES {
                    return Err(Error::Malformed);
                }
                answer.extend_from_slice(&data);
            }
        }
        take_message(&mut answer)?.ok_or_else(|| Error::Broken(format!("{}: the answer was cut off", self.origin)))
    }

    pub fn broken(&self, error: &hyper::Error) -> Error {
        Error::Broken(format!("{}: {}", self.origin, with_causes(error)))
    }
}

async fn speak(io: Box<dyn Stream>) -> Result<http2::SendRequest<Messages>, hyper::Error> {
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .handshake(TokioIo::new(io))
        .await?;
    // What breaks it is told to those who wait for answers.
    tokio::spawn(async move { drop(connection.await) });
    Ok(sender)
}

/// A whole message out of the buffer, if it is there.
pub fn take_message(buffer: &mut BytesMut) -> Result<Option<Bytes>, Error> {
    let Some(head) = buffer.first_chunk::<FRAME_HEAD>() else { return Ok(None) };
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
    // We never say that we could read compressed ones.
    if head[0] != 0 || length > MAX_ANSWER_BYTES {
        return Err(Error::Malformed);
    }
    if buffer.len() < FRAME_HEAD + length {
        return Ok(None);
    }
    let mut message = buffer.split_to(FRAME_HEAD + length).freeze();
    Ok(Some(message.split_off(FRAME_HEAD)))
}

/// `grpc-status`, if it is there, and not OK.
pub fn status(headers: &HeaderMap) -> Result<(), Error> {
    let Some(code) = headers.get("grpc-status").and_then(|value| value.to_str().ok()) else { return Ok(()) };
    match code.parse() {
        Ok(0) => Ok(()),
        code => {
            let message = headers.get("grpc-message").map_or(&b""[..], HeaderValue::as_bytes);
            let message = percent_decode_str(&String::from_utf8_lossy(message)).decode_utf8_lossy().into_owned();
            Err(Error::Refused { code: Code::of(code.unwrap_or(2)), message })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints() {
        for (text, want) in [("https://10.0.0.1:2379", "true 10.0.0.1:2379"), ("http://[::1]:1", "false [::1]:1"), ("etcd-0", "false etcd-0:2379"), ("ftp://x", "error"), ("https://", "error")] {
            let got = Endpoint::parse(text).map_or("error".to_owned(), |endpoint| format!("{} {}", endpoint.secure, endpoint.authority()));
            assert_eq!(got, want, "{text}");
        }
    }

    #[test]
    fn frames() {
        let mut buffer = BytesMut::from(&[0, 0, 0, 0, 2, 7, 8, 0, 0][..]);
        assert_eq!(take_message(&mut buffer).unwrap().unwrap(), &[7, 8][..]);
        assert!(take_message(&mut buffer).unwrap().is_none());
        assert!(take_message(&mut BytesMut::from(&[1, 0, 0, 0, 0][..])).is_err());
    }
}
