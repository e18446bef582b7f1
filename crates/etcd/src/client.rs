//! The client: one connection at a time, to whichever member answers, and to the next one when it does not.

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::body::{Messages, framed};
use crate::connection::{Connection, Endpoint};
use crate::error::Error;
use crate::messages::{self, Range, RangeAnswer, Status, Transaction, TransactionAnswer};
use crate::watch::Watching;

/// A member that takes longer to connect to is not the one to ask.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// One try at one member; etcd itself gives up on a proposal after 7 s.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(8);
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// Finds the addresses of a host: how is the caller's business.
pub type Resolve = Arc<dyn Fn(String) -> Pin<Box<dyn Future<Output = Result<Vec<IpAddr>, String>> + Send>> + Send + Sync>;

#[derive(Clone)]
pub struct Config {
    pub endpoints: Vec<String>,
    /// For endpoints of `https://`.
    pub tls: Option<Arc<rustls::ClientConfig>>,
    pub resolve: Resolve,
}

struct Inner {
    endpoints: Vec<Endpoint>,
    tls: Option<Arc<rustls::ClientConfig>>,
    resolve: Resolve,
    current: Mutex<Option<Connection>>,
    /// One attempt to connect at a time.
    connecting: tokio::sync::Mutex<()>,
    /// Which endpoint is tried next.
    next: AtomicUsize,
    connections: AtomicU64,
}

/// Cheap to clone.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

impl Client {
    /// Connects when something is asked first.
    pub fn new(config: Config) -> Result<Self, Error> {
        let endpoints = config.endpoints.iter().map(|text| Endpoint::parse(text)).collect::<Result<Vec<_>, _>>()?;
        if endpoints.is_empty() {
            return Err(Error::Config("no etcd endpoint".into()));
        }
        if config.tls.is_none() && endpoints.iter().any(|endpoint| endpoint.secure) {
            return Err(Error::Config("an etcd endpoint is https, but no authority for its certificate is named".into()));
        }
        // Several clients do not all go to the same member.
        let next = AtomicUsize::new(std::process::id() as usize);
        let inner = Inner { endpoints, tls: config.tls, resolve: config.resolve, current: Mutex::default(), connecting: tokio::sync::Mutex::default(), next, connections: AtomicU64::new(0) };
        Ok(Self { inner: Arc::new(inner) })
    }

    async fn connection(&self) -> Result<Connection, Error> {
        let open = || self.inner.current.lock().clone().filter(|connection| !connection.is_closed());
        if let Some(connection) = open() {
            return Ok(connection);
        }
        let _turn = self.inner.connecting.lock().await;
        if let Some(connection) = open() {
            return Ok(connection);
        }
        let mut failures = Vec::new();
        for _ in 0..self.inner.endpoints.len() {
            let index = self.inner.next.load(Ordering::Relaxed) % self.inner.endpoints.len();
            let endpoint = &self.inner.endpoints[index];
            let connect = async {
                let addresses = (self.inner.resolve)(endpoint.host.clone()).await.map_err(Error::Connect)?;
                Connection::open(endpoint, addresses, self.inner.tls.as_ref(), self.inner.connections.fetch_add(1, Ordering::Relaxed)).await
            };
            match timeout(CONNECT_TIMEOUT, connect).await {
                Ok(Ok(connection)) => {
                    *self.inner.current.lock() = Some(connection.clone());
                    return Ok(connection);
                }
                Ok(Err(error)) => failures.push(error.to_string()),
                Err(_) => failures.push(format!("dial tcp {}:{}: i/o timeout", endpoint.host, endpoint.port)),
            }
            self.inner.next.fetch_add(1, Ordering::Relaxed);
        }
        Err(Error::Connect(failures.join("; ")))
    }

    /// The next request goes to another member.
    fn leave(&self, connection: &Connection) {
        let mut current = self.inner.current.lock();
        if current.as_ref().is_some_and(|current| current.id == connection.id) {
            *current = None;
            self.inner.next.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// One try. What it means that it failed is for the caller to judge.
    async fn once(&self, path: &str, message: Bytes) -> Result<Bytes, Error> {
        let connection = self.connection().await?;
        let outcome = timeout(ATTEMPT_TIMEOUT, connection.unary(path, message)).await.unwrap_or(Err(Error::Timeout));
        if outcome.as_ref().is_err_and(Error::is_passing) {
            self.leave(&connection);
        }
        outcome
    }

    /// For what may be asked twice: again, at the other members, until `deadline`.
    async fn patiently(&self, path: &str, message: &[u8], deadline: Instant) -> Result<Bytes, Error> {
        let message = framed(message);
        let mut pause = FIRST_PAUSE;
        let mut last = Error::Timeout;
        loop {
            match timeout_at(deadline, self.once(path, message.clone())).await {
                Ok(Err(error)) if error.is_passing() => last = error,
                Ok(done) => return done,
                Err(_) => return Err(last),
            }
            if Instant::now() + pause >= deadline {
                return Err(last);
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Linearizable.
    pub async fn range(&self, range: &Range, deadline: Instant) -> Result<RangeAnswer, Error> {
        messages::range_answer(self.patiently("/etcdserverpb.KV/Range", &range.encode(), deadline).await?)
    }

    /// Tried once: see [`Error::nothing_done`].
    pub async fn transaction(&self, transaction: &Transaction) -> Result<TransactionAnswer, Error> {
        messages::transaction_answer(self.once("/etcdserverpb.KV/Txn", framed(&transaction.encode())).await?)
    }

    pub async fn compact(&self, revision: u64, deadline: Instant) -> Result<(), Error> {
        self.patiently("/etcdserverpb.KV/Compact", &messages::compact(revision), deadline).await.map(drop)
    }

    /// A new lease's id. One that nobody learns of ends by itself.
    pub async fn grant(&self, seconds: u64, deadline: Instant) -> Result<u64, Error> {
        messages::grant_answer(self.patiently("/etcdserverpb.Lease/LeaseGrant", &messages::grant(seconds), deadline).await?)
    }

    pub async fn status(&self, deadline: Instant) -> Result<Status, Error> {
        messages::status_answer(self.patiently("/etcdserverpb.Maintenance/Status", &[], deadline).await?)
    }

    /// All that happens in the range from `start` on. Tried once.
    pub async fn watch(&self, key: &[u8], end: &[u8], start: u64) -> Result<Watching, Error> {
        let connection = self.connection().await?;
        let (requests, stream) = mpsc::channel(1);
        // There is room for one.
        let _ = requests.try_send(framed(&messages::create_watch(key, end, start)));
        let body = timeout(ATTEMPT_TIMEOUT, connection.send("/etcdserverpb.Watch/Watch", Messages::Stream(stream))).await.unwrap_or(Err(Error::Timeout));
        match body {
            Ok(body) => Ok(Watching::new(connection, body, requests)),
            Err(error) => {
                self.leave(&connection);
                Err(error)
            }
        }
    }

    /// The watch broke: its member is not asked next.
    pub fn gave_up(&self, watching: &Watching) {
        self.leave(watching.connection());
    }
}
