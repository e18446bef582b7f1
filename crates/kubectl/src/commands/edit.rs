//! kubectl edit: being written (see SPLIT.md).
