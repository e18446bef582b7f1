//! Questions about the rest of the world: asked of the node's own resolvers, by a fresh port each, with a limit on everything.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::cache::{Cache, CacheRule, Key, refresh};
use crate::forward_tls::Secure;
use crate::wire::{HEADER, Question};

/// Questions under way at one time; beyond it the answer is SERVFAIL. Also what ends a forwarding loop.
pub const UNDER_WAY_MAX: usize = 512;
/// One try with one upstream.
const TRY: Duration = Duration::from_millis(1500);
/// All tries; stub resolvers give up at five seconds.
const ALL_TRIES: Duration = Duration::from_millis(4500);
/// How long an upstream that failed is asked last.
const SHUNNED: Duration = Duration::from_secs(10);
/// As resolv.conf(5): further name servers are ignored.
const UPSTREAMS_MAX: usize = 3;
const DNS_PORT: u16 = 53;

#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    #[error("no upstream name server")]
    NoUpstream,
    #[error("too many questions under way")]
    TooMany,
    #[error("no answer from upstream in time")]
    Timeout,
    #[error("upstream {0}: {1}")]
    Io(SocketAddr, io::Error),
}

/// Where the list of upstreams comes from.
enum Source {
    Fixed,
    /// Read again when it is another file than last time; looked at when a question is forwarded, not by a clock.
    File { path: PathBuf, seen: Option<(u64, i64, i64, u64)>, exclude: Vec<IpAddr> },
}

/// One of the name servers.
#[derive(Clone)]
pub struct Upstream {
    address: SocketAddr,
    secure: Option<Arc<Secure>>,
}

impl From<SocketAddr> for Upstream {
    fn from(address: SocketAddr) -> Self {
        Self { address, secure: None }
    }
}

impl Upstream {
    /// DNS over TLS. `name`: whose certificate is expected, unless it is to be for the address.
    pub fn secure(address: SocketAddr, config: Arc<rustls::ClientConfig>, name: Option<&str>) -> Option<Self> {
        Some(Self { address, secure: Some(Arc::new(Secure::new(address, config, name)?)) })
    }

    async fn exchange(&self, message: &[u8], question: &Question) -> io::Result<Vec<u8>> {
        match &self.secure {
            None => exchange(self.address, message, question).await,
            Some(secure) => {
                let asked = with_random_id(message);
                let answer = secure.exchange(&asked).await?;
                if answers(&answer, &asked, question) { Ok(answer) } else { Err(io::ErrorKind::InvalidData.into()) }
            }
        }
    }
}

struct State {
    source: Source,
    servers: Vec<Upstream>,
    shunned: Vec<(SocketAddr, Instant)>,
}

/// The name servers that know the rest of the world.
#[derive(Clone)]
pub struct Upstreams {
    state: Arc<Mutex<State>>,
    cache: Arc<Mutex<Cache>>,
    under_way: Arc<Semaphore>,
}

impl Upstreams {
    /// To be asked in that order.
    pub fn of(servers: Vec<Upstream>) -> Self {
        Self::with(Source::Fixed, servers)
    }

    /// The same servers, with a cache by that rule; what is kept by the same rule stays.
    pub fn kept_by(&self, rule: CacheRule) -> Self {
        let same = self.cache.lock().rule() == rule;
        if same { self.clone() } else { Self { cache: Arc::new(Mutex::new(Cache::new(rule))), ..self.clone() } }
    }

    pub fn fixed(servers: Vec<SocketAddr>) -> Self {
        Self::of(servers.into_iter().map(Upstream::from).collect())
    }

    pub fn none() -> Self {
        Self::fixed(Vec::new())
    }

    /// The `nameserver` lines of a resolv.conf, but those in `exclude`: our own addresses, or we would ask ourselves.
    pub fn resolv_conf(path: impl Into<PathBuf>, exclude: Vec<IpAddr>) -> Self {
        Self::with(Source::File { path: path.into(), seen: None, exclude }, Vec::new())
    }

    fn with(source: Source, servers: Vec<Upstream>) -> Self {
        let state = State { source, servers, shunned: Vec::new() };
        Self { state: Arc::new(Mutex::new(state)), cache: Arc::default(), under_way: Arc::new(Semaphore::new(UNDER_WAY_MAX)) }
    }

    /// Those to ask, in order.
    fn servers(&self, now: Instant) -> Vec<Upstream> {
        let mut state = self.state.lock();
        let State { source, servers, shunned } = &mut *state;
        if let Source::File { path, seen, exclude } = source {
            let now = std::fs::metadata(&*path).ok().map(|m| (m.ino(), m.mtime(), m.mtime_nsec(), m.len()));
            if *seen != now {
                *seen = now;
                *servers = std::fs::read_to_string(&*path).map(|text| parse(&text, exclude).into_iter().map(Upstream::from).collect()).unwrap_or_default();
            }
        }
        shunned.retain(|(_, since)| now.duration_since(*since) < SHUNNED);
        let mut servers = servers.clone();
        servers.sort_by_key(|s| shunned.iter().any(|(bad, _)| *bad == s.address));
        servers
    }

