//! What the name server counts, under CoreDNS's names and labels, so that dashboards and alerts made for it go on working
//! (<https://coredns.io/plugins/metrics/>, `cache`, `forward`). Each thread counts in a shard of its own; whoever scrapes adds them up.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::wire::kind;

/// As CoreDNS has it for the server block `.:53`.
const SERVER: &str = "dns://:53";
/// Upper ends in microseconds: a quarter of a millisecond, doubled.
const DURATIONS: usize = 16;
const FIRST_DURATION_MICROSECONDS: u64 = 250;
const SIZES: [u64; 14] = [0, 100, 200, 300, 400, 511, 1023, 2047, 4095, 8291, 16_000, 32_000, 48_000, 64_000];
/// Types that are counted by name; others are `other`, as in CoreDNS.
const TYPES: [(u16, &str); 10] =
    [(kind::A, "A"), (kind::AAAA, "AAAA"), (kind::SRV, "SRV"), (kind::PTR, "PTR"), (kind::CNAME, "CNAME"), (kind::TXT, "TXT"), (kind::NS, "NS"), (kind::SOA, "SOA"), (15, "MX"), (65, "HTTPS")];
const CODES: [&str; 6] = ["NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    Udp,
    Tcp,
}

/// Who answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// Nobody: it was refused.
    Nobody,
    Kubernetes,
    Cache,
    Forward,
    Hosts,
    Template,
}

const BY: [(&str, By); 6] = [("", By::Nobody), ("kubernetes", By::Kubernetes), ("cache", By::Cache), ("forward", By::Forward), ("hosts", By::Hosts), ("template", By::Template)];

struct Histogram<const N: usize> {
    /// Each with what is above the end before it; the last has no end.
    counts: [AtomicU64; N],
    sum: AtomicU64,
}

impl<const N: usize> Default for Histogram<N> {
    fn default() -> Self {
        Self { counts: [const { AtomicU64::new(0) }; N], sum: AtomicU64::new(0) }
    }
}

impl<const N: usize> Histogram<N> {
    fn note(&self, place: usize, value: u64) {
        add(&self.counts[place.min(N - 1)], 1);
        add(&self.sum, value);
    }
}

/// Only one thread counts in a shard, mostly: cheaper than an atomic addition would be, and never wrong by more than a race of forwarded answers.
fn add(counter: &AtomicU64, more: u64) {
    counter.fetch_add(more, Ordering::Relaxed);
}

#[derive(Default)]
struct Lane {
    requests: [[AtomicU64; TYPES.len() + 1]; 2],
    request_sizes: Histogram<{ SIZES.len() + 1 }>,
    response_sizes: Histogram<{ SIZES.len() + 1 }>,
}

/// One thread's.
#[derive(Default)]
pub struct Shard {
    /// By transport.
    lanes: [Lane; 2],
    responses: [[AtomicU64; BY.len()]; CODES.len() + 1],
    durations: Histogram<{ DURATIONS + 1 }>,
    cache_hits: [AtomicU64; 2],
    cache_misses: AtomicU64,
    rejected: AtomicU64,
}

impl Shard {
    pub fn request(&self, transport: Transport, ipv4: bool, kind: Option<u16>, bytes: usize) {
        let lane = &self.lanes[transport as usize];
        let of = kind.and_then(|kind| TYPES.iter().position(|(known, _)| *known == kind)).unwrap_or(TYPES.len());
        add(&lane.requests[usize::from(!ipv4)][of], 1);
        lane.request_sizes.note(size_place(bytes), bytes as u64);
    }

    /// `answer` is the whole message.
    pub fn response(&self, transport: Transport, by: By, answer: &[u8], took: Duration) {
        let code = usize::from(answer.get(3).map_or(2, |byte| byte & 0x0f)).min(CODES.len());
        add(&self.responses[code][by as usize], 1);
        self.lanes[transport as usize].response_sizes.note(size_place(answer.len()), answer.len() as u64);
        let took = took.as_micros() as u64;
        let place = if took <= FIRST_DURATION_MICROSECONDS { 0 } else { ((took - 1) / FIRST_DURATION_MICROSECONDS).ilog2() as usize + 1 };
        self.durations.note(place, took);
    }

    /// An upstream's answer was there, or was not.
    pub fn cache(&self, hit: Option<&[u8]>) {
        match hit {
            Some(answer) => add(&self.cache_hits[usize::from(is_denial(answer))], 1),
            None => add(&self.cache_misses, 1),
        }
    }

    /// More questions are under way than upstreams are asked at once.
    pub fn rejected(&self) {
        add(&self.rejected, 1);
    }
}

fn size_place(bytes: usize) -> usize {
    SIZES.partition_point(|end| *end < bytes as u64)
}

