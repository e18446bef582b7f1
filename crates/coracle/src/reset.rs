//! `coracle reset`: stops the cluster and leaves the machine as it was found: no process, mount, cgroup, interface, rule or file.

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use clap::Args;
use node::networking::Networking;
use sandbox::cri::{BoxFuture, PodNetwork, PodSandboxConfig};

use crate::cli::{Cidrs, Folder, cidrs};
use crate::down;
use crate::machine::{MachineConfig, networking_config, node_ranges, runtime_config};
use crate::paths::Paths;

#[derive(Args)]
pub struct Options {
    #[command(flatten)]
    folder: Folder,
    /// Addresses of pods, as they were given to `up`
    #[arg(long, value_name = "CIDR", value_parser = cidrs, default_value = "10.244.0.0/16")]
    pod_network_cidr: Cidrs,
    /// Addresses of Services, as they were given to `up`
    #[arg(long, value_name = "CIDR", value_parser = cidrs, default_value = "10.96.0.0/12")]
    service_cidr: Cidrs,
}

/// The runtime's reset gives no network back: all of it goes at once.
struct Nothing;

impl PodNetwork for Nothing {
    fn attach<'a>(&'a self, _: &'a str, _: &'a Path, _: &'a PodSandboxConfig) -> BoxFuture<'a, Result<Vec<IpAddr>, String>> {
        Box::pin(async { Err("the cluster is being removed".to_owned()) })
    }

    fn detach<'a>(&'a self, _: &'a str, _: &'a PodSandboxConfig) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async { Ok(()) })
    }
}

pub fn run(options: &Options) -> Result<()> {
    let paths = Paths::new(&options.folder.data_dir);
    let by_kubeadm = paths.kubeadm_mark().exists();
    remove(&paths, &options.pod_network_cidr, &options.service_cidr, None)?;
    if by_kubeadm {
        kubeadm::remove_traces();
        println!("removed {} and {}", kubeadm::KUBERNETES_FOLDER, kubeadm::KUBELET_FOLDER);
    }
    Ok(())
}

/// Stops what runs and takes away all it made, but for what was in the data folder, if that is to be kept.
pub fn remove(paths: &Paths, pod_network_cidrs: &Cidrs, service_cidrs: &Cidrs, kept: Option<&[OsString]>) -> Result<()> {
    if down::stop(paths)? {
        println!("stopped the cluster");
    }
    if !paths.data.exists() && !paths.run().exists() {
        println!("nothing to remove in {}", paths.data.display());
        return Ok(());
    }
    if paths.containers().exists() {
        let pods = sandbox_pods(paths);
        let report = sandbox::reset(&runtime_config(paths, Arc::new(Nothing))?)?;
        println!("removed {} pods with {} containers", report.sandboxes, report.containers);
        remove_pod_logs(&pods);
    }
    if paths.network().exists() {
        let config = MachineConfig {
            node_name: String::new(),
            addresses: Vec::new(),
            service_cidrs: service_cidrs.clone(),
            pod_network_cidrs: pod_network_cidrs.clone(),
            pod_cidrs: node_ranges(pod_network_cidrs),
            cluster_dns: crate::up::dns_addresses(service_cidrs),
            version: String::new(),
            // Whatever was applied to it goes too.
            applied: true,
            service_proxy: true,
            labels: Default::default(),
            settings: Default::default(),
        };
        Networking::reset(&networking_config(&config, paths)?).context("cannot remove the pod network")?;
        println!("removed the pod network");
    }
    unmount_below(&paths.data)?;
    match kept {
        None => remove_folder(&paths.data)?,
        Some(kept) => empty_folder(&paths.data, kept)?,
    }
    remove_folder(&paths.run())?;
    if let Err(error) = node::shutdown::logind::forget() {
        eprintln!("warning: logind still waits for pods when this machine shuts down: {error}");
    }
    Ok(())
}

/// Takes away all but what was there before.
fn empty_folder(folder: &Path, kept: &[OsString]) -> Result<()> {
    for entry in std::fs::read_dir(folder)?.flatten().filter(|entry| !kept.contains(&entry.file_name())) {
        let path = entry.path();
        let removed = if entry.file_type()?.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
        removed.with_context(|| format!("cannot remove {}", path.display()))?;
    }
    Ok(())
}

/// One that something is mounted on is left empty: the mount is not ours.
fn remove_folder(folder: &Path) -> Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::ResourceBusy => {}
        removed => removed.with_context(|| format!("cannot remove {}", folder.display()))?,
    }
    println!("removed {}", folder.display());
    Ok(())
}

/// `<namespace>_<name>_<uid>` of the pods the kubelet's folder knows.
fn sandbox_pods(paths: &Paths) -> Vec<String> {
    let uids = std::fs::read_dir(paths.kubelet().join("pods")).into_iter().flatten().flatten();
    uids.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// Log folders end in the pod's uid; only those of this cluster's pods are removed.
fn remove_pod_logs(uids: &[String]) {
    let Ok(folders) = std::fs::read_dir("/var/log/pods") else { return };
    for folder in folders.flatten() {
        let name = folder.file_name().to_string_lossy().into_owned();
        if uids.iter().any(|uid| name.ends_with(&format!("_{uid}")))
            && let Err(error) = std::fs::remove_dir_all(folder.path())
        {
            eprintln!("warning: cannot remove {}: {error}", folder.path().display());
        }
    }
    // Fails while another cluster's logs are in it, and should.
    let _ = std::fs::remove_dir("/var/log/pods");
}

/// Volumes on tmpfs and bind mounts of the kubelet's folder, innermost first.
fn unmount_below(folder: &Path) -> Result<()> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").context("cannot read the mount table")?;
    let mut points: Vec<&str> = table.lines().filter_map(|line| line.split(' ').nth(4)).filter(|point| Path::new(point).starts_with(folder) && Path::new(point) != folder).collect();
    points.reverse();
    for point in points {
        nix::mount::umount2(point, nix::mount::MntFlags::MNT_DETACH).with_context(|| format!("cannot unmount {point}"))?;
    }
    Ok(())
}
