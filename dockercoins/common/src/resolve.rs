//! Names to addresses without libc: literals, /etc/hosts, then DNS over UDP with the search list and ndots of
//! /etc/resolv.conf (resolv.conf(5)). Read anew on every call, as a name may mean something else a second later.

use std::fmt;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

const PORT: u16 = 53;
/// The defaults of resolv.conf(5).
const TIMEOUT: Duration = Duration::from_secs(5);
const ATTEMPTS: u32 = 2;
const A: u16 = 1;
const AAAA: u16 = 28;
const NAME_ERROR: u8 = 3;

#[derive(Debug)]
pub enum ResolveError {
    /// The name does not exist (or has no address).
    NotFound(String),
    /// No name server gave an answer.
    NoAnswer(String, String),
}

impl fmt::Display for ResolveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ResolveError::NotFound(name) => write!(f, "lookup {name}: Name or service not known"),
            ResolveError::NoAnswer(name, why) => write!(f, "lookup {name}: Temporary failure in name resolution ({why})"),
        }
    }
}

impl std::error::Error for ResolveError {}

#[derive(Debug, PartialEq)]
struct Config {
    servers: Vec<IpAddr>,
    search: Vec<String>,
    ndots: usize,
}

/// All addresses of a name, IPv4 first.
pub fn resolve(name: &str) -> Result<Vec<IpAddr>, ResolveError> {
    if let Ok(address) = name.trim_matches(['[', ']']).parse() {
        return Ok(vec![address]);
    }
    let found = in_hosts(&fs::read_to_string("/etc/hosts").unwrap_or_default(), name);
    if !found.is_empty() {
        return Ok(found);
    }
    let config = Config::parse(&fs::read_to_string("/etc/resolv.conf").unwrap_or_default());
    let servers: Vec<SocketAddr> = config.servers.iter().map(|s| SocketAddr::new(*s, PORT)).collect();
    query_all(name, &config, &servers)
}

fn query_all(name: &str, config: &Config, servers: &[SocketAddr]) -> Result<Vec<IpAddr>, ResolveError> {
    let mut failure = None;
    for candidate in config.candidates(name) {
        match query(&candidate, servers) {
            Ok(found) if !found.is_empty() => return Ok(found),
            Ok(_) => {}
            Err(e) => failure = Some(e.to_string()),
        }
    }
    Err(match failure {
        Some(why) => ResolveError::NoAnswer(name.to_owned(), why),
        None => ResolveError::NotFound(name.to_owned()),
    })
}

impl Config {
    fn parse(text: &str) -> Config {
        let mut config = Config { servers: Vec::new(), search: Vec::new(), ndots: 1 };
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => config.servers.extend(words.next().and_then(|w| w.split('%').next()?.parse::<IpAddr>().ok())),
                Some("search" | "domain") => config.search = words.map(|w| w.trim_end_matches('.').to_owned()).collect(),
                Some("options") => {
                    for word in words {
                        if let Some(n) = word.strip_prefix("ndots:").and_then(|n| n.parse().ok()) {
                            config.ndots = n;
                        }
                    }
                }
                _ => {}
            }
        }
        if config.servers.is_empty() {
            config.servers.push(Ipv4Addr::LOCALHOST.into());
        }
        config
    }

    /// The full names to ask for, in order.
    fn candidates(&self, name: &str) -> Vec<String> {
        if let Some(absolute) = name.strip_suffix('.') {
            return vec![absolute.to_owned()];
        }
        let mut names: Vec<String> = self.search.iter().map(|domain| format!("{name}.{domain}")).collect();
        let dots = name.matches('.').count();
        names.insert(if dots >= self.ndots { 0 } else { names.len() }, name.to_owned());
        names
    }
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

/// Asks for A and AAAA at once. `Ok(empty)`: no such name, or none with an address.
fn query(name: &str, servers: &[SocketAddr]) -> io::Result<Vec<IpAddr>> {
    let mut last = io::Error::other("no name server");
    for attempt in 0..ATTEMPTS {
        for server in servers {
            match ask(name, *server, attempt) {
                Ok(found) => return Ok(found),
                Err(e) => last = e,
            }
        }
    }
    Err(last)
}

