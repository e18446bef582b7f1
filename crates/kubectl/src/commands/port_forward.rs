//! kubectl port_forward: being written (see SPLIT.md).
