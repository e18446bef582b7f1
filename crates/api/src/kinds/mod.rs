//! The policies of the built-in kinds: one file a kind or small family, each with its defaults, its validation and its strategy.

pub mod json;

use crate::strategy::Strategy;

/// A kind that needs nothing special, and every custom resource.
pub struct Plain;

impl Strategy for Plain {}

/// The strategy of a built-in kind, if it has one of its own.
pub fn strategy(group: &str, plural: &str) -> Option<&'static dyn Strategy> {
    let _ = (group, plural);
    None
}
