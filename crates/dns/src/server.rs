//! The sockets: UDP and TCP on each address, answers from [`Records`] at once, everything else from upstream in a task of its own.
//!
//! UDP is answered by threads, not tasks: each has a socket of its own on the port and works through batches ([`crate::udp`]); none is woken by another.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::cache;
use crate::forward::{ForwardError, Upstreams};
use crate::metrics::{By, Metrics, Shard, Transport};
use crate::records::{Outcome, Records};
use crate::noted::Noting;
use crate::routing::{Route, Routing, Table};
use crate::udp::{self, Batch};
use crate::wire::{self, Answer, Code, HEADER, Name, Question, Section, TCP_BYTES_MAX, UDP_BYTES_MAX, UDP_BYTES_MIN, Unreadable, kind};

/// Open TCP connections per address; the next one waits.
const CONNECTIONS_MAX: usize = 128;
/// A connection without a question is closed (RFC 7766).
const IDLE: Duration = Duration::from_secs(10);
/// An ExternalName may lead to another one.
const ALIASES_MAX: usize = 8;
/// Threads for the UDP of one address: more processors have better things to do.
const THREADS_MAX: usize = 4;
const STACK_BYTES: usize = 256 << 10;

#[derive(Debug, thiserror::Error)]
#[error("listen for DNS on {address}: {source}")]
pub struct BindError {
    pub address: SocketAddr,
    pub source: io::Error,
}

/// A running name server; it ends when dropped.
pub struct Server {
    addresses: Vec<SocketAddr>,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
    threads: Vec<JoinHandle<()>>,
    /// Closed, it ends the threads.
    end: Option<io::PipeWriter>,
}

impl Drop for Server {
    /// Returns when the port is free: who binds it anew is not to share it with us.
    fn drop(&mut self) {
        drop(self.end.take());
        for thread in self.threads.drain(..) {
            // One that panicked has said so.
            let _ = thread.join();
        }
    }
}

struct Shared {
    records: Arc<Records>,
    routing: Routing,
    metrics: Metrics,
    noting: Noting,
}

impl Server {
    /// Port 0 is any port, the same for UDP and TCP.
    pub async fn bind(addresses: &[SocketAddr], records: Arc<Records>, forward: Upstreams) -> Result<Self, BindError> {
        let shared = Arc::new(Shared { records, routing: Routing::new(forward), metrics: Metrics::default(), noting: Noting::default() });
        let (reader, writer) = io::pipe().map_err(|source| BindError { address: ([0; 4], 0).into(), source })?;
        let mut server = Self { addresses: Vec::new(), shared: shared.clone(), _tasks: JoinSet::new(), threads: Vec::new(), end: Some(writer) };
        let count = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX);
        for address in addresses {
            let failed = |source| BindError { address: *address, source };
            // TCP first: it does not share, so another's server is noticed.
            let listener = TcpListener::bind(address).await.map_err(failed)?;
            let address = listener.local_addr().map_err(failed)?;
            server.addresses.push(address);
            for number in 0..count {
                let socket = Arc::new(udp::bind(address).map_err(failed)?);
                let (shared, runtime, end) = (shared.clone(), Handle::current(), OwnedFd::from(reader.try_clone().map_err(failed)?));
                let thread = std::thread::Builder::new().name(format!("dns-{number}")).stack_size(STACK_BYTES);
                server.threads.push(thread.spawn(move || serve_udp(&socket, &shared, &runtime, &end)).map_err(failed)?);
            }
            server._tasks.spawn(serve_tcp(listener, shared.clone()));
        }
        Ok(server)
    }

    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// By which it is told where questions about the rest of the world go from now on.
    pub fn routes(&self) -> impl Fn(Table) + Send + Sync + use<> {
        let shared = self.shared.clone();
        move |table| shared.routing.set(table)
    }

    /// A look at the counters, for whoever serves them.
    pub fn metrics_text(&self) -> impl Fn() -> String + Send + Sync + use<> {
        let shared = self.shared.clone();
        move || shared.metrics.text(shared.routing.kept())
    }
}

