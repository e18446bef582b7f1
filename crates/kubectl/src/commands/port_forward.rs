//! `kubectl port-forward`: local ports that end in a pod.
//!
//! Mirrors k8s.io/kubectl/pkg/cmd/portforward and client-go/tools/portforward: one SPDY connection for all, inside a WebSocket or, with servers that refuse that,
//! bare; two streams for each local connection, data and what went wrong.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use spdy::{Connection, Headers};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use super::change::usage;
use super::pods::{self, array, text as at};
use crate::builder::Found;
use crate::command::command;
use crate::error::{Error, Result, fail};
use crate::flags::{Args, Flag, list, text};
use crate::output;
use crate::session::Session;

const FLAGS: &[Flag] = &[
    list("address", "Addresses to listen on (comma separated). Only accepts IP addresses or localhost as a value."),
    text("pod-running-timeout", "1m0s", "The length of time (like 5s, 2m, or 3h, higher than zero) to wait until at least one pod is running"),
];

command!(PORT_FORWARD, "port-forward", [], "TYPE/NAME [options] [LOCAL_PORT:]REMOTE_PORT [...[LOCAL_PORT_N:]REMOTE_PORT_N]", "Forward one or more local ports to a pod", [FLAGS], run);

const PROTOCOL: &str = "portforward.k8s.io";
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";
const CHUNK: usize = 32 * 1024;
/// Upstream's PingPeriod.
const PING_PERIOD: Duration = Duration::from_secs(10);

/// `8080:80`, `:80`, `80`, and names for the second part.
fn ports(word: &str, remote: impl Fn(&str) -> Result<u16>) -> Result<(u16, u16)> {
    let (local, far) = match word.split(':').collect::<Vec<_>>()[..] {
        [both] => (both, both),
        [local, far] => (local, far),
        _ => return fail(format!("invalid port format '{word}'")),
    };
    let far_number = remote(far)?;
    let local = match local {
        "" => 0,
        same if same == far && same.parse::<u16>().is_err() => far_number,
        local => local.parse().map_err(|error| Error::Message(format!("error parsing local port '{local}': {error}")))?,
    };
    Ok((local, far_number))
}

fn pod_port(pod: &Value, name: &str) -> Result<u16> {
    if let Ok(port) = name.parse::<u16>() {
        return if port > 0 { Ok(port) } else { fail("remote port must be > 0") };
    }
    let named = array(pod, "/spec/containers").chain(array(pod, "/spec/initContainers")).flat_map(|container| array(container, "/ports")).find(|port| at(port, "/name") == name);
    match named.and_then(|port| port["containerPort"].as_u64()).and_then(|port| u16::try_from(port).ok()) {
        Some(port) => Ok(port),
        None => fail(format!("Pod '{}' does not have a named port '{name}'", at(pod, "/metadata/name"))),
    }
}

/// A Service's port, as the pod has it.
fn service_port(service: &Value, pod: &Value, name: &str) -> Result<u16> {
    let number = name.parse::<u64>().ok();
    let port = array(service, "/spec/ports").find(|port| match number {
        Some(number) => port["port"].as_u64() == Some(number),
        None => at(port, "/name") == name,
    });
    let Some(port) = port else {
        let service = at(service, "/metadata/name");
        return fail(match number {
            Some(number) => format!("Service {service} does not have a service port {number}"),
            None => format!("Service '{service}' does not have a named port '{name}'"),
        });
    };
    // A headless Service has no port of its own.
    if at(service, "/spec/clusterIP") == "None" {
        return port["port"].as_u64().and_then(|port| u16::try_from(port).ok()).map_or_else(|| fail("remote port must be > 0"), Ok);
    }
    match &port["targetPort"] {
        Value::String(target) => pod_port(pod, target),
        target => match target.as_u64().or_else(|| port["port"].as_u64()).and_then(|port| u16::try_from(port).ok()) {
            Some(port) => Ok(port),
            None => fail("remote port must be > 0"),
        },
    }
}