/// No such name, or nothing of that kind.
pub fn is_denial(answer: &[u8]) -> bool {
    answer.get(3).is_some_and(|byte| byte & 0x0f != 0) || answer.get(6..8) == Some(&[0, 0])
}

#[derive(Default, Clone)]
pub struct Metrics(Arc<Mutex<Vec<Arc<Shard>>>>);

impl Metrics {
    pub fn shard(&self) -> Arc<Shard> {
        let shard = Arc::new(Shard::default());
        self.0.lock().push(shard.clone());
        shard
    }

    /// In Prometheus' text format. `entries` are kept answers: of names that are, and of names that are not.
    pub fn text(&self, entries: (usize, usize)) -> String {
        let shards = self.0.lock().clone();
        let sum = |of: &dyn Fn(&Shard) -> u64| shards.iter().map(|shard| of(shard)).sum::<u64>();
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let mut text = String::new();
        let head = |text: &mut String, name: &str, kind: &str, help: &str| {
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        };
        let zone = format!("server=\"{SERVER}\",view=\"\",zone=\".\"");
        head(&mut text, "coredns_build_info", "gauge", "A metric with a constant '1' value labeled by version, revision, and goversion from which CoreDNS was built.");
        let _ = writeln!(text, "coredns_build_info{{goversion=\"\",revision=\"coracle\",version=\"{}\"}} 1", env!("CARGO_PKG_VERSION"));
        let name = "coredns_dns_requests_total";
        head(&mut text, name, "counter", "Counter of DNS requests made per zone, protocol and family.");
        for (protocol, transport) in [("udp", 0), ("tcp", 1)] {
            for (family, version) in [("1", 0), ("2", 1)] {
                for at in 0..=TYPES.len() {
                    let count = sum(&|shard| load(&shard.lanes[transport].requests[version][at]));
                    let kind = TYPES.get(at).map_or("other", |(_, name)| name);
                    if count > 0 {
                        let _ = writeln!(text, "{name}{{family=\"{family}\",proto=\"{protocol}\",{zone},type=\"{kind}\"}} {count}");
                    }
                }
            }
        }
        let name = "coredns_dns_responses_total";
        head(&mut text, name, "counter", "Counter of response status codes.");
        for code in 0..=CODES.len() {
            for (at, (plugin, _)) in BY.iter().enumerate() {
                let count = sum(&|shard| load(&shard.responses[code][at]));
                let rcode = CODES.get(code).copied().unwrap_or("other");
                if count > 0 {
                    let _ = writeln!(text, "{name}{{plugin=\"{plugin}\",rcode=\"{rcode}\",{zone}}} {count}");
                }
            }
        }
        let name = "coredns_dns_request_duration_seconds";
        head(&mut text, name, "histogram", "Histogram of the time (in seconds) each request took per zone.");
        let ends = (0..DURATIONS).map(|i| format!("{}", (FIRST_DURATION_MICROSECONDS << i) as f64 / 1e6)).collect::<Vec<_>>();
        let counts: Vec<u64> = (0..=DURATIONS).map(|i| sum(&|shard| load(&shard.durations.counts[i]))).collect();
        histogram(&mut text, name, &zone, &ends, &counts, sum(&|shard| load(&shard.durations.sum)) as f64 / 1e6);
        let ends: Vec<String> = SIZES.iter().map(|end| if *end < 1_000_000 { end.to_string() } else { format!("{end:e}") }).collect();
        for (name, what, pick) in [
            ("coredns_dns_request_size_bytes", "EDNS0 buffer in bytes (64K for TCP) per zone and protocol", (|lane: &Lane| &lane.request_sizes) as fn(&Lane) -> &Histogram<{ SIZES.len() + 1 }>),
            ("coredns_dns_response_size_bytes", "returned response in bytes", |lane: &Lane| &lane.response_sizes),
        ] {
            head(&mut text, name, "histogram", &format!("Size of the {what}."));
            for (protocol, transport) in [("udp", 0), ("tcp", 1)] {
                let counts: Vec<u64> = (0..=SIZES.len()).map(|i| sum(&|shard| load(&pick(&shard.lanes[transport]).counts[i]))).collect();
                if counts.iter().any(|count| *count > 0) {
                    let bytes = sum(&|shard| load(&pick(&shard.lanes[transport]).sum));
                    histogram(&mut text, name, &format!("proto=\"{protocol}\",{zone}"), &ends, &counts, bytes as f64);
                }
            }
        }
        let cache = format!("server=\"{SERVER}\"");
        let hits = [0, 1].map(|at| sum(&|shard| load(&shard.cache_hits[at])));
        let misses = sum(&|shard| load(&shard.cache_misses));
        head(&mut text, "coredns_cache_entries", "gauge", "The number of elements in the cache.");
        for (kind, count) in [("success", entries.0), ("denial", entries.1)] {
            let _ = writeln!(text, "coredns_cache_entries{{{cache},type=\"{kind}\",view=\"\",zones=\".\"}} {count}");
        }
        head(&mut text, "coredns_cache_hits_total", "counter", "The count of cache hits.");
        for (kind, count) in [("success", hits[0]), ("denial", hits[1])] {
            let _ = writeln!(text, "coredns_cache_hits_total{{{cache},type=\"{kind}\",view=\"\",zones=\".\"}} {count}");
        }
        head(&mut text, "coredns_cache_misses_total", "counter", "The count of cache misses. Deprecated, derive misses from cache hits/requests counters.");
        let _ = writeln!(text, "coredns_cache_misses_total{{{cache},view=\"\",zones=\".\"}} {misses}");
        head(&mut text, "coredns_cache_requests_total", "counter", "The count of cache requests.");
        let _ = writeln!(text, "coredns_cache_requests_total{{{cache},view=\"\",zones=\".\"}} {}", hits[0] + hits[1] + misses);
        head(&mut text, "coredns_forward_max_concurrent_rejects_total", "counter", "Counter of the number of queries rejected because the concurrent queries were at maximum.");
        let _ = writeln!(text, "coredns_forward_max_concurrent_rejects_total {}", sum(&|shard| load(&shard.rejected)));
        head(&mut text, "coredns_panics_total", "counter", "A metrics that counts the number of panics.");
        text.push_str("coredns_panics_total 0\n");
        text
    }
}

