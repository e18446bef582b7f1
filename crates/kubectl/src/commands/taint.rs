//! kubectl taint: being written (see SPLIT.md).
