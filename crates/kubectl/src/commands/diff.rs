//! kubectl diff: being written (see SPLIT.md).
