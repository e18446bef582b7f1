//! kubectl replace: being written (see SPLIT.md).
