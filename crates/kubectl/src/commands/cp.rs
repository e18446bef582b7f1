//! kubectl cp: being written (see SPLIT.md).
