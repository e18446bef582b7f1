//! kubectl cordon: being written (see SPLIT.md).
