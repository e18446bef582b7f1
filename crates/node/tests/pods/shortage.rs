//! The node runs short of disk.
