//! JSON patch, merge patch, strategic merge patch and server-side apply, pure: a document, a patch, the schema facts; nothing else.
//!
//! [`json`], [`merge`] and [`strategic`] change a document as the API server does for `PATCH`; [`three_way`], [`two_way`], [`merge_diff`] and
//! [`three_way_merge`] make patches as `kubectl` does; [`apply`] is server-side apply with its field managers.

pub mod apply;
mod error;
mod json;
mod merge;
mod strategic;

pub use error::{PatchError, go_value};
pub use json::json;
pub use merge::{merge, merge_diff, three_way_merge};
pub use strategic::{strategic, three_way, two_way};
