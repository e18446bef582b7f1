#![doc = include_str!("../README.md")]
//!
//! The table of contents of the resolver, and its one function; the page before is its README.

mod files;
mod message;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::net::UdpSocket;

use message::Kind;

/// How long one server may take for one name. Whoever dials tries again by itself, so this gives up early.
const SERVER_TIMEOUT: Duration = Duration::from_secs(2);
/// An answer over UDP without extensions has 512 bytes; some servers send more.
const MAX_ANSWER_BYTES: usize = 4096;
const DNS_PORT: u16 = 53;

/// In the words of Go's resolver, which people know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    #[error("lookup {host}{}: no such host", on(.server))]
    NoSuchHost { host: String, server: Option<SocketAddr> },
    #[error("lookup {host}{}: {cause}", on(.server))]
    Failed { host: String, server: Option<SocketAddr>, cause: String },
}

fn on(server: &Option<SocketAddr>) -> String {
    server.map(|server| format!(" on {server}")).unwrap_or_default()
}

/// The addresses of a host, those of IPv4 first. Never empty.
pub async fn resolve(host: &str) -> Result<Vec<IpAddr>, ResolveError> {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if let Ok(address) = host.parse() {
        return Ok(vec![address]);
    }
    let known = files::hosts(&std::fs::read_to_string("/etc/hosts").unwrap_or_default(), host);
    if !known.is_empty() {
        return Ok(known);
    }
    // RFC 6761: never asked of anyone.
    if host == "localhost" || host.ends_with(".localhost") {
        return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
    }
    let configuration = files::resolv_conf(&std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default());
    let servers: Vec<SocketAddr> = configuration.servers.iter().map(|address| SocketAddr::new(*address, DNS_PORT)).collect();
    lookup(host, &configuration.names(host), &servers).await
}

/// The first of the names that has addresses.
async fn lookup(host: &str, names: &[String], servers: &[SocketAddr]) -> Result<Vec<IpAddr>, ResolveError> {
    let mut failure = None;
    let mut answered = None;
    for name in names {
        for server in servers {
            let failed = |cause: String| ResolveError::Failed { host: host.to_owned(), server: Some(*server), cause };
            match tokio::time::timeout(SERVER_TIMEOUT, ask(name, *server)).await {
                Ok(Ok(found)) if !found.is_empty() => return Ok(found),
                // This server knows: no need to ask another for the same name.
                Ok(Ok(_)) => {
                    answered = Some(*server);
                    break;
                }
                Ok(Err(error)) => failure = Some(failed(error.to_string())),
                Err(_) => failure = Some(failed("i/o timeout".to_owned())),
            }
        }
    }
    Err(failure.unwrap_or_else(|| ResolveError::NoSuchHost { host: host.to_owned(), server: answered }))
}

/// Both families from one server; empty when the name has no address.
async fn ask(name: &str, server: SocketAddr) -> io::Result<Vec<IpAddr>> {
    let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    // The random source port guards against forged answers; the ids tell the two answers apart.
    let kinds = [(0x4300, Kind::A), (0x4301, Kind::Aaaa)];
    for (id, kind) in kinds {
        let question = message::question(id, name, kind).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not a host name"))?;
        socket.send(&question).await?;
    }
    let mut answers: [Option<Vec<IpAddr>>; 2] = [None, None];
    let mut buffer = [0; MAX_ANSWER_BYTES];
    while answers.iter().any(Option::is_none) {
        let length = socket.recv(&mut buffer).await?;
        let Some((id, outcome)) = message::answer(&buffer[..length]) else { continue };
        if let Some(at) = kinds.iter().position(|(asked, _)| *asked == id) {
            answers[at] = Some(outcome.map_err(|code| io::Error::other(format!("server misbehaving (code {code})")))?);
        }
    }
    Ok(answers.into_iter().flatten().flatten().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn literals() {
        assert_eq!(resolve("[::1]").await, Ok(vec![Ipv6Addr::LOCALHOST.into()]));
        assert_eq!(resolve("10.1.2.3").await, Ok(vec![[10, 1, 2, 3].into()]));
    }

    #[tokio::test]
    async fn servers_are_asked() {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = server.local_addr().unwrap();
        tokio::spawn(async move {
            let mut buffer = [0u8; 512];
            while let Ok((n, peer)) = server.recv_from(&mut buffer).await {
                let mut reply = buffer[..n].to_vec();
                let known = reply.windows(6).any(|w| w == b"\x05known");
                (reply[2], reply[3]) = (0x85, if known { 0x80 } else { 0x83 });
                if known && reply[n - 3] == 1 {
                    reply[7] = 1;
                    reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4, 9, 8, 7, 6]);
                }
                server.send_to(&reply, peer).await.unwrap();
            }
        });
        let found: Vec<IpAddr> = vec![[9, 8, 7, 6].into()];
        assert_eq!(lookup("known", &["other.example".into(), "known.example".into()], &[address]).await, Ok(found));
        let error = lookup("other", &["other.example".into()], &[address]).await.unwrap_err();
        assert_eq!(error.to_string(), format!("lookup other on {address}: no such host"));
        // Nobody listens: refused at once rather than waited for.
        let nobody = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        assert!(matches!(lookup("x", &["x.example".into()], &[nobody]).await, Err(ResolveError::Failed { .. })));
        assert_eq!(lookup("x", &["x".into()], &[]).await.unwrap_err().to_string(), "lookup x: no such host");
    }
}
