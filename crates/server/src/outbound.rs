//! HTTPS calls from the API server: to webhooks of CustomResourceDefinitions that convert, of admission, of authentication and authorisation; and to OIDC issuers.
//!
//! [`Hook::from_json`] reads a `clientConfig` (URL or Service, `caBundle`); [`Outbound::post`] sends one JSON document and hands back the answer's code and body, within a
//! time and a size. A Service is reached at one of its ready endpoints, under the name `<name>.<namespace>.svc`. Connections are kept for the next call.
//! Mirrors apiserver/pkg/util/webhook (client.go, serviceresolver.go); errors are told in the words of Go's http client.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use bytes::Bytes;
use http::Method;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, USER_AGENT};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::Value;
use store::Store;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::api::GIT_VERSION;
use crate::webhook_metrics::WebhookMetrics;

/// No answer of a webhook is larger.
const ANSWER_BYTES_MAX: usize = 32 << 20;
/// Hooks whose TLS settings and idle connections are remembered, and how many connections of each.
const HOOKS_MAX: usize = 128;
const IDLE_MAX: usize = 8;
/// How many endpoints of a Service are tried before giving up.
const ENDPOINTS_MAX: usize = 3;
const HTTPS: u16 = 443;
/// Upstream's DefaultRetryBackoff of webhooks.
const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_FACTOR: f64 = 1.5;
const RETRY_ATTEMPTS: u32 = 5;

/// Where a webhook is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// `https://host[:port][/path]`
    Url { host: String, port: u16, path: String },
    Service { namespace: String, name: String, port: u16, path: String },
}

/// A webhook and whom it is to be believed by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    pub target: Target,
    /// PEM; empty: the system's authorities.
    pub ca_bundle: Vec<u8>,
    /// How we show who we are.
    pub credentials: Credentials,
}

/// A bearer token; a certificate and its key in PEM; or nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Credentials {
    pub token: String,
    pub certificate_pem: Vec<u8>,
    pub key_pem: Vec<u8>,
}

/// What is sent: a document, or a question for one.
struct Outgoing {
    path: String,
    body: Option<Bytes>,
    token: String,
}

#[derive(Debug, thiserror::Error)]
pub enum OutboundError {
    /// The configuration cannot be used.
    #[error("{0}")]
    Config(String),
    /// `Post "https://…": why`
    #[error("Post {url:?}: {cause}")]
    Call { url: String, cause: String },
}

/// What came back.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub body: Bytes,
}

impl Target {
    fn parse(url: &str) -> Result<Self, String> {
        let rest = url.strip_prefix("https://").ok_or("webhook URL must be https")?;
        let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().map_err(|_| "invalid port in the webhook's URL")?),
            _ => (authority, HTTPS),
        };
        Ok(Self::Url { host: host.trim_start_matches('[').trim_end_matches(']').to_owned(), port, path: path.to_owned() })
    }
}

