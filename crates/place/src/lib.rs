//! The scheduler's decision: Snapshot + Pod -> Placement, pure
