//! Leases for what ends by itself. Mirrors storage/etcd3/lease_manager.go: one serves many keys, or etcd would drown in them.

use std::time::Duration;

use etcd::{Client, Error};
use tokio::sync::Mutex;
use tokio::time::Instant;

/// A lease is given to other keys for at most so long, and for at most this part of its life. It lives longer by that.
const REUSE: Duration = Duration::from_secs(60);
const REUSE_PART: u32 = 20;
const MAX_KEYS: usize = 1_000;

struct Lease {
    life: Duration,
    id: u64,
    until: Instant,
    keys: usize,
}

#[derive(Default)]
pub struct Leases {
    /// One a length of life; there are two or three.
    known: Mutex<Vec<Lease>>,
}

impl Leases {
    /// A lease that ends no sooner than after `life`.
    pub async fn lease(&self, client: &Client, life: Duration, deadline: Instant) -> Result<u64, Error> {
        let mut known = self.known.lock().await;
        let now = Instant::now();
        if let Some(lease) = known.iter_mut().find(|lease| lease.life == life && lease.until > now && lease.keys < MAX_KEYS) {
            lease.keys += 1;
            return Ok(lease.id);
        }
        let reuse = REUSE.min(life / REUSE_PART);
        let id = client.grant((life + reuse).as_secs().max(1), deadline).await?;
        known.retain(|lease| lease.life != life);
        known.push(Lease { life, id, until: now + reuse, keys: 1 });
        Ok(id)
    }

    /// It may be gone: etcd did not know it.
    pub async fn forget(&self, id: u64) {
        self.known.lock().await.retain(|lease| lease.id != id);
    }
}
