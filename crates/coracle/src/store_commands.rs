//! `coracle store migrate`: a cluster's objects from its data folder into an etcd, and back.

use std::cell::Cell;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::{Args, Subcommand, ValueEnum};
use store::{MoveError, Sealing, Step};

use crate::cli::Folder;
use crate::{down, kubeadm_host};
use crate::etcd_options::EtcdOptions;
use crate::paths::Paths;

#[derive(Args)]
pub struct StoreCommand {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Move the cluster's objects from the data folder into an etcd, or back, while nothing runs on either; run it again if it is cut short
    Migrate(Migrate),
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Place {
    /// From the data folder into the etcd of --etcd-servers
    Etcd,
    /// From the etcd of --etcd-servers into the data folder
    Embedded,
}

#[derive(Args)]
struct Migrate {
    /// Where to
    #[arg(long, value_enum)]
    to: Place,
    /// Throw away what is there already
    #[arg(long)]
    replace: bool,
    /// How values are sealed where they are stored (an EncryptionConfiguration), as for `coracle up`
    #[arg(long, value_name = "FILE")]
    encryption_provider_config: Option<PathBuf>,
    #[command(flatten)]
    etcd: EtcdOptions,
    #[command(flatten)]
    folder: Folder,
}

pub fn run(command: StoreCommand) -> Result<()> {
    let Verb::Migrate(migrate) = command.verb;
    if !migrate.etcd.is_asked_for() {
        bail!("which etcd? Name it with --etcd-servers");
    }
    let paths = Paths::new(&migrate.folder.data_dir);
    if let Some(pid) = down::running(&paths) {
        bail!("a cluster runs in {} (process {pid})\nhint: stop it first with `coracle down`", paths.data.display());
    }
    let sealing = match &migrate.encryption_provider_config {
        Some(file) => Sealing::with(server::Encryption::open(file)?),
        None => Sealing::default(),
    };
    let config = migrate.etcd.config(sealing)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let progress = Progress::default();
    let tell = |step| progress.tell(step);
    let outcome = runtime.block_on(async {
        match migrate.to {
            Place::Etcd => store::to_etcd(&paths.store(), &config, migrate.replace, tell).await,
            Place::Embedded => store::to_embedded(&config, &paths.store(), migrate.replace, tell).await,
        }
    });
    progress.end();
    let moved = match outcome {
        Ok(moved) => moved,
        Err(error @ (MoveError::NotEmpty { .. } | MoveError::FolderNotEmpty { .. })) => bail!("{error}\nhint: look at what is there before you use --replace"),
        Err(error) => return Err(error.into()),
    };
    if moved.resumed > 0 {
        println!("{} objects were there already, of a move that was cut short", moved.resumed);
    }
    let noted = kubeadm_host::note_etcd(&paths, (migrate.to == Place::Etcd).then_some(&migrate.etcd))?;
    let servers = if noted { "" } else { " --etcd-servers=…" };
    match migrate.to {
        Place::Etcd => println!("moved {} objects, verified; etcd is at revision {}\nstart the cluster with: coracle up{servers}", moved.objects, moved.revision),
        Place::Embedded => println!("moved {} objects, verified, at revision {}\nstart the cluster with: coracle up", moved.objects, moved.revision),
    }
    Ok(())
}

/// One line that moves on a terminal; elsewhere only the beginnings of steps.
#[derive(Default)]
struct Progress {
    shown: Cell<&'static str>,
    open: Cell<bool>,
}

impl Progress {
    fn tell(&self, step: Step) {
        let (name, text) = match step {
            Step::Counting { at, to } => ("counting", format!("raising etcd's revision: {at} of {to}")),
            Step::Copying { done, of } => ("copying", format!("copying: {done} of {of}")),
            Step::Verifying => ("verifying", "verifying".to_owned()),
        };
        let mut out = std::io::stderr();
        // Nobody may be looking any more.
        if out.is_terminal() {
            let _ = write!(out, "\r\x1b[K{text}").and_then(|()| out.flush());
            self.open.set(true);
        } else if self.shown.replace(name) != name {
            let _ = writeln!(out, "{text}");
        }
    }

    fn end(&self) {
        if self.open.get() {
            eprintln!();
        }
    }
}
