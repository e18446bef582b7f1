//! The table of contents of what several rooms need and neither the standard library nor tokio has.

pub mod errors;
pub mod files;
pub mod histogram;
pub mod listen;
pub mod metrics;
pub mod process;
pub mod tasks;
pub mod version;
