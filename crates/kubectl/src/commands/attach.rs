//! kubectl attach: being written (see SPLIT.md).
