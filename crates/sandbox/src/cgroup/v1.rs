//! Version 1: a directory per hierarchy, limits in controller-prefixed files.

use std::io;
use std::path::Path;

use super::{DeviceAccess, Hierarchy, set, set_if_present};
use crate::cri::LinuxResources;

/// The controllers containers are put under. The others (blkio, hugetlb, …) give nothing a pod can ask for, and each one costs time.
pub const USED: [&str; 6] = ["cpu", "cpuacct", "memory", "pids", "devices", "cpuset"];

pub fn find<'a>(hierarchies: &'a [Hierarchy], controller: &str) -> Option<&'a Hierarchy> {
    hierarchies.iter().find(|hierarchy| hierarchy.has(controller))
}

pub fn create(hierarchies: &[Hierarchy], path: &str, resources: &LinuxResources, devices: DeviceAccess<'_>) -> io::Result<()> {
    for hierarchy in hierarchies {
        make(hierarchy, path)?;
    }
    limit(hierarchies, path, resources)?;
    if let (DeviceAccess::Allow(rules), Some(hierarchy)) = (devices, find(hierarchies, "devices")) {
        let dir = hierarchy.mount.join(path);
        set(&dir.join("devices.deny"), "a")?;
        for rule in rules {
            set(&dir.join("devices.allow"), &rule.to_string())?;
        }
    }
    Ok(())
}

fn make(hierarchy: &Hierarchy, path: &str) -> io::Result<()> {
    let dir = hierarchy.mount.join(path);
    if !hierarchy.has("cpuset") {
        return match std::fs::create_dir(&dir) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => std::fs::create_dir_all(&dir),
            other => other,
        };
    }
    // A new cpuset is empty and takes no process: each level copies its parent, unless someone has filled it.
    if std::fs::create_dir(&dir).is_ok() && dir.parent().is_some_and(|parent| fill_cpuset(parent, &dir).is_ok()) {
        return Ok(());
    }
    let mut parent = hierarchy.mount.clone();
    for component in Path::new(path).components() {
        let child = parent.join(component);
        match std::fs::create_dir(&child) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        fill_cpuset(&parent, &child)?;
        parent = child;
    }
    Ok(())
}

fn fill_cpuset(parent: &Path, child: &Path) -> io::Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if std::fs::read_to_string(child.join(file))?.trim().is_empty() {
            let inherited = std::fs::read_to_string(parent.join(file))?;
            if inherited.trim().is_empty() {
                return Err(io::Error::other(format!("{} is empty", parent.join(file).display())));
            }
            set(&child.join(file), inherited.trim())?;
        }
    }
    Ok(())
}

pub fn limit(hierarchies: &[Hierarchy], path: &str, resources: &LinuxResources) -> io::Result<()> {
    let dir = |controller| find(hierarchies, controller).map(|hierarchy| hierarchy.mount.join(path));
    if let Some(cpu) = dir("cpu") {
        if let Some(shares) = resources.cpu_shares {
            set(&cpu.join("cpu.shares"), &shares.max(2).to_string())?;
        }
        if let Some(period) = resources.cpu_period_us {
            set_if_present(&cpu.join("cpu.cfs_period_us"), &period.to_string())?;
        }
        if let Some(quota) = resources.cpu_quota_us {
            set_if_present(&cpu.join("cpu.cfs_quota_us"), &(if quota <= 0 { -1 } else { quota.max(1000) }).to_string())?;
        }
    }
    if let (Some(memory), Some(limit)) = (dir("memory"), resources.memory_limit_bytes) {
        limit_memory(&memory, if limit <= 0 { -1 } else { limit })?;
    }
    if let (Some(pids), Some(limit)) = (dir("pids"), resources.pids_limit) {
        let value = if limit <= 0 { "max".to_owned() } else { limit.to_string() };
        set(&pids.join("pids.max"), &value)?;
    }
    if let (Some(cpuset), Some(cpus)) = (dir("cpuset"), resources.cpuset_cpus.as_deref().filter(|cpus| !cpus.is_empty())) {
        set(&cpuset.join("cpuset.cpus"), cpus)?;
    }
    Ok(())
}

/// Memory and memory+swap are the same, so that no swap is used; the two must be set in the order which keeps memory ≤ memory+swap.
fn limit_memory(dir: &Path, limit: i64) -> io::Result<()> {
    let (memory, swap, value) = (dir.join("memory.limit_in_bytes"), dir.join("memory.memsw.limit_in_bytes"), limit.to_string());
    if !swap.exists() {
        return set(&memory, &value);
    }
    let current = std::fs::read_to_string(&swap)?.trim().parse::<u64>().unwrap_or(u64::MAX);
    if limit == -1 || limit as u64 > current {
        set(&swap, &value)?;
        set(&memory, &value)
    } else {
        set(&memory, &value)?;
        set(&swap, &value)
    }
}
