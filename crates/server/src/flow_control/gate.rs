//! The gate that requests come through: classified, let in, kept waiting, or turned away with 429.
//!
//! Mirrors apiserver/pkg/server/filters/priority-and-fairness.go, with its words and headers.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use http::HeaderValue;
use http::header::{HeaderName, RETRY_AFTER};
use tokio::sync::oneshot;

use super::counters::Counters;
use super::estimate::{self, Request};
use super::levels::{self, Handed, Level, hand_out};
use super::max_in_flight;
use super::queues::{Arrival, Running, Work};
use super::{FlowControl, shuffle};
use crate::api::Api;
use crate::authentication::User;
use crate::http::answer::{self, Answer};
use crate::http::spent;

const FLOW_SCHEMA: HeaderName = HeaderName::from_static("x-kubernetes-pf-flowschema-uid");
const PRIORITY_LEVEL: HeaderName = HeaderName::from_static("x-kubernetes-pf-prioritylevel-uid");
/// No request waits longer, however long its deadline.
const MAX_WAIT: Duration = Duration::from_secs(60);
/// Of the time a request has, the part it may wait for its turn.
const WAIT_PART: u32 = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Ordinary,
    /// It counts until its stream begins.
    Watch,
    /// A stream to a node or a proxied request: it is not counted at all.
    LongRunning,
}

/// What a request holds while it is worked on. Dropping it lets others in.
pub struct Pass {
    api: Arc<Api>,
    marks: Option<(HeaderValue, HeaderValue)>,
    level: Option<(Arc<Level>, Arc<Counters>)>,
    running: Option<Running>,
    width: usize,
    since: Instant,
    watch: bool,
    _in_flight: Option<max_in_flight::Running>,
}

impl Pass {
    /// By which objects the request was let in, in the answer's head.
    pub fn mark(&self, answer: &mut Answer) {
        if let Some((schema, level)) = &self.marks {
            mark(answer, schema, level);
        }
    }

    /// Whether seats are held, so that an answer that is still being made should hold them too.
    pub fn holds(&self) -> bool {
        self.running.is_some()
    }
}

fn mark(answer: &mut Answer, schema: &HeaderValue, level: &HeaderValue) {
    answer.headers_mut().insert(PRIORITY_LEVEL, level.clone());
    answer.headers_mut().insert(FLOW_SCHEMA, schema.clone());
}

impl Drop for Pass {
    fn drop(&mut self) {
        let Some((level, counters)) = self.level.take() else { return };
        let histogram = if self.watch { &counters.watched } else { &counters.executed };
        histogram.observe(self.since.elapsed().as_secs_f64());
        if level.is_exempt() {
            level.state.exempt_seats.fetch_sub(self.width, Ordering::Relaxed);
        }
        let flow_control = &self.api.flow_control;
        let lingers = self.running.as_ref().map_or(0.0, Running::lingers);
        if let Some(running) = &self.running {
            let now = flow_control.now();
            let mut queues = level.state.queues.lock();
            let started = queues.finish(now, running);
            hand_out(&mut queues, now, started);
        }
        let (Some(running), Ok(runtime), true) = (self.running.take(), tokio::runtime::Handle::try_current(), lingers > 0.0) else {
            counters.run(-1, self.width);
            return;
        };
        // What the write has caused is still being worked on.
        let (api, width) = (self.api.clone(), self.width);
        runtime.spawn(async move {
            tokio::time::sleep(Duration::from_secs_f64(lingers)).await;
            let now = api.flow_control.now();
            let mut queues = level.state.queues.lock();
            let started = queues.release(now, &running);
            hand_out(&mut queues, now, started);
            counters.run(-1, width);
        });
    }
}

/// One who waits. Dropped while it does (its client is gone, or its time is over), it leaves its place; had it just been let in, it leaves at once.
struct Waiter<'a> {
    flow_control: &'a FlowControl,
    level: &'a Level,
    counters: &'a Counters,
    queue: usize,
    ticket: u64,
    width: usize,
    since: f64,
    hand: oneshot::Receiver<Running>,
    why: &'static str,
    done: bool,
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.counters.wait(-1, self.width);
        if self.done {
            return;
        }
        let now = self.flow_control.now();
        self.counters.reject(self.why);
        self.counters.waited_in_vain.observe((now - self.since).max(0.0));
        let mut queues = self.level.state.queues.lock();
        if queues.leave(now, self.queue, self.ticket).is_none()
            && let Ok(running) = self.hand.try_recv()
        {
            let mut started = queues.finish(now, &running);
            if running.lingers() > 0.0 {
                started.extend(queues.release(now, &running));
            }
            hand_out(&mut queues, now, started);
        }
    }
}

impl Waiter<'_> {
    async fn wait(mut self, longest: Duration) -> Option<Running> {
        match tokio::time::timeout(longest, &mut self.hand).await {
            Ok(handed) => {
                self.done = handed.is_ok();
                handed.ok()
            }
            Err(_) => {
                self.why = "time-out";
                None
            }
        }
    }
}