impl Hook {
    /// Of a `clientConfig`.
    pub fn from_json(config: &Value) -> Result<Self, OutboundError> {
        let wrong = |why: &str| OutboundError::Config(why.to_owned());
        let text = |value: &Value, name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let ca_bundle = match text(config, "caBundle") {
            bundle if bundle.is_empty() => Vec::new(),
            bundle => base64::engine::general_purpose::STANDARD.decode(bundle).map_err(|_| wrong("unable to load root certificates: unable to parse bytes as PEM block"))?,
        };
        let target = match (config.get("url").and_then(Value::as_str), config.get("service").filter(|service| service.is_object())) {
            (_, Some(service)) => Target::Service {
                namespace: text(service, "namespace"),
                name: text(service, "name"),
                port: service.get("port").and_then(Value::as_u64).and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0).unwrap_or(HTTPS),
                path: text(service, "path"),
            },
            (Some(url), None) => Target::parse(url).map_err(OutboundError::Config)?,
            (None, None) => return Err(wrong("webhook configuration must have either service or URL")),
        };
        Ok(Self { target, ca_bundle, credentials: Credentials::default() })
    }

    /// At an address, believed by these authorities.
    pub fn at(url: &str, ca_bundle: Vec<u8>, credentials: Credentials) -> Result<Self, OutboundError> {
        Ok(Self { target: Target::parse(url).map_err(OutboundError::Config)?, ca_bundle, credentials })
    }

    /// Host as the certificate has to name it, port, and path.
    fn parts(&self) -> (String, u16, &str) {
        match &self.target {
            Target::Url { host, port, path } => (host.clone(), *port, path),
            Target::Service { namespace, name, port, path } => (format!("{name}.{namespace}.svc"), *port, path),
        }
    }

    fn authority(&self) -> String {
        let (host, port, _) = self.parts();
        let host = if host.contains(':') { format!("[{host}]") } else { host };
        match &self.target {
            Target::Url { .. } if port == HTTPS => host,
            _ => format!("{host}:{port}"),
        }
    }

    fn path(&self, timeout: Duration) -> String {
        let (_, _, path) = self.parts();
        format!("{}?timeout={}s", if path.is_empty() { "/" } else { path }, timeout.as_secs().max(1))
    }

    /// The address as errors tell it.
    pub fn url(&self, timeout: Duration) -> String {
        format!("https://{}{}", self.authority(), self.path(timeout))
    }
}

type Sender = SendRequest<Full<Bytes>>;

/// Where, whom it is believed by, and as whom.
type Key = (String, Vec<u8>, Credentials);

/// What is kept of a hook between calls.
struct Kept {
    tls: Arc<rustls::ClientConfig>,
    idle: Vec<Sender>,
}

/// Calls webhooks. One for the whole API server.
pub struct Outbound {
    store: Arc<dyn Store>,
    kept: Mutex<HashMap<Key, Kept>>,
    pub metrics: WebhookMetrics,
}

