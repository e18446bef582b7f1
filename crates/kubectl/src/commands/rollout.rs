//! kubectl rollout: being written (see SPLIT.md).
