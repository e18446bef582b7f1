//! Compaction by one of the API servers. Mirrors storage/etcd3/compact.go, with its key, so that upstream's API servers may take part.
//!
//! Whoever finds the key's version as it left it last time compacts to what was the newest revision one interval ago; the others learn the version.

use etcd::{Answer, Compare, Operation, Range, Target, Transaction};
use tokio::time::Instant;

use super::engine::Inner;
use super::writes;
use crate::types::{CommitError, Revision};

const KEY: &[u8] = b"compact_rev_key";

impl Inner {
    /// Whether it was us who compacted.
    pub async fn compact_etcd(&self, revision: Revision) -> Result<bool, CommitError> {
        let deadline = Instant::now() + self.request_timeout;
        let mut version = self.compactions.lock().await;
        let transaction = Transaction {
            compare: vec![Compare { key: KEY.to_vec(), target: Target::Version(*version), greater: false }],
            success: vec![Operation::Put { key: KEY.to_vec(), value: revision.to_string().into(), lease: 0 }],
            failure: vec![Operation::Range(Range { key: KEY.to_vec(), ..Range::default() })],
        };
        let answer = self.client.transaction(&transaction).await.map_err(|error| writes::refused(error, 0))?;
        if !answer.succeeded {
            if let Some(Answer::Range(found)) = answer.answers.first() {
                *version = found.items.first().map_or(0, |item| item.version);
            }
            return Ok(false);
        }
        *version += 1;
        // The key is nobody's object: without this the mirrors would have to ask what its revision was about.
        self.touch().await;
        match self.client.compact(revision, deadline).await {
            Ok(()) => Ok(true),
            // By someone who knows no such key.
            Err(error) if error.is_compacted() => Ok(false),
            Err(error) => Err(writes::refused(error, 0)),
        }
    }
}
