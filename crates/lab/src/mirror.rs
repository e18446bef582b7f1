//! The lab's mirror: the few pages of the Internet that the workshop's literal commands fetch, and the registries that images come from and go to, served inside the
//! lab, offline.
//!
//! Promises: only what is in `PAGES` and in the lab's image store is answered, anything else is a 404 that says where one is; each page says that it is the mirror's. It is
//! reached by the names in the nodes' `/etc/hosts`, over HTTPS with a certificate of the lab's own authority, which only the lab's nodes trust: the authority's key is
//! in no file and gone as soon as the certificate is made.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use image::Store;
use image::hub::{Ask, Content, Hub};
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::body::Body;
use crate::manifests;

/// Names that lead to the mirror instead of nowhere: where the workshop's pages are, then registries.
pub const NAMES: [&str; 9] = [
    "cloud.weave.works",
    "raw.githubusercontent.com",
    "github.com",
    "registry-1.docker.io",
    "index.docker.io",
    "docker.io",
    "quay.io",
    "ghcr.io",
    "registry.k8s.io",
];
/// A request's line and headers.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Whoever says nothing for this long is cut off.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// Nodes fetch many layers at once.
const CONNECTIONS_MAX: usize = 256;
/// Of a body that nobody wanted, this much is read, so that the answer is.
const UNWANTED_BYTES_MAX: u64 = 1 << 30;

/// Host, how the path begins, how it ends, and what is there.
const PAGES: &[(&str, &str, &str, fn() -> String)] = &[
    ("cloud.weave.works", "/k8s/", "", manifests::weave),
    ("github.com", "/weaveworks/weave/releases/download/", ".yaml", manifests::weave),
    ("raw.githubusercontent.com", "/cloudnativelabs/kube-router/", "/kubeadm-kuberouter.yaml", manifests::kube_router),
];

/// Serves from threads of its own; returns when it is listening and `authority_file` says whom to trust.
pub fn start(authority_file: &Path, images: &Path) -> Result<(), String> {
    let hub = Store::open(images).and_then(Hub::open).map_err(|error| format!("open the lab's images: {error}"))?;
    let hub = Arc::new(hub);
    let (authority, tls) = identity()?;
    for (port, tls) in [(80, None), (443, Some(Arc::new(tls)))] {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).map_err(|error| format!("listen on port {port}: {error}"))?;
        let hub = hub.clone();
        std::thread::Builder::new().name(format!("mirror-{port}")).spawn(move || accept(&listener, tls.as_ref(), &hub)).map_err(|error| format!("start the mirror: {error}"))?;
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

fn accept(listener: &TcpListener, tls: Option<&Arc<ServerConfig>>, hub: &Arc<Hub>) {
    let open = Arc::new(AtomicUsize::new(0));
    for stream in listener.incoming().flatten() {
        if open.fetch_add(1, Ordering::Relaxed) >= CONNECTIONS_MAX {
            open.fetch_sub(1, Ordering::Relaxed);
            continue;
        }
        let (tls, count, hub) = (tls.cloned(), open.clone(), hub.clone());
        let spawned = std::thread::Builder::new().name("mirror".into()).spawn(move || {
            // Whoever asked has gone: nobody is left to tell.
            let _ = serve(stream, tls, &hub);
            count.fetch_sub(1, Ordering::Relaxed);
        });
        if spawned.is_err() {
            open.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

fn serve(stream: TcpStream, tls: Option<Arc<ServerConfig>>, hub: &Hub) -> io::Result<()> {
    stream.set_read_timeout(Some(SILENCE_MAX))?;
    stream.set_write_timeout(Some(SILENCE_MAX))?;
    match tls {
        None => {
            let mut stream = stream;
            answer(&mut stream, None)?;
            stream.shutdown(Shutdown::Write)
        }
        Some(tls) => {
            let mut stream = StreamOwned::new(ServerConnection::new(tls).map_err(io::Error::other)?, stream);
            answer(&mut stream, Some(hub))?;
            stream.conn.send_close_notify();
            stream.flush()
        }
    }
}

/// Over HTTPS there is `hub`.
fn answer(stream: &mut (impl Read + Write), hub: Option<&Hub>) -> io::Result<()> {
    let mut head = Vec::new();
    let mut buffer = [0; 2048];
    let end = loop {
        if let Some(end) = head.windows(4).position(|end| end == b"\r\n\r\n") {
            break end + 4;
        }
        let length = stream.read(&mut buffer)?;
        if length == 0 || head.len() + length > HEAD_BYTES_MAX {
            return Ok(());
        }
        head.extend_from_slice(&buffer[..length]);
    };
    let begun = head.split_off(end);
    let head = String::from_utf8_lossy(&head);
    match hub.filter(|_| target(&head).starts_with("/v2")) {
        Some(hub) => of_hub(stream, &head, begun, hub)?,
        None => stream.write_all(response(&head, hub.is_some()).as_bytes())?,
    }
    stream.flush()
}

fn target(head: &str) -> &str {
    head.split(' ').nth(1).unwrap_or_default()
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().skip(1).find_map(|line| line.split_once(':').filter(|(known, _)| known.eq_ignore_ascii_case(name))).map(|(_, value)| value.trim())
}

fn host(head: &str) -> &str {
    header(head, "host").unwrap_or_default().split(':').next().unwrap_or_default()
}

/// `begun` is what came of the body with the head.
fn of_hub(stream: &mut (impl Read + Write), head: &str, begun: Vec<u8>, hub: &Hub) -> io::Result<()> {
    if header(head, "expect").is_some_and(|value| value.eq_ignore_ascii_case("100-continue")) {
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        stream.flush()?;
    }
    let method = head.split(' ').next().unwrap_or_default();
    let ask = Ask { method, host: host(head), target: target(head), content_type: header(head, "content-type").unwrap_or_default() };
    let chunked = header(head, "transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked"));
    let length = header(head, "content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = if chunked { Body::chunked(begun, &mut *stream) } else { Body::of_length(length, begun, &mut *stream) };
    let reply = hub.answer(&ask, &mut body);
    io::copy(&mut body.take(UNWANTED_BYTES_MAX), &mut io::sink())?;
    let mut text = format!("HTTP/1.1 {} {}\r\nServer: coracle-lab-mirror\r\nContent-Length: {}\r\nConnection: close\r\n", reply.status, phrase(reply.status), reply.content.length());
    for (name, value) in &reply.headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    stream.write_all((text + "\r\n").as_bytes())?;
    match reply.content {
        _ if method == "HEAD" => Ok(()),
        Content::Bytes(bytes) => stream.write_all(&bytes),
        Content::File(mut file, _) => io::copy(&mut file, stream).map(drop),
    }
}

fn phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        _ => "Internal Server Error",
    }
}

/// The whole response to a request's head.
fn response(head: &str, secure: bool) -> String {
    let (method, target, host) = (head.split(' ').next().unwrap_or_default(), target(head), host(head));
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
