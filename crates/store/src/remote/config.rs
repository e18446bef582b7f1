//! Where the etcd is, what lives in it only for a time, and how long anything may take.

use std::time::Duration;

use crate::config::Limits;
use crate::sealing::Sealing;

/// The default of `request_timeout`. etcd itself gives up after 7 s, an election takes about one.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// An acknowledged write is told to be done even if the mirror has not seen it by then: the watch may be moving to another member.
pub const VISIBLE_TIMEOUT: Duration = Duration::from_secs(10);
/// So long a key that is gone is waited for in the mirror: the revision of its end is not known, only one after it.
pub const GONE_TIMEOUT: Duration = Duration::from_millis(50);
/// A revision that no event of ours explains by then is someone else's: a key of our own is written to see past it.
pub const FOREIGN_AFTER: Duration = Duration::from_millis(20);
/// Reads that wait for etcd to say how far it is.
pub const QUEUED_BARRIERS: usize = 65_536;
/// Keys of one page when everything is read.
pub const PAGE_KEYS: u64 = 1_000;
pub const FIRST_PAUSE: Duration = Duration::from_millis(10);
pub const LONGEST_PAUSE: Duration = Duration::from_millis(500);

#[derive(Clone)]
pub struct RemoteConfig {
    pub client: etcd::Config,
    /// What our keys start with, and what stands in its place in etcd (`--etcd-prefix`); with the slash.
    pub root: String,
    pub prefix: String,
    /// Keys, by what they start with, that end by themselves.
    pub expiring: Vec<(String, Duration)>,
    /// How values lie in etcd.
    pub sealing: Sealing,
    /// Those of the mirror's history.
    pub limits: Limits,
    /// How long opening waits for etcd.
    pub patience: Duration,
    /// A write or a consistent read that has no answer by then has none.
    pub request_timeout: Duration,
}

impl RemoteConfig {
    /// Kubernetes' key layout: events live an hour, as upstream's `--event-ttl`, an API server's lease on its address 15 s.
    pub fn kubernetes(client: etcd::Config, prefix: &str) -> Self {
        let expiring = vec![("/registry/events/".into(), Duration::from_secs(3600)), ("/registry/masterleases/".into(), Duration::from_secs(15))];
        let prefix = format!("/{}/", prefix.trim_matches('/'));
        Self { client, root: "/registry/".into(), prefix, expiring, sealing: Sealing::default(), limits: Limits::default(), patience: Duration::from_secs(30), request_timeout: REQUEST_TIMEOUT }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    #[error("cannot use etcd: {0}")]
    Etcd(#[from] etcd::Error),
    #[error("a move of a cluster into this etcd ({prefix}) is not finished: run `coracle store migrate` again")]
    Unfinished { prefix: String },
    #[error("the cluster in this etcd ({prefix}) was moved away at revision {revision}: to serve it from here again, move it back with `coracle store migrate`")]
    Moved { prefix: String, revision: u64 },
}
