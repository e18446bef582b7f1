//! `coracle lab …`: what can be asked of a lab.

mod cluster;
mod links;
mod membership;
mod power;
mod status;
mod up;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::enter;
use crate::error::{LabError, Result};
use crate::layout::{DEFAULT_FOLDER, Layout};
use crate::start::Lab;

/// Several nodes on this machine, each with its own network, processes, disk and containers
#[derive(Args)]
pub struct Options {
    /// Folder that everything of the lab lies in
    #[arg(long, value_name = "DIR", default_value = DEFAULT_FOLDER, global = true)]
    data_dir: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make the nodes, and a cluster of them
    Up(up::Options),
    /// A shell on a node, or one command
    Shell(Shell),
    /// Show the nodes, and whether their links are as they should be
    Status,
    /// Pull the node's network cable
    Cut(Node),
    /// Put all cables back, and make all links quick and reliable again
    Heal,
    /// Make the node's link late or lossy, in both directions
    Slow(links::Slow),
    /// Cut the node's power: all that runs on it is gone, its disk stays
    Kill(Node),
    /// Shut a node down: its pods end, each with its grace, then it goes off; its disk stays
    Stop(Node),
    /// Switch a node on; what it was part of before, it is part of again
    Start(Node),
    /// One more machine; it joins the cluster, if the lab was made with one
    Add(membership::Add),
    /// Take one machine away, its disk too, and its node out of the cluster
    Rm(Node),
    /// Take the lab away: processes, disks, all
    Down,
}

#[derive(Args)]
struct Node {
    /// node1, node2, …
    node: String,
}

#[derive(Args)]
struct Shell {
    /// node1, node2, …
    node: String,
    /// The command; a login shell when there is none
    #[arg(last = true, value_name = "CMD")]
    words: Vec<OsString>,
}

/// The exit code: of a command in a node it is the command's own.
pub fn run(options: Options) -> Result<u8> {
    if !nix::unistd::geteuid().is_root() {
        return Err(LabError::NotRoot);
    }
    let layout = Layout::new(&options.data_dir);
    match options.command {
        Command::Up(up) => up::run(layout, &up)?,
        Command::Shell(shell) => return run_shell(layout, &shell),
        Command::Status => status::run(&Lab::open(layout)?)?,
        Command::Cut(node) => links::cut(&Lab::open(layout)?, &node.node)?,
        Command::Heal => links::heal(&Lab::open(layout)?)?,
        Command::Slow(slow) => links::slow(&Lab::open(layout)?, &slow)?,
        Command::Kill(node) => power::kill(&Lab::open(layout)?, &node.node)?,
        Command::Stop(node) => power::stop(&Lab::open(layout)?, &node.node)?,
        Command::Start(node) => power::start(&Lab::open(layout)?, &node.node)?,
        Command::Add(add) => membership::add(&Lab::open(layout)?, &add)?,
        Command::Rm(node) => membership::remove(&Lab::open(layout)?, &node.node)?,
        Command::Down => power::down(layout)?,
    }
    Ok(0)
}

fn run_shell(layout: Layout, shell: &Shell) -> Result<u8> {
    let lab = Lab::open(layout)?;
    let process = lab.must_run(&shell.node)?;
    let mut environment = Vec::new();
    if lab.record.classic {
        environment.push(("KUBECTL_DIALECT".to_owned(), "classic".to_owned()));
    }
    let code = enter::run(&process, &lab.layout.node(&shell.node), &shell.words, &environment)?;
    Ok(u8::try_from(code).unwrap_or(u8::MAX))
}
