//! `coracle network`: the manifest of the built-in pod network, and what its pods run.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use basics::files;
use clap::{Args, Subcommand};
use nix::sys::signal::{SigSet, Signal};
use node::networking::{BUILT_IN_CONFIGURATION, BUILT_IN_FILE};

const MANIFEST: &str = include_str!("pod-network.yaml");

#[derive(Args)]
pub struct NetworkCommand {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Print the manifest that gives a cluster without a pod network the built-in one: `coracle network manifest | kubectl apply -f -`
    Manifest,
    /// What the manifest's pods run: ask the node they are on for its built-in network, and stay
    Install {
        /// The node's folder of CNI configurations
        #[arg(long, value_name = "DIR", default_value = "/etc/cni/net.d")]
        to: PathBuf,
    },
}

pub fn run(command: &NetworkCommand) -> Result<()> {
    match &command.command {
        Command::Manifest => {
            print!("{MANIFEST}");
            Ok(())
        }
        Command::Install { to } => install(to),
    }
}

/// The network stays when the pod goes, as with other networks: pods use it.
fn install(folder: &Path) -> Result<()> {
    // As the first process of its PID namespace it would not be ended by signals it does not wait for.
    let mut asked = SigSet::empty();
    asked.add(Signal::SIGTERM);
    asked.add(Signal::SIGINT);
    asked.thread_block().context("cannot wait for signals")?;
    let file = folder.join(BUILT_IN_FILE);
    if std::fs::read_to_string(&file).ok().as_deref() != Some(BUILT_IN_CONFIGURATION) {
        files::replace_durably(&file, BUILT_IN_CONFIGURATION.as_bytes(), files::READABLE).with_context(|| format!("cannot write {}", file.display()))?;
    }
    println!("{} asks for the node's built-in pod network", file.display());
    let signal = asked.wait().context("cannot wait for signals")?;
    println!("{signal}: the network stays");
    Ok(())
}
