//! Host names to addresses without libc (a static glibc cannot load its name service modules): literals, /etc/hosts, then
//! one question to each name server of /etc/resolv.conf. Quick to give up: a pull is retried by whoever asked for it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::net::UdpSocket;

const DNS_PORT: u16 = 53;
const TIMEOUT: Duration = Duration::from_secs(2);
const TYPE_A: u16 = 1;
const TYPE_AAAA: u16 = 28;
const NAME_ERROR: u8 = 3;

pub async fn resolve(host: &str) -> io::Result<Vec<IpAddr>> {
    if let Ok(address) = host.trim_matches(['[', ']']).parse() {
        return Ok(vec![address]);
    }
    if host == "localhost" {
        return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
    }
    let hosts = tokio::fs::read_to_string("/etc/hosts").await.unwrap_or_default();
    let found = in_hosts(&hosts, host);
    if !found.is_empty() {
        return Ok(found);
    }
    let configuration = tokio::fs::read_to_string("/etc/resolv.conf").await.unwrap_or_default();
    let (servers, search) = parse_configuration(&configuration);
    let servers: Vec<SocketAddr> = servers.into_iter().map(|s| SocketAddr::new(s, DNS_PORT)).collect();
    let mut names = vec![host.to_owned()];
    // A registry may be named by its short name; others are not worth the questions.
    if !host.contains('.') {
        names.extend(search.iter().map(|domain| format!("{host}.{domain}")));
    }
    lookup(&names, &servers).await.map_err(|e| io::Error::new(e.kind(), format!("lookup {host}: {e}")))
}

async fn lookup(names: &[String], servers: &[SocketAddr]) -> io::Result<Vec<IpAddr>> {
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "no such host");
    for name in names {
        for server in servers {
            match tokio::time::timeout(TIMEOUT, ask(name, *server)).await {
                Ok(Ok(found)) if !found.is_empty() => return Ok(found),
                // This server knows: no need to ask another for the same name.
                Ok(Ok(_)) => break,
                Ok(Err(e)) => failure = io::Error::new(e.kind(), format!("{server}: {e}")),
                Err(_) => failure = io::Error::new(io::ErrorKind::TimedOut, format!("{server}: i/o timeout")),
            }
        }
    }
    Err(failure)
}

/// Both families from one server; empty when the name has no address.
async fn ask(name: &str, server: SocketAddr) -> io::Result<Vec<IpAddr>> {
    let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    // The random source port guards against forged answers; the ids tell the two apart.
    for (id, kind) in [(0x4300, TYPE_A), (0x4301, TYPE_AAAA)] {
        let question = question(id, name, kind).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not a host name"))?;
        socket.send(&question).await?;
    }
    let mut answers: [Option<Vec<IpAddr>>; 2] = [None, None];
    let mut buffer = [0u8; 1500];
    while answers.iter().any(Option::is_none) {
        let n = socket.recv(&mut buffer).await?;
        let Some((id, result)) = answer(&buffer[..n]) else { continue };
        if id & !1 == 0x4300 {
            answers[usize::from(id & 1)] = Some(result?);
        }
    }
    Ok(answers.into_iter().flatten().flatten().collect())
}

fn parse_configuration(text: &str) -> (Vec<IpAddr>, Vec<String>) {
    let (mut servers, mut search) = (Vec::new(), Vec::new());
    for line in text.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => servers.extend(words.next().and_then(|w| w.split('%').next()?.parse::<IpAddr>().ok())),
            Some("search" | "domain") => search = words.map(|w| w.trim_end_matches('.').to_owned()).collect(),
            _ => {}
        }
    }
    (servers, search)
}

fn in_hosts(text: &str, name: &str) -> Vec<IpAddr> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split('#').next()?.split_whitespace();
            let address: IpAddr = words.next()?.parse().ok()?;
            words.any(|word| word.eq_ignore_ascii_case(name)).then_some(address)
        })
        .collect()
}

fn question(id: u16, name: &str, kind: u16) -> Option<Vec<u8>> {
    let mut packet = id.to_be_bytes().to_vec();
    packet.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]); // recursion desired, one question
    for label in name.trim_end_matches('.').split('.') {
        packet.push(u8::try_from(label.len()).ok().filter(|n| (1..=63).contains(n))?);
        packet.extend(label.as_bytes());
    }
    packet.push(0);
    packet.extend(kind.to_be_bytes());
    packet.extend([0, 1]);
    (packet.len() <= 255 + 18).then_some(packet)
}

fn answer(packet: &[u8]) -> Option<(u16, io::Result<Vec<IpAddr>>)> {
    let word = |at: usize| Some(u16::from_be_bytes([*packet.get(at)?, *packet.get(at + 1)?]));
    let id = word(0)?;
    if packet.get(2)? & 0x80 == 0 {
        return None;
    }
    match packet.get(3)? & 0x0f {
        0 => {}
        NAME_ERROR => return Some((id, Ok(Vec::new()))),
        code => return Some((id, Err(io::Error::other(format!("server misbehaving (code {code})"))))),
    }
    let mut at = 12;
    for _ in 0..word(4)? {
        at = skip_name(packet, at)? + 4;
    }
    let mut found = Vec::new();
    for _ in 0..word(6)? {
        at = skip_name(packet, at)?;
        let length = usize::from(word(at + 8)?);
        let data = packet.get(at + 10..at + 10 + length)?;
        match word(at)? {
            TYPE_A => found.push(IpAddr::from(<[u8; 4]>::try_from(data).ok()?)),
            TYPE_AAAA => found.push(IpAddr::from(<[u8; 16]>::try_from(data).ok()?)),
            _ => {} // CNAMEs were followed by the server
        }
        at += 10 + length;
    }
    Some((id, Ok(found)))
}

fn skip_name(packet: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *packet.get(at)? {
            0 => return Some(at + 1),
            n if n & 0xc0 == 0xc0 => return Some(at + 2),
            n => at += 1 + usize::from(n),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn literals_and_servers() {
        assert_eq!(resolve("[::1]").await.unwrap(), [IpAddr::from(Ipv6Addr::LOCALHOST)]);
        assert_eq!(resolve("10.1.2.3").await.unwrap(), [IpAddr::from([10, 1, 2, 3])]);
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
        assert_eq!(lookup(&["known.example".into()], &[address]).await.unwrap(), [IpAddr::from([9, 8, 7, 6])]);
        let error = lookup(&["other.example".into()], &[address]).await.unwrap_err();
        assert_eq!(error.to_string(), "no such host");
        // Nobody listens: refused at once rather than waited for.
        let nobody = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        assert!(lookup(&["x.example".into()], &[nobody]).await.is_err());
    }
}
