//! kubectl wait: being written (see SPLIT.md).
