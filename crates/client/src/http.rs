//! HTTP(S) to an API server: HTTP/2 over one connection where the server speaks it, else a small pool of HTTP/1.1 connections.
//!
//! [`HttpClient`] is the plain way in (any path, any body, streamed answers); [`HttpTransport`] carries the API's operations over it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use api::Clock;
use api::world::{SystemClock, rfc3339};
use base64::Engine;
use basics::errors::with_causes;
use bytes::Bytes;
use http::header::{AUTHORIZATION, HOST, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use jiff::Timestamp;
use parking_lot::Mutex;
use rustls::pki_types::{ServerName, UnixTime};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsConnector;

use crate::dial::dial;
use crate::exec_credential::{ExecCredentials, Said};
use crate::kubeconfig::Config;
use crate::tls;

/// Go's limit for a TLS handshake. A server that stands still takes connections and says nothing; all requests would wait for that one.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection on which requests wait is asked this often whether its other end is there, and given up when it does not answer: as client-go has it.
const PING_PERIOD: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(15);
/// Idle HTTP/1.1 connections kept for reuse.
const MAX_IDLE_CONNECTIONS: usize = 32;
/// HTTP/2 windows: large lists and watch streams must not wait for window updates.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;

/// What the name of a header cannot have in it; and the sign that escapes it (client-go's `headerKeyEscape`).
const NOT_IN_HEADERS: &percent_encoding::AsciiSet = &percent_encoding::NON_ALPHANUMERIC
    .remove(b'!').remove(b'#').remove(b'$').remove(b'&').remove(b'\'').remove(b'*').remove(b'+').remove(b'-').remove(b'.').remove(b'^').remove(b'_').remove(b'`').remove(b'|').remove(b'~');

/// Failures to get an answer at all, in the words of Go's net/http.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    #[error("{0}")]
    Config(String),
    #[error("dial tcp: {0}")]
    Resolve(#[from] resolver::ResolveError),
    #[error("dial tcp {address}: connect: connection refused")]
    Refused { address: String },
    #[error("dial tcp {address}: {cause}")]
    Connect { address: String, cause: String },
    #[error("tls: failed to verify certificate: x509: {0}")]
    Certificate(String),
    #[error("{0}")]
    Tls(String),
    #[error("{0}")]
    Http(String),
    #[error("getting credentials: {0}")]
    Credentials(String),
}

/// Any byte stream to the server.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

pub struct Response {
    pub status: u16,
    pub headers: HeaderMap,
    body: Incoming,
}

impl Response {
    /// The next piece of the body; None at its end.
    pub async fn chunk(&mut self) -> Option<Result<Bytes, HttpError>> {
        loop {
            match self.body.frame().await? {
                Ok(frame) => match frame.into_data() {
                    Ok(data) => return Some(Ok(data)),
                    Err(_) => continue,
                },
                Err(error) => return Some(Err(HttpError::Http(with_causes(&error)))),
            }
        }
    }

    pub async fn bytes(self) -> Result<Bytes, HttpError> {
        Ok(self.body.collect().await.map_err(|error| HttpError::Http(with_causes(&error)))?.to_bytes())
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("")
    }
}

#[derive(Default)]
struct Pool {
    multiplexed: Option<http2::SendRequest<Full<Bytes>>>,
    idle: Vec<http1::SendRequest<Full<Bytes>>>,
}

struct Inner {
    config: Config,
    https: bool,
    host: String,
    port: u16,
    /// A path before every path, without a slash at its end.
    prefix: String,
    common: HeaderMap,
    /// The program that says who we are, if there is one.
    credentials: Option<Arc<ExecCredentials>>,
    tls: Arc<rustls::ClientConfig>,
    tls_http1: Arc<rustls::ClientConfig>,
    pool: Mutex<Pool>,
    /// Whether the last request had no answer at all, and how often one had after that.
    silent: AtomicBool,
    returns: watch::Sender<u64>,
    /// One connection attempt at a time, so that a burst of requests shares one HTTP/2 connection.
    connecting: tokio::sync::Mutex<()>,
}

/// Cheap to clone.
#[derive(Clone)]
pub struct HttpClient {
    inner: Arc<Inner>,
}

enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl HttpClient {
    /// Where it asks: `192.0.2.1:6443`.
    pub fn host(&self) -> String {
        format!("{}:{}", self.inner.host, self.inner.port)
    }

    pub fn new(config: &Config, user_agent: &str) -> Result<Self, HttpError> {
        Self::at(config, user_agent, Arc::new(SystemClock))
    }

    /// For who has another clock than this machine's: certificates are judged by it.
    pub fn at(config: &Config, user_agent: &str, clock: Arc<dyn Clock>) -> Result<Self, HttpError> {
        let uri: Uri = config.server.parse().map_err(|error| HttpError::Config(format!("host must be a URL or a host:port pair: \"{}\": {error}", config.server)))?;
        let https = uri.scheme_str() == Some("https");
        let host = uri.host().ok_or_else(|| HttpError::Config(format!("host must be a URL or a host:port pair: {:?}", config.server)))?.to_owned();
        let port = uri.port_u16().unwrap_or(if https { 443 } else { 80 });
        let mut common = HeaderMap::new();
        let header = |text: &str| HeaderValue::from_str(text).map_err(|error| HttpError::Config(error.to_string()));
        common.insert(USER_AGENT, header(user_agent)?);
        if let Some(token) = &config.token {
            common.insert(AUTHORIZATION, header(&format!("Bearer {token}"))?);
        } else if let Some((user, password)) = &config.basic {
            common.insert(AUTHORIZATION, header(&format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"))))?);
        }
        if let Some(user) = &config.impersonate {
            common.insert("impersonate-user", header(user)?);
            for group in &config.impersonate_groups {
                common.append("impersonate-group", header(group)?);
            }
            if let Some(uid) = &config.impersonate_uid {
                common.insert("impersonate-uid", header(uid)?);
            }
            for (key, value) in &config.impersonate_extra {
                let name = format!("impersonate-extra-{}", percent_encoding::utf8_percent_encode(key, NOT_IN_HEADERS));
                common.append(HeaderName::from_bytes(name.as_bytes()).map_err(|error| HttpError::Config(error.to_string()))?, header(value)?);
            }
        }
        let mut tls = tls::client_config_at(config, &[b"h2", b"http/1.1"], clock.clone()).map_err(HttpError::Config)?;
        let credentials = config.exec.as_ref().map(|plugin| ExecCredentials::new(plugin, clock).map(Arc::new)).transpose().map_err(HttpError::Config)?;
        if let Some(credentials) = &credentials {
            tls.client_auth_cert_resolver = credentials.clone();
            // A session that is resumed would still be whoever began it.
            tls.resumption = rustls::client::Resumption::disabled();
        }
        let mut tls_http1 = tls.clone();
        tls_http1.alpn_protocols = vec![b"http/1.1".to_vec()];
        let prefix = uri.path().trim_end_matches('/').to_owned();
        Ok(Self {
            inner: Arc::new(Inner { config: config.clone(), https, host, port, prefix, common, credentials, tls: Arc::new(tls), tls_http1: Arc::new(tls_http1), pool: Mutex::default(), silent: AtomicBool::new(false), returns: watch::Sender::new(0), connecting: tokio::sync::Mutex::new(()) }),
        })
    }

    /// `192.0.2.1:6443`
    pub fn authority(&self) -> String {
        format!("{}:{}", self.inner.host, self.inner.port)
    }

    pub fn server(&self) -> &str {
        &self.inner.config.server
    }

    async fn tcp(&self) -> Result<TcpStream, HttpError> {
        dial(&self.inner.host, self.inner.port, self.inner.config.proxy.as_ref()).await
    }

    async fn secure(&self, tcp: TcpStream, config: Arc<rustls::ClientConfig>) -> Result<tokio_rustls::client::TlsStream<TcpStream>, HttpError> {
        let name = self.inner.config.tls_server_name.as_deref().unwrap_or(self.inner.host.trim_start_matches('[').trim_end_matches(']')).to_owned();
        let name = ServerName::try_from(name).map_err(|error| HttpError::Tls(error.to_string()))?;
        match tokio::time::timeout(HANDSHAKE_TIMEOUT, TlsConnector::from(config).connect(name, tcp)).await {
            Ok(outcome) => outcome.map_err(|error| tls_error(&error, &self.inner.host)),
            Err(_) => Err(HttpError::Tls("net/http: TLS handshake timeout".to_owned())),
        }
    }

    /// A connection of one's own that speaks HTTP/1.1: for upgrades.
    pub async fn raw(&self) -> Result<Box<dyn Stream>, HttpError> {
        let tcp = self.tcp().await?;
        if self.inner.https { Ok(Box::new(self.secure(tcp, self.inner.tls_http1.clone()).await?)) } else { Ok(Box::new(tcp)) }
    }

    fn checkout(&self) -> Option<Sender> {
        let mut pool = self.inner.pool.lock();
        if let Some(sender) = &pool.multiplexed {
            if !sender.is_closed() {
                return Some(Sender::Http2(sender.clone()));
            }
            pool.multiplexed = None;
        }
        pool.idle.retain(|sender| !sender.is_closed());
        let at = pool.idle.iter().position(http1::SendRequest::is_ready)?;
        Some(Sender::Http1(pool.idle.swap_remove(at)))
    }

    async fn connect(&self) -> Result<Sender, HttpError> {
        let _one = self.inner.connecting.lock().await;
        if let Some(sender) = self.checkout() {
            return Ok(sender);
        }
        let tcp = self.tcp().await?;
        if !self.inner.https {
            return http1(tcp).await;
        }
        let stream = self.secure(tcp, self.inner.tls.clone()).await?;
        if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
            return http1(stream).await;
        }
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(STREAM_WINDOW_BYTES * 4)
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_PERIOD)
            .keep_alive_timeout(PING_TIMEOUT)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| HttpError::Http(with_causes(&error)))?;
        tokio::spawn(async move {
            let _ = connection.await;
        });
        self.inner.pool.lock().multiplexed = Some(sender.clone());
        Ok(Sender::Http2(sender))
    }

    /// Common headers for a request that is sent by other means (a WebSocket's handshake, a proxy's). To be asked for before the connection is made.
    pub async fn common_headers(&self) -> Result<HeaderMap, HttpError> {
        let mut headers = self.inner.common.clone();
        if let Some(authorization) = self.said().await?.and_then(|said| said.authorization.clone()) {
            headers.insert(AUTHORIZATION, authorization);
        }
        Ok(headers)
    }

    /// What the program says who we are, if there is one.
    async fn said(&self) -> Result<Option<Arc<Said>>, HttpError> {
        let Some(credentials) = &self.inner.credentials else { return Ok(None) };
        let (said, other) = credentials.get().await.map_err(HttpError::Credentials)?;
        if other {
            *self.inner.pool.lock() = Pool::default();
        }
        Ok(Some(said))
    }

    /// The server did not know us. This answer stands; whoever asks next is somebody new.
    async fn unauthorized(&self, used: &Arc<Said>) {
        let Some(credentials) = &self.inner.credentials else { return };
        match credentials.refused(used).await {
            Ok(true) => *self.inner.pool.lock() = Pool::default(),
            Ok(false) => {}
            Err(error) => tracing::error!(error, "refreshing credentials"),
        }
    }

    /// A path with the path that the server's own address has before all.
    pub fn path(&self, path_and_query: &str) -> String {
        format!("{}{path_and_query}", self.inner.prefix)
    }

    /// See [`crate::Transport::returns`].
    pub fn returns(&self) -> watch::Receiver<u64> {
        self.inner.returns.subscribe()
    }

    pub async fn request(&self, method: Method, path_and_query: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Result<Response, HttpError> {
        let outcome = self.send(method, path_and_query, headers, body.into()).await;
        let silent = outcome.is_err();
        if self.inner.silent.load(Ordering::Relaxed) != silent && self.inner.silent.swap(silent, Ordering::AcqRel) && !silent {
            self.inner.returns.send_modify(|times| *times += 1);
        }
        outcome
    }

    async fn send(&self, method: Method, path_and_query: &str, headers: &[(&str, &str)], body: Bytes) -> Result<Response, HttpError> {
        let mut extra = HeaderMap::new();
        for (name, value) in headers {
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|error| HttpError::Config(error.to_string()))?;
            extra.append(name, HeaderValue::from_str(value).map_err(|error| HttpError::Config(error.to_string()))?);
        }
        let path = self.path(path_and_query);
        let said = if extra.contains_key(AUTHORIZATION) { None } else { self.said().await? };
        // A connection that was idle may turn out dead when it is used: then once more on a fresh one.
        for attempt in 0..2 {
            let sender = match self.checkout() {
                Some(sender) if attempt == 0 => sender,
                _ => self.connect().await?,
            };
            let (uri, host) = match sender {
                Sender::Http1(_) => (path.clone(), true),
                Sender::Http2(_) => (format!("{}://{}{path}", if self.inner.https { "https" } else { "http" }, self.authority()), false),
            };
            let mut request = Request::builder().method(method.clone()).uri(uri).body(Full::new(body.clone())).map_err(|error| HttpError::Config(error.to_string()))?;
            request.headers_mut().extend(self.inner.common.clone());
            if let Some(authorization) = said.as_ref().and_then(|said| said.authorization.clone()) {
                request.headers_mut().insert(AUTHORIZATION, authorization);
            }
            request.headers_mut().extend(extra.clone());
            if host {
                let value = HeaderValue::from_str(&self.authority()).map_err(|error| HttpError::Config(error.to_string()))?;
                request.headers_mut().insert(HOST, value);
            }
            let outcome = match sender {
                Sender::Http2(mut sender) => sender.try_send_request(request).await,
                Sender::Http1(mut sender) => {
                    let outcome = sender.try_send_request(request).await;
                    let mut pool = self.inner.pool.lock();
                    if !sender.is_closed() && pool.idle.len() < MAX_IDLE_CONNECTIONS {
                        pool.idle.push(sender);
                    }
                    outcome
                }
            };
            match outcome {
                Ok(response) => {
                    let (parts, body) = response.into_parts();
                    if let Some(said) = said.as_ref().filter(|_| parts.status == StatusCode::UNAUTHORIZED) {
                        self.unauthorized(said).await;
                    }
                    return Ok(Response { status: parts.status.as_u16(), headers: parts.headers, body });
                }
                Err(mut failed) => {
                    // A write that left may have been carried out though its answer is lost: asked again it would be done twice (as Go's net/http has it).
                    let again = failed.take_message().is_some() || method.is_safe();
                    let error = failed.into_error();
                    if attempt > 0 || !again || !(error.is_canceled() || error.is_closed() || error.is_incomplete_message()) {
                        return Err(HttpError::Http(if error.is_incomplete_message() { "EOF".to_owned() } else { with_causes(&error) }));
                    }
                    self.inner.pool.lock().multiplexed = None;
                }
            }
        }
        Err(HttpError::Http("EOF".to_owned()))
    }
}

