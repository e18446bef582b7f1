//! kubectl top: being written (see SPLIT.md).
