//! `coracle reset`: stops the cluster and leaves the machine as it was found.

use anyhow::{Context, Result};
use clap::Args;

use crate::cli::Folder;
use crate::down;
use crate::paths::Paths;

#[derive(Args)]
pub struct Options {
    #[command(flatten)]
    folder: Folder,
}

pub fn run(options: &Options) -> Result<()> {
    let paths = Paths::new(&options.folder.data_dir);
    if down::stop(&paths)? {
        println!("stopped the cluster");
    }
    for folder in [paths.data.clone(), paths.run()] {
        if folder.exists() {
            std::fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
            println!("removed {}", folder.display());
        }
    }
    Ok(())
}
