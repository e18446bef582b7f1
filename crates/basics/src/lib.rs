//! The table of contents of what several rooms need and neither the standard library nor tokio has.

pub mod errors;
pub mod files;
pub mod listen;
pub mod tasks;
