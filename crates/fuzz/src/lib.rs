#![doc = include_str!("../README.md")]
//!
//! The table of contents of the fuzzers; the page before is its README.

pub mod api;
pub mod engine;
pub mod json;
mod mutate;
mod random;
pub mod targets;

pub use random::Random;
