//! A small client of etcd's v3 API: ranges, transactions, watches, leases, compaction.
#![doc = include_str!("../README.md")]

mod body;
mod client;
mod connection;
mod error;
pub mod grpc;
mod messages;
mod tls;
mod watch;
mod wire;

pub use client::{Client, Config, Resolve};
pub use error::{Code, Error};
pub use messages::{
    Answer, Compare, Event, Header, KeyValue, Operation, Range, RangeAnswer, Status, Target, Transaction, TransactionAnswer, WatchAnswer, after_prefix,
};
pub use tls::tls;
pub use watch::Watching;
