//! A real API server in the test's process: HTTPS on a free port, a store in memory, a CA of its own.
//!
//! Requests are made byte by byte over TLS with the admin's certificate; who else is meant says so by impersonation or by a token.

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::{Value, json};
use pki::{Authority, Identity, Pki};
use server::{Api, Config, Dial, NodeDialer, ServeConfig, TokenKey};
use store::Store;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;

/// No answer takes longer, on however slow a machine.
const PATIENCE: Duration = Duration::from_secs(30);

pub struct Server {
    pub api: Arc<Api>,
    pub store: Arc<dyn Store>,
    address: SocketAddr,
    admin: Arc<rustls::ClientConfig>,
    nobody: Arc<rustls::ClientConfig>,
    roots: Arc<rustls::RootCertStore>,
    stop: watch::Sender<bool>,
    serving: tokio::task::JoinHandle<()>,
}

pub struct Reply {
    pub code: u16,
    pub headers: http::HeaderMap,
    pub body: Bytes,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&self.body)))
    }

    pub fn message(&self) -> String {
        self.json()["message"].as_str().unwrap_or_default().to_owned()
    }

    pub fn reason(&self) -> String {
        self.json()["reason"].as_str().unwrap_or_default().to_owned()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("")
    }

    pub fn warnings(&self) -> Vec<String> {
        self.headers.get_all("warning").iter().map(|value| value.to_str().unwrap_or("").to_owned()).collect()
    }

    #[track_caller]
    pub fn expect(self, code: u16) -> Self {
        assert_eq!(self.code, code, "{}", String::from_utf8_lossy(&self.body));
        self
    }
}

fn pem(identity: &Identity) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let chain = CertificateDer::pem_slice_iter(identity.certificate_pem.as_bytes()).collect::<Result<Vec<_>, _>>().unwrap();
    (chain, PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes()).unwrap())
}