impl Outbound {
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store, kept: Mutex::default(), metrics: WebhookMetrics::default() }
    }

    /// Sends `body` and waits for the whole answer, `timeout` in all.
    pub async fn post(&self, hook: &Hook, body: &Value, timeout: Duration) -> Result<Reply, OutboundError> {
        let failed = |cause: String| OutboundError::Call { url: hook.url(timeout), cause };
        let body = Bytes::from(serde_json::to_vec(body).map_err(|error| OutboundError::Config(error.to_string()))?);
        let outgoing = Outgoing { path: hook.path(timeout), body: Some(body), token: hook.credentials.token.clone() };
        match tokio::time::timeout(timeout, self.exchange(hook, &outgoing)).await {
            Ok(done) => done.map_err(failed),
            Err(_) => Err(failed("context deadline exceeded".to_owned())),
        }
    }

    /// As [`Self::post`], again where upstream tries again (`DefaultShouldRetry`): a broken connection, a server that is at fault, late or too busy.
    pub async fn post_again(&self, hook: &Hook, body: &Value, timeout: Duration) -> Result<Reply, OutboundError> {
        let until = tokio::time::Instant::now() + timeout;
        let mut pause = RETRY_FIRST;
        for _ in 1..RETRY_ATTEMPTS {
            let outcome = self.post(hook, body, timeout).await;
            let again = match &outcome {
                Ok(reply) => matches!(reply.status, 429 | 500 | 504),
                Err(OutboundError::Call { cause, .. }) => cause == "EOF" || cause.contains("connection reset"),
                Err(OutboundError::Config(_)) => false,
            };
            if !again || tokio::time::Instant::now() + pause >= until {
                return outcome;
            }
            tokio::time::sleep(pause).await;
            pause = pause.mul_f64(RETRY_FACTOR);
        }
        self.post(hook, body, timeout).await
    }

    /// Asks for the document at `hook`'s address.
    pub async fn get(&self, hook: &Hook, timeout: Duration) -> Result<Reply, String> {
        let (_, _, path) = hook.parts();
        let path = if path.is_empty() { "/".to_owned() } else { path.to_owned() };
        let failed = |cause: String| format!("Get \"https://{}{path}\": {cause}", hook.authority());
        let outgoing = Outgoing { path: path.clone(), body: None, token: hook.credentials.token.clone() };
        match tokio::time::timeout(timeout, self.exchange(hook, &outgoing)).await {
            Ok(done) => done.map_err(failed),
            Err(_) => Err(failed("context deadline exceeded (Client.Timeout exceeded while awaiting headers)".to_owned())),
        }
    }

    async fn exchange(&self, hook: &Hook, outgoing: &Outgoing) -> Result<Reply, String> {
        let key = (hook.authority(), hook.ca_bundle.clone(), hook.credentials.clone());
        let tls = self.tls(&key)?;
        // An idle connection may have been closed by the other side: that is no failure of the call.
        while let Some(mut sender) = self.idle(&key) {
            if sender.ready().await.is_ok()
                && let Ok(reply) = self.send(&key, &mut sender, outgoing).await
            {
                self.keep(&key, sender);
                return Ok(reply);
            }
        }
        let mut sender = self.connect(hook, tls).await?;
        let reply = self.send(&key, &mut sender, outgoing).await?;
        self.keep(&key, sender);
        Ok(reply)
    }

    fn idle(&self, key: &Key) -> Option<Sender> {
        self.kept.lock().get_mut(key)?.idle.pop()
    }

    fn keep(&self, key: &Key, sender: Sender) {
        if let Some(kept) = self.kept.lock().get_mut(key)
            && kept.idle.len() < IDLE_MAX
            && !sender.is_closed()
        {
            kept.idle.push(sender);
        }
    }

    fn tls(&self, key: &Key) -> Result<Arc<rustls::ClientConfig>, String> {
        let mut kept = self.kept.lock();
        if let Some(known) = kept.get(key) {
            return Ok(known.tls.clone());
        }
        let tls = Arc::new(trusting(&key.1, &key.2)?);
        if kept.len() >= HOOKS_MAX {
            kept.clear();
        }
        kept.insert(key.clone(), Kept { tls: tls.clone(), idle: Vec::new() });
        Ok(tls)
    }

    async fn send(&self, key: &Key, sender: &mut Sender, outgoing: &Outgoing) -> Result<Reply, String> {
        let method = if outgoing.body.is_some() { Method::POST } else { Method::GET };
        let mut request = http::Request::builder().method(method).uri(&outgoing.path).header(HOST, &key.0).header(ACCEPT, "application/json, */*").header(USER_AGENT, format!("kube-apiserver/{GIT_VERSION}"));
        if outgoing.body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        if !outgoing.token.is_empty() {
            request = request.header(AUTHORIZATION, format!("Bearer {}", outgoing.token));
        }
        let request = request.body(Full::new(outgoing.body.clone().unwrap_or_default())).map_err(|error| error.to_string())?;
        let response = sender.send_request(request).await.map_err(|error| if error.is_incomplete_message() { "EOF".to_owned() } else { error.to_string() })?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await.map_err(|error| error.to_string())?.to_bytes();
        Ok(Reply { status, body })
    }

    async fn connect(&self, hook: &Hook, tls: Arc<rustls::ClientConfig>) -> Result<Sender, String> {
        let (host, _, _) = hook.parts();
        let mut last = String::new();
        for address in self.addresses(hook).await? {
            let stream = match TcpStream::connect(address).await {
                Ok(stream) => stream,
                Err(error) => {
                    let cause = if error.kind() == std::io::ErrorKind::ConnectionRefused { "connection refused".to_owned() } else { error.to_string() };
                    last = format!("dial tcp {address}: connect: {cause}");
                    continue;
                }
            };
            // Small messages both ways; a socket that cannot be told so works all the same.
            let _ = stream.set_nodelay(true);
            let name = ServerName::try_from(host.clone()).map_err(|_| format!("x509: invalid host name {host:?}"))?;
            let stream = TlsConnector::from(tls).connect(name, stream).await.map_err(|error| tls_words(&error, &host))?;
            let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
            tokio::spawn(async move {
                if let Err(error) = connection.await {
                    tracing::debug!(%error, "connection to a webhook ended");
                }
            });
            return Ok(sender);
        }
        Err(last)
    }

    async fn addresses(&self, hook: &Hook) -> Result<Vec<SocketAddr>, String> {
        match &hook.target {
            Target::Url { host, port, .. } => {
                let found = resolver::resolve(host).await.map_err(|error| format!("dial tcp: {error}"))?;
                Ok(found.into_iter().take(ENDPOINTS_MAX).map(|address| SocketAddr::new(address, *port)).collect())
            }
            Target::Service { namespace, name, port, .. } => self.service(namespace, name, *port).await,
        }
    }

    /// The ready endpoints of a Service's port; of an ExternalName, what that name means.
    pub(crate) async fn service(&self, namespace: &str, name: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
        let missing = || format!("service {name:?} not found");
        let service = self.store.get(&format!("/registry/services/specs/{namespace}/{name}")).ok_or_else(missing)?.value().map_err(|error| error.to_string())?;
        let text = |pointer: &str| service.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        if text("/spec/type") == "ExternalName" {
            let found = resolver::resolve(text("/spec/externalName")).await.map_err(|error| format!("dial tcp: {error}"))?;
            return Ok(found.into_iter().take(ENDPOINTS_MAX).map(|address| SocketAddr::new(address, port)).collect());
        }
        let ports = service.pointer("/spec/ports").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let wanted = ports.iter().find(|candidate| candidate.get("port").and_then(Value::as_u64) == Some(u64::from(port)));
        let port_name = wanted.ok_or_else(|| format!("no service port {port} found for service {name:?}"))?.get("name").and_then(Value::as_str).unwrap_or_default();
        let page = self.store.list(&format!("/registry/endpointslices/{namespace}/"), None, None, 0).map_err(|error| error.to_string())?;
        let slices = page.items.iter().filter(|(_, slice)| slice.meta().labels.get("kubernetes.io/service-name").is_some_and(|owner| owner == name));
        let mut found: Vec<SocketAddr> = slices.filter_map(|(_, slice)| slice.value().ok()).flat_map(|slice| ready(&slice, port_name)).collect();
        if found.is_empty() {
            return Err(format!("no endpoints available for service {name:?}"));
        }
        // Not always the same one first.
        let start = usize::try_from(self.store.revision()).unwrap_or(0) % found.len();
        found.rotate_left(start);
        found.truncate(ENDPOINTS_MAX);
        Ok(found)
    }
}

