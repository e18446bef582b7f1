//! kubectl annotate: being written (see SPLIT.md).
