//! What the measured processes cost: CPU time from `/proc/PID/stat`, memory as PSS from `/proc/PID/smaps_rollup`.

use std::fs;

/// `USER_HZ`, which is 100 on every Linux that Kubernetes runs on.
const TICKS_A_SECOND: f64 = 100.0;

/// User and system seconds of all of them so far; processes that are gone count as nothing.
pub fn cpu_seconds(pids: &[u32]) -> f64 {
    pids.iter().filter_map(|pid| ticks(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)).sum::<u64>() as f64 / TICKS_A_SECOND
}

fn ticks(stat: &str) -> Option<u64> {
    // The name in parentheses may hold spaces; user and system time are the 12th and 13th field after it.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

pub fn pss_kib(pids: &[u32]) -> u64 {
    pids.iter().filter_map(|pid| pss(&fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?)).sum()
}

fn pss(rollup: &str) -> Option<u64> {
    rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_kernel_writes() {
        assert_eq!(ticks("7 (a (b) c) S 1 7 7 0 -1 4194560 1 0 0 0 250 50 0 0 20"), Some(300));
        assert_eq!(pss("00400000-7fff rollup\nRss: 9 kB\nPss:              1234 kB\nPss_Dirty: 1 kB\n"), Some(1234));
        assert!(cpu_seconds(&[std::process::id()]) >= 0.0 && pss_kib(&[std::process::id()]) > 0);
    }
}