/// The addresses of a slice that serve a port.
fn ready(slice: &Value, port_name: &str) -> Vec<SocketAddr> {
    let list = |value: &Value, name: &str| value.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
    let ports = list(slice, "ports");
    let port = ports.iter().find(|port| port.get("name").and_then(Value::as_str).unwrap_or_default() == port_name).and_then(|port| port.get("port")?.as_u64()).and_then(|port| u16::try_from(port).ok());
    let Some(port) = port else { return Vec::new() };
    let ready = |endpoint: &Value| endpoint.pointer("/conditions/ready").and_then(Value::as_bool).unwrap_or(true);
    let addresses = list(slice, "endpoints").iter().filter(|endpoint| ready(endpoint)).flat_map(|endpoint| list(endpoint, "addresses")).collect::<Vec<_>>();
    addresses.iter().filter_map(|address| address.as_str()?.parse::<IpAddr>().ok()).map(|address| SocketAddr::new(address, port)).collect()
}

/// Where distributions keep the public authorities, for hooks without one of their own.
const SYSTEM_ROOTS: [&str; 3] = ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

fn trusting(bundle: &[u8], credentials: &Credentials) -> Result<rustls::ClientConfig, String> {
    let mut roots = rustls::RootCertStore::empty();
    let system = || SYSTEM_ROOTS.iter().find_map(|path| std::fs::read(path).ok()).unwrap_or_default();
    let pem = if bundle.is_empty() { system() } else { bundle.to_vec() };
    for certificate in CertificateDer::pem_slice_iter(&pem).flatten() {
        // One that we cannot read takes nothing from the others.
        let _ = roots.add(certificate);
    }
    if roots.is_empty() && !bundle.is_empty() {
        return Err("unable to load root certificates: unable to parse bytes as PEM block".to_owned());
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12]).map_err(|error| error.to_string())?;
    let builder = builder.with_root_certificates(roots);
    if credentials.certificate_pem.is_empty() {
        return Ok(builder.with_no_client_auth());
    }
    let chain = CertificateDer::pem_slice_iter(&credentials.certificate_pem).collect::<Result<Vec<_>, _>>().map_err(|error| error.to_string())?;
    let key = PrivateKeyDer::from_pem_slice(&credentials.key_pem).map_err(|error| error.to_string())?;
    builder.with_client_auth_cert(chain, key).map_err(|error| error.to_string())
}

