//! HTTP requests of probes and hooks, from the host to the pod. Certificates are not checked, as upstream.

use std::net::SocketAddr;
use std::sync::Arc;

use api::k8s::api::core::v1::HTTPGetAction;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// More of an answer's body is not read (upstream: 10 KiB).
const BODY_MAX: usize = 10 * 1024;

pub struct Request {
    pub https: bool,
    pub host: String,
    pub port: u16,
    pub path: String,
    pub headers: Vec<(String, String)>,
}

pub struct Answer {
    pub status: u16,
    /// Where a redirect leads.
    pub location: Option<String>,
    /// As much of it as is read.
    pub body: String,
}

impl Request {
    pub fn of(action: &HTTPGetAction, host: &str, port: u16) -> Self {
        let path = action.path.clone().filter(|p| !p.is_empty()).unwrap_or_else(|| "/".to_owned());
        Self {
            https: action.scheme.as_deref().is_some_and(|s| s.eq_ignore_ascii_case("https")),
            host: host.to_owned(),
            port,
            path: if path.starts_with('/') { path } else { format!("/{path}") },
            headers: action.http_headers.iter().flatten().map(|h| (h.name.clone(), h.value.clone())).collect(),
        }
    }

    /// The request that this answer's `Location` asks for: a whole URL or a path.
    pub fn redirected(&self, location: &str) -> Option<Self> {
        let (https, rest) = match location.split_once("://") {
            Some(("http", rest)) => (false, rest),
            Some(("https", rest)) => (true, rest),
            Some(_) => return None,
            None => {
                let folder = self.path.split('?').next().and_then(|path| path.rsplit_once('/')).map_or("", |(folder, _)| folder);
                let path = if location.starts_with('/') { location.to_owned() } else { format!("{folder}/{location}") };
                return Some(Self { path, headers: self.headers.clone(), host: self.host.clone(), ..*self });
            }
        };
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, port.parse().ok()?),
            _ => (authority, if https { 443 } else { 80 }),
        };
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        Some(Self { https, host: host.trim_matches(['[', ']']).to_owned(), port, path, headers: self.headers.clone() })
    }

    pub fn url(&self) -> String {
        format!("{}://{}{}", if self.https { "https" } else { "http" }, joined(&self.host, self.port), self.path)
    }
}

pub fn joined(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// `dial tcp 10.0.0.1:80: connect: connection refused`, as Go says it.
pub fn dial_error(target: &str, error: &std::io::Error) -> String {
    let why = match error.raw_os_error() {
        Some(libc::ECONNREFUSED) => "connect: connection refused".to_owned(),
        Some(libc::EHOSTUNREACH) => "connect: no route to host".to_owned(),
        Some(libc::ENETUNREACH) => "connect: network is unreachable".to_owned(),
        Some(libc::ETIMEDOUT) => "connect: connection timed out".to_owned(),
        _ => error.to_string(),
    };
    format!("dial tcp {target}: {why}")
}

pub async fn connect(host: &str, port: u16) -> Result<TcpStream, String> {
    let target = joined(host, port);
    let host = if host == "localhost" { "127.0.0.1" } else { host };
    // Names are not resolved here: probes go to addresses.
    let ip = host.parse().map_err(|_| format!("dial tcp: lookup {host}: no such host"))?;
    TcpStream::connect(SocketAddr::new(ip, port)).await.map_err(|error| dial_error(&target, &error))
}

pub async fn get(request: &Request) -> Result<Answer, String> {
    let failed = |why: String| format!("Get {:?}: {why}", request.url());
    let stream = connect(&request.host, request.port).await.map_err(failed)?;
    if request.https {
        let connector = tokio_rustls::TlsConnector::from(insecure());
        let name = rustls::pki_types::ServerName::try_from(request.host.clone()).map_err(|e| failed(e.to_string()))?;
        let stream = connector.connect(name, stream).await.map_err(|e| failed(e.to_string()))?;
        exchange(request, stream).await.map_err(failed)
    } else {
        exchange(request, stream).await.map_err(failed)
    }
}

async fn exchange<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(request: &Request, stream: S) -> Result<Answer, String> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
    let driver = tokio::spawn(async move { drop(connection.await) });
    let result = async {
        let mut builder = hyper::Request::get(&request.path);
        let named = |wanted: &str| request.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case(wanted));
        for (name, value) in &request.headers {
            // An empty value takes the default header away.
            if !value.is_empty() || !matches!(name.to_ascii_lowercase().as_str(), "user-agent" | "accept") {
                builder = builder.header(name, value);
            }
        }
        if !named("host") {
            builder = builder.header("Host", joined(&request.host, request.port));
        }
        if !named("user-agent") {
            builder = builder.header("User-Agent", "kube-probe/1.36");
        }
        if !named("accept") {
            builder = builder.header("Accept", "*/*");
        }
        let message = builder.header("Connection", "close").body(Empty::<Bytes>::new()).map_err(|e| e.to_string())?;
        let answer = sender.send_request(message).await.map_err(|e| if e.is_incomplete_message() { "EOF".to_owned() } else { e.to_string() })?;
        let status = answer.status().as_u16();
        let location = answer.headers().get("location").and_then(|value| value.to_str().ok()).map(str::to_owned);
        // Read in any case, so that the server is not cut off in the middle.
        let body = Limited::new(answer.into_body(), BODY_MAX).collect().await.map(|body| String::from_utf8_lossy(&body.to_bytes()).into_owned());
        Ok(Answer { status, location, body: body.unwrap_or_default() })
    }
    .await;
    driver.abort();
    result
}

