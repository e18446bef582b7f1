//! The two old limits, when priority and fairness is off: so many reading and so many changing requests at a time, and the rest is told to come again.
//!
//! Mirrors apiserver/pkg/server/filters/maxinflight.go. Counted in either case, as `apiserver_current_inflight_requests`.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use basics::histogram::head;

#[derive(Default)]
struct Counted {
    now: AtomicUsize,
    waiting: AtomicUsize,
    turned_away: AtomicUsize,
}

pub struct MaxInFlight {
    /// 0: no limit.
    limits: [usize; 2],
    counted: [Arc<Counted>; 2],
}

/// A request that runs.
pub struct Running(Arc<Counted>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A request that waits for its turn.
pub struct Queued(Arc<Counted>);

impl Drop for Queued {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

impl MaxInFlight {
    pub fn new(reading: usize, mutating: usize) -> Self {
        Self { limits: [reading, mutating], counted: Default::default() }
    }

    pub fn count(&self, mutating: bool) -> Running {
        let counted = &self.counted[usize::from(mutating)];
        counted.now.fetch_add(1, Ordering::Relaxed);
        Running(counted.clone())
    }

    pub fn queue(&self, mutating: bool) -> Queued {
        let counted = &self.counted[usize::from(mutating)];
        counted.waiting.fetch_add(1, Ordering::Relaxed);
        Queued(counted.clone())
    }

    /// `None`: there are too many.
    pub fn enter(&self, mutating: bool, privileged: bool) -> Option<Running> {
        let (limit, running) = (self.limits[usize::from(mutating)], self.count(mutating));
        if limit == 0 || privileged || running.0.now.load(Ordering::Relaxed) <= limit {
            return Some(running);
        }
        running.0.turned_away.fetch_add(1, Ordering::Relaxed);
        None
    }

    pub fn text(&self) -> String {
        let mut out = String::new();
        let mut both = |name: &str, help: &str, value: fn(&Counted) -> &AtomicUsize| {
            head(&mut out, name, "gauge", help);
            for (kind, counted) in ["readOnly", "mutating"].into_iter().zip(&self.counted) {
                let _ = writeln!(out, "{name}{{request_kind=\"{kind}\"}} {}", value(counted).load(Ordering::Relaxed));
            }
        };
        both("apiserver_current_inflight_requests", "[STABLE] Maximal number of currently used inflight request limit of this apiserver per request kind in last second.", |counted| &counted.now);
        both("apiserver_current_inqueue_requests", "[ALPHA] Maximal number of queued requests in this apiserver per request kind in last second.", |counted| &counted.waiting);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_and_changing_are_counted_apart() {
        let limits = MaxInFlight::new(1, 0);
        let first = limits.enter(false, false);
        assert!(first.is_some() && limits.enter(false, false).is_none());
        assert!(limits.enter(false, true).is_some(), "the privileged are let in");
        assert!((0..9).map(|_| limits.enter(true, false)).collect::<Vec<_>>().iter().all(Option::is_some), "no limit");
        drop(first);
        assert!(limits.enter(false, false).is_some());
    }
}