pub(crate) fn tls_words(error: &std::io::Error, host: &str) -> String {
    use rustls::CertificateError as C;
    const FRAME: &str = "tls: failed to verify certificate: x509:";
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(why)) => match why {
            C::UnknownIssuer | C::BadSignature => format!("{FRAME} certificate signed by unknown authority"),
            C::Expired | C::ExpiredContext { .. } | C::NotValidYet | C::NotValidYetContext { .. } => format!("{FRAME} certificate has expired or is not yet valid"),
            C::NotValidForName | C::NotValidForNameContext { .. } => format!("{FRAME} certificate is not valid for any names, but wanted to match {host}"),
            other => format!("{FRAME} {other}"),
        },
        Some(rustls::Error::InvalidMessage(_)) => "http: server gave HTTP response to HTTPS client".to_owned(),
        Some(other) => format!("tls: {other}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn configurations() {
        let second = Duration::from_secs(30);
        let hook = Hook::from_json(&json!({"url": "https://example.com:9443/convert"})).unwrap();
        assert_eq!(hook.url(second), "https://example.com:9443/convert?timeout=30s");
        let hook = Hook::from_json(&json!({"url": "https://[::1]"})).unwrap();
        assert_eq!((hook.url(second).as_str(), hook.parts().1), ("https://[::1]/?timeout=30s", 443));
        let hook = Hook::from_json(&json!({"service": {"namespace": "n", "name": "s", "path": "/x"}, "caBundle": "YQ=="})).unwrap();
        assert_eq!(hook.url(second), "https://s.n.svc:443/x?timeout=30s");
        assert_eq!(hook.ca_bundle, b"a");
        assert!(Hook::from_json(&json!({"url": "http://example.com"})).is_err() && Hook::from_json(&json!({})).is_err());
        assert!(trusting(b"no certificate", &Credentials::default()).is_err());
    }

    #[test]
    fn only_ready_endpoints_are_asked() {
        let slice = json!({"ports": [{"name": "https", "port": 9443}], "endpoints": [{"addresses": ["10.0.0.1"]}, {"addresses": ["10.0.0.2"], "conditions": {"ready": false}}, {"addresses": ["fd00::1"]}]});
        assert_eq!(ready(&slice, "https"), ["10.0.0.1:9443".parse().unwrap(), "[fd00::1]:9443".parse::<SocketAddr>().unwrap()]);
        assert!(ready(&slice, "other").is_empty());
    }
}
