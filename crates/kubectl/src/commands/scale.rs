//! kubectl scale: being written (see SPLIT.md).
