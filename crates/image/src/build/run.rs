//! The seam for RUN: whoever can run a command in a container implements [`RunStep`].

use std::io::{self, Write};
use std::path::PathBuf;

/// One RUN instruction, ready to execute.
#[derive(Debug, Clone)]
pub struct RunRequest {
    /// Unpacked layers so far, topmost first. Read only. May be empty.
    pub layers: Vec<PathBuf>,
    /// An empty directory: overlayfs' `upperdir`. What the command changes must be here afterwards, whiteouts and opaque
    /// marks included (mount with `redirect_dir=off,metacopy=off`). Its parent directory is the caller's to use for
    /// `workdir` and mount point; it is on the same file system and removed after the step.
    pub upper: PathBuf,
    pub args: Vec<String>,
    pub env: Vec<(String, String)>,
    /// Absolute.
    pub workdir: String,
    /// As in USER; empty means root.
    pub user: String,
}

pub trait RunStep {
    /// Runs to the end, its stdout and stderr going to `output`. Returns the exit code (128 + n after signal n).
    fn run(&self, request: RunRequest, output: &mut dyn Write) -> io::Result<i32>;
}
