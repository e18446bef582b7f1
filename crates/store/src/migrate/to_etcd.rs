//! From the folder into etcd.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use api::Object;
use etcd::{Client, Operation, Range, Transaction, after_prefix};
use tokio::task::JoinSet;
use tokio::time::{Duration, Instant};

use super::marker::{self, Marker, repeat};
use super::{MoveError, Moved, Step};
use crate::config::Config;
use crate::engine::Embedded;
use crate::error::OpenError;
use crate::remote::{Keys, Leases, RemoteConfig, load, sealed, stored};
use crate::sealing::Sealing;
use crate::types::{Revision, Store};

/// Writes under way at once when etcd's counter is raised: it makes one fsync of all that wait.
const COUNTERS: usize = 128;
/// etcd takes 128 operations and 1.5 MiB a transaction, if nobody told it otherwise.
const BATCH_KEYS: usize = 100;
const BATCH_BYTES: usize = 1 << 20;
/// Nothing has come of a request for so long: etcd is away.
const PATIENCE: Duration = Duration::from_secs(60);

fn soon() -> Instant {
    Instant::now() + PATIENCE
}

/// `replace`: whatever is in the target goes. `tell` hears how far it is.
pub async fn to_etcd(dir: &Path, config: &RemoteConfig, replace: bool, tell: impl Fn(Step)) -> Result<Moved, MoveError> {
    if !dir.is_dir() {
        return Err(MoveError::Nothing { dir: dir.into() });
    }
    let client = Client::new(config.client.clone())?;
    let keys = Keys::new(&config.root, &config.prefix);
    let marker = marker::read(&client, &keys, soon()).await?;
    if let Some((to, revision)) = marker::moved_away(dir)
        && !matches!(marker, Some(Marker::Arriving { revision: arriving, .. }) if arriving == revision)
    {
        return Err(MoveError::MovedAlready { dir: dir.into(), to });
    }
    // Held for all of the move: no API server starts on it.
    let source = Embedded::open_anyway(Config { sealing: config.sealing.clone(), ..Config::new(dir) })?;
    let revision = source.revision();
    let page = source.list("", None, None, 0).map_err(|_| OpenError::Missing { path: dir.into(), what: "its present state".into() })?;
    let arriving = Marker::Arriving { revision, objects: page.items.len() as u64 };
    if marker.as_ref() != Some(&arriving) {
        match marker {
            Some(Marker::Left { revision: there }) if there > revision => return Err(MoveError::Backwards { here: revision, there }),
            // A copy that nothing is served from any more.
            Some(Marker::Left { .. }) => {}
            _ => {
                let objects = count(&client, &keys).await?;
                if objects > 0 && !replace {
                    return Err(MoveError::NotEmpty { prefix: keys.prefix().to_owned(), objects });
                }
            }
        }
        marker::write(&client, &keys, Some(&arriving), soon()).await?;
        clear(&client, &keys).await?;
    }
    raise(&client, &keys, revision, &tell).await?;
    let resumed = copy(&client, &keys, config, &page.items, &tell).await?;
    tell(Step::Verifying);
    let now = verify(&client, &keys, &config.sealing, &page.items).await?;
    // Whoever watches from an older revision is told to list anew.
    match client.compact(now, soon()).await {
        Err(error) if !error.is_compacted() => return Err(error.into()),
        _ => {}
    }
    marker::leave(dir, &format!("to etcd at {} below {}", config.client.endpoints.join(","), keys.prefix()), revision)?;
    marker::write(&client, &keys, None, soon()).await?;
    Ok(Moved { objects: page.items.len() as u64, revision: now, resumed })
}

/// The ranges of all that is below the prefix, but our own.
fn objects(keys: &Keys) -> [Range; 2] {
    let (first, end) = keys.all();
    let own = keys.own();
    let behind = after_prefix(&own);
    [Range { key: first, end: own, ..Range::default() }, Range { key: behind, end, ..Range::default() }]
}

async fn count(client: &Client, keys: &Keys) -> Result<u64, etcd::Error> {
    let mut sum = 0;
    for range in objects(keys) {
        sum += client.range(&Range { count_only: true, ..range }, soon()).await?.count;
    }
    Ok(sum)
}