fn addresses(args: &Args) -> Result<Vec<IpAddr>> {
    let mut given = args.slice("address");
    if given.is_empty() {
        given.push("localhost".to_owned());
    }
    let mut all = Vec::new();
    for word in given {
        match word.as_str() {
            "localhost" => all.extend([IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)]),
            word => all.push(word.parse().map_err(|_| Error::Message(format!("{word} is not a valid IP")))?),
        }
    }
    Ok(all)
}

pub async fn run(session: &Session, args: &Args) -> Result<()> {
    let [word, wanted @ ..] = &args.positional[..] else { return Err(usage(args, "TYPE/NAME and list of ports are required for port-forward")) };
    if wanted.is_empty() {
        return Err(usage(args, "TYPE/NAME and list of ports are required for port-forward"));
    }
    let found: Found = pods::one(session, word, "port-forward").await?;
    let pod = pods::attachable(session, &found, args.duration("pod-running-timeout")?).await?;
    let pairs: Vec<(u16, u16)> = wanted
        .iter()
        .map(|word| ports(word, |far| if found.resource.kind == "Service" { service_port(&found.object, &pod, far) } else { pod_port(&pod, far) }))
        .collect::<Result<_>>()?;
    let phase = at(&pod, "/status/phase");
    if phase != "Running" {
        return fail(format!("unable to forward port because pod is not running. Current status={phase}"));
    }
    let path = format!("/api/v1/namespaces/{}/pods/{}/portforward", at(&pod, "/metadata/namespace"), at(&pod, "/metadata/name"));
    let forwarder = Arc::new(Forwarder::connect(session.http()?, &path).await.map_err(|error| Error::Message(format!("error upgrading connection: {error}")))?);
    let mut listeners = Vec::new();
    for (local, far) in pairs {
        let (mut port, mut told, mut listening) = (local, Vec::new(), false);
        for address in addresses(args)? {
            match TcpListener::bind(SocketAddr::new(address, port)).await {
                Ok(listener) => {
                    let bound = listener.local_addr()?;
                    // The same free port on every address.
                    port = bound.port();
                    output::line(format!("Forwarding from {bound} -> {far}"));
                    listeners.push((listener, far));
                    listening = true;
                }
                Err(error) => told.push(format!("unable to create listener: Error listen tcp {}: bind: {error}", SocketAddr::new(address, port))),
            }
        }
        if !listening {
            output::complain(format!("Unable to listen on port {local}: Listeners failed to create with the following errors: [{}]", told.join(" ")));
            return fail(format!("unable to listen on any of the requested ports: [{{{local} {far}}}]"));
        }
    }
    let accepting = futures_util::future::try_join_all(listeners.iter().map(|(listener, far)| accept(forwarder.clone(), listener, *far)));
    tokio::select! {
        ended = accepting => ended.map(drop),
        () = forwarder.lost() => fail("lost connection to pod"),
    }
}

/// Serves one listener; its connections live and die on their own.
async fn accept(forwarder: Arc<Forwarder>, listener: &TcpListener, far: u16) -> Result<()> {
    let local = listener.local_addr()?.port();
    loop {
        let (connection, _) = listener.accept().await?;
        output::line(format!("Handling connection for {local}"));
        let forwarder = forwarder.clone();
        tokio::spawn(async move {
            if let Err(error) = forwarder.forward(connection, far).await {
                output::complain(format!("E portforward: an error occurred forwarding {local} -> {far}: {error}"));
                // As upstream: what went wrong for one may be wrong with all.
                forwarder.given_up.notify_one();
            }
        });
    }
}

/// The connection to the pod.
struct Forwarder {
    connection: Connection,
    requests: AtomicU64,
    given_up: Notify,
}

