//! `lab up`: the nodes, and unless they are to be bare, a cluster of them.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use image::Store;
use network::IpNet;

use super::{cluster, power};
use crate::error::{LabError, Result, io};
use crate::layout::Layout;
use crate::record::Record;
use crate::start::Lab;

#[derive(Args)]
pub struct Options {
    /// How many nodes
    #[arg(long, value_name = "N", default_value_t = 2)]
    nodes: usize,
    /// Only the machines: whoever sits at them types `kubeadm init` and `kubeadm join`
    #[arg(long)]
    bare: bool,
    /// `none`: the cluster has no pod network until one is applied, and its nodes are not ready before
    #[arg(long, value_name = "NETWORK", value_parser = ["none"], conflicts_with = "bare")]
    network: Option<String>,
    /// Addresses of the cluster's pods, and of its Services: one range, or one of each family, as for `kubeadm init`
    #[arg(long, value_name = "CIDRS", conflicts_with = "bare")]
    pod_network_cidr: Option<String>,
    #[arg(long, value_name = "CIDRS", conflicts_with = "bare")]
    service_cidr: Option<String>,
    /// Addresses of the segment that the nodes are on; node1 is the eleventh
    #[arg(long, value_name = "CIDR", default_value = "192.168.0.0/24")]
    subnet: IpNet,
    /// Shells have kubectl as it was when the workshop was written: `kubectl run` makes Deployments
    #[arg(long)]
    classic: bool,
    /// Images that the lab's registries have (docker.io and others, as the nodes see them): archives, or folders with archives in them
    #[arg(long, value_name = "PATH")]
    images: Vec<PathBuf>,
}

pub fn run(layout: Layout, options: &Options) -> Result<()> {
    let begun = Instant::now();
    if let Some(record) = Record::read(&layout)? {
        return Err(LabError::Exists { folder: layout.folder.clone(), nodes: record.nodes.len() });
    }
    let mut record = Record::plan(options.nodes, options.subnet, options.classic)?;
    (record.bare, record.no_network) = (options.bare, options.network.is_some());
    make_folder(&layout)?;
    record.write(&layout)?;
    let lab = Lab { layout, record };
    if let Err(error) = load(&lab.layout, &options.images).and_then(|()| start_all(&lab)) {
        // A lab that did not come to be leaves nothing behind.
        if let Err(undo) = power::take_away(&lab.layout, Some(&lab)) {
            eprintln!("warning: cannot clean up: {undo}");
        }
        return Err(error);
    }
    println!("{} nodes after {:.2} s: {}", lab.record.nodes.len(), begun.elapsed().as_secs_f64(), names(&lab));
    let folder = lab.layout.flag();
    if options.bare {
        println!("hint: `coracle lab{folder} shell node1`, and there `kubeadm init --apiserver-advertise-address $(hostname -i)`");
        return Ok(());
    }
    let flags = [("--network", &options.network), ("--pod-network-cidr", &options.pod_network_cidr), ("--service-cidr", &options.service_cidr)];
    let flags: Vec<String> = flags.iter().filter_map(|(flag, value)| Some(format!("{flag}={}", value.as_ref()?))).collect();
    cluster::make(&lab, &flags, options.network.is_none())?;
    match options.network {
        Some(_) => println!("cluster after {:.2} s; its nodes are not ready until a pod network is applied", begun.elapsed().as_secs_f64()),
        None => println!("cluster ready after {:.2} s", begun.elapsed().as_secs_f64()),
    }
    match options.network {
        Some(_) => println!("hint: `coracle lab{folder} shell node1`, and there the lesson's network, anybody's, or the built-in one: `coracle network manifest | kubectl apply -f -`"),
        None => println!("hint: `coracle lab{folder} shell node1`, and there `kubectl get nodes`"),
    }
    Ok(())
}

/// Fills the lab's registries.
fn load(layout: &Layout, paths: &[PathBuf]) -> Result<()> {
    let failed = |path: &Path, error: &dyn std::fmt::Display| LabError::Invalid(format!("--images {}: {error}", path.display()));
    let mut archives = Vec::new();
    for path in paths {
        if !path.is_dir() {
            archives.push(path.clone());
            continue;
        }
        let entries = std::fs::read_dir(path).map_err(|error| failed(path, &error))?.flatten().map(|entry| entry.path());
        let before = archives.len();
        archives.extend(entries.filter(|entry| entry.extension().is_some_and(|extension| extension == "tar")));
        if archives.len() == before {
            return Err(failed(path, &"there is no archive (*.tar) in it"));
        }
    }
    if archives.is_empty() {
        return Ok(());
    }
    let store = Store::open(layout.images()).map_err(|error| LabError::Invalid(format!("open the lab's images: {error}")))?;
    for archive in archives {
        let file = File::open(&archive).map_err(|error| failed(&archive, &error))?;
        store.import(BufReader::new(file), None).map_err(|error| failed(&archive, &error))?;
    }
    Ok(())
}

fn names(lab: &Lab) -> String {
    lab.record.nodes.iter().map(|node| format!("{} ({})", node.name, node.address)).collect::<Vec<_>>().join(", ")
}

/// Made by us or not at all: what was there before is never taken away by `down`.
fn make_folder(layout: &Layout) -> Result<()> {
    let folder = &layout.folder;
    // An overlay's options have no way to write these.
    if folder.to_string_lossy().contains([',', ':', '\\', '"']) {
        return Err(LabError::Invalid(format!(
            "--data-dir {}: no commas, colons, quotes or backslashes, please: the kernel's mount options cannot say them",
            folder.display()
        )));
    }
    if let Some(parent) = folder.parent() {
        std::fs::create_dir_all(parent).map_err(io(format!("make {}", parent.display())))?;
    }
    match std::fs::create_dir(folder) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            match std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none()) {
                true => Ok(()),
                false => Err(LabError::NotOurs { folder: folder.clone() }),
            }
        }
        Err(error) => Err(io(format!("make {}", folder.display()))(error)),
    }
}

fn start_all(lab: &Lab) -> Result<()> {
    lab.wires()?;
    std::thread::scope(|scope| {
        let starts: Vec<_> = lab.record.nodes.iter().map(|node| scope.spawn(|| lab.start(node))).collect();
        starts.into_iter().try_for_each(|start| start.join().unwrap_or_else(|_| Err(LabError::Invalid("starting a node failed".into()))))
    })
}