fn turned_away(seconds: i64) -> Answer {
    spent::terminated();
    let mut refused = answer::text(429, "Too many requests, please try again later.\n".to_owned());
    refused.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    refused.headers_mut().insert(http::header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    refused
}

impl FlowControl {
    /// Lets a request in, at once or after a while. The error is the answer to one that is turned away. `time` is what the request has in all.
    pub async fn enter(api: &Arc<Api>, user: &User, request: &Request<'_>, kind: Kind, time: Duration) -> Result<Option<Pass>, Answer> {
        let this = &api.flow_control;
        if kind == Kind::LongRunning {
            return Ok(None);
        }
        let mutating = !matches!(request.attributes.verb.as_str(), "get" | "list" | "watch" | "head" | "options");
        let since = Instant::now();
        let pass = |marks, level, running, width, in_flight| Pass { api: api.clone(), marks, level, running, width, since, watch: kind == Kind::Watch, _in_flight: in_flight };
        if !this.fair {
            if kind == Kind::Watch {
                return Ok(None);
            }
            let running = this.in_flight.enter(mutating, user.is_master()).ok_or_else(|| turned_away(1))?;
            return Ok(Some(pass(None, None, None, 0, Some(running))));
        }
        let digested = this.digested.load_full();
        let found = digested.flows.iter().find(|flow| flow.schema.matches(user, request.attributes)).or_else(|| levels::fallback(&digested.flows));
        let Some(flow) = found else { return Ok(None) };
        let (level, counters) = (&flow.level, &flow.counters);
        let marks = (flow.uid.clone(), level.uid.clone());
        if level.is_exempt() {
            let seats = level.state.exempt_seats.fetch_add(1, Ordering::Relaxed) + 1;
            if level.state.exempt_high.load(Ordering::Relaxed) < seats {
                level.state.exempt_high.fetch_max(seats, Ordering::Relaxed);
            }
            counters.run(1, 1);
            counters.dispatched.fetch_add(1, Ordering::Relaxed);
            this.stirred();
            return Ok(Some(pass(Some(marks), Some((level.clone(), counters.clone())), None, 1, Some(this.in_flight.count(mutating)))));
        }
        let work = estimate::work(api, request, level.max_seats);
        counters.seats.observe(work.width() as f64);
        this.stirred();
        let hash = if level.queues() { shuffle::hash(&flow.schema.name, flow.schema.flow(user, request.attributes)) } else { 0 };
        let running = match this.arrive(level, counters, hash, work) {
            Ok(running) => Some(running),
            Err(Some(waiter)) => {
                let longest = (time / WAIT_PART).min(MAX_WAIT);
                let queued = this.in_flight.queue(mutating);
                let running = waiter.wait(longest).await;
                drop(queued);
                spent::aside(since.elapsed());
                if let Some(running) = &running {
                    counters.waited.observe(running.waited);
                }
                running
            }
            Err(None) => None,
        };
        let Some(running) = running else {
            let seconds = level.state.dropped.lock().note(api.clock.now().as_second());
            let mut refused = turned_away(seconds);
            mark(&mut refused, &marks.0, &marks.1);
            return Err(refused);
        };
        counters.run(1, work.width());
        counters.dispatched.fetch_add(1, Ordering::Relaxed);
        Ok(Some(pass(Some(marks), Some((level.clone(), counters.clone())), Some(running), work.width(), Some(this.in_flight.count(mutating)))))
    }

    fn arrive<'a>(&'a self, level: &'a Level, counters: &'a Counters, hash: u64, work: Work) -> Result<Running, Option<Waiter<'a>>> {
        let since = self.now();
        let (handed, hand): (Handed, _) = oneshot::channel();
        let mut queues = level.state.queues.lock();
        let arrival = queues.arrive(since, hash, work, handed);
        if matches!(arrival, Arrival::Wait { .. }) {
            // A narrow one may go where the next in line is too wide.
            let started = queues.dispatch();
            hand_out(&mut queues, since, started);
        }
        drop(queues);
        match arrival {
            Arrival::Run(running, _) => Ok(running),
            Arrival::Full(_, reason) => {
                counters.reject(reason);
                Err(None)
            }
            Arrival::Wait { ticket, queue, length } => {
                counters.lengths.observe(length as f64);
                counters.wait(1, work.width());
                Err(Some(Waiter { flow_control: self, level, counters, queue, ticket, width: work.width(), since, hand, why: "cancelled", done: false }))
            }
        }
    }

    /// The balance of seats is looked at while there are requests, and not otherwise.
    fn stirred(&self) {
        if !self.stirred.load(Ordering::Relaxed) && !self.stirred.swap(true, Ordering::Relaxed) {
            self.stir.notify_one();
        }
    }
}
