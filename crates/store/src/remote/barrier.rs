//! Consistent reads: how far etcd is, asked once for all who wait, and then until the mirror is there too.
//!
//! Mirrors cacher's consistent reads (KEP-2340). A revision that is not ours never comes on our watch, and etcd before 3.4.25 and 3.5.8 may report
//! progress before the events (etcd issue 15220); so we write a key of our own, whose event comes behind all of them. That is rare: nobody else
//! writes to a cluster's etcd, but for the compaction's key.

use std::sync::Arc;

use etcd::{Operation, Range, Transaction};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::config::{FOREIGN_AFTER, QUEUED_BARRIERS};
use super::engine::Inner;
use super::writes;
use crate::types::{CommitError, Revision};

type Waiter = oneshot::Sender<Result<Revision, CommitError>>;

pub struct Queue(mpsc::Sender<Waiter>);

pub fn queue() -> (Queue, mpsc::Receiver<Waiter>) {
    let (sender, receiver) = mpsc::channel(QUEUED_BARRIERS);
    (Queue(sender), receiver)
}

impl Queue {
    pub fn enter(&self) -> Result<oneshot::Receiver<Result<Revision, CommitError>>, CommitError> {
        let (answer, answered) = oneshot::channel();
        self.0.try_send(answer).map_err(|_| CommitError::Unavailable(format!("{QUEUED_BARRIERS} reads wait for etcd already")))?;
        Ok(answered)
    }
}

/// Answers those who wait, a round at a time.
pub async fn run(inner: Arc<Inner>, mut queue: mpsc::Receiver<Waiter>) {
    while let Some(first) = queue.recv().await {
        // Whoever came before etcd is asked may share its answer.
        let mut waiting = vec![first];
        while let Ok(more) = queue.try_recv() {
            waiting.push(more);
        }
        let deadline = Instant::now() + inner.request_timeout;
        let range = Range { key: inner.keys.progress(), count_only: true, ..Range::default() };
        match inner.client.range(&range, deadline).await {
            Ok(answer) if inner.shared_revision() >= answer.header.revision => tell(waiting, Ok(inner.shared_revision())),
            Ok(answer) => {
                let inner = inner.clone();
                tokio::spawn(async move { tell(waiting, inner.reach(answer.header.revision, deadline).await) });
            }
            Err(error) => tell(waiting, Err(writes::refused(error, 0))),
        }
    }
}

fn tell(waiting: Vec<Waiter>, outcome: Result<Revision, CommitError>) {
    for waiter in waiting {
        // Those who gave up do not listen.
        let _ = waiter.send(outcome.clone());
    }
}

impl Inner {
    /// Until the mirror is at `revision`, whoever's it is.
    async fn reach(self: &Arc<Self>, revision: Revision, deadline: Instant) -> Result<Revision, CommitError> {
        if !self.seen(revision, Instant::now() + FOREIGN_AFTER).await {
            self.touch().await;
            if !self.seen(revision, deadline).await {
                return Err(CommitError::Unknown("etcdserver: request timed out".into()));
            }
        }
        Ok(self.shared_revision())
    }

    /// Writes the key whose event tells all mirrors how far the others are. Failing is no harm: who waits for it gives up in time.
    pub async fn touch(&self) {
        let put = Operation::Put { key: self.keys.progress(), value: "{}".into(), lease: 0 };
        if let Err(error) = self.client.transaction(&Transaction { success: vec![put], ..Transaction::default() }).await {
            tracing::debug!(%error, "cannot write the key of progress");
        }
    }
}
