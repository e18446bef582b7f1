//! The lab's mirror: the few pages of the Internet that the workshop's literal commands fetch, served inside the lab, offline.
//!
//! Promises: only what is in `PAGES` is answered, anything else is a 404 that says where one is; each page says that it is the mirror's. It is reached by the names
//! in the nodes' `/etc/hosts`, over HTTPS with a certificate of the lab's own authority, which only the lab's nodes trust: the authority's key is
//! in no file and gone as soon as the certificate is made.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::manifests;

/// Names that lead to the mirror instead of nowhere.
pub const NAMES: [&str; 3] = ["cloud.weave.works", "raw.githubusercontent.com", "github.com"];
/// A request's line and headers.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Whoever says nothing for this long is cut off.
const SILENCE_MAX: Duration = Duration::from_secs(10);
const CONNECTIONS_MAX: usize = 32;

/// Host, how the path begins, how it ends, and what is there.
const PAGES: &[(&str, &str, &str, fn() -> String)] = &[
    ("cloud.weave.works", "/k8s/", "", manifests::weave),
    ("github.com", "/weaveworks/weave/releases/download/", ".yaml", manifests::weave),
    ("raw.githubusercontent.com", "/cloudnativelabs/kube-router/", "/kubeadm-kuberouter.yaml", manifests::kube_router),
];

/// Serves from threads of its own; returns when it is listening and `authority_file` says whom to trust.
pub fn start(authority_file: &Path) -> Result<(), String> {
    let (authority, tls) = identity()?;
    for (port, tls) in [(80, None), (443, Some(Arc::new(tls)))] {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).map_err(|error| format!("listen on port {port}: {error}"))?;
        std::thread::Builder::new().name(format!("mirror-{port}")).spawn(move || accept(&listener, tls.as_ref())).map_err(|error| format!("start the mirror: {error}"))?;
    }
    std::fs::write(authority_file, authority).map_err(|error| format!("write {}: {error}", authority_file.display()))
}

/// The authority's certificate in PEM, and what is served with.
fn identity() -> Result<(String, ServerConfig), String> {
    let failed = |error: rcgen::Error| format!("make the mirror's certificate: {error}");
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "Coracle lab mirror");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let key = KeyPair::generate().map_err(failed)?;
    let authority = params.self_signed(&key).map_err(failed)?.pem();
    let issuer = Issuer::new(params, key);
    let mut leaf = CertificateParams::new(NAMES.map(str::to_owned)).map_err(failed)?;
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate().map_err(failed)?;
    let certificate = leaf.signed_by(&key, &issuer).map_err(failed)?;
    let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(|error| format!("make the mirror's key: {error}"))?;
    let tls = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(vec![certificate.der().clone()], key))
        .map_err(|error| format!("serve with the mirror's certificate: {error}"))?;
    Ok((authority, tls))
}

