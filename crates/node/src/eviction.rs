//! When the node runs short of memory, disk or process numbers: what is short, and who has to go.

pub mod thresholds;
