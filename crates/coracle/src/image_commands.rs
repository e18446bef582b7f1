//! `coracle build` and `coracle image …`: the one image store of this machine (decision 8 of the design).

use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use image::{BuildOptions, ChrootRunner, Registry, RegistryOptions, Store};

use crate::cli::Folder;
use crate::paths::Paths;

#[derive(Args)]
pub struct BuildCommand {
    #[command(flatten)]
    folder: Folder,
    /// Name and tag of the image, may be repeated
    #[arg(short, long = "tag", value_name = "NAME:TAG")]
    tags: Vec<String>,
    /// The Dockerfile, when it is not PATH/Dockerfile
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Set a build-time variable
    #[arg(long = "build-arg", value_name = "NAME=VALUE")]
    build_args: Vec<String>,
    /// Stop after this stage
    #[arg(long)]
    target: Option<String>,
    /// Make every step anew
    #[arg(long)]
    no_cache: bool,
    /// The folder COPY and ADD read
    path: PathBuf,
}

#[derive(Args)]
pub struct ImageCommand {
    #[command(flatten)]
    folder: Folder,
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// List the images of this machine
    #[command(alias = "ls")]
    List,
    /// Bring in images from archives (docker save, OCI layout)
    #[command(alias = "load")]
    Import { archives: Vec<PathBuf> },
    /// Write images into an archive
    Save {
        #[arg(short, long)]
        output: PathBuf,
        names: Vec<String>,
    },
    /// Give an image another name
    Tag { source: String, target: String },
    /// Remove a name, and the image with its last one
    #[command(alias = "rm")]
    Remove { names: Vec<String> },
    /// Fetch an image from its registry
    Pull { name: String },
    /// Send an image to its registry
    Push { name: String },
}

fn open(folder: &Folder) -> Result<Store> {
    let path = Paths::new(&folder.data_dir).images();
    Store::open(&path).with_context(|| format!("cannot open the image store {}", path.display()))
}

pub fn build(command: &BuildCommand) -> Result<()> {
    let store = open(&command.folder)?;
    let mut arguments = std::collections::BTreeMap::new();
    for pair in &command.build_args {
        let (name, value) = match pair.split_once('=') {
            Some((name, value)) => (name.to_owned(), value.to_owned()),
            None => (pair.clone(), std::env::var(pair).with_context(|| format!("--build-arg {pair}: no value given, and no such variable in the environment"))?),
        };
        arguments.insert(name, value);
    }
    let options = BuildOptions {
        context: command.path.clone(),
        dockerfile: command.file.clone(),
        tags: command.tags.clone(),
        build_args: arguments,
        target: command.target.clone(),
        no_cache: command.no_cache,
        ..BuildOptions::default()
    };
    image::build(&store, &options, &ChrootRunner, &mut std::io::stdout().lock())?;
    Ok(())
}

pub fn run(command: &ImageCommand) -> Result<()> {
    let store = open(&command.folder)?;
    match &command.action {
        Action::List => list(&store),
        Action::Import { archives } => {
            for archive in archives {
                let file = File::open(archive).with_context(|| format!("cannot open {}", archive.display()))?;
                for image in store.import(BufReader::new(file), None).with_context(|| format!("cannot import {}", archive.display()))? {
                    for tag in &image.repo_tags {
                        println!("Loaded image: {tag}");
                    }
                }
            }
            Ok(())
        }
        Action::Save { output, names } => {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let mut file = BufWriter::new(File::create(output).with_context(|| format!("cannot write {}", output.display()))?);
            store.save(&names, &mut file)?;
            Ok(file.flush()?)
        }
        Action::Tag { source, target } => store.tag(source, target).map(drop).map_err(Into::into),
        Action::Remove { names } => {
            for name in names {
                if !store.remove(name)? {
                    bail!("no such image: {name}");
                }
                println!("Untagged: {name}");
            }
            Ok(())
        }
        Action::Pull { name } => {
            let image = block_on(async { Registry::new(RegistryOptions::default())?.pull(&Arc::new(store), name, &[]).await.map_err(anyhow::Error::from) })?;
            println!("{}", image.id);
            Ok(())
        }
        Action::Push { name } => {
            let digest = block_on(async { Registry::new(RegistryOptions::default())?.push(&Arc::new(store), name, &[]).await.map_err(anyhow::Error::from) })?;
            println!("{digest}");
            Ok(())
        }
    }
}

fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}

fn list(store: &Store) -> Result<()> {
    println!("{:<40} {:<12} {:<14} SIZE", "REPOSITORY", "TAG", "IMAGE ID");
    for image in store.list()? {
        let id = image.id.to_string();
        let short: String = id.trim_start_matches("sha256:").chars().take(12).collect();
        for name in &image.repo_tags {
            let (repository, tag) = name.rsplit_once(':').unwrap_or((name, "<none>"));
            let repository = repository.trim_start_matches("docker.io/library/").trim_start_matches("docker.io/");
            println!("{repository:<40} {tag:<12} {short:<14} {:.1} MB", image.size as f64 / 1e6);
        }
    }
    Ok(())
}
