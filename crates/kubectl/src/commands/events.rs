//! kubectl events: being written (see SPLIT.md).
