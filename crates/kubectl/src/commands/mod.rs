//! One file a command, or a small family.

pub mod apply;
pub mod create;
pub mod delete;
pub mod get;

use crate::command::Command;

pub static ALL: &[&Command] = &[&create::CREATE, &create::REPLACE, &get::GET, &apply::APPLY, &delete::DELETE];
