//! kubectl logs: being written (see SPLIT.md).
