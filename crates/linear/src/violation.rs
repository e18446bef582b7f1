//! What is told of a history that is not linearizable: the shortest piece that shows it.

use std::fmt;

use crate::history::{Answer, Ask, Listing, Operation, Version};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Violation {
    /// No order of one object's requests explains an answer.
    Order(Box<Unordered>),
    /// A write got a revision that is not above one that was told before it began.
    Backwards { operation: Box<Operation>, told: Version },
    /// A list is older than what was told before it began.
    StaleList { listing: Box<Listing>, told: Version },
    /// A list does not show what is written at or below its revision, or shows what is not.
    Snapshot { listing: Box<Listing>, key: String, written: Box<Operation> },
    /// A list shows an object at a version above the list's own.
    Ahead { listing: Box<Listing>, key: String, version: Version },
    /// Two writes were told the same revision.
    Twice { first: Box<Operation>, second: Box<Operation> },
    /// Not decided: too many requests without an answer.
    TooWide { key: String },
}

/// See [`Violation::Order`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unordered {
    pub key: String,
    /// Every state the object could be in when the impossible request began.
    pub could_be: Vec<String>,
    /// Who had told so.
    pub witnesses: Vec<Operation>,
    /// Writes at the same time.
    pub meanwhile: Vec<Operation>,
    pub impossible: Operation,
}

fn over(f: &mut fmt::Formatter<'_>, expect: Option<Version>) -> fmt::Result {
    expect.map_or(Ok(()), |version| write!(f, " over version {version}"))
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}..", self.call)?;
        if self.answer != Answer::Unknown {
            write!(f, "{}", self.end)?;
        }
        write!(f, "] client {}: ", self.client)?;
        match &self.ask {
            Ask::Create(value) => write!(f, "create with {value:?}")?,
            Ask::Get => write!(f, "get")?,
            Ask::Replace { value, expect } => {
                write!(f, "replace with {value:?}")?;
                over(f, *expect)?;
            }
            Ask::Merge { field, text, expect } => {
                write!(f, "patch {field:?} to {text:?}")?;
                over(f, *expect)?;
            }
            Ask::Delete { expect } => {
                write!(f, "delete")?;
                over(f, *expect)?;
            }
        }
        match &self.answer {
            Answer::Object { version, value } => write!(f, " -> version {version} with {value:?}"),
            Answer::Deleted => write!(f, " -> deleted"),
            Answer::NotFound => write!(f, " -> not found"),
            Answer::AlreadyExists => write!(f, " -> already exists"),
            Answer::Conflict => write!(f, " -> conflict"),
            Answer::Unknown => write!(f, " -> no answer"),
        }
    }
}

impl fmt::Display for Listing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}..{}] client {}: list -> {} objects at revision {}", self.call, self.end, self.client, self.items.len(), self.revision)
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Order(unordered) => unordered.fmt(f),
            Self::Backwards { operation, told } => write!(f, "revision {told} had been told before this began:\n  {} {operation}", operation.key),
            Self::StaleList { listing, told } => write!(f, "revision {told} had been told before this list began:\n  {listing}"),
            Self::Snapshot { listing, key, written } => {
                write!(f, "a list is no snapshot of its revision:\n  {listing}\n  in it, {key} is ")?;
                match listing.items.get(key) {
                    Some((version, value)) => write!(f, "at version {version} with {value:?}")?,
                    None => write!(f, "absent")?,
                }
                write!(f, "\nbut\n  {written}")
            }
            Self::Ahead { listing, key, version } => write!(f, "a list shows what came after its revision: {key} at version {version} in\n  {listing}"),
            Self::Twice { first, second } => write!(f, "two writes have the same revision:\n  {} {first}\n  {} {second}", first.key, second.key),
            Self::TooWide { key } => write!(f, "not decided: object {key} has too many requests without an answer"),
        }
    }
}

impl fmt::Display for Unordered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "object {} is not linearizable\nwhen the last request here began, it could only be", self.key)?;
        self.could_be.iter().try_for_each(|state| writeln!(f, "  {state}"))?;
        let mut part = |title: &str, operations: &[Operation]| {
            if !operations.is_empty() {
                writeln!(f, "{title}")?;
            }
            operations.iter().try_for_each(|operation| writeln!(f, "  {operation}"))
        };
        part("as was told by", &self.witnesses)?;
        part("meanwhile", &self.meanwhile)?;
        write!(f, "and no order of these explains\n  {}", self.impossible)
    }
}

impl std::error::Error for Violation {}
