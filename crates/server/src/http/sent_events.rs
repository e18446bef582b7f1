//! Events sent to watch clients, by what they watch: how many, and how large.
//!
//! An event may go to thousands of watchers at once, so each thread counts for itself and in memory that only it writes: no atomic addition, nothing that another
//! core's cache has to give up. Who scrapes adds up. Names and bounds as apiserver/pkg/endpoints/metrics.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use ::api::Resource;
use basics::histogram::{self, head};
use basics::metrics::{Family, Series, line};
use parking_lot::Mutex;

const BOUNDS: [f64; 8] = [1024.0, 2048.0, 4096.0, 8192.0, 16384.0, 32768.0, 65536.0, 131_072.0];
const COUNTS: usize = BOUNDS.len() + 1;
/// Events up to this size fall under the first bound.
const FIRST_BOUND_BITS: u32 = 10;

/// What one thread counts of one kind.
#[derive(Default)]
struct Cells {
    counts: [AtomicU64; COUNTS],
    bytes: AtomicU64,
}

/// One kind's.
pub struct Sent {
    /// Among all of this process.
    number: usize,
    threads: Mutex<Vec<Arc<Cells>>>,
}

static NUMBERS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// By number.
    static MINE: RefCell<Vec<Option<Arc<Cells>>>> = const { RefCell::new(Vec::new()) };
}

fn place(bytes: usize) -> usize {
    let above = (bytes.max(1) - 1) >> FIRST_BOUND_BITS;
    ((usize::BITS - above.leading_zeros()) as usize).min(COUNTS - 1)
}

impl Cells {
    /// Only the thread whose it is comes here.
    fn note(&self, bytes: usize) {
        let add = |cell: &AtomicU64, more: u64| cell.store(cell.load(Ordering::Relaxed) + more, Ordering::Relaxed);
        add(&self.counts[place(bytes)], 1);
        add(&self.bytes, bytes as u64);
    }
}

impl Sent {
    fn new() -> Self {
        Self { number: NUMBERS.fetch_add(1, Ordering::Relaxed), threads: Mutex::default() }
    }

    /// An event of so many bytes is being sent to one client.
    pub fn note(&self, bytes: usize) {
        MINE.with_borrow_mut(|mine| {
            if mine.len() <= self.number {
                mine.resize(self.number + 1, None);
            }
            mine[self.number].get_or_insert_with(|| self.enlist()).note(bytes);
        });
    }

    fn enlist(&self) -> Arc<Cells> {
        let cells = Arc::new(Cells::default());
        self.threads.lock().push(cells.clone());
        cells
    }

    fn sum(&self) -> ([u64; COUNTS], u64) {
        let mut counts = [0; COUNTS];
        let mut bytes = 0;
        for cells in self.threads.lock().iter() {
            counts.iter_mut().zip(&cells.counts).for_each(|(sum, count)| *sum += count.load(Ordering::Relaxed));
            bytes += cells.bytes.load(Ordering::Relaxed);
        }
        (counts, bytes)
    }
}

pub struct SentEvents(Family<Sent>);

impl Default for SentEvents {
    fn default() -> Self {
        Self(Family::new(&["group", "version", "resource"]))
    }
}

impl SentEvents {
    pub fn of(&self, row: &Resource) -> Option<Arc<Series<Sent>>> {
        self.0.series(&[&row.group, &row.version, &row.plural], Sent::new)
    }

    pub fn text(&self, out: &mut String) {
        let all: Vec<_> = self.0.all().into_iter().map(|series| (self.0.shown(&series), series.sum())).filter(|(_, (counts, _))| counts.iter().any(|count| *count > 0)).collect();
        if all.is_empty() {
            return;
        }
        head(out, "apiserver_watch_events_total", "counter", "[ALPHA] Number of events sent in watch clients");
        all.iter().for_each(|(labels, (counts, _))| line(out, "apiserver_watch_events_total", labels, counts.iter().sum::<u64>()));
        head(out, "apiserver_watch_events_sizes", "histogram", "[ALPHA] Watch event size distribution in bytes");
        all.iter().for_each(|(labels, (counts, bytes))| histogram::lines(out, "apiserver_watch_events_sizes", labels, &BOUNDS, counts, *bytes as f64));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_threads_are_added_up_and_each_size_has_its_place() {
        for (bytes, at) in [(0, 0), (1, 0), (1024, 0), (1025, 1), (2048, 1), (2049, 2), (131_072, 7), (131_073, 8), (10_000_000, 8)] {
            assert_eq!(place(bytes), at, "{bytes}");
        }
        let events = SentEvents::default();
        let row = ::api::table::table().find("apps", "v1", "deployments").unwrap();
        let other = ::api::table::table().find("", "v1", "pods").unwrap();
        events.of(other).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| (0..100).for_each(|_| events.of(row).unwrap().note(1500)));
            }
        });
        let mut text = String::new();
        events.text(&mut text);
        let labels = r#"group="apps",version="v1",resource="deployments""#;
        for line in [format!("apiserver_watch_events_total{{{labels}}} 300"), format!("apiserver_watch_events_sizes_bucket{{{labels},le=\"1024\"}} 0"), format!("apiserver_watch_events_sizes_bucket{{{labels},le=\"2048\"}} 300"), format!("apiserver_watch_events_sizes_sum{{{labels}}} 450000")] {
            assert!(text.lines().any(|written| written == line), "{line}\nnot in\n{text}");
        }
        assert!(!text.contains("pods"), "nothing was sent of those");
    }
}
