//! One connection: name lookup, TCP, TLS where it is due, HTTP/1.1 over it.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{RegistryOptions, RegistrySetupError, SYSTEM_ROOTS};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

pub type Body = UnsyncBoxBody<Bytes, io::Error>;

pub fn tls(options: &RegistryOptions) -> Result<TlsConnector, RegistrySetupError> {
    let mut roots = RootCertStore::empty();
    if let Some(system) = SYSTEM_ROOTS.iter().map(Path::new).find(|p| p.exists()) {
        // The system's bundle may hold a certificate that rustls does not take: the others still count.
        let certificates = CertificateDer::pem_file_iter(system).into_iter().flatten().filter_map(Result::ok);
        roots.add_parsable_certificates(certificates);
    }
    for path in &options.roots {
        let failed = |reason: String| RegistrySetupError::Roots { path: path.clone(), reason };
        for certificate in CertificateDer::pem_file_iter(path).map_err(|e| failed(e.to_string()))? {
            let certificate = certificate.map_err(|e| failed(e.to_string()))?;
            roots.add(certificate).map_err(|e| failed(e.to_string()))?;
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Host and port of `host`, `host:port`, `[v6]:port`.
pub fn split(authority: &str, default_port: u16) -> (&str, u16) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port.parse().unwrap_or(default_port)),
        _ => (authority, default_port),
    }
}

pub fn is_loopback(authority: &str) -> bool {
    let (host, _) = split(authority, 0);
    host == "localhost" || host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok_and(|a| a.is_loopback())
}

/// Opens a connection for one request.
pub async fn open(tls: &TlsConnector, scheme: &str, authority: &str) -> io::Result<SendRequest<Body>> {
    let secure = scheme == "https";
    let (host, port) = split(authority, if secure { 443 } else { 80 });
    let stream = dial(host, port).await?;
    stream.set_nodelay(true)?;
    if !secure {
        return start(TokioIo::new(stream)).await;
    }
    let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned()).map_err(io::Error::other)?;
    let stream = tokio::time::timeout(CONNECT_TIMEOUT, tls.connect(name, stream)).await.map_err(|_| timed_out("TLS handshake timeout"))?;
    start(TokioIo::new(stream.map_err(|e| io::Error::new(e.kind(), format!("tls: {e}")))?)).await
}

async fn dial(host: &str, port: u16) -> io::Result<TcpStream> {
    let addresses = resolver::resolve(host).await.map_err(|error| io::Error::other(format!("dial tcp: {error}")))?;
    let mut failure = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in addresses {
        let address = SocketAddr::new(address, port);
        match tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(e)) if e.kind() == io::ErrorKind::ConnectionRefused => {
                failure = io::Error::new(e.kind(), format!("dial tcp {address}: connect: connection refused"));
            }
            Ok(Err(e)) => failure = io::Error::new(e.kind(), format!("dial tcp {address}: connect: {e}")),
            Err(_) => failure = timed_out(&format!("dial tcp {address}: i/o timeout")),
        }
    }
    Err(failure)
}

fn timed_out(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, text.to_owned())
}

async fn start<T>(stream: T) -> io::Result<SendRequest<Body>>
where
    T: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let (sender, connection) = handshake(stream).await.map_err(io::Error::other)?;
    // Ends with the response body or when the sender goes; its error also shows at the request.
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "registry connection ended");
        }
    });
    Ok(sender)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities() {
        assert_eq!(split("a:5000", 443), ("a", 5000));
        assert_eq!(split("a", 443), ("a", 443));
        assert_eq!(split("[::1]:5", 443), ("[::1]", 5));
        assert_eq!(split("[::1]", 443), ("[::1]", 443));
        for (authority, loopback) in [("localhost:5000", true), ("127.0.0.2", true), ("[::1]:80", true), ("10.0.0.1:5000", false), ("localhost.evil", false)] {
            assert_eq!(is_loopback(authority), loopback, "{authority}");
        }
    }
}
