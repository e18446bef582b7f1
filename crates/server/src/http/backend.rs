//! The `proxy` subresource of pods, Services and nodes: HTTP to what runs in the cluster.
//!
//! Mirrors pkg/registry/core/{pod,service,node}: `ResourceLocation`. Names are `name`, `name:port` or `scheme:name:port`; certificates are not checked, as upstream.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ::api::{Object, Status};
use client::kubeconfig::Config;
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode};
use hyper::body::Incoming;
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::answer::{self, Answer};
use super::relay::{self, Onward};
use crate::api::Api;
use crate::nodes::NodeStream;
use crate::path::ResourcePath;
use crate::registry::text;

const DIAL_TIMEOUT: Duration = Duration::from_secs(30);

/// `[scheme:]name[:port]`: net.SplitSchemeNamePort.
fn split(id: &str) -> Option<(&str, &str, &str)> {
    let (scheme, name, port) = match id.split(':').collect::<Vec<_>>()[..] {
        [name] => ("", name, ""),
        [name, port] => ("", name, port),
        [scheme, name, port] => (scheme, name, port),
        _ => return None,
    };
    (matches!(scheme, "" | "http" | "https") && !name.is_empty()).then_some((scheme, name, port))
}

/// The raw path before and after its first `segments` segments.
fn cut(path: &str, segments: usize) -> (&str, &str) {
    let mut seen = 0;
    let mut inside = false;
    for (at, byte) in path.bytes().enumerate() {
        if byte == b'/' {
            if inside && seen == segments {
                return path.split_at(at);
            }
            inside = false;
        } else if !inside {
            inside = true;
            seen += 1;
        }
    }
    (path, "")
}

/// Where to: an address, or an agent of a node.
enum Place {
    Address { tls: bool, address: SocketAddr },
    Agent { node: String },
}

fn array<'a>(value: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    value.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
}

fn port_number(port: &Value) -> u16 {
    port.as_u64().and_then(|port| u16::try_from(port).ok()).unwrap_or(0)
}

fn default_port(tls: bool) -> u16 {
    if tls { 443 } else { 80 }
}

/// Addresses of the machine itself and its links are none that a client may send us to.
fn allowed(address: &str) -> Result<IpAddr, Status> {
    let refused = || Status::bad_request("address not allowed");
    let address: IpAddr = address.parse().map_err(|_| refused())?;
    // An IPv4 address in IPv6's clothes is judged by what it is.
    let address = address.to_canonical();
    let local = match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    if local || address.is_loopback() || address.is_multicast() || address.is_unspecified() { Err(refused()) } else { Ok(address) }
}

fn number(port: &str) -> Result<u16, Status> {
    port.parse().map_err(|_| Status::unavailable(format!("error trying to reach service: dial tcp: lookup tcp/{port}: unknown port")))
}

impl Api {
    fn object(&self, kind: &str, namespace: Option<&str>, name: &str) -> Result<Value, Status> {
        let row = self.serving.rows().find("", "v1", kind).ok_or_else(Status::no_route)?;
        let object: Arc<Object> = self.stored(&row, namespace, name)?;
        object.value().map_err(Status::internal)
    }

    fn pod_place(&self, namespace: &str, id: &str) -> Result<Place, Status> {
        let (scheme, name, port) = split(id).ok_or_else(|| Status::bad_request(format!("invalid pod request {id:?}")))?;
        let pod = self.object("pods", Some(namespace), name)?;
        let tls = scheme == "https";
        let port = match port {
            "" => array(&pod, "/spec/containers").find_map(|container| container.pointer("/ports/0/containerPort")).map_or(default_port(tls), port_number),
            port => number(port)?,
        };
        let address = allowed(pod.pointer("/status/podIPs/0/ip").and_then(Value::as_str).unwrap_or_default())?;
        Ok(Place::Address { tls, address: SocketAddr::new(address, port) })
    }