async fn clear(client: &Client, keys: &Keys) -> Result<(), etcd::Error> {
    let success = objects(keys).into_iter().map(|range| Operation::Delete { key: range.key, end: range.end }).collect();
    repeat(client, &Transaction { success, ..Transaction::default() }, soon()).await.map(drop)
}

/// Writes until etcd's counter is at least `to`: there is no other way to make it.
async fn raise(client: &Client, keys: &Keys, to: Revision, tell: &impl Fn(Step)) -> Result<(), MoveError> {
    let put = Arc::new(Transaction { success: vec![Operation::Put { key: keys.progress(), value: "{}".into(), lease: 0 }], ..Transaction::default() });
    let reached = Arc::new(AtomicU64::new(repeat(client, &put, soon()).await?));
    while reached.load(Ordering::Acquire) < to {
        let at = reached.load(Ordering::Acquire);
        tell(Step::Counting { at, to });
        // No more than are needed, and a round that a person sees the end of.
        let wanted = Arc::new(AtomicU64::new((to - at).min(20_000)));
        let mut tasks = JoinSet::new();
        for _ in 0..COUNTERS {
            let (client, put, reached, wanted) = (client.clone(), put.clone(), reached.clone(), wanted.clone());
            tasks.spawn(async move {
                while wanted.fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| left.checked_sub(1)).is_ok() {
                    reached.fetch_max(repeat(&client, &put, soon()).await?, Ordering::AcqRel);
                }
                Ok::<(), etcd::Error>(())
            });
        }
        while let Some(done) = tasks.join_next().await {
            done.unwrap_or(Err(etcd::Error::Timeout))?;
        }
    }
    Ok(())
}

/// What is not there yet, many at a time. Returns how many were.
async fn copy(client: &Client, keys: &Keys, config: &RemoteConfig, items: &[(Arc<str>, Arc<Object>)], tell: &impl Fn(Step)) -> Result<u64, MoveError> {
    let there: HashSet<String> = load(client, keys, &config.sealing, soon()).await?.state.all().into_iter().map(|(key, _)| key.to_string()).collect();
    let leases = Leases::default();
    let (mut batch, mut bytes, mut done) = (Vec::new(), 0, there.len() as u64);
    for (key, object) in items.iter().filter(|(key, _)| !there.contains(&**key)) {
        let outside = keys.outside(key).ok_or_else(|| MoveError::Different(format!("{key:?} is no key of a cluster")))?;
        let plain = stored(object).ok_or_else(|| MoveError::Different(format!("{key:?} has no metadata")))?;
        let value = sealed(key, &plain, &config.sealing).map_err(|error| MoveError::Different(format!("{key:?} cannot be sealed: {error}")))?;
        let lease = match config.expiring.iter().find(|(prefix, _)| key.starts_with(prefix)) {
            Some((_, life)) => leases.lease(client, *life, soon()).await?,
            None => 0,
        };
        if batch.len() >= BATCH_KEYS || bytes + value.len() > BATCH_BYTES {
            done += batch.len() as u64;
            repeat(client, &Transaction { success: std::mem::take(&mut batch), ..Transaction::default() }, soon()).await?;
            tell(Step::Copying { done, of: items.len() as u64 });
            bytes = 0;
        }
        bytes += outside.len() + value.len();
        batch.push(Operation::Put { key: outside, value, lease });
    }
    if !batch.is_empty() {
        repeat(client, &Transaction { success: batch, ..Transaction::default() }, soon()).await?;
    }
    tell(Step::Copying { done: items.len() as u64, of: items.len() as u64 });
    Ok(there.len() as u64)
}

/// Every key and every byte. Returns etcd's revision.
async fn verify(client: &Client, keys: &Keys, sealing: &Sealing, items: &[(Arc<str>, Arc<Object>)]) -> Result<Revision, MoveError> {
    let arrived = load(client, keys, sealing, soon()).await?.state;
    if arrived.len() != items.len() {
        return Err(MoveError::Different(format!("{} objects were sent, {} are there", items.len(), arrived.len())));
    }
    for (key, object) in items {
        let same = arrived.get(key).is_some_and(|there| stored(there) == stored(object) && there.resource_version() > object.resource_version());
        if !same {
            return Err(MoveError::Different(format!("{key} is another one there")));
        }
    }
    Ok(arrived.revision())
}
