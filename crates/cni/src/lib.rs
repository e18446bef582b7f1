#![doc = include_str!("../README.md")]
//!
//! The table of contents; the page before is its README.

mod config;
mod folder;
mod plugin;
mod result;
mod runtime;

pub use config::{ConfigError, NetworkList, Plugin, Version, load};
pub use folder::FolderChanges;
pub use plugin::{PluginError, PluginFailure};
pub use result::{ResultError, addresses};
pub use runtime::{Attachment, Cni, CniError};
