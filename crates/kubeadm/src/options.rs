//! What the commands' lines have in common: the head of a workflow whose phases can be run alone, and the options that all workflows have. And a command's options by themselves:
//! their defaults, and lines of them.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

pub const DEFAULT_DATA: &str = "/var/lib/coracle";

/// `kubeadm init`, and `kubeadm init phase certs apiserver`.
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Workflow<O: Args> {
    #[command(flatten)]
    pub options: O,
    #[command(subcommand)]
    what: Option<What<O>>,
}

#[derive(Subcommand, Debug)]
enum What<O: Args> {
    /// Use this command to invoke single phase of the workflow
    Phase {
        /// The phase, and a part of it: `certs apiserver`; without any they are listed. `join` takes the API server's address after them
        #[arg(value_name = "PHASE", num_args = 0..=3)]
        words: Vec<String>,
        #[command(flatten)]
        options: Box<O>,
    },
}

impl<O: Args> Workflow<O> {
    /// What one phase alone is asked for with.
    pub fn alone(&self) -> Option<(&[String], &O)> {
        let Some(What::Phase { words, options }) = &self.what else { return None };
        Some((words, options))
    }
}

#[derive(Args, Debug, Clone)]
pub struct Common {
    /// Where the node's data are kept
    #[arg(long, value_name = "DIR", default_value = DEFAULT_DATA)]
    pub data_dir: PathBuf,
    /// Checks whose errors will be shown as warnings; 'all' ignores errors from all checks
    #[arg(long, value_name = "CHECKS", value_delimiter = ',')]
    pub ignore_preflight_errors: Vec<String>,
    /// Phases to be skipped
    #[arg(long, value_name = "PHASES", value_delimiter = ',')]
    pub skip_phases: Vec<String>,
    /// Path to a kubeadm configuration file
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Don't apply any changes; just output what would be done
    #[arg(long)]
    pub dry_run: bool,
    /// Taken for upstream's sake: the container runtime is built in
    #[arg(long, value_name = "SOCKET")]
    pub cri_socket: Option<String>,
}

#[derive(Parser)]
#[command(no_binary_name = true)]
struct Line<O: Args> {
    #[command(flatten)]
    options: O,
}

/// What nobody said anything of.
pub fn defaults<O: Args>() -> Result<O, clap::Error> {
    of_words(Vec::<OsString>::new())
}

fn of_words<O: Args>(words: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> Result<O, clap::Error> {
    Line::try_parse_from(words).map(|line| line.options)
}

#[cfg(test)]
pub fn of_line<O: Args>(line: &str) -> Result<O, clap::Error> {
    of_words(line.split_whitespace())
}
