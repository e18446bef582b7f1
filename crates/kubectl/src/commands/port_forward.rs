//! `kubectl port-forward`: local ports that end in a pod.
//!
//! Mirrors k8s.io/kubectl/pkg/cmd/portforward and client-go/tools/portforward. One WebSocket (`v4.channel.k8s.io`) for each connection: channel 0 carries data,
//! channel 1 what went wrong; the first message of each is the port's number.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::changing::usage;
use super::pods::{self, array, text as at};
use crate::builder::Found;
use crate::command::command;
use crate::error::{Error, Result, fail};
use crate::flags::{Args, Flag, list, text};
use crate::output;
use crate::session::{Query, Session};

const FLAGS: &[Flag] = &[
    list("address", "Addresses to listen on (comma separated). Only accepts IP addresses or localhost as a value."),
    text("pod-running-timeout", "1m0s", "The length of time (like 5s, 2m, or 3h, higher than zero) to wait until at least one pod is running"),
];

command!(PORT_FORWARD, "port-forward", [], "TYPE/NAME [options] [LOCAL_PORT:]REMOTE_PORT [...[LOCAL_PORT_N:]REMOTE_PORT_N]", "Forward one or more local ports to a pod", [FLAGS], run);

const PROTOCOLS: &[&str] = &["v4.channel.k8s.io"];
const DATA: u8 = 0;
const ERROR: u8 = 1;
const CHUNK: usize = 32 * 1024;
/// After the local side has said its last word, the pod may be silent for this long before the connection is given up: the protocol cannot tell it that nothing more comes.
const HALF_CLOSED_PATIENCE: Duration = Duration::from_secs(10);

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
    futures_util::future::try_join_all(listeners.iter().map(|(listener, far)| accept(session, &path, listener, *far))).await.map(drop)
}

/// Serves one listener; its connections live and die on their own.
async fn accept(session: &Session, path: &str, listener: &TcpListener, far: u16) -> Result<()> {
    let local = listener.local_addr()?.port();
    let http = session.http()?.clone();
    let path = Query::of(path).with("ports", &far.to_string()).end();
    loop {
        let (connection, _) = listener.accept().await?;
        output::line(format!("Handling connection for {local}"));
        let (http, path) = (http.clone(), path.clone());
        tokio::spawn(async move {
            if let Err(error) = forward(&http, &path, connection).await {
                output::complain(format!("E portforward: an error occurred forwarding {local} -> {far}: {error}"));
            }
        });
    }
}

async fn forward(http: &client::HttpClient, path: &str, connection: TcpStream) -> Result<()> {
    let (mut outgoing, mut incoming) = http.websocket(path, PROTOCOLS).await?.split();
    let (mut read, mut write) = connection.into_split();
    let mut buffer = vec![0; CHUNK];
    let mut reading = true;
    // The first message of each channel is the port's number.
    let mut greeted = [false; 2];
    loop {
        tokio::select! {
            message = incoming.next() => {
                let Some(message) = message else { return Ok(()) };
                let (channel, data) = message?;
                if let Some(greeted) = greeted.get_mut(usize::from(channel)) && !*greeted {
                    *greeted = true;
                    continue;
                }
                match channel {
                    DATA => if write.write_all(&data).await.is_err() { break },
                    ERROR if !data.is_empty() => return fail(String::from_utf8_lossy(&data).into_owned()),
                    _ => {}
                }
            }
            length = read.read(&mut buffer), if reading => match length {
                Ok(length @ 1..) => outgoing.send(DATA, &buffer[..length]).await?,
                Ok(0) => reading = false,
                Err(_) => break,
            },
            () = tokio::time::sleep(HALF_CLOSED_PATIENCE), if !reading => break,
        }
    }
    outgoing.close().await;
    Ok(())
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