async fn http1(stream: impl Stream + 'static) -> Result<Sender, HttpError> {
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| HttpError::Http(with_causes(&error)))?;
    tokio::spawn(async move {
        let _ = connection.await;
    });
    Ok(Sender::Http1(sender))
}

/// Go's words, which a clock that is wrong makes people read.
pub const EXPIRED: &str = "certificate has expired or is not yet valid";

fn moment(at: &UnixTime) -> String {
    i64::try_from(at.as_secs()).ok().and_then(|seconds| Timestamp::from_second(seconds).ok()).map(rfc3339).unwrap_or_default()
}

fn tls_error(error: &std::io::Error, host: &str) -> HttpError {
    use rustls::CertificateError as C;
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(why)) => HttpError::Certificate(match why {
            C::UnknownIssuer | C::BadSignature => "certificate signed by unknown authority".to_owned(),
            C::Expired | C::NotValidYet => EXPIRED.to_owned(),
            C::ExpiredContext { time, not_after } => format!("{EXPIRED}: current time {} is after {}", moment(time), moment(not_after)),
            C::NotValidYetContext { time, not_before } => format!("{EXPIRED}: current time {} is before {}", moment(time), moment(not_before)),
            C::NotValidForName | C::NotValidForNameContext { .. } => format!("certificate is not valid for any names, but wanted to match {host}"),
            other => other.to_string(),
        }),
        Some(rustls::Error::InvalidMessage(_)) => HttpError::Http("http: server gave HTTP response to HTTPS client".to_owned()),
        Some(other) => HttpError::Tls(other.to_string()),
        None if error.kind() == std::io::ErrorKind::UnexpectedEof => HttpError::Tls("EOF".to_owned()),
        None => HttpError::Tls(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// It takes connections and says nothing: one request must not hold up all others for ever.
    #[tokio::test(start_paused = true)]
    async fn a_server_that_stands_still_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = format!("https://{}", listener.local_addr().unwrap());
        let client = HttpClient::new(&Config { server, insecure: true, ..Config::default() }, "test").unwrap();
        for _ in 0..2 {
            let asked = tokio::time::timeout(HANDSHAKE_TIMEOUT * 2, client.request(Method::GET, "/", &[], "")).await;
            assert_eq!(asked.expect("it ends").err().unwrap().to_string(), "net/http: TLS handshake timeout");
        }
    }

    /// What the program says holds while it holds: past its time, and after a 401, it is asked again.
    #[tokio::test]
    async fn a_program_says_who_asks() {
        let folder = std::env::temp_dir().join(format!("exec-credentials-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let seen = |expires: &'static str, answers: &'static [u16]| {
            let count = folder.join(format!("count{}{}", expires.len(), answers.len()));
            let script = format!(
                r#"echo x >> {0}; echo "{{apiVersion: client.authentication.k8s.io/v1, kind: ExecCredential, status: {{token: t$(wc -l < {0} | tr -d ' '){expires}}}}}""#,
                count.display()
            );
            let exec = serde_json::json!({"apiVersion": "client.authentication.k8s.io/v1", "command": "/bin/sh", "args": ["-c", script], "interactiveMode": "Never"});
            async move {
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
                let config = Config { server: format!("http://{}", listener.local_addr().unwrap()), exec: crate::exec_credential::ExecPlugin::of(&exec, "u").ok(), ..Config::default() };
                let client = HttpClient::new(&config, "test").unwrap();
                let mut seen = Vec::new();
                for answer in answers {
                    let asked = client.request(Method::GET, "/", &[], "");
                    let heard = async {
                        let (mut stream, _) = listener.accept().await.unwrap();
                        let mut request = Vec::new();
                        while !request.ends_with(b"\r\n\r\n") {
                            request.push(tokio::io::AsyncReadExt::read_u8(&mut stream).await.unwrap());
                        }
                        tokio::io::AsyncWriteExt::write_all(&mut stream, format!("HTTP/1.1 {answer} X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").as_bytes()).await.unwrap();
                        String::from_utf8(request).unwrap()
                    };
                    let (response, request) = tokio::join!(asked, heard);
                    assert_eq!(response.unwrap().status, *answer);
                    seen.extend(request.lines().find_map(|line| line.strip_prefix("authorization: ")).map(str::to_owned));
                }
                seen
            }
        };
        assert_eq!(seen("", &[200, 200, 401, 200]).await, ["Bearer t1", "Bearer t1", "Bearer t1", "Bearer t2"]);
        assert_eq!(seen(", expirationTimestamp: '2020-01-01T00:00:00Z'", &[200, 200]).await, ["Bearer t1", "Bearer t2"]);
        assert_eq!(seen(", expirationTimestamp: '2999-01-01T00:00:00Z'", &[200, 200, 200]).await, ["Bearer t1"; 3]);
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[tokio::test]
    async fn a_server_that_answers_again_is_told_of_once() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let client = HttpClient::new(&Config { server: format!("http://{address}"), ..Config::default() }, "test").unwrap();
        let returns = client.returns();
        let ask = || client.request(Method::GET, "/", &[], "");
        drop(listener);
        for _ in 0..2 {
            assert!(ask().await.is_err());
        }
        let listener = TcpListener::bind(address).await.unwrap();
        let server = tokio::spawn(async move {
            for _ in 0..2 {
                let (mut stream, _) = listener.accept().await.unwrap();
                let _ = stream.read(&mut [0; 1000]).await.unwrap();
                stream.write_all(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await.unwrap();
            }
        });
        assert_eq!(*returns.borrow(), 0);
        for _ in 0..2 {
            assert_eq!(ask().await.unwrap().status, 503);
            assert_eq!(*returns.borrow(), 1);
        }
        server.await.unwrap();
    }
}