    fn service_place(&self, namespace: &str, id: &str) -> Result<Place, Status> {
        let (scheme, name, port) = split(id).ok_or_else(|| Status::bad_request(format!("invalid service request {id:?}")))?;
        let mut port_name = port.to_owned();
        if let Ok(wanted) = port.parse::<i64>() {
            let service = self.object("services", Some(namespace), name)?;
            let found = array(&service, "/spec/ports").find(|port| port["port"].as_i64() == Some(wanted));
            let found = found.ok_or_else(|| Status::unavailable(format!("no service port {wanted} found for service {name:?}")))?;
            port_name = text(found, "/name").to_owned();
        }
        let endpoints = self.object("endpoints", Some(namespace), name)?;
        if array(&endpoints, "/subsets").next().is_none() {
            return Err(Status::unavailable(format!("no endpoints available for service {name:?}")));
        }
        let mut found = Vec::new();
        for subset in array(&endpoints, "/subsets") {
            for port in array(subset, "/ports").filter(|port| text(port, "/name") == port_name) {
                // Only what is a pod is reached for a client: other addresses could be anybody's.
                let pods = array(subset, "/addresses").filter(|address| self.is_pods(namespace, address));
                found.extend(pods.filter_map(|address| Some(SocketAddr::new(text(address, "/ip").parse().ok()?, port_number(&port["port"])))));
            }
        }
        let mut pick = [0; 8];
        // Without chance the first is as good as any.
        let _ = getrandom::fill(&mut pick);
        let pick = usize::try_from(u64::from_le_bytes(pick) % found.len().max(1) as u64).unwrap_or_default();
        let address = found.get(pick).copied().ok_or_else(|| Status::unavailable(format!("no endpoints available for service {id:?}")))?;
        Ok(Place::Address { tls: scheme == "https", address })
    }

    fn is_pods(&self, namespace: &str, address: &Value) -> bool {
        if text(address, "/targetRef/kind") != "Pod" || allowed(text(address, "/ip")).is_err() {
            return false;
        }
        let pod = self.object("pods", Some(namespace), text(address, "/targetRef/name"));
        pod.is_ok_and(|pod| array(&pod, "/status/podIPs").any(|ip| text(ip, "/ip") == text(address, "/ip")))
    }

    fn node_place(&self, id: &str) -> Result<Place, Status> {
        let (scheme, name, port) = split(id).ok_or_else(|| Status::bad_request(format!("invalid node request {id:?}")))?;
        let node = self.object("nodes", None, name)?;
        let agents = node.pointer("/status/daemonEndpoints/kubeletEndpoint/Port").map_or(0, port_number);
        if port.is_empty() || port.parse() == Ok(agents) {
            return Ok(Place::Agent { node: name.to_owned() });
        }
        let address = array(&node, "/status/addresses").find(|address| text(address, "/type") == "InternalIP").map(|address| text(address, "/address")).unwrap_or_default();
        Ok(Place::Address { tls: scheme == "https", address: SocketAddr::new(allowed(address)?, number(port)?) })
    }
}

async fn dial(address: SocketAddr, tls: bool) -> Result<NodeStream, String> {
    let stream = match tokio::time::timeout(DIAL_TIMEOUT, TcpStream::connect(address)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => return Err(format!("dial tcp {address}: connect: connection refused")),
        Ok(Err(error)) => return Err(format!("dial tcp {address}: connect: {error}")),
        Err(_) => return Err(format!("dial tcp {address}: i/o timeout")),
    };
    let _ = stream.set_nodelay(true);
    if !tls {
        return Ok(Box::new(stream));
    }
    let config = client::tls::client_config(&Config { insecure: true, ..Config::default() }, &[b"http/1.1"])?;
    let secured = TlsConnector::from(Arc::new(config)).connect(ServerName::IpAddress(address.ip().into()), stream);
    match tokio::time::timeout(DIAL_TIMEOUT, secured).await {
        Ok(Ok(stream)) => Ok(Box::new(stream)),
        Ok(Err(error)) => Err(match error.get_ref().and_then(|inner| inner.downcast_ref()) {
            Some(rustls::Error::InvalidMessage(_)) => "http: server gave HTTP response to HTTPS client".to_owned(),
            _ => error.to_string(),
        }),
        Err(_) => Err("net/http: TLS handshake timeout".to_owned()),
    }
}