fn ask(name: &str, server: SocketAddr, attempt: u32) -> io::Result<Vec<IpAddr>> {
    let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(server)?;
    // The port is random; the ids only tell the two answers apart.
    let id = (std::process::id() as u16).wrapping_mul(31).wrapping_add(attempt as u16) & !1;
    for (id, kind) in [(id, A), (id + 1, AAAA)] {
        socket.send(&question(id, name, kind).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?)?;
    }
    let deadline = Instant::now() + TIMEOUT;
    let mut answers: [Option<Vec<IpAddr>>; 2] = [None, None];
    let mut buffer = [0u8; 1500];
    while answers.iter().any(Option::is_none) {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        socket.set_read_timeout(Some(left))?;
        let n = socket.recv(&mut buffer).map_err(|e| match e.kind() {
            io::ErrorKind::WouldBlock => io::ErrorKind::TimedOut.into(),
            _ => e,
        })?;
        let Some((got, result)) = answer(&buffer[..n]) else { continue };
        if got & !1 == id {
            let addresses = result?;
            // IPv4 first: no need to wait for the other family.
            if got == id && !addresses.is_empty() {
                return Ok(addresses);
            }
            answers[usize::from(got & 1)] = Some(addresses);
        }
    }
    Ok(answers.into_iter().flatten().flatten().collect())
}

fn question(id: u16, name: &str, kind: u16) -> Option<Vec<u8>> {
    let mut packet = id.to_be_bytes().to_vec();
    // Recursion desired, one question.
    packet.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        let length = u8::try_from(label.len()).ok().filter(|n| (1..=63).contains(n))?;
        packet.push(length);
        packet.extend(label.as_bytes());
    }
    packet.push(0);
    packet.extend(kind.to_be_bytes());
    packet.extend([0, 1]);
    (packet.len() <= 255 + 18).then_some(packet)
}

/// Id and addresses of an answer; CNAMEs are followed by the server, so their records are passed over.
fn answer(packet: &[u8]) -> Option<(u16, io::Result<Vec<IpAddr>>)> {
    let word = |at: usize| Some(u16::from_be_bytes([*packet.get(at)?, *packet.get(at + 1)?]));
    let id = word(0)?;
    if packet.get(2)? & 0x80 == 0 {
        return None;
    }
    match packet.get(3)? & 0x0f {
        0 => {}
        NAME_ERROR => return Some((id, Ok(Vec::new()))),
        code => return Some((id, Err(io::Error::other(format!("server answered with code {code}"))))),
    }
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
            A => found.push(IpAddr::from(<[u8; 4]>::try_from(data).ok()?)),
            AAAA => found.push(IpAddr::from(<[u8; 16]>::try_from(data).ok()?)),
            _ => {}
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

    #[test]
    fn configuration() {
        let text = "# x\nnameserver 10.96.0.10\nnameserver fe80::1%eth0\nsearch default.svc.cluster.local svc.cluster.local\noptions ndots:5 edns0\n";
        let config = Config::parse(text);
        assert_eq!(config.servers, ["10.96.0.10".parse::<IpAddr>().unwrap(), "fe80::1".parse().unwrap()]);
        assert_eq!(config.candidates("rng"), ["rng.default.svc.cluster.local", "rng.svc.cluster.local", "rng"]);
        assert_eq!(config.candidates("a.b.c.d.e.f")[0], "a.b.c.d.e.f");
        assert_eq!(config.candidates("rng."), ["rng"]);
        assert_eq!(in_hosts("127.0.0.1 localhost # redis\n::1 LocalHost\n", "localhost").len(), 2);
        assert!(in_hosts("127.0.0.1 localhost # redis\n", "redis").is_empty());
    }

    /// A name server that knows one name, on loopback.
    #[test]
    fn asks_through_the_search_list() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap();
        std::thread::spawn(move || {
            let mut buffer = [0u8; 512];
            while let Ok((n, peer)) = server.recv_from(&mut buffer) {
                let mut reply = buffer[..n].to_vec();
                let known = reply.windows(8).any(|w| w == b"\x03rng\x03svc");
                let kind = u16::from_be_bytes([reply[n - 4], reply[n - 3]]);
                (reply[2], reply[3]) = (0x85, if known { 0x80 } else { 0x83 });
                if known && kind == A {
                    reply[7] = 1;
                    reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4, 10, 96, 1, 2]);
                }
                server.send_to(&reply, peer).unwrap();
            }
        });
        let config = Config { servers: vec![], search: vec!["default.svc".into(), "svc".into()], ndots: 5 };
        assert_eq!(query_all("rng", &config, &[address]).unwrap(), [IpAddr::from([10, 96, 1, 2])]);
        let error = query_all("redis", &config, &[address]).unwrap_err();
        assert_eq!(error.to_string(), "lookup redis: Name or service not known");
        assert!(matches!(query_all(&"x".repeat(64), &config, &[address]), Err(ResolveError::NoAnswer(..))));
    }

    #[test]
    fn damaged_answers_are_ignored() {
        let mut packet = question(7, "a.b", A).unwrap();
        packet[2] |= 0x80;
        packet[7] = 1;
        packet.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4, 1, 2, 3, 4]);
        assert_eq!(answer(&packet).unwrap().1.unwrap(), [IpAddr::from([1, 2, 3, 4])]);
        for end in 0..packet.len() {
            assert!(answer(&packet[..end]).is_none(), "cut at {end}");
        }
    }
}
