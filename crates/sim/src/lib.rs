#![doc = include_str!("../README.md")]
//!
//! The table of contents of the simulation; the page before is its README.

mod entropy;
mod history;
mod ledger;
mod liveness;
mod network;
mod random;
mod registers;
mod safety;
mod scenario;
mod workload;
mod world;

pub use scenario::{Failure, Plan, Report, Scenario, run, simulate};
