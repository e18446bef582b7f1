//! The sockets: UDP and TCP on each address, answers from [`Records`] at once, everything else from upstream in a task of its own.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::cache;
use crate::forward::Upstreams;
use crate::records::{Outcome, Records};
use crate::wire::{self, Answer, Code, HEADER, Name, Question, Section, TCP_BYTES_MAX, UDP_BYTES_MAX, UDP_BYTES_MIN, Unreadable, kind};

/// Open TCP connections per address; the next one waits.
const CONNECTIONS_MAX: usize = 128;
/// A connection without a question is closed (RFC 7766).
const IDLE: Duration = Duration::from_secs(10);
/// Answers sent before other tasks get a turn.
const BURST: usize = 64;
/// An ExternalName may lead to another one.
const ALIASES_MAX: usize = 8;
/// Tasks that read one UDP socket.
const READERS: usize = 2;

#[derive(Debug, thiserror::Error)]
#[error("listen for DNS on {address}: {source}")]
pub struct BindError {
    pub address: SocketAddr,
    pub source: io::Error,
}

/// A running name server; it ends when dropped.
pub struct Server {
    addresses: Vec<SocketAddr>,
    _tasks: JoinSet<()>,
}

struct Shared {
    records: Arc<Records>,
    upstreams: Upstreams,
}

impl Server {
    /// Port 0 is any port, the same for UDP and TCP.
    pub async fn bind(addresses: &[SocketAddr], records: Arc<Records>, forward: Upstreams) -> Result<Self, BindError> {
        let shared = Arc::new(Shared { records, upstreams: forward });
        let mut tasks = JoinSet::new();
        let mut bound = Vec::new();
        for address in addresses {
            let failed = |source| BindError { address: *address, source };
            let listener = TcpListener::bind(address).await.map_err(failed)?;
            let address = listener.local_addr().map_err(failed)?;
            let socket = Arc::new(UdpSocket::bind(address).await.map_err(failed)?);
            bound.push(address);
            for _ in 0..READERS {
                tasks.spawn(serve_udp(socket.clone(), shared.clone()));
            }
            tasks.spawn(serve_tcp(listener, shared.clone()));
        }
        Ok(Self { addresses: bound, _tasks: tasks })
    }

    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }
}

async fn serve_udp(socket: Arc<UdpSocket>, shared: Arc<Shared>) {
    let mut message = vec![0; TCP_BYTES_MAX];
    let mut buffer = Vec::with_capacity(UDP_BYTES_MAX);
    loop {
        if let Err(error) = socket.readable().await {
            return tracing::error!(%error, "DNS over UDP ended");
        }
        for _ in 0..BURST {
            let (length, client) = match socket.try_recv_from(&mut message) {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // A former answer found nobody (ECONNREFUSED): not ours to mind.
                Err(_) => continue,
            };
            match shared.answer(&message[..length], UDP_BYTES_MIN, &mut buffer) {
                Now::Silence => {}
                // A full send buffer loses the answer, as UDP may; the asker asks again.
                Now::Ready => drop(socket.try_send_to(&buffer, client)),
                Now::Later(later) => {
                    let (socket, shared, message) = (socket.clone(), shared.clone(), message[..length].to_vec());
                    tokio::spawn(async move {
                        let answer = shared.ask(&message, &later).await;
                        let _ = socket.send_to(&answer, client).await;
                    });
                }
            }
        }
        tokio::task::yield_now().await;
    }
}

