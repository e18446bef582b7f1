//! kubectl exec: being written (see SPLIT.md).
