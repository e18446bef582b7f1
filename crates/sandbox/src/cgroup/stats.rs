//! What a cgroup has used, as the kubelet's summary counts it: the working set is usage less inactive file pages.

use std::path::Path;

use super::{Hierarchy, v1::find};

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    pub cpu_ns: u64,
    pub memory_bytes: u64,
    pub memory_working_set_bytes: u64,
    pub memory_rss_bytes: u64,
    pub pids: u64,
}

pub fn v1(hierarchies: &[Hierarchy], path: &str) -> Usage {
    let read = |controller: &str, file: &str| find(hierarchies, controller).and_then(|hierarchy| std::fs::read_to_string(hierarchy.mount.join(path).join(file)).ok());
    let memory_stat = read("memory", "memory.stat").unwrap_or_default();
    let memory_bytes = number(read("memory", "memory.usage_in_bytes"));
    Usage {
        cpu_ns: number(read("cpuacct", "cpuacct.usage")),
        memory_bytes,
        memory_working_set_bytes: memory_bytes.saturating_sub(keyed(&memory_stat, "total_inactive_file").unwrap_or(0)),
        memory_rss_bytes: keyed(&memory_stat, "total_rss").unwrap_or(0),
        pids: number(read("pids", "pids.current")),
    }
}

pub fn v2(dir: &Path) -> Usage {
    let read = |file: &str| std::fs::read_to_string(dir.join(file)).ok();
    let memory_stat = read("memory.stat").unwrap_or_default();
    let memory_bytes = number(read("memory.current"));
    Usage {
        cpu_ns: read("cpu.stat").and_then(|text| keyed(&text, "usage_usec")).unwrap_or(0) * 1000,
        memory_bytes,
        memory_working_set_bytes: memory_bytes.saturating_sub(keyed(&memory_stat, "inactive_file").unwrap_or(0)),
        memory_rss_bytes: keyed(&memory_stat, "anon").unwrap_or(0),
        pids: number(read("pids.current")),
    }
}

fn number(text: Option<String>) -> u64 {
    text.and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

/// The value of `key` in a file of `key value` lines.
pub fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::keyed;

    #[test]
    fn finds_the_whole_key_only() {
        let text = "oom 3\noom_kill_disable 0\nunder_oom 0\noom_kill 2\n";
        assert_eq!(keyed(text, "oom_kill"), Some(2));
        assert_eq!(keyed(text, "missing"), None);
    }
}
