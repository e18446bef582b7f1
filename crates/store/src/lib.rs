//! The revisioned key space: history, watch, compaction, durable group-committed writes.
//!
//! Reads come from memory, writes are durable (decision 3 of the design). Only `server` touches this crate.

mod types;

pub use types::{CommitError, Compacted, Event, EventKind, Page, Precondition, Revision, Store, Watch, WatchItem, Write};
