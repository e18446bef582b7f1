//! The revisioned key space: history, watch, compaction, durable group-committed writes
