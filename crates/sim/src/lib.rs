#![doc = include_str!("../README.md")]

mod entropy;
mod history;
mod ledger;
mod liveness;
mod network;
mod random;
mod safety;
mod scenario;
mod workload;
mod world;

pub use scenario::{Failure, Plan, Report, Scenario, run, simulate};
