//! What processes have spent: CPU time, and memory they can be blamed for (PSS).

use std::time::Duration;

/// Kernel ticks in a second: fixed at 100 in what `/proc` reports.
const TICKS_PER_SECOND: u64 = 100;

/// User and system time of the processes so far; a process that is gone counts as nothing.
pub fn cpu(pids: &[i32]) -> Option<Duration> {
    (!pids.is_empty()).then(|| pids.iter().filter_map(|pid| ticks(*pid)).map(|ticks| Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND)).sum())
}

fn ticks(pid: i32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold spaces and brackets; the numbers begin after its last bracket.
    let fields: Vec<&str> = text[text.rfind(')')? + 2..].split(' ').collect();
    Some(fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?)
}

/// Proportional set size in KiB.
pub fn memory_kib(pids: &[i32]) -> u64 {
    let one = |pid: &i32| -> Option<u64> {
        let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
        text.lines().find_map(|line| line.strip_prefix("Pss:"))?.trim().strip_suffix(" kB")?.trim().parse().ok()
    };
    pids.iter().filter_map(one).sum()
}
