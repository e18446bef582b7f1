//! A write: one transaction on the revision of its key. Mirrors storage/etcd3/store.go.
//!
//! When a member dies with a write under way its fate is unknown. Then it is sent again: it can only succeed if the first did not, and if the
//! condition no longer holds because our own bytes are there, the first one did. Only what cannot be told apart is told to be unknown.

use std::sync::Arc;
use std::time::Duration;

use api::Object;
use bytes::Bytes;
use etcd::{Answer, Code, Compare, Error, KeyValue, Operation, Range, Target, Transaction, TransactionAnswer};
use tokio::time::{Instant, sleep, timeout_at};

use super::config::{FIRST_PAUSE, GONE_TIMEOUT, LONGEST_PAUSE, VISIBLE_TIMEOUT};
use super::engine::Inner;
use super::value;
use crate::splice;
use crate::types::{CommitError, Precondition, Write};
use crate::writer::Outcome;

/// A refusal in the store's words.
pub fn refused(error: Error, size: usize) -> CommitError {
    match error {
        Error::Refused { code: Code::ResourceExhausted, message } if message.contains("space exceeded") => CommitError::Full(message),
        Error::Refused { message, .. } if message.contains("request is too large") => CommitError::TooLarge { size, limit: crate::MAX_OBJECT_BYTES },
        Error::Timeout => CommitError::Unknown(Error::Timeout.to_string()),
        error if error.nothing_done() => CommitError::Unavailable(format!("etcd: {error}")),
        Error::Refused { message, .. } => CommitError::Unknown(message),
        error => CommitError::Unknown(format!("etcdserver: request timed out ({error})")),
    }
}

fn conditions(key: &[u8], write: &Write) -> Vec<Compare> {
    let compare = |target, greater| vec![Compare { key: key.to_vec(), target, greater }];
    match write.precondition {
        Precondition::Absent => compare(Target::Modified(0), false),
        Precondition::Revision(revision) => compare(Target::Modified(revision), false),
        Precondition::Present => compare(Target::Created(0), true),
        // There must be something to delete: no revision is spent otherwise.
        Precondition::Any if write.object.is_none() => compare(Target::Created(0), true),
        Precondition::Any => Vec::new(),
    }
}

fn only(answer: &TransactionAnswer) -> Option<&KeyValue> {
    match answer.answers.first()? {
        Answer::Range(found) => found.items.first(),
        Answer::Delete { previous, .. } => previous.first(),
        Answer::Put => None,
    }
}

fn unreadable(why: impl std::fmt::Display) -> CommitError {
    CommitError::Unavailable(format!("what etcd holds cannot be read: {why}"))
}

