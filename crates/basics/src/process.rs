//! What Prometheus' clients tell of every process, as far as the kernel says it: `process_*`, by the names and words of client_golang.

use std::fs;

use crate::metrics::single;

/// USER_HZ, which Linux does not change.
const TICKS: f64 = 100.0;
/// Of `/proc/self/stat`, counted after the name in brackets: time spent as a user and in the kernel, and when it started.
const USER: usize = 11;
const KERNEL: usize = 12;
const STARTED: usize = 19;

fn text_of(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// The first number of the line that starts so.
fn number(text: &str, start: &str) -> Option<f64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(start))?;
    let first = rest.split_whitespace().next()?;
    if first == "unlimited" { Some(u64::MAX as f64) } else { first.parse().ok() }
}

/// Of the namespace that the process is in: what its addresses have taken in and sent.
fn octets(netstat: &str, column: &str) -> Option<f64> {
    let mut lines = netstat.lines().filter_map(|line| line.strip_prefix("IpExt:"));
    let (names, values) = (lines.next()?, lines.next()?);
    let at = names.split_whitespace().position(|name| name == column)?;
    values.split_whitespace().nth(at)?.parse().ok()
}

pub fn text(out: &mut String) {
    let stat = text_of("/proc/self/stat");
    let fields: Vec<f64> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().map(|field| field.parse().unwrap_or(0.0)).collect();
    let (status, limits, netstat) = (text_of("/proc/self/status"), text_of("/proc/self/limits"), text_of("/proc/self/net/netstat"));
    let kibibytes = |name| number(&status, name).map(|value| value * 1024.0);
    let started = fields.get(STARTED).zip(number(&text_of("/proc/stat"), "btime ")).map(|(ticks, boot)| boot + ticks / TICKS);
    for (name, kind, help, value) in [
        ("process_cpu_seconds_total", "counter", "Total user and system CPU time spent in seconds.", fields.get(USER).zip(fields.get(KERNEL)).map(|(user, kernel)| (user + kernel) / TICKS)),
        ("process_max_fds", "gauge", "Maximum number of open file descriptors.", number(&limits, "Max open files")),
        ("process_network_receive_bytes_total", "counter", "Number of bytes received by the process over the network.", octets(&netstat, "InOctets")),
        ("process_network_transmit_bytes_total", "counter", "Number of bytes sent by the process over the network.", octets(&netstat, "OutOctets")),
        ("process_open_fds", "gauge", "Number of open file descriptors.", fs::read_dir("/proc/self/fd").ok().map(|open| open.count() as f64)),
        ("process_resident_memory_bytes", "gauge", "Resident memory size in bytes.", kibibytes("VmRSS:")),
        ("process_start_time_seconds", "gauge", "Start time of the process since unix epoch in seconds.", started),
        ("process_virtual_memory_bytes", "gauge", "Virtual memory size in bytes.", kibibytes("VmSize:")),
        ("process_virtual_memory_max_bytes", "gauge", "Maximum amount of virtual memory available in bytes.", number(&limits, "Max address space")),
    ] {
        if let Some(value) = value {
            single(out, name, kind, help, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_this_process() {
        let mut out = String::new();
        text(&mut out);
        let of = |name: &str| number(&out, &format!("{name} ")).unwrap_or_else(|| panic!("{name} in {out}"));
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
        let started = of("process_start_time_seconds");
        assert!(started <= now + 1.0 && started > now - 86_400.0, "{started} {now}");
        assert!(of("process_resident_memory_bytes") > 100_000.0 && of("process_open_fds") >= 3.0 && of("process_max_fds") >= of("process_open_fds"));
        assert_eq!(number("Max address space     unlimited    unlimited   bytes", "Max address space"), Some(u64::MAX as f64));
        assert_eq!(octets("TcpExt: a\nTcpExt: 1\nIpExt: In InOctets OutOctets\nIpExt: 1 20 30\n", "OutOctets"), Some(30.0));
    }
}
