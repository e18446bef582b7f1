//! A session with one repository of one registry: requests with authorisation and redirects taken care of.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HOST, LOCATION, USER_AGENT, WWW_AUTHENTICATE};
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use parking_lot::Mutex;

use super::auth::{Challenge, Credentials, parse_challenge};
use super::connect::{self, Body};
use super::{Registry, RequestError};
use crate::reference::Reference;
use crate::store::DOCUMENT_MAX;

/// To the first byte of the response, and between pieces of a body.
pub const SILENCE_MAX: Duration = Duration::from_secs(60);
const REDIRECTS_MAX: usize = 5;
const AGENT: &str = concat!("coracle/", env!("CARGO_PKG_VERSION"));

pub struct Session<'a> {
    registry: &'a Registry,
    scheme: &'static str,
    authority: String,
    pub reference: &'a Reference,
    credentials: Option<&'a Credentials>,
    /// `pull` or `push`, for messages and the token's scope.
    action: &'static str,
    authorization: Mutex<Option<String>>,
}

/// A request that can be made again after a challenge or a redirect.
#[derive(Clone, Default)]
pub struct Call<'a> {
    pub method: Method,
    /// Below `/v2/<path>`, or a whole URL.
    pub target: String,
    pub accept: &'a [&'a str],
    pub content_type: &'a str,
    pub body: Payload,
}

#[derive(Clone, Default)]
pub enum Payload {
    #[default]
    None,
    Bytes(Bytes),
    /// Streamed from here: path and length.
    File(std::path::PathBuf, u64),
}

impl Payload {
    async fn body(&self) -> io::Result<Body> {
        Ok(match self {
            Payload::None => Empty::new().map_err(|never| match never {}).boxed_unsync(),
            Payload::Bytes(bytes) => Full::new(bytes.clone()).map_err(|never| match never {}).boxed_unsync(),
            Payload::File(path, _) => {
                let file = tokio::fs::File::open(path).await?;
                let chunks = futures_util::stream::try_unfold(file, |mut file| async move {
                    let mut chunk = Vec::with_capacity(256 * 1024);
                    let n = tokio::io::AsyncReadExt::read_buf(&mut file, &mut chunk).await?;
                    Ok::<_, io::Error>((n > 0).then(|| (http_body::Frame::data(Bytes::from(chunk)), file)))
                });
                http_body_util::StreamBody::new(chunks).boxed_unsync()
            }
        })
    }

    fn length(&self) -> u64 {
        match self {
            Payload::None => 0,
            Payload::Bytes(bytes) => bytes.len() as u64,
            Payload::File(_, length) => *length,
        }
    }
}

