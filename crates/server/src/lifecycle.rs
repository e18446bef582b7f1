//! How a server ends: it says so and serves on for a while, then takes nothing new, finishes what has begun, and only then goes.
//!
//! Mirrors apiserver/pkg/server (`lifecycle_signals.go`, `RunWithContext`) and its filters `waitgroup.go` and `with_retry_after.go`: no request that was begun is cut off.
//! Those that last (exec, logs that are followed) are not waited for; watches end as if their time were over.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::time::Duration;

use ::api::Status;
use http::header::{CONNECTION, RETRY_AFTER, USER_AGENT};
use http::request::Parts;
use http::{HeaderValue, Version};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::http::answer::{self, Answer};

/// Upstream's floor: watches that end one after the other end at least this many a second.
const WATCHES_A_SECOND: f64 = 200.0;
/// Asked while the server ends by those who want to know just that (`pathPrefixesExemptFromRetryAfter`).
const EXEMPT_PATHS: [&str; 4] = ["/readyz", "/livez", "/healthz", "/metrics"];
const OWN_AGENT: &str = "kube-apiserver/";

/// `--shutdown-…`
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    /// It is not ready any more for this long before it takes nothing new: load balancers find another one meanwhile.
    pub delay: Duration,
    /// Who comes then is told to come again, on an open port, until all others are done.
    pub send_retry_after: bool,
    /// Zero: watches end all at once; otherwise within this time.
    pub watch_grace: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Phase {
    Serving,
    /// Told to end: not ready, and serving on.
    Unready,
    /// Nothing new is begun; watches end.
    Refusing,
    /// What was begun has been answered.
    Drained,
}

pub struct Lifecycle {
    options: Shutdown,
    phase: watch::Sender<Phase>,
    /// The same, for each request to look at.
    seen: AtomicU8,
    /// Requests that are waited for.
    running: AtomicUsize,
    done: Notify,
    /// Watches that have been told when to end.
    told: AtomicUsize,
}

/// What requests have made of their connection.
#[derive(Default)]
pub struct Connection {
    /// Requests that are waited for.
    running: AtomicUsize,
    /// One that lasts came over it.
    lasts: AtomicBool,
    /// To be ended as soon as what it carries is answered.
    pub leave: Notify,
}

impl Connection {
    pub fn is_busy(&self) -> bool {
        self.running.load(Ordering::SeqCst) > 0
    }

    pub fn lasts(&self) -> bool {
        self.lasts.load(Ordering::Relaxed)
    }
}

/// A request that is waited for until this is dropped, or lets go.
pub struct Seat {
    lifecycle: Arc<Lifecycle>,
    connection: Arc<Connection>,
    counts: bool,
}

impl Seat {
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// It lasts as long as its client likes: nobody waits for it.
    pub fn let_go(&mut self, lasts: bool) {
        if lasts {
            self.connection.lasts.store(true, Ordering::Relaxed);
        }
        if std::mem::replace(&mut self.counts, false) {
            self.connection.running.fetch_sub(1, Ordering::SeqCst);
            if self.lifecycle.running.fetch_sub(1, Ordering::SeqCst) == 1 && self.lifecycle.phase() >= Phase::Refusing {
                self.lifecycle.done.notify_waiters();
            }
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.let_go(false);
    }
}

impl Lifecycle {
    pub fn new(options: Shutdown) -> Arc<Self> {
        let phase = watch::Sender::new(Phase::Serving);
        Arc::new(Self { options, phase, seen: AtomicU8::new(Phase::Serving as u8), running: AtomicUsize::new(0), done: Notify::new(), told: AtomicUsize::new(0) })
    }

    pub fn phase(&self) -> Phase {
        match self.seen.load(Ordering::SeqCst) {
            0 => Phase::Serving,
            1 => Phase::Unready,
            2 => Phase::Refusing,
            _ => Phase::Drained,
        }
    }

    fn enter(&self, phase: Phase) {
        self.seen.store(phase as u8, Ordering::SeqCst);
        self.phase.send_replace(phase);
    }

    /// Returns when it is as far as that, and `false` never: the sender is ours.
    pub async fn reached(&self, phase: Phase) {
        let _ = self.phase.subscribe().wait_for(|now| *now >= phase).await;
    }

    /// When connections are to end: those that are asked to come again need one for that.
    pub fn closes_at(&self) -> Phase {
        if self.options.send_retry_after { Phase::Drained } else { Phase::Refusing }
    }

    pub fn watch_grace(&self) -> Duration {
        self.options.watch_grace
    }

    /// One more request, until it is known what it is.
    pub fn seat(self: &Arc<Self>, connection: &Arc<Connection>) -> Seat {
        self.running.fetch_add(1, Ordering::SeqCst);
        connection.running.fetch_add(1, Ordering::SeqCst);
        Seat { lifecycle: self.clone(), connection: connection.clone(), counts: true }
    }