fn accept(listener: &TcpListener, tls: Option<&Arc<ServerConfig>>) {
    let open = Arc::new(AtomicUsize::new(0));
    for stream in listener.incoming().flatten() {
        if open.fetch_add(1, Ordering::Relaxed) >= CONNECTIONS_MAX {
            open.fetch_sub(1, Ordering::Relaxed);
            continue;
        }
        let (tls, count) = (tls.cloned(), open.clone());
        let spawned = std::thread::Builder::new().name("mirror".into()).spawn(move || {
            // Whoever asked has gone: nobody is left to tell.
            let _ = serve(stream, tls);
            count.fetch_sub(1, Ordering::Relaxed);
        });
        if spawned.is_err() {
            open.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

fn serve(stream: TcpStream, tls: Option<Arc<ServerConfig>>) -> io::Result<()> {
    stream.set_read_timeout(Some(SILENCE_MAX))?;
    stream.set_write_timeout(Some(SILENCE_MAX))?;
    match tls {
        None => {
            let mut stream = stream;
            answer(&mut stream, false)
        }
        Some(tls) => {
            let mut stream = StreamOwned::new(ServerConnection::new(tls).map_err(io::Error::other)?, stream);
            answer(&mut stream, true)?;
            stream.conn.send_close_notify();
            stream.flush()
        }
    }
}

fn answer(stream: &mut (impl Read + Write), secure: bool) -> io::Result<()> {
    let mut head = Vec::new();
    let mut buffer = [0; 2048];
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let length = stream.read(&mut buffer)?;
        if length == 0 || head.len() + length > HEAD_BYTES_MAX {
            return Ok(());
        }
        head.extend_from_slice(&buffer[..length]);
    }
    stream.write_all(response(&String::from_utf8_lossy(&head), secure).as_bytes())?;
    stream.flush()
}

/// The whole response to a request's head.
fn response(head: &str, secure: bool) -> String {
    let mut lines = head.lines();
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let host = lines.find_map(|line| line.split_once(':').filter(|(name, _)| name.eq_ignore_ascii_case("host"))).map_or("", |(_, host)| host.trim());
    let host = host.split(':').next().unwrap_or_default();
    let path = target.split('?').next().unwrap_or_default();
    let page = PAGES.iter().find(|(of, begins, ends, _)| *of == host && path.starts_with(begins) && path.ends_with(ends));
    let (status, kind, more, body) = match page {
        _ if !matches!(method, "GET" | "HEAD") => ("405 Method Not Allowed", "text/plain", String::new(), "the lab's mirror is only to read\n".to_owned()),
        Some(_) if !secure => ("301 Moved Permanently", "text/plain", format!("Location: https://{host}{target}\r\n"), String::new()),
        Some((.., page)) => ("200 OK", "text/vnd.yaml", String::new(), page()),
        None => ("404 Not Found", "text/plain", String::new(), format!("This is the mirror of a Coracle lab, which has no way to the Internet: https://{host}{path} is not in it.\n")),
    };
    let body_sent = if method == "HEAD" { "" } else { &body };
    format!("HTTP/1.1 {status}\r\nServer: coracle-lab-mirror\r\nContent-Type: {kind}; charset=utf-8\r\nContent-Length: {}\r\n{more}Connection: close\r\n\r\n{body_sent}", body.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_where() {
        for (host, target, secure, starts) in [
            ("cloud.weave.works", "/k8s/net?k8s-version=Q2xpZW50", true, "HTTP/1.1 200 OK"),
            ("cloud.weave.works", "/k8s/v1.8/net", true, "HTTP/1.1 200 OK"),
            ("cloud.weave.works:443", "/k8s/net", true, "HTTP/1.1 200 OK"),
            ("cloud.weave.works", "/k8s/net?x=y", false, "HTTP/1.1 301 Moved Permanently"),
            ("github.com", "/weaveworks/weave/releases/download/v2.8.1/weave-daemonset-k8s-1.11.yaml", true, "HTTP/1.1 200 OK"),
            ("raw.githubusercontent.com", "/cloudnativelabs/kube-router/master/daemonset/kubeadm-kuberouter.yaml", true, "HTTP/1.1 200 OK"),
            ("github.com", "/dockersamples/dockercoins", true, "HTTP/1.1 404 Not Found"),
            ("raw.githubusercontent.com", "/k8s/net", true, "HTTP/1.1 404 Not Found"),
            ("", "", true, "HTTP/1.1 404 Not Found"),
        ] {
            let told = response(&format!("GET {target} HTTP/1.1\r\naccept: */*\r\nHOST: {host}\r\n\r\n"), secure);
            assert!(told.starts_with(starts), "{host}{target}: {told}");
        }
        assert!(response("GET /k8s/net?x=y HTTP/1.1\r\nHost: cloud.weave.works\r\n\r\n", false).contains("\r\nLocation: https://cloud.weave.works/k8s/net?x=y\r\n"));
        assert!(response("POST /k8s/net HTTP/1.1\r\nHost: cloud.weave.works\r\n\r\n", true).starts_with("HTTP/1.1 405"));
        assert!(response("HEAD /k8s/net HTTP/1.1\r\nHost: cloud.weave.works\r\n\r\n", true).ends_with("\r\n\r\n"));
    }

    #[test]
    fn an_identity_can_be_made() {
        let (authority, _) = identity().unwrap();
        assert!(authority.starts_with("-----BEGIN CERTIFICATE-----"));
    }
}