fn insecure() -> Arc<rustls::ClientConfig> {
    static CONFIG: std::sync::OnceLock<Arc<rustls::ClientConfig>> = std::sync::OnceLock::new();
    CONFIG
        .get_or_init(|| {
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let verifier = Arc::new(Anyone(provider.clone()));
            let config = rustls::ClientConfig::builder_with_provider(provider)
                .with_protocol_versions(rustls::DEFAULT_VERSIONS)
                .expect("ring speaks the default versions")
                .dangerous()
                .with_custom_certificate_verifier(verifier)
                .with_no_client_auth();
            Arc::new(config)
        })
        .clone()
}

/// Believes every certificate: a probe asks whether something answers, not who.
#[derive(Debug)]
struct Anyone(Arc<rustls::crypto::CryptoProvider>);

impl rustls::client::danger::ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &[rustls::pki_types::CertificateDer<'_>],
        _: &rustls::pki_types::ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn asks_and_reads() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut seen = vec![0; 4096];
            let n = stream.read(&mut seen).await.unwrap();
            stream.write_all(b"HTTP/1.1 503 No\r\nContent-Length: 2\r\n\r\nhi").await.unwrap();
            String::from_utf8_lossy(&seen[..n]).into_owned()
        });
        let request = Request { https: false, host: "127.0.0.1".into(), port, path: "/x?y".into(), headers: vec![("X-A".into(), "b".into())] };
        let answer = get(&request).await.unwrap();
        assert_eq!(answer.status, 503);
        let seen = server.await.unwrap();
        assert!(seen.starts_with("GET /x?y HTTP/1.1\r\n") && seen.contains("x-a: b") && seen.contains("kube-probe/1.36"), "{seen}");
        let error = get(&request).await.err().unwrap();
        assert_eq!(error, format!("Get \"http://127.0.0.1:{port}/x?y\": dial tcp 127.0.0.1:{port}: connect: connection refused"));
    }

    #[test]
    fn redirects() {
        let from = Request { https: false, host: "10.0.0.1".to_owned(), port: 8080, path: "/a/b?c".to_owned(), headers: Vec::new() };
        for (location, expected) in [
            ("/healthz", Some("http://10.0.0.1:8080/healthz")),
            ("d", Some("http://10.0.0.1:8080/a/d")),
            ("http://0.0.0.0/", Some("http://0.0.0.0:80/")),
            ("https://[fd00::1]?x", Some("https://[fd00::1]:443/?x")),
            ("http://h:99/p?q", Some("http://h:99/p?q")),
            ("ftp://h/", None),
            ("http://h:x/", None),
        ] {
            assert_eq!(from.redirected(location).map(|to| to.url()).as_deref(), expected, "{location}");
        }
    }
}