    /// The answer to whoever comes too late.
    pub fn too_late(&self, seat: &Seat, parts: &Parts) -> Option<Answer> {
        if self.phase() < Phase::Refusing || is_exempt(parts) {
            return None;
        }
        if !self.options.send_retry_after {
            let mut refusal = answer::status(&Status::unavailable("apiserver is shutting down"));
            refusal.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
            return Some(refusal);
        }
        let mut refusal = answer::text(429, "The apiserver is shutting down, please try again later.\n".to_owned());
        refusal.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("5"));
        // Of HTTP/2 a connection ends by a frame.
        if parts.version == Version::HTTP_2 {
            seat.connection().leave.notify_one();
        } else {
            refusal.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Some(refusal)
    }

    /// When a watch is to end, once they do.
    pub fn end_of_watch(&self, now: impl FnOnce() -> Instant) -> Option<Instant> {
        if self.seen.load(Ordering::Relaxed) < Phase::Refusing as u8 {
            return None;
        }
        let (now, grace) = (now(), self.options.watch_grace);
        if grace.is_zero() {
            return Some(now);
        }
        let place = self.told.fetch_add(1, Ordering::Relaxed) as f64;
        Some(now + Duration::from_secs_f64(place / WATCHES_A_SECOND).min(grace))
    }

    /// Through all phases, from when `shutdown` becomes true or its sender is gone. `parting` is what is still to be said while everything is served.
    pub async fn end(&self, mut shutdown: watch::Receiver<bool>, parting: impl Future<Output = ()>) {
        let _ = shutdown.wait_for(|stop| *stop).await;
        self.enter(Phase::Unready);
        if !self.options.delay.is_zero() {
            tracing::info!(seconds = self.options.delay.as_secs_f64(), "the API server is not ready any more and serves on for a while");
            tokio::time::sleep(self.options.delay).await;
        }
        parting.await;
        self.enter(Phase::Refusing);
        loop {
            let done = self.done.notified();
            tokio::pin!(done);
            done.as_mut().enable();
            if self.running.load(Ordering::SeqCst) == 0 {
                break;
            }
            done.await;
        }
        self.enter(Phase::Drained);
    }
}

fn is_exempt(parts: &Parts) -> bool {
    EXEMPT_PATHS.iter().any(|prefix| parts.uri.path().starts_with(prefix)) || parts.headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok()).is_some_and(|agent| agent.starts_with(OWN_AGENT))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(path: &str) -> Parts {
        http::Request::builder().uri(path).body(()).unwrap().into_parts().0
    }

    #[tokio::test]
    async fn what_was_begun_is_waited_for() {
        let lifecycle = Lifecycle::new(Shutdown::default());
        let connection = Arc::<Connection>::default();
        let (ordinary, mut lasting) = (lifecycle.seat(&connection), lifecycle.seat(&connection));
        lasting.let_go(true);
        let (stop, stopped) = watch::channel(false);
        let ending = tokio::spawn({
            let lifecycle = lifecycle.clone();
            async move { lifecycle.end(stopped, async {}).await }
        });
        assert!(lifecycle.too_late(&ordinary, &parts("/api")).is_none() && lifecycle.end_of_watch(Instant::now).is_none());
        stop.send(true).unwrap();
        lifecycle.reached(Phase::Refusing).await;
        let late = lifecycle.seat(&connection);
        let refusal = lifecycle.too_late(&late, &parts("/api")).unwrap();
        assert_eq!((refusal.status().as_u16(), &refusal.headers()[RETRY_AFTER]), (503, &HeaderValue::from_static("1")));
        assert!(lifecycle.too_late(&late, &parts("/readyz?verbose")).is_none());
        drop(late);
        assert!(connection.is_busy() && connection.lasts() && lifecycle.phase() == Phase::Refusing);
        drop(ordinary);
        ending.await.unwrap();
        assert!(!connection.is_busy() && lifecycle.phase() == Phase::Drained);
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_unready_first_and_watches_end_one_after_the_other() {
        let lifecycle = Lifecycle::new(Shutdown { delay: Duration::from_secs(70), send_retry_after: true, watch_grace: Duration::from_millis(7) });
        assert_eq!(lifecycle.closes_at(), Phase::Drained);
        let start = Instant::now();
        lifecycle.end(watch::channel(true).1, async {}).await;
        assert_eq!(start.elapsed(), Duration::from_secs(70));
        let ends: Vec<u128> = (0..4).filter_map(|_| lifecycle.end_of_watch(|| start)).map(|end| (end - start).as_millis()).collect();
        assert_eq!(ends, [0, 5, 7, 7]);
        let seat = lifecycle.seat(&Arc::default());
        let refusal = lifecycle.too_late(&seat, &parts("/api")).unwrap();
        assert_eq!((refusal.status().as_u16(), &refusal.headers()[CONNECTION]), (429, &HeaderValue::from_static("close")));
    }
}
