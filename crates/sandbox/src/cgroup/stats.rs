//! What a cgroup has used, as the kubelet's summary counts it: the working set is usage less inactive file pages.

use std::path::Path;

use super::{Hierarchy, v1::find};
use crate::cri::{CgroupUse, DeviceUse};

/// USER_HZ, which Linux does not change: of v1's times of processors.
const TICK_NS: u64 = 10_000_000;

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

/// All that cgroup v1 tells. None: there is no such group.
pub fn all_v1(hierarchies: &[Hierarchy], path: &str) -> Option<CgroupUse> {
    let read = |controller: &str, file: &str| find(hierarchies, controller).and_then(|hierarchy| std::fs::read_to_string(hierarchy.mount.join(path).join(file)).ok());
    let memory = read("memory", "memory.stat")?;
    let (times, throttling, oom) = (read("cpuacct", "cpuacct.stat").unwrap_or_default(), read("cpu", "cpu.stat").unwrap_or_default(), read("memory", "memory.oom_control").unwrap_or_default());
    let of = |text: &str, key: &str| keyed(text, key).unwrap_or(0);
    let swap = number(read("memory", "memory.memsw.usage_in_bytes"));
    let basic = v1(hierarchies, path);
    let mut devices = Vec::new();
    for (file, bytes) in [("blkio.throttle.io_service_bytes", true), ("blkio.throttle.io_serviced", false)] {
        let text = read("blkio", file).unwrap_or_default();
        for line in text.lines() {
            if let [device, operation, value] = *line.split_whitespace().collect::<Vec<_>>() {
                note(&mut devices, device, &operation.to_ascii_lowercase(), bytes, value);
            }
        }
    }
    Some(CgroupUse {
        cpu_ns: basic.cpu_ns,
        cpu_user_ns: of(&times, "user") * TICK_NS,
        cpu_system_ns: of(&times, "system") * TICK_NS,
        periods: of(&throttling, "nr_periods"),
        throttled_periods: of(&throttling, "nr_throttled"),
        throttled_ns: of(&throttling, "throttled_time"),
        memory_bytes: basic.memory_bytes,
        memory_working_set_bytes: basic.memory_working_set_bytes,
        memory_rss_bytes: basic.memory_rss_bytes,
        memory_cache_bytes: of(&memory, "total_cache"),
        memory_swap_bytes: if swap > 0 { swap.saturating_sub(basic.memory_bytes) } else { of(&memory, "total_swap") },
        memory_mapped_bytes: of(&memory, "total_mapped_file"),
        memory_most_bytes: number(read("memory", "memory.max_usage_in_bytes")),
        memory_refusals: number(read("memory", "memory.failcnt")),
        page_faults: of(&memory, "total_pgfault"),
        major_page_faults: of(&memory, "total_pgmajfault"),
        oom_kills: of(&oom, "oom_kill"),
        processes: basic.pids,
        devices,
    })
}

/// All that cgroup v2 tells. None: there is no such group, or it is the root, of which it tells little.
pub fn all_v2(dir: &Path) -> Option<CgroupUse> {
    let read = |file: &str| std::fs::read_to_string(dir.join(file)).ok();
    let memory = read("memory.stat")?;
    let (cpu, events) = (read("cpu.stat").unwrap_or_default(), read("memory.events").unwrap_or_default());
    let of = |text: &str, key: &str| keyed(text, key).unwrap_or(0);
    let basic = v2(dir);
    let mut devices = Vec::new();
    for line in read("io.stat").unwrap_or_default().lines() {
        let mut words = line.split_whitespace();
        let device = words.next().unwrap_or_default();
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            match key {
                "rbytes" => note(&mut devices, device, "read", true, value),
                "wbytes" => note(&mut devices, device, "write", true, value),
                "rios" => note(&mut devices, device, "read", false, value),
                "wios" => note(&mut devices, device, "write", false, value),
                _ => {}
            }
        }
    }
    Some(CgroupUse {
        cpu_ns: basic.cpu_ns,
        cpu_user_ns: of(&cpu, "user_usec") * 1000,
        cpu_system_ns: of(&cpu, "system_usec") * 1000,
        periods: of(&cpu, "nr_periods"),
        throttled_periods: of(&cpu, "nr_throttled"),
        throttled_ns: of(&cpu, "throttled_usec") * 1000,
        memory_bytes: basic.memory_bytes,
        memory_working_set_bytes: basic.memory_working_set_bytes,
        memory_rss_bytes: basic.memory_rss_bytes,
        memory_cache_bytes: of(&memory, "file"),
        memory_swap_bytes: number(read("memory.swap.current")),
        memory_mapped_bytes: of(&memory, "file_mapped"),
        memory_most_bytes: number(read("memory.peak")),
        memory_refusals: of(&events, "max"),
        page_faults: of(&memory, "pgfault"),
        major_page_faults: of(&memory, "pgmajfault"),
        oom_kills: of(&events, "oom_kill"),
        processes: basic.pids,
        devices,
    })
}

fn note(devices: &mut Vec<DeviceUse>, device: &str, operation: &str, bytes: bool, value: &str) {
    let Ok(value) = value.parse::<u64>() else { return };
    let at = devices.iter().position(|known| known.device == device).unwrap_or_else(|| {
        devices.push(DeviceUse { device: device.to_owned(), ..DeviceUse::default() });
        devices.len() - 1
    });
    let known = &mut devices[at];
    match (operation, bytes) {
        ("read", true) => known.read_bytes = value,
        ("read", false) => known.reads = value,
        ("write", true) => known.written_bytes = value,
        ("write", false) => known.writes = value,
        _ => {}
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
    use super::*;

    #[test]
    fn all_of_a_group_of_version_2() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(all_v2(dir.path()), None);
        for (file, text) in [
            ("memory.stat", "anon 4096\nfile 8192\ninactive_file 1000\nfile_mapped 77\npgfault 5\npgmajfault 2\n"),
            ("memory.current", "20000\n"),
            ("memory.peak", "30000\n"),
            ("memory.events", "max 3\noom 1\noom_kill 1\n"),
            ("cpu.stat", "usage_usec 30\nuser_usec 20\nsystem_usec 10\nnr_periods 9\nnr_throttled 4\nthrottled_usec 7\n"),
            ("io.stat", "8:0 rbytes=100 wbytes=200 rios=1 wios=2 dbytes=0 dios=0\n"),
        ] {
            std::fs::write(dir.path().join(file), text).unwrap();
        }
        let all = all_v2(dir.path()).unwrap();
        assert_eq!((all.memory_working_set_bytes, all.memory_cache_bytes, all.memory_most_bytes, all.memory_refusals, all.oom_kills), (19000, 8192, 30000, 3, 1));
        assert_eq!((all.cpu_ns, all.cpu_user_ns, all.periods, all.throttled_periods, all.throttled_ns), (30_000, 20_000, 9, 4, 7000));
        assert_eq!(all.devices, [DeviceUse { device: "8:0".into(), read_bytes: 100, written_bytes: 200, reads: 1, writes: 2 }]);
    }

    #[test]
    fn finds_the_whole_key_only() {
        let text = "oom 3\noom_kill_disable 0\nunder_oom 0\noom_kill 2\n";
        assert_eq!(keyed(text, "oom_kill"), Some(2));
        assert_eq!(keyed(text, "missing"), None);
    }
}
