//! kubectl autoscale: being written (see SPLIT.md).
