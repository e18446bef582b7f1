//! The revisioned key space: history, watch, compaction, durable group-committed writes.
//!
//! Reads come from memory, writes are durable (decision 3 of the design). Only `server` touches this crate.
#![doc = include_str!("../README.md")]

mod config;
mod engine;
mod error;
mod frame;
mod log;
mod migrate;
mod recover;
mod sealing;
mod remote;
mod sleepers;
mod snapshot;
mod splice;
mod state;
mod types;
mod watch;
mod writer;

pub use config::{Config, Durability, Fault, Faults, Limits, MAX_OBJECT_BYTES};
pub use engine::Embedded;
pub use error::{OpenError, OpenReport, TornTail};
pub use sealing::{Sealing, Transform, TransformError, Unsealed};
pub use migrate::{MoveError, Moved, Step, moved_away, to_embedded, to_etcd};
pub use remote::{Remote, RemoteConfig, RemoteError};
pub use types::{
    Bell, BoxFuture, CommitError, Compacted, Event, EventKind, Page, Place, Precondition, Revision, Ring, Store, Watch, WatchItem, Write,
};
