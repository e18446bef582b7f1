//! kubectl label: being written (see SPLIT.md).