fn serve_udp(socket: &Arc<UdpSocket>, shared: &Arc<Shared>, runtime: &Handle, end: &OwnedFd) {
    let shard = shared.metrics.shard();
    let mut batch = Batch::new(UDP_BYTES_MAX);
    loop {
        let count = match batch.receive(socket) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => match udp::wait(socket, end.as_fd()) {
                Ok(true) => continue,
                Ok(false) => return,
                Err(error) => return tracing::error!(%error, "DNS over UDP ended"),
            },
            // A former answer found nobody (ECONNREFUSED): not ours to mind.
            Err(_) => continue,
        };
        let begun = Instant::now();
        for i in 0..count {
            let client = batch.client(i);
            let (message, buffer) = batch.turn(i);
            buffer.clear();
            match shared.answer(message, Transport::Udp, client.is_none_or(|client| client.is_ipv4()), &shard, buffer) {
                Now::Silence => buffer.clear(),
                Now::Ready(by) => {
                    shared.note(client, Transport::Udp, message, buffer, begun);
                    shard.response(Transport::Udp, by, buffer, begun.elapsed());
                }
                Now::Later(later) => {
                    buffer.clear();
                    let Some(client) = client else { continue };
                    let (socket, shared, shard, message) = (socket.clone(), shared.clone(), shard.clone(), message.to_vec());
                    runtime.spawn(async move {
                        let answer = shared.ask(&message, &later, &shard).await;
                        shared.note(Some(client), Transport::Udp, &message, &answer, begun);
                        shard.response(Transport::Udp, By::Forward, &answer, begun.elapsed());
                        // A full send buffer loses the answer, as UDP may; the asker asks again.
                        let _ = socket.send_to(&answer, client);
                    });
                }
            }
        }
        batch.send(socket, count);
    }
}

async fn serve_tcp(listener: TcpListener, shared: Arc<Shared>) {
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let shard = shared.metrics.shard();
    loop {
        let Ok(permit) = connections.clone().acquire_owned().await else { return };
        let (stream, client) = basics::listen::accept(&listener, "DNS over TCP").await;
        let (shared, shard) = (shared.clone(), shard.clone());
        tokio::spawn(async move {
            // How a client ends its connection is its own affair.
            let _ = serve_connection(stream, client, &shared, &shard).await;
            drop(permit);
        });
    }
}

async fn serve_connection(mut stream: TcpStream, client: SocketAddr, shared: &Shared, shard: &Shard) -> io::Result<()> {
    let mut message = Vec::new();
    let mut buffer = Vec::new();
    while let Ok(length) = timeout(IDLE, stream.read_u16()).await {
        message.resize(usize::from(length?), 0);
        timeout(IDLE, stream.read_exact(&mut message)).await??;
        let begun = Instant::now();
        let by = match shared.answer(&message, Transport::Tcp, client.is_ipv4(), shard, &mut buffer) {
            Now::Silence => return Ok(()),
            Now::Ready(by) => by,
            Now::Later(later) => {
                buffer = shared.ask(&message, &later, shard).await;
                By::Forward
            }
        };
        shared.note(Some(client), Transport::Tcp, &message, &buffer, begun);
        shard.response(Transport::Tcp, by, &buffer, begun.elapsed());
        let framed = [&(buffer.len() as u16).to_be_bytes(), buffer.as_slice()].concat();
        timeout(IDLE, stream.write_all(&framed)).await??;
    }
    Ok(())
}

/// What can be said without asking anybody.
enum Now {
    Silence,
    Ready(By),
    Later(Later),
}

struct Later {
    question: Question,
    /// Names the question's leads to, the last not ours.
    aliases: Vec<Vec<u8>>,
    /// The first of them is asked for in place of the question's, and is not told.
    rewritten: bool,
    limit: usize,
    to: Upstreams,
}

impl Shared {
    /// Tells of a question, if its zone says so.
    fn note(&self, client: Option<SocketAddr>, transport: Transport, message: &[u8], answer: &[u8], begun: Instant) {
        if !self.routing.tells() {
            return;
        }
        let Ok(question) = wire::read_question(message) else { return };
        if self.routing.noted(&question.name).questions {
            self.noting.question(client, transport, &question, message, answer, begun.elapsed());
        }
    }

