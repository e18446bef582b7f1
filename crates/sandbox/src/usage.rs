//! How much of a disk lies below a folder.

use std::collections::HashSet;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    pub bytes: u64,
    pub inodes: u64,
}

/// Blocks taken below a directory, each file once however many names it has. What goes while it is looked at is not counted.
pub fn below(directory: &Path) -> Usage {
    const BLOCK_BYTES: u64 = 512;
    let mut seen = HashSet::new();
    let mut left = vec![directory.to_path_buf()];
    let mut total = Usage::default();
    while let Some(directory) = left.pop() {
        let Ok(entries) = std::fs::read_dir(directory) else { continue };
        for entry in entries.filter_map(Result::ok) {
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() {
                left.push(entry.path());
            } else if metadata.nlink() > 1 && !seen.insert((metadata.dev(), metadata.ino())) {
                continue;
            }
            total.bytes += metadata.blocks() * BLOCK_BYTES;
            total.inodes += 1;
        }
    }
    total
}
