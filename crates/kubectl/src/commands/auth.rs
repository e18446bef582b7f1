//! kubectl auth: being written (see SPLIT.md).
