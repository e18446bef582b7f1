//! A work queue of keys, as `k8s.io/client-go/util/workqueue`: what every control loop takes its work from.
//!
//! Promises: a key that waits is in the queue once, however often it was added; a key is handed out to one holder at a time (added while it is being worked on,
//! it comes again once the holder is done); keys come in the order they were added. Waiting is done with `tokio::time` only, so virtual time works.
//!
//! ```text
//! while let Some(item) = queue.next().await {          // `None` after `shutdown()`
//!     match work(item.key()).await {
//!         Ok(()) => item.forget(),                      // its failures so far are forgotten
//!         Err(_) => item.retry(),                       // again after 5 ms, 10 ms, 20 ms …
//!     }
//! }                                                     // dropping the item ends the work on the key, also in a panic
//! ```

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::hash::Hash;
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::measured::{Looked, Measured, QueueMeasured, QueueState};

/// The first delay of a key that failed; each further failure doubles it.
pub const RETRY_BASE: Duration = Duration::from_millis(5);
/// The longest delay of a key that keeps failing (upstream's default controller rate limiter has 1000 s; five minutes is long enough to be quiet).
pub const RETRY_LIMIT: Duration = Duration::from_secs(300);

/// Bounds on what a queue can hold of one key.
pub trait Key: Clone + Eq + Hash + Send + Sync + 'static {}
impl<K: Clone + Eq + Hash + Send + Sync + 'static> Key for K {}

struct Waiting<K> {
    at: Instant,
    sequence: u64,
    key: K,
}

impl<K> PartialEq for Waiting<K> {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.sequence) == (other.at, other.sequence)
    }
}
impl<K> Eq for Waiting<K> {}
impl<K> PartialOrd for Waiting<K> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl<K> Ord for Waiting<K> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.sequence).cmp(&(other.at, other.sequence))
    }
}

struct State<K> {
    ready: VecDeque<K>,
    /// Everything in `ready`, and what must come again after the present holder is done; since when.
    dirty: HashMap<K, Instant>,
    /// Since when.
    in_flight: HashMap<K, Instant>,
    waiting: BinaryHeap<Reverse<Waiting<K>>>,
    /// The one moment that counts for a key that waits; heap entries with another are stale.
    due: HashMap<K, Instant>,
    failures: HashMap<K, u32>,
    sequence: u64,
    shut_down: bool,
    measured: Option<Arc<QueueMeasured>>,
}

struct Shared<K> {
    state: Mutex<State<K>>,
    wake: Notify,
}

/// See the module head. Cheap to clone; all clones are one queue.
pub struct Queue<K>(Arc<Shared<K>>);

impl<K> Clone for Queue<K> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K: Key> Default for Queue<K> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: Key> Queue<K> {
    pub fn new() -> Self {
        Self(Arc::new(Shared {
            state: Mutex::new(State {
                ready: VecDeque::new(),
                dirty: HashMap::new(),
                in_flight: HashMap::new(),
                waiting: BinaryHeap::new(),
                due: HashMap::new(),
                failures: HashMap::new(),
                sequence: 0,
                shut_down: false,
                measured: None,
            }),
            wake: Notify::new(),
        }))
    }

    /// From now on it is one of those that a component tells of, by upstream's name of it.
    pub fn measure(&self, name: &'static str, by: &Measured) {
        let shared: Arc<dyn Looked> = self.0.clone();
        let measured = by.queue(name, Arc::downgrade(&shared));
        let mut state = self.0.state.lock();
        measured.adds.fetch_add(state.dirty.len() as u64, Ordering::Relaxed);
        state.measured = Some(measured);
    }

    /// Now.
    pub fn add(&self, key: K) {
        let mut state = self.0.state.lock();
        if !state.shut_down && state.mark(key) {
            drop(state);
            self.0.wake.notify_one();
        }
    }

    /// Once `delay` has passed; of several delays of one key the shortest counts.
    pub fn add_after(&self, key: K, delay: Duration) {
        if delay.is_zero() {
            return self.add(key);
        }
        let at = Instant::now() + delay;
        let mut state = self.0.state.lock();
        if state.shut_down {
            return;
        }
        if let Some(measured) = &state.measured {
            measured.retries.fetch_add(1, Ordering::Relaxed);
        }
        if state.due.get(&key).is_some_and(|known| *known <= at) {
            return;
        }
        state.due.insert(key.clone(), at);
        state.sequence += 1;
        let sequence = state.sequence;
        state.waiting.push(Reverse(Waiting { at, sequence, key }));
        drop(state);
        self.0.wake.notify_one();
    }

