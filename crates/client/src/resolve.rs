//! Host names to addresses without the C library: literals, `/etc/hosts`, then one UDP question to the servers of `/etc/resolv.conf`.
//!
//! A static binary cannot use getaddrinfo. A record first, AAAA when there is none.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::net::UdpSocket;

const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(3);
const ANSWER_BYTES: usize = 4096;
const TYPE_A: u16 = 1;
const TYPE_AAAA: u16 = 28;

/// The words of Go's resolver, which people know.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    #[error("lookup {host} on {server}: no such host")]
    NoSuchHost { host: String, server: String },
    #[error("lookup {host}: {cause}")]
    Failed { host: String, cause: String },
}

pub async fn resolve(host: &str) -> Result<Vec<IpAddr>, ResolveError> {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if let Ok(address) = host.parse() {
        return Ok(vec![address]);
    }
    let known = in_hosts(&std::fs::read_to_string("/etc/hosts").unwrap_or_default(), host);
    if !known.is_empty() {
        return Ok(known);
    }
    if host == "localhost" || host.ends_with(".localhost") {
        return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
    }
    let configuration = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let (servers, search) = parse_resolv_conf(&configuration);
    let mut names = vec![host.trim_end_matches('.').to_owned()];
    if !host.contains('.') {
        names.splice(0..0, search.iter().map(|suffix| format!("{host}.{suffix}")));
    }
    let mut last = None;
    for server in &servers {
        for name in &names {
            for kind in [TYPE_A, TYPE_AAAA] {
                match ask(*server, name, kind).await {
                    Ok(found) if !found.is_empty() => return Ok(found),
                    Ok(_) => {}
                    Err(error) => last = Some(error.to_string()),
                }
            }
        }
        if last.is_none() {
            return Err(ResolveError::NoSuchHost { host: host.to_owned(), server: server.to_string() });
        }
    }
    Err(ResolveError::Failed { host: host.to_owned(), cause: last.unwrap_or_else(|| "no such host".to_owned()) })
}

fn in_hosts(text: &str, host: &str) -> Vec<IpAddr> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split('#').next().unwrap_or("").split_whitespace();
            let address = words.next()?.parse().ok()?;
            words.any(|word| word.eq_ignore_ascii_case(host)).then_some(address)
        })
        .collect()
}

fn parse_resolv_conf(text: &str) -> (Vec<SocketAddr>, Vec<String>) {
    let (mut servers, mut search) = (Vec::new(), Vec::new());
    for line in text.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => servers.extend(words.next().and_then(|word| word.parse::<IpAddr>().ok()).map(|address| SocketAddr::new(address, 53))),
            Some("search" | "domain") => search = words.map(str::to_owned).collect(),
            _ => {}
        }
    }
    if servers.is_empty() {
        servers.push(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 53));
    }
    (servers, search)
}

fn question(id: u16, name: &str, kind: u16) -> Option<Vec<u8>> {
    let mut packet = vec![];
    packet.extend(id.to_be_bytes());
    packet.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        packet.push(u8::try_from(label.len()).ok().filter(|length| (1..64).contains(length))?);
        packet.extend(label.as_bytes());
    }
    packet.push(0);
    packet.extend(kind.to_be_bytes());
    packet.extend([0, 1]);
    Some(packet)
}

async fn ask(server: SocketAddr, name: &str, kind: u16) -> std::io::Result<Vec<IpAddr>> {
    // Only to tell answers of this question from strays; the socket is connected, so no one else's arrive.
    let id = std::process::id() as u16 ^ kind;
    let Some(packet) = question(id, name, kind) else { return Ok(Vec::new()) };
    let any: SocketAddr = if server.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    let mut buffer = vec![0; ANSWER_BYTES];
    for _ in 0..2 {
        socket.send(&packet).await?;
        match tokio::time::timeout(ATTEMPT_TIMEOUT, socket.recv(&mut buffer)).await {
            Ok(received) => {
                let answer = &buffer[..received?];
                if answer.get(..2) == Some(&id.to_be_bytes()[..]) {
                    return Ok(addresses(answer).unwrap_or_default());
                }
            }
            Err(_) => continue,
        }
    }
    Err(std::io::Error::new(std::io::ErrorKind::TimedOut, "i/o timeout"))
}

/// None: not an answer we can read.
fn addresses(packet: &[u8]) -> Option<Vec<IpAddr>> {
    let word = |at: usize| Some(u16::from_be_bytes([*packet.get(at)?, *packet.get(at + 1)?]));
    let (questions, answers) = (word(4)?, word(6)?);
    let mut at = 12;
    for _ in 0..questions {
        at = skip_name(packet, at)? + 4;
    }
    let mut found = Vec::new();
    for _ in 0..answers {
        at = skip_name(packet, at)?;
        let (kind, length) = (word(at)?, usize::from(word(at + 8)?));
        let data = packet.get(at + 10..at + 10 + length)?;
        match kind {
            TYPE_A => found.push(IpAddr::from(<[u8; 4]>::try_from(data).ok()?)),
            TYPE_AAAA => found.push(IpAddr::from(<[u8; 16]>::try_from(data).ok()?)),
            _ => {}
        }
        at += 10 + length;
    }
    Some(found)
}

fn skip_name(packet: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *packet.get(at)? {
            0 => return Some(at + 1),
            pointer if pointer & 0xc0 == 0xc0 => return Some(at + 2),
            length => at += 1 + usize::from(length),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_hosts_and_answers() {
        assert_eq!(in_hosts("127.0.0.1 localhost\n10.0.0.9 Node1 node1.example # x\n", "node1"), ["10.0.0.9".parse::<IpAddr>().unwrap()]);
        let mut answer = question(7, "a.b", TYPE_A).unwrap();
        answer[7] = 1;
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4, 10, 1, 2, 3]);
        assert_eq!(addresses(&answer).unwrap(), ["10.1.2.3".parse::<IpAddr>().unwrap()]);
        assert_eq!(addresses(&answer[..20]), None);
    }
}