async fn serve_tcp(listener: TcpListener, shared: Arc<Shared>) {
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(permit) = connections.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let shared = shared.clone();
                tokio::spawn(async move {
                    // How a client ends its connection is its own affair.
                    let _ = serve_connection(stream, &shared).await;
                    drop(permit);
                });
            }
            Err(error) => {
                // Out of file descriptors, say: let others finish first.
                tracing::warn!(%error, "accept a DNS connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve_connection(mut stream: TcpStream, shared: &Shared) -> io::Result<()> {
    let mut message = Vec::new();
    let mut buffer = Vec::new();
    while let Ok(length) = timeout(IDLE, stream.read_u16()).await {
        message.resize(usize::from(length?), 0);
        timeout(IDLE, stream.read_exact(&mut message)).await??;
        match shared.answer(&message, TCP_BYTES_MAX, &mut buffer) {
            Now::Silence => return Ok(()),
            Now::Ready => {}
            Now::Later(later) => buffer = shared.ask(&message, &later).await,
        }
        let framed = [&(buffer.len() as u16).to_be_bytes(), buffer.as_slice()].concat();
        timeout(IDLE, stream.write_all(&framed)).await??;
    }
    Ok(())
}

/// What can be said without asking anybody.
enum Now {
    Silence,
    Ready,
    Later(Later),
}

struct Later {
    question: Question,
    /// Names the question's leads to, the last not ours.
    aliases: Vec<Vec<u8>>,
    limit: usize,
}

impl Shared {
    fn answer(&self, message: &[u8], least: usize, buffer: &mut Vec<u8>) -> Now {
        let question = match wire::read_question(message) {
            Ok(question) => question,
            Err(Unreadable::Ignore) => return Now::Silence,
            Err(Unreadable::Refuse(code)) => {
                wire::refuse(buffer, message, code);
                return Now::Ready;
            }
        };
        let limit = match question.edns {
            Some(edns) if least == UDP_BYTES_MIN => edns.udp_bytes.clamp(UDP_BYTES_MIN, UDP_BYTES_MAX),
            _ => least,
        };
        let mut answer = Answer::new(buffer, message, &question, limit, Code::NoError);
        if question.edns.is_some_and(|e| e.version != 0) {
            answer.finish(Code::BadVers);
            return Now::Ready;
        }
        let mut aliases = Vec::new();
        let mut asked = Question { ..question };
        loop {
            match self.records.answer(&asked, &mut answer) {
                Outcome::Answered => {
                    answer.finish(Code::NoError);
                    return Now::Ready;
                }
                Outcome::Alias(target) if aliases.len() < ALIASES_MAX => {
                    answer.alias(&target, crate::records::TTL_SECONDS);
                    if let Some(name) = Name::from_wire(&target) {
                        asked.name = name;
                    }
                    aliases.push(target);
                }
                Outcome::Alias(_) => {
                    answer.set_code(Code::ServFail);
                    answer.finish(Code::ServFail);
                    return Now::Ready;
                }
                Outcome::Elsewhere => break,
            }
        }
        if aliases.is_empty() {
            if is_single_label(&question) {
                // No upstream knows hosts at the root: say so at once rather than wait for it.
                answer.set_code(Code::NxDomain);
                answer.finish(Code::NxDomain);
                return Now::Ready;
            }
            if self.upstreams.cached(message, &question, buffer) {
                fit(buffer, message, &question, limit);
                return Now::Ready;
            }
        }
        Now::Later(Later { question, aliases, limit })
    }

    async fn ask(&self, message: &[u8], later: &Later) -> Vec<u8> {
        let question = &later.question;
        let Some(target) = later.aliases.last() else {
            return match self.upstreams.ask(message, question).await {
                Ok(mut answer) => {
                    fit(&mut answer, message, question, later.limit);
                    answer
                }
                Err(error) => {
                    tracing::debug!(%error, "forward a DNS question");
                    let mut buffer = Vec::new();
                    Answer::new(&mut buffer, message, question, later.limit, Code::ServFail).finish(Code::ServFail);
                    buffer
                }
            };
        };
        self.ask_alias(message, later, target).await
    }

    /// The aliases, then what upstream says about the last: a stub resolver does not follow them by itself.
    async fn ask_alias(&self, message: &[u8], later: &Later, target: &[u8]) -> Vec<u8> {
        let asked = query(message, target, later.question.kind);
        let upstream = match wire::read_question(&asked) {
            Ok(question) => self.upstreams.ask(&asked, &question).await.ok(),
            Err(_) => None,
        };
        let mut buffer = Vec::new();
        let mut answer = Answer::new(&mut buffer, message, &later.question, later.limit, Code::NoError);
        answer.authoritative();
        for alias in &later.aliases {
            answer.alias(alias, crate::records::TTL_SECONDS);
        }
        let mut code = Code::ServFail;
        if let Some(upstream) = &upstream {
            code = if upstream[3] & 0x0f == Code::NxDomain as u8 { Code::NxDomain } else { Code::NoError };
            for (owner, record) in cache::answers(upstream) {
                let data = match record.kind {
                    kind::CNAME => wire::expand_name(upstream, record.data_at),
                    // Types whose data holds no names.
                    kind::A | kind::AAAA | kind::TXT => upstream.get(record.data_at..record.end).map(<[u8]>::to_vec),
                    _ => None,
                };
                if let Some(data) = data {
                    answer.record(Section::Answer, Some(&owner), record.kind, record.ttl.min(cache::SECONDS_MAX), |b| b.extend_from_slice(&data));
                }
            }
        }
        answer.set_code(code);
        answer.finish(code);
        buffer
    }
}

fn is_single_label(question: &Question) -> bool {
    question.name.len() == 1 && matches!(question.kind, kind::A | kind::AAAA)
}

/// A question of our own about another name.
fn query(message: &[u8], name: &[u8], kind: u16) -> Vec<u8> {
    let mut asked = vec![message[0], message[1], 0x01, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    asked.extend_from_slice(name);
    asked.extend_from_slice(&kind.to_be_bytes());
    asked.extend_from_slice(&wire::CLASS_IN.to_be_bytes());
    asked
}

/// Cuts an upstream's answer down to its question, marked as cut, when the asker cannot take it whole.
fn fit(answer: &mut Vec<u8>, message: &[u8], question: &Question, limit: usize) {
    if answer.len() <= limit {
        return;
    }
    let code = answer[3] & 0x0f;
    Answer::new(answer, message, question, limit, Code::NoError).finish(Code::NoError);
    answer[2] |= 0x02;
    answer[3] |= code;
    debug_assert!(answer.len() >= HEADER);
}
