//! Version 2: one tree; a controller must be enabled in each ancestor; shares and quotas under other names.

use std::io;
use std::path::Path;

use super::{DeviceAccess, devices, set, set_if_present};
use crate::cri::LinuxResources;

const CONTROLLERS: [&str; 4] = ["cpu", "memory", "pids", "cpuset"];

pub fn create(root: &Path, path: &str, resources: &LinuxResources, device_access: DeviceAccess<'_>) -> io::Result<()> {
    let mut dir = root.to_path_buf();
    for component in Path::new(path).components() {
        enable_controllers(&dir);
        dir.push(component);
        match std::fs::create_dir(&dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    limit(&dir, resources)?;
    if let DeviceAccess::Allow(rules) = device_access {
        // The kernel kills the whole container when it must kill: half of a container is of no use.
        set_if_present(&dir.join("memory.oom.group"), "1")?;
        devices::attach_filter(&dir, rules)?;
    }
    Ok(())
}

/// What cannot be enabled (absent, or already on) is left: the limit that needs it will say so.
fn enable_controllers(dir: &Path) {
    let available = std::fs::read_to_string(dir.join("cgroup.controllers")).unwrap_or_default();
    let enabled = std::fs::read_to_string(dir.join("cgroup.subtree_control")).unwrap_or_default();
    for controller in CONTROLLERS {
        let listed = |text: &str| text.split_whitespace().any(|name| name == controller);
        if listed(&available) && !listed(&enabled) {
            let _ = set(&dir.join("cgroup.subtree_control"), &format!("+{controller}"));
        }
    }
}

pub fn limit(dir: &Path, resources: &LinuxResources) -> io::Result<()> {
    if let Some(shares) = resources.cpu_shares {
        set(&dir.join("cpu.weight"), &weight(shares).to_string())?;
    }
    if resources.cpu_quota_us.is_some() || resources.cpu_period_us.is_some() {
        let quota = match resources.cpu_quota_us {
            Some(quota) if quota > 0 => quota.max(1000).to_string(),
            _ => "max".to_owned(),
        };
        set(&dir.join("cpu.max"), &format!("{quota} {}", resources.cpu_period_us.unwrap_or(100_000)))?;
    }
    if let Some(limit) = resources.memory_limit_bytes {
        set(&dir.join("memory.max"), &unlimited_or(limit))?;
        set_if_present(&dir.join("memory.swap.max"), if limit <= 0 { "max" } else { "0" })?;
    }
    if let Some(limit) = resources.pids_limit {
        set(&dir.join("pids.max"), &unlimited_or(limit))?;
    }
    if let Some(cpus) = resources.cpuset_cpus.as_deref().filter(|cpus| !cpus.is_empty()) {
        set(&dir.join("cpuset.cpus"), cpus)?;
    }
    Ok(())
}

fn unlimited_or(limit: i64) -> String {
    if limit <= 0 { "max".to_owned() } else { limit.to_string() }
}

/// Shares 2…262144 onto weight 1…10000, as KEP-2254 has it.
fn weight(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

#[cfg(test)]
mod tests {
    use super::weight;

    #[test]
    fn shares_become_weight() {
        for (shares, expected) in [(0, 1), (2, 1), (1024, 39), (262_144, 10_000), (u64::MAX, 10_000)] {
            assert_eq!(weight(shares), expected, "{shares}");
        }
    }
}
