#![doc = include_str!("../README.md")]
//!
//! The table of contents of the lab; the page before is its README.
#![cfg(target_os = "linux")]

mod body;
mod command;
mod enter;
mod error;
mod init;
mod keeper;
mod layout;
mod manifests;
mod mirror;
mod process;
mod record;
mod relay;
mod root;
mod start;
mod terminal;

pub use command::{Options, run};
pub use error::LabError;

use std::ffi::OsString;

/// What the binary does when it is called as one of the lab's own processes; `None` for every other first word.
pub fn helper(word: &str, arguments: impl Iterator<Item = OsString>) -> Option<i32> {
    let arguments: Vec<OsString> = arguments.collect();
    match word {
        init::WORD => Some(init::main(&arguments)),
        keeper::WORD => Some(keeper::main(&arguments)),
        relay::WORD => Some(relay::main(&arguments)),
        _ => None,
    }
}
