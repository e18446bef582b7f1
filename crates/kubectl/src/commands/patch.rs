//! kubectl patch: being written (see SPLIT.md).