impl<'a> Session<'a> {
    pub fn new(registry: &'a Registry, reference: &'a Reference, credentials: Option<&'a Credentials>, action: &'static str) -> Session<'a> {
        let (scheme, authority) = registry.endpoint(&reference.domain);
        Session { registry, scheme, authority, reference, credentials, action, authorization: Mutex::new(None) }
    }

    pub fn url(&self, target: &str) -> String {
        match target {
            whole if whole.contains("://") => whole.to_owned(),
            // A Location without a host is relative to the registry.
            path if path.starts_with("/v2/") => format!("{}://{}{path}", self.scheme, self.authority),
            below => format!("{}://{}/v2/{}{below}", self.scheme, self.authority, self.reference.path),
        }
    }

    /// Makes the call; answers a challenge once; follows redirects. 404 and refusals become their own errors, other
    /// statuses than success too.
    pub async fn call(&self, call: &Call<'_>) -> Result<Response<Incoming>, RequestError> {
        let mut url = self.url(&call.target);
        let mut challenged = false;
        let mut redirects = 0;
        loop {
            // What is authorised is this registry, not where it redirects to.
            let ours = url.starts_with(&format!("{}://{}/", self.scheme, self.authority));
            let authorization = if ours { self.authorization.lock().clone() } else { None };
            let response = self.send(call, &url, authorization).await?;
            let status = response.status();
            if status == StatusCode::UNAUTHORIZED && ours && !challenged {
                challenged = true;
                let header = response.headers().get(WWW_AUTHENTICATE).and_then(|h| h.to_str().ok()).unwrap_or_default().to_owned();
                if self.answer_challenge(&header).await? {
                    continue;
                }
                return Err(self.refused(response).await);
            }
            if status.is_redirection()
                && let Some(location) = response.headers().get(LOCATION).and_then(|l| l.to_str().ok())
            {
                redirects += 1;
                if redirects > REDIRECTS_MAX {
                    return Err(RequestError::Malformed { url, reason: "too many redirects".into() });
                }
                url = self.url(location);
                continue;
            }
            return match status {
                s if s.is_success() => Ok(response),
                StatusCode::NOT_FOUND => Err(RequestError::NotFound(self.reference.to_string())),
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(self.refused(response).await),
                status => Err(RequestError::Status {
                    method: call.method.to_string(),
                    url,
                    status: status.as_u16(),
                    message: message(response).await.map(|m| format!(": {m}")).unwrap_or_default(),
                }),
            };
        }
    }

    async fn send(&self, call: &Call<'_>, url: &str, authorization: Option<String>) -> Result<Response<Incoming>, RequestError> {
        let malformed = |reason: String| RequestError::Malformed { url: url.to_owned(), reason };
        let failed = |source| RequestError::Connect { method: go_method(&call.method), url: url.to_owned(), source };
        let uri: Uri = url.parse().map_err(|e| malformed(format!("{e}")))?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else { return Err(malformed("not a URL".into())) };
        let path = uri.path_and_query().map_or("/", |p| p.as_str());
        let mut request = Request::builder().method(&call.method).uri(path).header(HOST, authority.as_str()).header(USER_AGENT, AGENT);
        for accept in call.accept {
            request = request.header(ACCEPT, *accept);
        }
        if let Some(authorization) = authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        if !call.content_type.is_empty() {
            request = request.header(CONTENT_TYPE, call.content_type);
        }
        if !matches!(call.method, Method::GET | Method::HEAD) {
            request = request.header(CONTENT_LENGTH, call.body.length());
        }
        let request = request.body(call.body.body().await.map_err(failed)?).map_err(|e| malformed(e.to_string()))?;
        let mut sender = connect::open(&self.registry.tls, scheme, authority.as_str()).await.map_err(failed)?;
        match tokio::time::timeout(SILENCE_MAX, sender.send_request(request)).await {
            Ok(result) => result.map_err(|e| failed(io::Error::other(e))),
            Err(_) => Err(failed(io::Error::new(io::ErrorKind::TimedOut, "timeout awaiting response headers"))),
        }
    }

    /// Gets what the challenge asks for; false when there is nothing to answer with.
    async fn answer_challenge(&self, header: &str) -> Result<bool, RequestError> {
        let (realm, service, scope) = match parse_challenge(header) {
            Some(Challenge::Basic) => {
                *self.authorization.lock() = self.credentials.map(Credentials::basic);
                return Ok(self.credentials.is_some());
            }
            Some(Challenge::Bearer { realm, service, scope }) => (realm, service, scope),
            None => return Ok(false),
        };
        let actions = if self.action == "push" { "pull,push" } else { "pull" };
        let scope = scope.unwrap_or_else(|| format!("repository:{}:{actions}", self.reference.path));
        let mut url = realm;
        url.push(if url.contains('?') { '&' } else { '?' });
        if let Some(service) = service {
            url += &format!("service={}&", encoded(&service));
        }
        url += &format!("scope={}", encoded(&scope));
        let call = Call { method: Method::GET, ..Call::default() };
        let response = self.send(&call, &url, self.credentials.map(Credentials::basic)).await?;
        if !response.status().is_success() {
            return Err(self.refused(response).await);
        }
        let bytes = read(response, &url).await?;
        #[derive(serde::Deserialize)]
        struct Token {
            token: Option<String>,
            access_token: Option<String>,
        }
        let token = serde_json::from_slice::<Token>(&bytes).ok().and_then(|t| t.token.or(t.access_token));
        let token = token.ok_or_else(|| RequestError::Malformed { url, reason: "token server sent no token".into() })?;
        *self.authorization.lock() = Some(format!("Bearer {token}"));
        Ok(true)
    }

    async fn refused(&self, response: Response<Incoming>) -> RequestError {
        let status = response.status();
        let message = message(response).await.unwrap_or_else(|| match status {
            StatusCode::FORBIDDEN => "insufficient_scope: authorization failed".to_owned(),
            _ => "authorization failed: no basic auth credentials".to_owned(),
        });
        RequestError::Denied { action: self.action, message: format!("server message: {message}") }
    }
}

/// Go prints methods as `Head`, `Get`, and so do the messages people know.
fn go_method(method: &Method) -> String {
    let text = method.as_str();
    text[..1].to_owned() + &text[1..].to_lowercase()
}

/// A whole small body.
pub async fn read(response: Response<Incoming>, url: &str) -> Result<Bytes, RequestError> {
    let limited = http_body_util::Limited::new(response.into_body(), DOCUMENT_MAX as usize);
    let malformed = |reason: String| RequestError::Malformed { url: url.to_owned(), reason };
    match tokio::time::timeout(SILENCE_MAX, limited.collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(e)) => Err(malformed(e.to_string())),
        Err(_) => Err(malformed("timeout reading the response".into())),
    }
}

/// `code: message` of the registry's error document.
async fn message(response: Response<Incoming>) -> Option<String> {
    let bytes = read(response, "").await.ok()?;
    let document: serde_json::Value = serde_json::from_slice(&bytes).ok()?;
    let first = &document["errors"][0];
    match (first["code"].as_str(), first["message"].as_str()) {
        (Some(code), Some(text)) => Some(format!("{}: {text}", code.to_lowercase())),
        _ => document["details"].as_str().map(str::to_owned),
    }
}

/// Percent-encodes a query value.
fn encoded(value: &str) -> String {
    let mut out = String::new();
    for byte in value.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b':' | b'/' | b',' => out.push(byte as char),
            other => out += &format!("%{other:02X}"),
        }
    }
    out
}