    /// After a delay that doubles with each failure of this key since the last `forget`.
    pub fn add_rate_limited(&self, key: K) {
        let delay = {
            let mut state = self.0.state.lock();
            let failures = state.failures.entry(key.clone()).or_insert(0);
            let delay = RETRY_BASE.saturating_mul(1u32.checked_shl(*failures).unwrap_or(u32::MAX)).min(RETRY_LIMIT);
            *failures = failures.saturating_add(1);
            delay
        };
        self.add_after(key, delay);
    }

    /// How often the key failed since the last `forget`.
    pub fn failures(&self, key: &K) -> u32 {
        self.0.state.lock().failures.get(key).copied().unwrap_or(0)
    }

    pub fn forget(&self, key: &K) {
        self.0.state.lock().failures.remove(key);
    }

    /// Keys ready to be handed out (not those that wait or are in flight).
    pub fn len(&self) -> usize {
        self.0.state.lock().ready.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Nothing is ready, in flight or waiting for a moment.
    pub fn is_idle(&self) -> bool {
        let state = self.0.state.lock();
        state.ready.is_empty() && state.in_flight.is_empty() && state.due.is_empty()
    }

    /// Takes no more keys; `next` hands out what is ready, then `None`.
    pub fn shutdown(&self) {
        self.0.state.lock().shut_down = true;
        self.0.wake.notify_waiters();
        self.0.wake.notify_one();
    }

    /// The next key, once there is one; `None` after `shutdown`. Cancel-safe; several may wait at once.
    pub async fn next(&self) -> Option<Item<K>> {
        loop {
            let notified = self.0.wake.notified();
            let next_due = {
                let mut state = self.0.state.lock();
                let now = Instant::now();
                let next_due = state.collect_due(now);
                if let Some(key) = state.ready.pop_front() {
                    let since = state.dirty.remove(&key);
                    if let (Some(measured), Some(since)) = (&state.measured, since) {
                        measured.waited.observe((now - since).as_secs_f64());
                    }
                    state.in_flight.insert(key.clone(), now);
                    let more = !state.ready.is_empty() || next_due.is_some() || state.shut_down;
                    drop(state);
                    if more {
                        self.0.wake.notify_one();
                    }
                    return Some(Item { queue: self.clone(), key });
                }
                if state.shut_down {
                    drop(state);
                    self.0.wake.notify_one();
                    return None;
                }
                next_due
            };
            match next_due {
                Some(at) => tokio::select! {
                    () = notified => {}
                    () = tokio::time::sleep_until(at) => {}
                },
                None => notified.await,
            }
        }
    }

    fn done(&self, key: &K) {
        let mut state = self.0.state.lock();
        let since = state.in_flight.remove(key);
        if let (Some(measured), Some(since)) = (&state.measured, since) {
            measured.worked.observe(since.elapsed().as_secs_f64());
        }
        if state.dirty.contains_key(key) {
            state.ready.push_back(key.clone());
            drop(state);
            self.0.wake.notify_one();
        }
    }
}

impl<K: Key> Looked for Shared<K> {
    fn look(&self) -> QueueState {
        let (now, state) = (Instant::now(), self.state.lock());
        let running = state.in_flight.values().map(|since| now - *since);
        QueueState { depth: state.ready.len(), unfinished: running.clone().sum(), longest: running.max().unwrap_or_default() }
    }
}

impl<K: Key> State<K> {
    /// Notes that the key is to be worked on; whether somebody may take it at once.
    fn mark(&mut self, key: K) -> bool {
        if self.dirty.contains_key(&key) {
            return false;
        }
        self.dirty.insert(key.clone(), Instant::now());
        if let Some(measured) = &self.measured {
            measured.adds.fetch_add(1, Ordering::Relaxed);
        }
        let free = !self.in_flight.contains_key(&key);
        if free {
            self.ready.push_back(key);
        }
        free
    }

    /// Moves what is due to `ready`; the next moment at which something will be.
    fn collect_due(&mut self, now: Instant) -> Option<Instant> {
        while let Some(Reverse(first)) = self.waiting.peek() {
            let stale = self.due.get(&first.key) != Some(&first.at);
            if !stale && first.at > now {
                return Some(first.at);
            }
            let Some(Reverse(entry)) = self.waiting.pop() else { break };
            if stale {
                continue;
            }
            self.due.remove(&entry.key);
            self.mark(entry.key);
        }
        None
    }
}

/// A key in work. Dropping it says the work is over.
pub struct Item<K: Key> {
    queue: Queue<K>,
    key: K,
}

impl<K: Key> Item<K> {
    pub fn key(&self) -> &K {
        &self.key
    }