impl Forwarder {
    async fn connect(http: &client::HttpClient, path: &str) -> Result<Self> {
        let connection = match http.websocket(path, &[TUNNEL]).await {
            Ok(socket) => Connection::client(socket.tunnel()),
            Err(error) if error.is_refusal() => {
                let (stream, protocol) = http.spdy(path, &[PROTOCOL]).await?;
                if protocol != PROTOCOL {
                    return fail(format!("unable to negotiate protocol: client supports {PROTOCOL:?}, server returned {protocol:?}"));
                }
                Connection::client(stream)
            }
            Err(error) => return Err(error.into()),
        };
        Ok(Self { connection, requests: AtomicU64::new(0), given_up: Notify::new() })
    }

    /// Until the connection is no more.
    async fn lost(&self) {
        let alive = async {
            let mut signs = tokio::time::interval_at(tokio::time::Instant::now() + PING_PERIOD, PING_PERIOD);
            loop {
                signs.tick().await;
                if self.connection.ping().await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            () = self.connection.ended() => {}
            () = self.given_up.notified() => {}
            () = alive => {}
        }
    }

    async fn forward(&self, local: TcpStream, far: u16) -> Result<()> {
        let request = self.requests.fetch_add(1, Ordering::Relaxed).to_string();
        let headers = |kind| Headers::default().with("streamType", kind).with("port", &far.to_string()).with("requestID", &request);
        let refused = |kind, error| Error::Message(format!("error creating {kind} stream: {error}"));
        let (mut errors, said_nothing) = self.connection.open(headers("error")).await.map_err(|error| refused("error", error))?.split();
        said_nothing.finish().await;
        let (mut answers, input) = self.connection.open(headers("data")).await.map_err(|error| refused("forwarding", error))?.split();
        let (mut read, mut write) = local.into_split();
        let forth = async {
            let mut buffer = vec![0; CHUNK];
            while let Ok(length @ 1..) = read.read(&mut buffer).await {
                if input.send(Bytes::copy_from_slice(&buffer[..length])).await.is_err() {
                    return;
                }
            }
            input.finish().await;
            std::future::pending().await
        };
        let back = async {
            while let Some(data) = answers.next().await {
                if write.write_all(&data).await.is_err() {
                    return;
                }
            }
            // The program may still be sending, but nobody listens any more.
            let _ = write.shutdown().await;
        };
        tokio::select! {
            () = back => {}
            () = forth => {}
        }
        input.reset();
        let mut told = Vec::new();
        while let Some(data) = errors.next().await {
            told.extend_from_slice(&data);
        }
        if told.is_empty() { Ok(()) } else { fail(String::from_utf8_lossy(&told).into_owned()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn ports_by_number_and_name() {
        let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"ports": [{"name": "web", "containerPort": 8080}]}]}});
        let service = json!({"metadata": {"name": "s"}, "spec": {"clusterIP": "10.0.0.1", "ports": [{"name": "http", "port": 80, "targetPort": "web"}, {"port": 81, "targetPort": 9090}]}});
        let of_pod = |word: &str| ports(word, |far| pod_port(&pod, far)).map_err(|error| error.to_string());
        let of_service = |word: &str| ports(word, |far| service_port(&service, &pod, far)).map_err(|error| error.to_string());
        assert_eq!(of_pod("80"), Ok((80, 80)));
        assert_eq!(of_pod("5000:web"), Ok((5000, 8080)));
        assert_eq!(of_pod(":80"), Ok((0, 80)));
        assert_eq!(of_pod("abc"), Err("Pod 'p' does not have a named port 'abc'".to_owned()));
        assert_eq!(of_service("8000:80"), Ok((8000, 8080)));
        assert_eq!(of_service("81"), Ok((81, 9090)));
        assert_eq!(of_service("http"), Ok((8080, 8080)));
        assert_eq!(of_service("99"), Err("Service s does not have a service port 99".to_owned()));
        assert_eq!(of_service("1:x"), Err("Service 's' does not have a named port 'x'".to_owned()));
    }
}