impl Server {
    pub async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        Self::start_over(Arc::new(store::Embedded::open(store::Config::memory()).unwrap()), change).await
    }

    /// Over a store that may have been served before.
    pub async fn start_over(store: Arc<dyn Store>, change: impl FnOnce(&mut Config)) -> Self {
        Self::assemble(store, change, Arc::new(NodeDialer)).await
    }

    /// With nodes that can be reached.
    pub async fn start_among(nodes: Arc<dyn Dial>) -> Self {
        Self::assemble(Arc::new(store::Embedded::open(store::Config::memory()).unwrap()), |_| {}, nodes).await
    }

    async fn assemble(store: Arc<dyn Store>, change: impl FnOnce(&mut Config), nodes: Arc<dyn Dial>) -> Self {
        let now = jiff::Timestamp::now().as_second();
        let authority = Authority::generate("kubernetes", now).unwrap();
        let token_key = Arc::new(TokenKey::from_pkcs8(&TokenKey::generate().unwrap()).unwrap());
        let mut config = Config::new(token_key, authority.identity.certificate_pem.clone());
        change(&mut config);
        let chance: server::Chance = Arc::new(|buffer: &mut [u8]| getrandom::fill(buffer).unwrap());
        let api = Api::open(store.clone(), Arc::new(::api::world::SystemClock), chance, config, nodes).await.unwrap();
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority.identity.certificate_pem.as_bytes()).unwrap()).unwrap();
        let roots = Arc::new(roots);
        let verifier = server::any_certificate(&provider, &[&authority.identity.certificate_pem]);
        let (chain, key) = pem(&authority.issue(&Pki::Server { name: "kube-apiserver", groups: &[], dns: &[], addresses: &[IpAddr::V4(Ipv4Addr::LOCALHOST)] }, now).unwrap());
        let tls = rustls::ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().unwrap().with_client_cert_verifier(verifier).with_single_cert(chain, key).unwrap();
        let (stop, stopped) = watch::channel(false);
        let serving = tokio::spawn(server::serve(api.clone(), ServeConfig { listener, tls: Arc::new(arc_swap::ArcSwap::from_pointee(tls)) }, stopped));
        let (chain, key) = pem(&authority.issue(&Pki::Client { user: "kubernetes-admin", groups: &["system:masters"] }, now).unwrap());
        let builder = || rustls::ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().unwrap().with_root_certificates(roots.clone());
        let admin = Arc::new(builder().with_client_auth_cert(chain, key).unwrap());
        let nobody = Arc::new(builder().with_no_client_auth());
        Self { api, store, address, admin, nobody, roots, stop, serving }
    }

    /// As a signal does.
    pub fn stop(&self) {
        self.stop.send(true).unwrap();
    }

    /// Until it has.
    pub async fn ended(self) {
        tokio::time::timeout(PATIENCE, self.serving).await.expect("the server ends").unwrap();
    }

    /// A connection of HTTP/2, for many requests.
    pub async fn connect_http2(&self) -> hyper::client::conn::http2::SendRequest<Full<Bytes>> {
        self.connect_http2_of().await
    }

    /// The same, for requests with bodies of another kind.
    pub async fn connect_http2_of<B: http_body::Body<Data = Bytes, Error = std::convert::Infallible> + Send + Unpin + 'static>(&self) -> hyper::client::conn::http2::SendRequest<B> {
        let mut tls = (*self.admin).clone();
        tls.alpn_protocols = vec![b"h2".to_vec()];
        let stream = tokio::net::TcpStream::connect(self.address).await.unwrap();
        let stream = tokio_rustls::TlsConnector::from(Arc::new(tls)).connect(ServerName::from(IpAddr::V4(Ipv4Addr::LOCALHOST)), stream).await.unwrap();
        let (sender, connection) = hyper::client::conn::http2::handshake(hyper_util::rt::TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        sender
    }

    /// A POST over a connection of its own. `None`: there was no server to connect to; `Err`: it was there, and has not answered.
    pub async fn try_post(&self, path: &str, value: &Value) -> Option<Result<u16, String>> {
        let stream = tokio::net::TcpStream::connect(self.address).await.ok()?;
        let stream = tokio_rustls::TlsConnector::from(self.admin.clone()).connect(ServerName::from(IpAddr::V4(Ipv4Addr::LOCALHOST)), stream).await.ok()?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.ok()?;
        tokio::spawn(connection);
        let request = http::Request::post(path).header("host", "localhost").header("content-type", "application/json").body(Full::new(Bytes::from(value.to_string()))).unwrap();
        let asking = async {
            let response = sender.send_request(request).await.map_err(|error| format!("{error:?}"))?;
            let code = response.status().as_u16();
            response.into_body().collect().await.map_err(|error| format!("{error:?}"))?;
            Ok(code)
        };
        Some(tokio::time::timeout(PATIENCE, asking).await.expect("an answer or none"))
    }

    async fn connect(&self, anonymous: bool) -> http1::SendRequest<Full<Bytes>> {
        self.connect_with(if anonymous { &self.nobody } else { &self.admin }).await
    }

    /// A connection that shows this certificate, for one request after another.
    pub async fn connect_as(&self, identity: &Identity) -> http1::SendRequest<Full<Bytes>> {
        let (chain, key) = pem(identity);
        let builder = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider())).with_safe_default_protocol_versions().unwrap();
        self.connect_with(&Arc::new(builder.with_root_certificates(self.roots.clone()).with_client_auth_cert(chain, key).unwrap())).await
    }

    /// Whether anything is answered to who shows the one's certificate and has the other's key.
    pub async fn answers_impostor(&self, shown: &Identity, own: &Identity) -> bool {
        #[derive(Debug)]
        struct Impostor(Arc<rustls::sign::CertifiedKey>);
        impl rustls::client::ResolvesClientCert for Impostor {
            fn resolve(&self, _: &[&[u8]], _: &[rustls::SignatureScheme]) -> Option<Arc<rustls::sign::CertifiedKey>> {
                Some(self.0.clone())
            }
            fn has_certs(&self) -> bool {
                true
            }
        }
        let key = rustls::crypto::ring::sign::any_supported_type(&pem(own).1).unwrap();
        let impostor = Impostor(Arc::new(rustls::sign::CertifiedKey::new(pem(shown).0, key)));
        let builder = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider())).with_safe_default_protocol_versions().unwrap();
        let tls = Arc::new(builder.with_root_certificates(self.roots.clone()).with_client_cert_resolver(Arc::new(impostor)));
        let stream = tokio::net::TcpStream::connect(self.address).await.unwrap();
        let Ok(mut stream) = tokio_rustls::TlsConnector::from(tls).connect(ServerName::from(IpAddr::V4(Ipv4Addr::LOCALHOST)), stream).await else { return false };
        // It may have closed by now.
        let _ = stream.write_all(b"GET /version HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await;
        let _ = stream.flush().await;
        !everything(&mut stream).await.is_empty()
    }

    async fn connect_with(&self, tls: &Arc<rustls::ClientConfig>) -> http1::SendRequest<Full<Bytes>> {
        let stream = tokio::net::TcpStream::connect(self.address).await.unwrap();
        let name = ServerName::from(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let stream = tokio_rustls::TlsConnector::from(tls.clone()).connect(name, stream).await.unwrap();
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection.with_upgrades());
        sender
    }

    /// The answer to a request that leaves HTTP.
    pub async fn upgraded(&self, method: &str, path: &str) -> http::Response<Incoming> {
        let response = self.send(method, path, &[("connection", "Upgrade"), ("upgrade", "SPDY/3.1")], Bytes::new()).await;
        assert_eq!(response.status().as_u16(), 101);
        response
    }

    async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Bytes) -> http::Response<Incoming> {
        // A request with a token comes without the admin's certificate.
        let anonymous = headers.iter().any(|(name, _)| matches!(*name, "authorization" | "anonymous"));
        let mut request = http::Request::builder().method(method).uri(path).header("host", "localhost");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body)).unwrap();
        let mut sender = self.connect(anonymous).await;
        tokio::time::timeout(PATIENCE, sender.send_request(request)).await.expect("the server answers").expect("the server stays alive")
    }

    pub async fn call(&self, method: &str, path: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Reply {
        let response = self.send(method, path, headers, body.into()).await;
        let (parts, body) = response.into_parts();
        let body = tokio::time::timeout(PATIENCE, body.collect()).await.expect("the body ends").expect("the body arrives").to_bytes();
        Reply { code: parts.status.as_u16(), headers: parts.headers, body }
    }

    async fn stream(&self) -> tokio_rustls::client::TlsStream<tokio::net::TcpStream> {
        let stream = tokio::net::TcpStream::connect(self.address).await.unwrap();
        tokio_rustls::TlsConnector::from(self.admin.clone()).connect(ServerName::from(IpAddr::V4(Ipv4Addr::LOCALHOST)), stream).await.unwrap()
    }

    /// A request whose head has been sent and whose body is yet to come.
    pub async fn unfinished(&self, method: &str, path: &str, headers: &[(&str, &str)], body: String) -> Unfinished {
        let mut stream = self.stream().await;
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n", body.len());
        headers.iter().for_each(|(name, value)| head.push_str(&format!("{name}: {value}\r\n")));
        stream.write_all(format!("{head}\r\n").as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        Unfinished { stream, body }
    }

    /// What the server says to someone who says no more than this.
    pub async fn silence(&self, said: &[u8]) -> Vec<u8> {
        let mut stream = self.stream().await;
        // It may have closed by now.
        let _ = stream.write_all(said).await;
        let _ = stream.flush().await;
        everything(&mut stream).await
    }

    /// A GET over the one or the other version of HTTP.
    pub async fn call_over(&self, version: http::Version, path: &str, headers: &[(&str, &str)]) -> Reply {
        if version != http::Version::HTTP_2 {
            return self.call("GET", path, headers, "").await;
        }
        let mut sender = self.connect_http2().await;
        let mut request = http::Request::builder().uri(format!("https://localhost{path}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = tokio::time::timeout(PATIENCE, sender.send_request(request.body(Full::new(Bytes::new())).unwrap())).await.expect("the server answers").unwrap();
        assert_eq!(response.version(), http::Version::HTTP_2);
        let (parts, body) = response.into_parts();
        let body = tokio::time::timeout(PATIENCE, body.collect()).await.expect("the body ends").expect("the body arrives").to_bytes();
        Reply { code: parts.status.as_u16(), headers: parts.headers, body }
    }

    pub async fn get(&self, path: &str) -> Reply {
        self.call("GET", path, &[], "").await
    }

    pub async fn post(&self, path: &str, value: Value) -> Reply {
        self.call("POST", path, &[("content-type", "application/json")], value.to_string()).await
    }

    pub async fn put(&self, path: &str, value: Value) -> Reply {
        self.call("PUT", path, &[("content-type", "application/json")], value.to_string()).await
    }

    pub async fn patch(&self, path: &str, kind: &str, value: Value) -> Reply {
        self.call("PATCH", path, &[("content-type", &format!("application/{kind}"))], value.to_string()).await
    }

    pub async fn delete(&self, path: &str) -> Reply {
        self.call("DELETE", path, &[], "").await
    }

    /// A watch: one JSON value an event.
    pub async fn watch(&self, path: &str) -> Events {
        self.watch_with(path, &[]).await
    }

    pub async fn watch_with(&self, path: &str, headers: &[(&str, &str)]) -> Events {
        let response = self.send("GET", path, headers, Bytes::new()).await;
        assert_eq!(response.status().as_u16(), 200);
        let (parts, body) = response.into_parts();
        Events { headers: parts.headers, body, buffer: Vec::new() }
    }

    /// What every pod needs before it may be created.
    pub async fn service_account(&self, namespace: &str) {
        self.post(&format!("/api/v1/namespaces/{namespace}/serviceaccounts"), json!({"metadata": {"name": "default"}})).await.expect(201);
    }
}

/// All that comes until the server closes.
async fn everything(stream: &mut tokio_rustls::client::TlsStream<tokio::net::TcpStream>) -> Vec<u8> {
    let mut answer = Vec::new();
    // It may close without TLS's own farewell.
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("the server closes");
    answer
}

pub struct Unfinished {
    stream: tokio_rustls::client::TlsStream<tokio::net::TcpStream>,
    body: String,
}

impl Unfinished {
    /// Sends the body; the answer's code.
    pub async fn finish(mut self) -> u16 {
        self.stream.write_all(self.body.as_bytes()).await.unwrap();
        self.stream.flush().await.unwrap();
        self.answer().await
    }

    /// The answer's code, the body never sent.
    pub async fn answer(mut self) -> u16 {
        let answer = everything(&mut self.stream).await;
        String::from_utf8_lossy(&answer).split(' ').nth(1).and_then(|code| code.parse().ok()).expect("an HTTP answer")
    }
}

pub struct Events {
    headers: http::HeaderMap,
    body: Incoming,
    buffer: Vec<u8>,
}

impl Events {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("")
    }

    pub fn content_type(&self) -> &str {
        self.header("content-type")
    }

    pub fn content_encoding(&self) -> &str {
        self.header("content-encoding")
    }

    /// Of a stream in protobuf: what lies behind the next four bytes of length.
    pub async fn frame(&mut self) -> Vec<u8> {
        const LENGTH: usize = 4;
        loop {
            if let Some(length) = self.buffer.first_chunk::<LENGTH>() {
                let end = LENGTH + u32::from_be_bytes(*length) as usize;
                if self.buffer.len() >= end {
                    return self.buffer.drain(..end).skip(LENGTH).collect();
                }
            }
            let frame = tokio::time::timeout(PATIENCE, self.body.frame()).await.expect("an event comes").expect("the stream goes on").expect("the stream is whole");
            if let Ok(data) = frame.into_data() {
                self.buffer.extend_from_slice(&data);
            }
        }
    }

    /// `None` when the server has ended the stream.
    pub async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            let frame = tokio::time::timeout(PATIENCE, self.body.frame()).await.expect("an event comes")?.expect("the stream is whole");
            if let Ok(data) = frame.into_data() {
                self.buffer.extend_from_slice(&data);
            }
        }
    }

    /// `ADDED name`.
    pub async fn line(&mut self) -> String {
        match self.next().await {
            Some(event) => format!("{} {}", event["type"].as_str().unwrap_or(""), event.pointer("/object/metadata/name").and_then(Value::as_str).unwrap_or("")).trim_end().to_owned(),
            None => "end".to_owned(),
        }
    }
}

pub fn config_map(name: &str) -> Value {
    json!({"metadata": {"name": name}, "data": {"k": "v"}})
}

pub fn pod(name: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"app": name}}, "spec": {"containers": [{"name": "c", "image": "busybox"}]}})
}

pub const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
pub const PODS: &str = "/api/v1/namespaces/default/pods";
pub const SERVICES: &str = "/api/v1/namespaces/default/services";
