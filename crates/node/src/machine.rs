//! Facts about the machine: processors, memory, disk, operating system, from /proc, /sys and /etc.

use std::fs;
use std::path::Path;

use nix::sys::statvfs::statvfs;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Machine {
    pub cpus: usize,
    pub memory_bytes: u64,
    pub swap_bytes: u64,
    pub machine_id: String,
    pub system_uuid: String,
    pub boot_id: String,
    pub kernel_version: String,
    pub os_image: String,
    /// `1048576` → pages reserved, per size in KiB.
    pub hugepages: Vec<(u64, u64)>,
}

fn read(path: &str) -> String {
    fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default()
}

/// A line `Name:  123 kB` in bytes.
fn meminfo(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
}

fn os_image(os_release: &str) -> String {
    let value = |key: &str| os_release.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('=')).map(|v| v.trim_matches('"').to_owned());
    value("PRETTY_NAME").unwrap_or_else(|| "Linux".to_owned())
}

impl Machine {
    pub fn read() -> Self {
        let memory = read("/proc/meminfo");
        let mut hugepages = Vec::new();
        for entry in fs::read_dir("/sys/kernel/mm/hugepages").into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if let Some(kib) = name.strip_prefix("hugepages-").and_then(|s| s.strip_suffix("kB")).and_then(|s| s.parse::<u64>().ok()) {
                let pages = fs::read_to_string(entry.path().join("nr_hugepages")).ok().and_then(|s| s.trim().parse().ok()).unwrap_or(0);
                hugepages.push((kib, pages));
            }
        }
        hugepages.sort_unstable();
        let machine_id = read("/etc/machine-id");
        let system_uuid = Some(read("/sys/class/dmi/id/product_uuid")).filter(|s| !s.is_empty()).unwrap_or_else(|| machine_id.clone());
        Self {
            cpus: std::thread::available_parallelism().map_or(1, Into::into),
            memory_bytes: meminfo(&memory, "MemTotal").unwrap_or(0),
            swap_bytes: meminfo(&memory, "SwapTotal").unwrap_or(0),
            machine_id,
            system_uuid,
            boot_id: read("/proc/sys/kernel/random/boot_id"),
            kernel_version: read("/proc/sys/kernel/osrelease"),
            os_image: os_image(&read("/etc/os-release")),
            hugepages,
        }
    }
}

pub fn memory_available() -> u64 {
    meminfo(&read("/proc/meminfo"), "MemAvailable").unwrap_or(u64::MAX)
}

/// Size and free bytes of the file system that holds `path` (or its nearest parent that exists). What is kept for another user counts as neither: upstream counts
/// it into the size, and a tenth of a size that can never be reached is pressure for ever.
pub fn disk(path: &Path) -> (u64, u64) {
    let existing = path.ancestors().find(|p| p.exists()).unwrap_or(Path::new("/"));
    statvfs(existing).map_or((0, 0), |s| {
        let usable = s.blocks().saturating_sub(s.blocks_free()).saturating_add(s.blocks_available());
        (usable * s.fragment_size(), s.blocks_available() * s.fragment_size())
    })
}

/// What a file system has and has left; all zero where there is none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Space {
    pub capacity: u64,
    pub available: u64,
    pub inodes: u64,
    pub inodes_free: u64,
}

pub fn space(path: &Path) -> Space {
    let existing = path.ancestors().find(|p| p.exists()).unwrap_or(Path::new("/"));
    let (capacity, available) = disk(path);
    statvfs(existing).map_or(Space::default(), |s| Space { capacity, available, inodes: s.files(), inodes_free: s.files_available() })
}

/// Process IDs in use and their limit.
pub fn pids() -> (u64, u64) {
    let limit = read("/proc/sys/kernel/pid_max").parse().unwrap_or(u64::MAX);
    // `0.00 0.01 0.05 1/123 4567`: running/existing threads.
    let used = read("/proc/loadavg").split_whitespace().nth(3).and_then(|s| s.split_once('/')?.1.parse().ok()).unwrap_or(0);
    (used, limit)
}

/// Go's name of the architecture.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_this_machine() {
        let machine = Machine::read();
        assert!(machine.cpus > 0 && machine.memory_bytes > 1 << 20 && !machine.kernel_version.is_empty());
        assert!(disk(Path::new("/does/not/exist")).0 > 0);
        assert_eq!(os_image("NAME=x\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n"), "Debian GNU/Linux 12 (bookworm)");
        assert_eq!(meminfo("MemTotal:       24 kB\n", "MemTotal"), Some(24 * 1024));
    }
}
