//! What clients asked and were told, in an order of moments that agrees with real time.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::check;
use crate::revisions;
use crate::violation::Violation;

/// A resourceVersion.
pub type Version = u64;
/// The data of an object. Shared: a search holds many states of it.
pub type Value = Arc<BTreeMap<String, String>>;
/// Position in the one order of all beginnings and endings.
pub type Moment = u64;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    Create(Value),
    Get,
    /// PUT; with `expect`, only over that version.
    Replace { value: Value, expect: Option<Version> },
    /// A merge patch of one field.
    Merge { field: String, text: String, expect: Option<Version> },
    Delete { expect: Option<Version> },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The object as it was found or written.
    Object { version: Version, value: Value },
    Deleted,
    NotFound,
    AlreadyExists,
    Conflict,
    /// None, or one that does not say whether it was done.
    Unknown,
}

/// One request about one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    pub client: usize,
    pub key: String,
    pub ask: Ask,
    pub answer: Answer,
    pub call: Moment,
    pub end: Moment,
}

/// One list of all objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    pub client: usize,
    pub revision: Version,
    pub items: BTreeMap<String, (Version, Value)>,
    pub call: Moment,
    pub end: Moment,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    pub operations: Vec<Operation>,
    pub listings: Vec<Listing>,
}

/// How much a verdict rests on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    pub objects: usize,
    pub answered: usize,
    pub unanswered: usize,
    pub lists: usize,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} answers and {} lists about {} objects are linearizable ({} requests without an answer)", self.answered, self.lists, self.objects, self.unanswered)
    }
}

impl History {
    /// The verdict.
    pub fn check(&self) -> Result<Summary, Violation> {
        revisions::check(self)?;
        // A list is a read of every object there is.
        let mut reads: Vec<Operation> = Vec::new();
        let mut keys: BTreeMap<&str, Vec<&Operation>> = BTreeMap::new();
        for operation in &self.operations {
            keys.entry(&operation.key).or_default().push(operation);
        }
        for listing in &self.listings {
            for key in keys.keys() {
                let answer = match listing.items.get(*key) {
                    Some((version, value)) => Answer::Object { version: *version, value: value.clone() },
                    None => Answer::NotFound,
                };
                reads.push(Operation { client: listing.client, key: (*key).to_owned(), ask: Ask::Get, answer, call: listing.call, end: listing.end });
            }
        }
        for read in &reads {
            if let Some(operations) = keys.get_mut(read.key.as_str()) {
                operations.push(read);
            }
        }
        for (key, operations) in &keys {
            check::object(key, operations)?;
        }
        let unanswered = self.operations.iter().filter(|operation| operation.answer == Answer::Unknown).count();
        Ok(Summary { objects: keys.len(), answered: self.operations.len() - unanswered, unanswered, lists: self.listings.len() })
    }
}
