//! kubectl set: being written (see SPLIT.md).