fn histogram(text: &mut String, name: &str, labels: &str, ends: &[String], counts: &[u64], sum: f64) {
    let mut total = 0;
    for (i, count) in counts.iter().enumerate() {
        total += count;
        let _ = writeln!(text, "{name}_bucket{{{labels},le=\"{}\"}} {total}", ends.get(i).map_or("+Inf", String::as_str));
    }
    let _ = writeln!(text, "{name}_sum{{{labels}}} {sum}\n{name}_count{{{labels}}} {total}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counted_by_two_and_added_up() {
        let metrics = Metrics::default();
        let (one, other) = (metrics.shard(), metrics.shard());
        let mut answer = vec![0; 120];
        answer[7] = 1;
        for (shard, took) in [(&one, 250), (&other, 251), (&other, 100_000_000)] {
            shard.request(Transport::Udp, true, Some(kind::A), 40);
            shard.response(Transport::Udp, By::Kubernetes, &answer, Duration::from_micros(took));
        }
        one.request(Transport::Tcp, false, Some(999), 40);
        answer[3] = 3;
        one.response(Transport::Tcp, By::Cache, &answer, Duration::ZERO);
        one.cache(Some(&answer));
        one.cache(None);
        let text = metrics.text((3, 1));
        for line in [
            "coredns_dns_requests_total{family=\"1\",proto=\"udp\",server=\"dns://:53\",view=\"\",zone=\".\",type=\"A\"} 3",
            "coredns_dns_requests_total{family=\"2\",proto=\"tcp\",server=\"dns://:53\",view=\"\",zone=\".\",type=\"other\"} 1",
            "coredns_dns_responses_total{plugin=\"kubernetes\",rcode=\"NOERROR\",server=\"dns://:53\",view=\"\",zone=\".\"} 3",
            "coredns_dns_responses_total{plugin=\"cache\",rcode=\"NXDOMAIN\",server=\"dns://:53\",view=\"\",zone=\".\"} 1",
            "coredns_dns_request_duration_seconds_bucket{server=\"dns://:53\",view=\"\",zone=\".\",le=\"0.00025\"} 2",
            "coredns_dns_request_duration_seconds_bucket{server=\"dns://:53\",view=\"\",zone=\".\",le=\"0.0005\"} 3",
            "coredns_dns_request_duration_seconds_bucket{server=\"dns://:53\",view=\"\",zone=\".\",le=\"8.192\"} 3",
            "coredns_dns_request_duration_seconds_bucket{server=\"dns://:53\",view=\"\",zone=\".\",le=\"+Inf\"} 4",
            "coredns_dns_response_size_bytes_bucket{proto=\"udp\",server=\"dns://:53\",view=\"\",zone=\".\",le=\"100\"} 0",
            "coredns_dns_response_size_bytes_bucket{proto=\"udp\",server=\"dns://:53\",view=\"\",zone=\".\",le=\"200\"} 3",
            "coredns_cache_hits_total{server=\"dns://:53\",type=\"denial\",view=\"\",zones=\".\"} 1",
            "coredns_cache_requests_total{server=\"dns://:53\",view=\"\",zones=\".\"} 2",
            "coredns_cache_entries{server=\"dns://:53\",type=\"success\",view=\"\",zones=\".\"} 3",
        ] {
            assert!(text.lines().any(|written| written == line), "{line}\nnot in\n{text}");
        }
    }
}