    fn answer(&self, message: &[u8], transport: Transport, ipv4: bool, shard: &Shard, buffer: &mut Vec<u8>) -> Now {
        let question = match wire::read_question(message) {
            Ok(question) => question,
            Err(Unreadable::Ignore) => return Now::Silence,
            Err(Unreadable::Refuse(code)) => {
                shard.request(transport, ipv4, None, message.len());
                wire::refuse(buffer, message, code);
                return Now::Ready(By::Nobody);
            }
        };
        shard.request(transport, ipv4, Some(question.kind), message.len());
        let limit = match (transport, question.edns) {
            (Transport::Tcp, _) => TCP_BYTES_MAX,
            (Transport::Udp, Some(edns)) => edns.udp_bytes.clamp(UDP_BYTES_MIN, UDP_BYTES_MAX),
            (Transport::Udp, None) => UDP_BYTES_MIN,
        };
        let mut answer = Answer::new(buffer, message, &question, limit, Code::NoError);
        if question.edns.is_some_and(|e| e.version != 0) {
            answer.finish(Code::BadVers);
            return Now::Ready(By::Nobody);
        }
        let mut aliases = Vec::new();
        let mut asked = Question { ..question };
        if let Some(target) = self.routing.rewritten(&question.name)
            && let Some(name) = Name::from_wire(&target)
        {
            asked.name = name;
            aliases.push(target);
        }
        let rewritten = !aliases.is_empty();
        if let Some((code, by)) = self.routing.early(&asked, &mut answer) {
            answer.set_code(code);
            answer.finish(code);
            return Now::Ready(by);
        }
        loop {
            match self.records.answer(&asked, &mut answer) {
                Outcome::Answered => {
                    answer.finish(Code::NoError);
                    return Now::Ready(By::Kubernetes);
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
                    return Now::Ready(By::Kubernetes);
                }
                Outcome::Elsewhere => break,
            }
        }
        let to = match self.routing.of(&asked, &mut answer) {
            Route::Answered => {
                answer.finish(Code::NoError);
                return Now::Ready(By::Hosts);
            }
            Route::Failed => {
                answer.set_code(Code::ServFail);
                answer.finish(Code::ServFail);
                return Now::Ready(By::Hosts);
            }
            Route::To(upstreams) => upstreams,
        };
        if aliases.is_empty() {
            if is_single_label(&question) {
                // No upstream knows hosts at the root: say so at once rather than wait for it.
                answer.set_code(Code::NxDomain);
                answer.finish(Code::NxDomain);
                return Now::Ready(By::Nobody);
            }
            let kept = to.cached(message, &question, buffer);
            shard.cache(kept.then_some(buffer.as_slice()));
            if kept {
                fit(buffer, message, &question, limit);
                return Now::Ready(By::Cache);
            }
        }
        Now::Later(Later { question, aliases, rewritten, limit, to })
    }

    async fn ask(&self, message: &[u8], later: &Later, shard: &Shard) -> Vec<u8> {
        let question = &later.question;
        let Some(target) = later.aliases.last() else {
            return match later.to.ask(message, question).await {
                Ok(mut answer) => {
                    fit(&mut answer, message, question, later.limit);
                    answer
                }
                Err(error) => {
                    if self.routing.noted(&question.name).errors {
                        self.noting.error(question, &error);
                    }
                    if matches!(error, ForwardError::TooMany) {
                        shard.rejected();
                    }
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
            Ok(question) => later.to.ask(&asked, &question).await.ok(),
            Err(_) => None,
        };
        let mut buffer = Vec::new();
        let mut answer = Answer::new(&mut buffer, message, &later.question, later.limit, Code::NoError);
        answer.authoritative();
        for alias in later.aliases.iter().skip(usize::from(later.rewritten)) {
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
                // What was asked under another name is answered under the question's.
                let own = later.rewritten && later.aliases.len() == 1 && owner.eq_ignore_ascii_case(target);
                if let Some(data) = data {
                    answer.record(Section::Answer, (!own).then_some(owner.as_slice()), record.kind, record.ttl.min(cache::SECONDS_MAX), |b| b.extend_from_slice(&data));
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
