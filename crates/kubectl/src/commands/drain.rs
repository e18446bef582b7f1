//! kubectl drain: being written (see SPLIT.md).