/// Upstream's 301 for a path that ends at `proxy`: links of the page would lead astray.
fn with_slash(prefix: &str, query: Option<&str>) -> Result<Answer, Status> {
    let query = query.filter(|query| !query.is_empty()).map(|query| format!("?{query}")).unwrap_or_default();
    let mut answer = answer::text(301, String::new());
    let location = HeaderValue::from_str(&format!("{prefix}/{query}")).map_err(Status::internal)?;
    answer.headers_mut().insert(http::header::LOCATION, location);
    *answer.status_mut() = StatusCode::MOVED_PERMANENTLY;
    Ok(answer)
}

/// Answers a request on a `proxy` subresource.
pub async fn proxy(api: Arc<Api>, target: ResourcePath, parts: Parts, body: &mut Option<Incoming>) -> Result<Answer, Status> {
    let name = target.name.clone().unwrap_or_default();
    let namespace = target.namespace.clone().unwrap_or_default();
    // /api/v1[/namespaces/…]/<plural>/<name>/proxy
    let segments = if target.namespace.is_some() { 7 } else { 5 };
    let (prefix, rest) = cut(parts.uri.path(), segments);
    let (prefix, rest) = (prefix.to_owned(), rest.to_owned());
    let place = match &*target.plural {
        "pods" => api.pod_place(&namespace, &name)?,
        "services" => api.service_place(&namespace, &name)?,
        "nodes" => api.node_place(&name)?,
        _ => return Err(Status::no_route()),
    };
    let upgrade = relay::is_upgrade(&parts.headers);
    if rest.is_empty() && !upgrade && matches!(parts.method, Method::GET | Method::HEAD) {
        return with_slash(&prefix, parts.uri.query());
    }
    let (stream, host) = match place {
        Place::Agent { node } => (api.nodes.dial(&node).await?, node),
        Place::Address { tls, address } => {
            let stream = dial(address, tls).await.map_err(|why| if upgrade { Status::internal(format!("error dialing backend: {why}")) } else { Status::unavailable(format!("error trying to reach service: {why}")) })?;
            (stream, address.to_string())
        }
    };
    let path = if rest.is_empty() { "/" } else { &rest };
    let uri = parts.uri.query().map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"));
    relay::relay(stream, Onward { uri, host, prefix: Some(prefix) }, parts, body).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for (id, want) in [
            ("web", Some(("", "web", ""))),
            ("web:http", Some(("", "web", "http"))),
            ("https:web:443", Some(("https", "web", "443"))),
            (":web:", Some(("", "web", ""))),
            ("ftp:web:21", None),
            ("", None),
            (":80", None),
            ("a:b:c:d", None),
        ] {
            assert_eq!(split(id), want, "{id}");
        }
    }

    #[test]
    fn paths_are_kept_as_they_came() {
        let prefix = "/api/v1/namespaces/n/pods/p/proxy";
        for rest in ["", "/", "/a/b/", "/a%2Fb//c"] {
            assert_eq!(cut(&format!("{prefix}{rest}"), 7), (prefix, rest));
        }
        assert_eq!(cut("/api/v1/nodes/n/proxy/metrics", 5), ("/api/v1/nodes/n/proxy", "/metrics"));
    }

    #[test]
    fn only_addresses_of_the_cluster() {
        for (address, want) in [("10.244.0.5", true), ("fd00::1", true), ("127.0.0.1", false), ("169.254.169.254", false), ("::1", false), ("::ffff:127.0.0.1", false), ("::ffff:169.254.169.254", false), ("", false)] {
            assert_eq!(allowed(address).is_ok(), want, "{address}");
        }
    }
}
