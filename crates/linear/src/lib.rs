#![doc = include_str!("../README.md")]
//!
//! The table of contents of the checker; the page before is its README.

mod check;
pub mod clients;
mod history;
mod model;
mod record;
mod revisions;
mod violation;

pub use history::{Answer, Ask, History, Listing, Moment, Operation, Summary, Value, Version};
pub use record::Recorder;
pub use violation::{Unordered, Violation};