impl Inner {
    pub async fn commit(self: Arc<Self>, write: Write) -> Outcome {
        let size = write.object.as_ref().map_or(0, Bytes::len);
        if size > self.shared.limits.object_bytes {
            return Err(CommitError::TooLarge { size, limit: self.shared.limits.object_bytes });
        }
        if write.object.as_ref().is_some_and(|object| splice::insert(object, 0).is_none()) {
            return Err(CommitError::Unavailable("the object has no metadata".into()));
        }
        let Some(key) = self.keys.outside(&write.key) else {
            return Err(CommitError::Unavailable(format!("{:?} is no key of this store", write.key)));
        };
        // Once, however often it is sent: sealed again it would be other bytes.
        let value = match &write.object {
            Some(object) => Some(value::sealed(&write.key, object, &self.shared.sealing).map_err(|error| CommitError::Unavailable(format!("the object cannot be sealed: {error}")))?),
            None => None,
        };
        let deadline = Instant::now() + self.request_timeout;
        // Sent twice, it happens at most once.
        let guarded = matches!(write.precondition, Precondition::Absent | Precondition::Revision(_));
        let (mut uncertain, mut pause) = (false, FIRST_PAUSE);
        loop {
            let life = self.expiring.iter().find(|(prefix, _)| write.object.is_some() && write.key.starts_with(prefix)).map(|(_, life)| *life);
            let outcome = timeout_at(deadline, self.attempt(&key, &write, value.as_ref(), life, deadline)).await.unwrap_or(Err(Error::Timeout));
            match outcome {
                Ok(answer) => return self.judge(&write, value.as_ref(), &answer, uncertain).await,
                Err(error) if error.is_passing() && (guarded || error.nothing_done()) && Instant::now() + pause < deadline => {
                    uncertain |= !error.nothing_done();
                    tracing::debug!(%error, key = write.key, "a write is sent again");
                }
                Err(_) if uncertain => return Err(CommitError::Unknown(Error::Timeout.to_string())),
                Err(error) => return Err(refused(error, size)),
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn attempt(&self, key: &[u8], write: &Write, value: Option<&Bytes>, life: Option<Duration>, deadline: Instant) -> Result<TransactionAnswer, Error> {
        let lease = match life {
            Some(life) => self.leases.lease(&self.client, life, deadline).await?,
            None => 0,
        };
        let operation = match value {
            Some(value) => Operation::Put { key: key.to_vec(), value: value.clone(), lease },
            None => Operation::Delete { key: key.to_vec(), end: Vec::new() },
        };
        let current = Operation::Range(Range { key: key.to_vec(), ..Range::default() });
        let transaction = Transaction { compare: conditions(key, write), success: vec![operation], failure: vec![current] };
        let outcome = self.client.transaction(&transaction).await;
        if let Err(Error::Refused { code: Code::NotFound, .. }) = &outcome
            && lease != 0
        {
            // The lease has ended before its time: with another one it works.
            self.leases.forget(lease).await;
            return Err(Error::Connect("etcdserver: requested lease not found".into()));
        }
        outcome
    }

    /// What the answer means, once the mirror shows it: whoever reads after a write sees it.
    async fn judge(&self, write: &Write, value: Option<&Bytes>, answer: &TransactionAnswer, uncertain: bool) -> Outcome {
        let revision = answer.header.revision;
        if answer.succeeded {
            let made = match &write.object {
                Some(object) => splice::insert(object, revision).map(|bytes| Arc::new(Object::new(bytes, revision))).ok_or_else(|| unreadable("no metadata"))?,
                None => {
                    let last = only(answer).ok_or_else(|| unreadable("nothing was deleted"))?;
                    let last = value::object(&write.key, last, &self.shared.sealing).map_err(unreadable)?;
                    let bytes = splice::replace(last.bytes(), revision).ok_or_else(|| unreadable("no metadata"))?;
                    Arc::new(Object::new(bytes, revision))
                }
            };
            return Ok(self.shown(write, revision, made).await);
        }
        let Some(current) = only(answer) else {
            if uncertain {
                return Err(CommitError::Unknown(Error::Timeout.to_string()));
            }
            self.seen(revision, Instant::now() + GONE_TIMEOUT).await;
            return Err(CommitError::Precondition { current: None });
        };
        let found = value::object(&write.key, current, &self.shared.sealing).map_err(unreadable)?;
        if uncertain {
            return match value {
                Some(value) if *value == current.value => Ok(self.shown(write, current.mod_revision, found).await),
                _ => Err(CommitError::Unknown(Error::Timeout.to_string())),
            };
        }
        self.seen(current.mod_revision, Instant::now() + VISIBLE_TIMEOUT).await;
        Err(CommitError::Precondition { current: Some(found) })
    }

    /// The mirror's own object if it has come there, so that it is decoded once for all.
    async fn shown(&self, write: &Write, revision: u64, made: Arc<Object>) -> Arc<Object> {
        if !self.seen(revision, Instant::now() + VISIBLE_TIMEOUT).await {
            tracing::warn!(key = write.key, revision, "a write is done, but etcd's watch does not show it");
        }
        self.shared.state.read().get(&write.key).filter(|object| object.resource_version() == revision).cloned().unwrap_or(made)
    }
}