    /// The work succeeded.
    pub fn forget(&self) {
        self.queue.forget(&self.key);
    }

    /// The work failed: again, after the key's back-off.
    pub fn retry(&self) {
        self.queue.add_rate_limited(self.key.clone());
    }

    pub fn retry_after(&self, delay: Duration) {
        self.queue.add_after(self.key.clone(), delay);
    }
}

impl<K: Key> Drop for Item<K> {
    fn drop(&mut self) {
        self.queue.done(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_key_is_there_once_and_in_flight_once() {
        let queue = Queue::new();
        queue.add("a");
        queue.add("a");
        queue.add("b");
        let a = queue.next().await.unwrap();
        assert_eq!(*a.key(), "a");
        queue.add("a");
        let b = queue.next().await.unwrap();
        assert_eq!(*b.key(), "b");
        drop(b);
        assert!(tokio::time::timeout(Duration::from_secs(9), queue.next()).await.is_err(), "a is still in flight");
        drop(a);
        assert_eq!(*queue.next().await.unwrap().key(), "a");
        assert!(queue.is_idle());
    }

    #[tokio::test(start_paused = true)]
    async fn a_queue_is_measured() {
        let (measured, queue) = (Measured::default(), Queue::new());
        let text = || {
            let mut out = String::new();
            measured.text(&mut out);
            out
        };
        queue.add("before");
        queue.measure("deployment", &measured);
        queue.add("before");
        queue.add("after");
        tokio::time::advance(Duration::from_secs(2)).await;
        let item = queue.next().await.unwrap();
        tokio::time::advance(Duration::from_secs(5)).await;
        let has = |lines: &[&str]| {
            let out = text();
            lines.iter().for_each(|line| assert!(out.lines().any(|written| written == *line), "{line}\nnot in\n{out}"));
        };
        has(&[
            "# TYPE workqueue_adds_total counter",
            "workqueue_adds_total{name=\"deployment\"} 2",
            "workqueue_depth{name=\"deployment\"} 1",
            "workqueue_unfinished_work_seconds{name=\"deployment\"} 5",
            "workqueue_longest_running_processor_seconds{name=\"deployment\"} 5",
            "workqueue_queue_duration_seconds_bucket{name=\"deployment\",le=\"1\"} 0",
            "workqueue_queue_duration_seconds_sum{name=\"deployment\"} 2",
        ]);
        item.retry();
        drop(item);
        drop(queue);
        has(&[
            "workqueue_depth{name=\"deployment\"} 0",
            "workqueue_retries_total{name=\"deployment\"} 1",
            "workqueue_work_duration_seconds_sum{name=\"deployment\"} 5",
            "workqueue_work_duration_seconds_bucket{name=\"deployment\",le=\"+Inf\"} 1",
        ]);
    }

    #[tokio::test(start_paused = true)]
    async fn failures_double_the_delay_until_forgotten() {
        let queue = Queue::new();
        let start = Instant::now();
        let mut delays = Vec::new();
        queue.add(1);
        for _ in 0..5 {
            let item = queue.next().await.unwrap();
            delays.push(start.elapsed().as_millis());
            item.retry();
        }
        assert_eq!(delays, [0, 5, 15, 35, 75]);
        assert_eq!(queue.failures(&1), 5);
        queue.forget(&1);
        assert_eq!(queue.failures(&1), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn the_shortest_delay_counts() {
        let queue = Queue::new();
        let start = Instant::now();
        queue.add_after(1, Duration::from_secs(60));
        queue.add_after(1, Duration::from_secs(2));
        queue.add_after(1, Duration::from_secs(30));
        drop(queue.next().await.unwrap());
        assert_eq!(start.elapsed().as_secs(), 2);
        assert!(queue.is_idle());
    }

    #[tokio::test(start_paused = true)]
    async fn shutdown_ends_all_waiters() {
        let queue: Queue<u8> = Queue::new();
        let waiters: Vec<_> = (0..3)
            .map(|_| {
                tokio::spawn({
                    let queue = queue.clone();
                    async move { queue.next().await.is_none() }
                })
            })
            .collect();
        tokio::task::yield_now().await;
        queue.shutdown();
        for waiter in waiters {
            assert!(waiter.await.unwrap());
        }
    }

    #[tokio::test]
    async fn a_panic_costs_one_key() {
        let queue = Queue::new();
        queue.add(1);
        let held = queue.clone();
        assert!(
            tokio::spawn(async move {
                let _item = held.next().await;
                panic!("on purpose")
            })
            .await
            .is_err()
        );
        queue.add(1);
        assert_eq!(*queue.next().await.unwrap().key(), 1);
    }
}