    /// Answers that are kept: of names that are, and of names that are not.
    pub fn kept(&self) -> (usize, usize) {
        self.cache.lock().kept()
    }

    /// The answer without asking, if it is still good. `buffer` then holds it.
    pub fn cached(&self, message: &[u8], question: &Question, buffer: &mut Vec<u8>) -> bool {
        let Some((kept, age)) = self.cache.lock().get(&Key::new(question), Instant::now()) else { return false };
        buffer.clear();
        buffer.extend_from_slice(&kept);
        refresh(buffer, message, question, age);
        true
    }

    /// The upstream's answer, as if to `message` itself. It may be longer than the asker's transport takes.
    pub async fn ask(&self, message: &[u8], question: &Question) -> Result<Vec<u8>, ForwardError> {
        let Ok(_permit) = self.under_way.try_acquire() else { return Err(ForwardError::TooMany) };
        let servers = self.servers(Instant::now());
        let mut last = ForwardError::NoUpstream;
        let all = async {
            for server in servers.iter().chain(&servers) {
                match timeout(TRY, server.exchange(message, question)).await {
                    Ok(Ok(answer)) => {
                        self.state.lock().shunned.retain(|(s, _)| *s != server.address);
                        return Ok(answer);
                    }
                    Ok(Err(error)) => last = ForwardError::Io(server.address, error),
                    Err(_) => last = ForwardError::Timeout,
                }
                let mut state = self.state.lock();
                state.shunned.retain(|(s, _)| *s != server.address);
                state.shunned.push((server.address, Instant::now()));
            }
            Err(last)
        };
        let mut answer = timeout(ALL_TRIES, all).await.unwrap_or(Err(ForwardError::Timeout))?;
        self.cache.lock().put(Key::new(question), &answer, Instant::now());
        refresh(&mut answer, message, question, 0);
        Ok(answer)
    }
}

fn parse(text: &str, exclude: &[IpAddr]) -> Vec<SocketAddr> {
    let words = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver")?.split_whitespace().next());
    // An IPv6 address may name its link ("fe80::1%eth0"), which only the node's own resolver can use.
    let addresses = words.filter_map(|word| word.parse::<IpAddr>().ok()).filter(|a| !exclude.contains(a));
    addresses.take(UPSTREAMS_MAX).map(|a| (a, DNS_PORT).into()).collect()
}

/// The same question under another number.
fn with_random_id(message: &[u8]) -> Vec<u8> {
    let mut asked = message.to_vec();
    asked[..2].copy_from_slice(&random_id().to_ne_bytes());
    asked
}

/// UDP, and TCP when the answer was cut.
async fn exchange(server: SocketAddr, message: &[u8], question: &Question) -> io::Result<Vec<u8>> {
    let any: SocketAddr = if server.is_ipv4() { ([0; 4], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    let asked = with_random_id(message);
    socket.send(&asked).await?;
    let mut answer = vec![0; 65_535];
    loop {
        let length = socket.recv(&mut answer).await?;
        if answers(&answer[..length], &asked, question) {
            answer.truncate(length);
            break;
        }
    }
    if answer[2] & 0x02 == 0 {
        return Ok(answer);
    }
    exchange_tcp(server, &asked, question).await
}

async fn exchange_tcp(server: SocketAddr, asked: &[u8], question: &Question) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let answer = framed(&mut stream, asked).await?;
    if answers(&answer, asked, question) { Ok(answer) } else { Err(io::ErrorKind::InvalidData.into()) }
}

/// A question and its answer on a stream, each with its length before it.
pub(crate) async fn framed<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, asked: &[u8]) -> io::Result<Vec<u8>> {
    let framed = [&(asked.len() as u16).to_be_bytes(), asked].concat();
    stream.write_all(&framed).await?;
    stream.flush().await?;
    let mut answer = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

/// Whether this is an answer to just that question.
fn answers(answer: &[u8], asked: &[u8], question: &Question) -> bool {
    let same_question = || {
        let question_of = |m: &[u8]| m.get(HEADER..HEADER + question.length).map(<[u8]>::to_ascii_lowercase);
        question_of(answer) == question_of(asked)
    };
    answer.len() >= HEADER && answer[..2] == asked[..2] && answer[2] & 0x80 != 0 && same_question()
}

/// Unpredictable to whoever would answer in an upstream's place: the standard library seeds its hash keys from the kernel.
fn random_id() -> u16 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(Instant::now()) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_of_a_resolv_conf() {
        let text = "# comment\nsearch example.com\nnameserver 10.96.0.10\n nameserver 192.0.2.53 # first\nnameserver fe80::1%eth0\nnameserver 2001:db8::53\nnameserver\noptions ndots:5\n";
        let expected: Vec<SocketAddr> = ["192.0.2.53:53", "[2001:db8::53]:53"].iter().map(|s| s.parse().expect("address")).collect();
        assert_eq!(parse(text, &["10.96.0.10".parse().expect("address")]), expected);
        assert!(parse("", &[]).is_empty());
    }
}
