//! `kubeadm reset`: takes this machine out of its cluster and leaves it as it was found. Mirrors `cmd/reset.go`.

use std::io::BufRead as _;
use std::path::PathBuf;

use clap::Args;

use crate::error::{Error, InPhase};
use crate::files;
use crate::host::{Host, KUBELET_FOLDER};
use crate::init::DEFAULT_DATA;
use crate::preflight;

#[derive(Args, Debug)]
pub struct Options {
    /// Reset the node without prompting for confirmation
    #[arg(long, short)]
    force: bool,
    /// Where the node's data are kept
    #[arg(long, value_name = "DIR", default_value = DEFAULT_DATA)]
    data_dir: PathBuf,
    /// Checks whose errors will be shown as warnings; 'all' ignores errors from all checks
    #[arg(long, value_name = "CHECKS", value_delimiter = ',')]
    ignore_preflight_errors: Vec<String>,
    #[arg(long, value_name = "SOCKET", hide = true)]
    cri_socket: Option<String>,
}

fn agreed() -> Result<bool, Error> {
    println!("W [reset] WARNING: Changes made to this host by 'kubeadm init' or 'kubeadm join' will be reverted.");
    print!("[reset] Are you sure you want to proceed? [y/N]: ");
    let _ = std::io::Write::flush(&mut std::io::stdout());
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).map_err(|error| Error::Host(format!("cannot read the answer: {error}")))?;
    Ok(matches!(line.trim().to_lowercase().as_str(), "y" | "yes"))
}

pub fn run(options: &Options, host: &dyn Host) -> Result<(), Error> {
    println!("[preflight] Running pre-flight checks");
    preflight::root(&preflight::ignored(&options.ignore_preflight_errors)).phase("preflight")?;
    if !options.force && !agreed()? {
        return Err(Error::Host("aborted reset operation".into())).phase("preflight");
    }
    println!("[reset] Stopping the kubelet service");
    println!("[reset] Unmounting mounted directories in {KUBELET_FOLDER:?}");
    host.remove(&options.data_dir).map_err(Error::Host).phase("cleanup-node")?;
    let (folders, names) = files::traces();
    let list = |paths: &[PathBuf]| paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" ");
    println!("[reset] Deleting contents of directories: [{}]", list(&folders));
    println!("[reset] Deleting files: [{}]", list(&names));
    files::remove_traces();
    println!("\nThe reset process does not remove your kubeconfig files, as $HOME/.kube/config.\n");
    Ok(())
}
