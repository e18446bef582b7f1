//! Fair queuing of the requests of one priority level: who runs, who waits in which queue, who is next, who is turned away.
//!
//! Mirrors apiserver/pkg/util/flowcontrol/fairqueuing/queueset (KEP-1040 "Fair Queuing for Server Requests"): progress is counted in seat-seconds that each busy queue
//! has been given, and the request that would finish first by that count goes next. Pure: times are seconds and come from outside. Upstream's progress meter is a
//! fixed-point number that has to be wound back; as a float it holds microseconds for a thousand years.

use std::collections::VecDeque;

use super::demand::Integrator;
use super::shuffle;

/// What a request is taken to last before it is known.
const ESTIMATED_SECONDS: f64 = 0.003;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Discipline {
    /// Who finds no seat is turned away.
    Reject,
    Queue { queues: usize, hand: usize, length: usize },
}

/// How much work a request is: seats while it runs, then seats for what it causes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Work {
    pub seats: usize,
    pub final_seats: usize,
    pub final_seconds: f64,
}

impl Work {
    pub fn of(seats: usize) -> Self {
        Self { seats, final_seats: 0, final_seconds: 0.0 }
    }

    /// The seats it holds all the time.
    pub fn width(&self) -> usize {
        self.seats.max(self.final_seats)
    }

    fn total(&self) -> f64 {
        self.seats as f64 * ESTIMATED_SECONDS + self.final_seats as f64 * self.final_seconds
    }
}

/// A request that holds seats. It must be given to [`Queues::finish`].
#[derive(Debug, PartialEq)]
pub struct Running {
    queue: Option<usize>,
    work: Work,
    pub since: f64,
    /// How long it waited.
    pub waited: f64,
}

impl Running {
    /// For how long its seats are held after it has finished.
    pub fn lingers(&self) -> f64 {
        if self.work.final_seats > 0 { self.work.final_seconds } else { 0.0 }
    }
}

struct Waiting<T> {
    who: T,
    ticket: u64,
    work: Work,
    arrived: f64,
    /// The progress there was when it came: it is never dispatched as if before.
    progress: f64,
}

struct Queue<T> {
    waiting: VecDeque<Waiting<T>>,
    waiting_seats: usize,
    waiting_work: f64,
    executing: usize,
    seats_in_use: usize,
    /// At which progress its next request starts.
    next: f64,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self { waiting: VecDeque::new(), waiting_seats: 0, waiting_work: 0.0, executing: 0, seats_in_use: 0, next: 0.0 }
    }
}

impl<T> Queue<T> {
    fn is_active(&self) -> bool {
        self.executing > 0 || !self.waiting.is_empty()
    }

    fn is_idle(&self) -> bool {
        !self.is_active() && self.seats_in_use == 0
    }

    /// Dispatch never comes before arrival, or a queue that could not use its share would hoard it.
    fn bound(&mut self) {
        if let Some(oldest) = self.waiting.front() {
            self.next = self.next.max(oldest.progress);
        }
    }
}

/// What becomes of a request that arrives.
#[derive(Debug, PartialEq)]
pub enum Arrival<T> {
    Run(Running, T),
    /// Its place: for [`Queues::leave`]. The number waiting in its queue, with it.
    Wait { ticket: u64, queue: usize, length: usize },
    Full(T, &'static str),
}

pub struct Queues<T> {
    discipline: Discipline,
    limit: usize,
    queues: Vec<Queue<T>>,
    progress: f64,
    now: f64,
    robin: usize,
    arrivals: usize,
    tickets: u64,
    active: usize,
    pub waiting: usize,
    pub executing: usize,
    pub seats_in_use: usize,
    pub seats_waiting: usize,
    /// How often the next one found too few seats.
    pub unaccommodated: u64,
    pub demand: Integrator,
}

impl<T> Queues<T> {
    pub fn new(discipline: Discipline, limit: usize, now: f64) -> Self {
        let mut new = Self {
            discipline,
            limit,
            queues: Vec::new(),
            progress: 0.0,
            now,
            robin: 0,
            arrivals: 0,
            tickets: 0,
            active: 0,
            waiting: 0,
            executing: 0,
            seats_in_use: 0,
            seats_waiting: 0,
            unaccommodated: 0,
            demand: Integrator::default(),
        };
        new.grow();
        // The integrator's clock starts with the queues'.
        let _ = new.demand.take(now);
        new
    }

    pub fn progress(&self) -> f64 {
        self.progress
    }

    pub fn is_idle(&self) -> bool {
        self.waiting == 0 && self.executing == 0 && self.seats_in_use == 0
    }

    fn grow(&mut self) {
        if let Discipline::Queue { queues, .. } = self.discipline
            && self.queues.len() < queues
        {
            self.queues.resize_with(queues, Queue::default);
        }
    }

    /// Queues there are too many of go when they are empty.
    fn shrink(&mut self) {
        let wanted = if let Discipline::Queue { queues, .. } = self.discipline { queues } else { 0 };
        while self.queues.len() > wanted && self.queues.last().is_some_and(Queue::is_idle) {
            self.queues.pop();
        }
        self.robin = if self.queues.is_empty() { 0 } else { self.robin % self.queues.len() };
    }

    /// Another discipline or number of seats; who can run now.
    pub fn configure(&mut self, now: f64, discipline: Discipline, limit: usize) -> Vec<(Running, T)> {
        self.pass(now);
        (self.discipline, self.limit) = (discipline, limit);
        self.grow();
        self.shrink();
        self.dispatch()
    }

    /// Time goes by: each busy queue has been given its share of the seats that were wanted.
    fn pass(&mut self, now: f64) {
        let passed = (now - self.now).max(0.0);
        self.now = self.now.max(now);
        if self.active > 0 {
            let wanted = (self.seats_in_use + self.seats_waiting).min(self.limit);
            self.progress += passed * wanted as f64 / self.active as f64;
        }
    }

    fn note_demand(&mut self) {
        self.demand.set(self.now, (self.seats_in_use + self.seats_waiting) as f64);
    }

    /// Wider than all there is: it runs alone.
    fn fits(&self, width: usize) -> bool {
        if width > self.limit { self.executing == 0 } else { self.seats_in_use + width <= self.limit }
    }

    /// `hash` is the flow's; `who` comes back when the request may run.
    pub fn arrive(&mut self, now: f64, hash: u64, work: Work, who: T) -> Arrival<T> {
        self.pass(now);
        let Discipline::Queue { queues, hand, length } = self.discipline else {
            if !self.fits(work.width()) {
                return Arrival::Full(who, "concurrency-limit");
            }
            return Arrival::Run(self.start(None, work, now), who);
        };
        let chosen = self.choose(hash, queues, hand);
        if self.waiting == 0 && self.fits(work.width()) {
            let queue = &mut self.queues[chosen];
            queue.next = if queue.is_active() { queue.next } else { self.progress };
            return Arrival::Run(self.start(Some(chosen), work, now), who);
        }
        if self.seats_in_use >= self.limit && self.queues[chosen].waiting.len() >= length {
            return Arrival::Full(who, "queue-full");
        }
        self.tickets += 1;
        let ticket = self.tickets;
        let progress = self.progress;
        let queue = &mut self.queues[chosen];
        if !queue.is_active() {
            queue.next = progress;
            self.active += 1;
        }
        queue.waiting.push_back(Waiting { who, ticket, work, arrived: now, progress });
        queue.waiting_seats += work.width();
        queue.waiting_work += work.total();
        queue.bound();
        let length = queue.waiting.len();
        self.waiting += 1;
        self.seats_waiting += work.width();
        self.note_demand();
        Arrival::Wait { ticket, queue: chosen, length }
    }

    /// The queue of the flow's hand with the least work waiting; of equals, another one each time.
    fn choose(&mut self, hash: u64, queues: usize, hand: usize) -> usize {
        let cards = shuffle::deal(hash, queues, hand);
        let offset = self.arrivals % hand.max(1);
        self.arrivals = self.arrivals.wrapping_add(1);
        let turned = cards.clone().skip(offset).chain(cards.take(offset));
        turned.min_by(|one, other| self.queues[*one].waiting_work.total_cmp(&self.queues[*other].waiting_work)).unwrap_or(0)
    }

    fn start(&mut self, at: Option<usize>, mut work: Work, arrived: f64) -> Running {
        if work.final_seats > self.limit.max(1) {
            // As much work, narrower and longer.
            work.final_seconds *= work.final_seats as f64 / self.limit.max(1) as f64;
            work.final_seats = self.limit.max(1);
        }
        self.executing += 1;
        self.seats_in_use += work.width();
        if let Some(queue) = at.map(|at| &mut self.queues[at]) {
            if !queue.is_active() {
                self.active += 1;
            }
            queue.executing += 1;
            queue.seats_in_use += work.width();
            queue.next += work.total();
            queue.bound();
        }
        self.note_demand();
        Running { queue: at, work, since: self.now, waited: self.now - arrived }
    }

    /// Everyone who can run now. Queues are only looked through while somebody waits.
    pub fn dispatch(&mut self) -> Vec<(Running, T)> {
        let mut started = Vec::new();
        while self.waiting > 0 && self.seats_in_use < self.limit {
            let count = self.queues.len();
            let (mut best, mut first) = (None, f64::INFINITY);
            for step in 1..=count {
                let at = (self.robin + step) % count;
                let queue = &self.queues[at];
                if let Some(oldest) = queue.waiting.front()
                    && queue.next + oldest.work.total() < first
                {
                    (best, first) = (Some(at), queue.next + oldest.work.total());
                }
            }
            let Some(at) = best else { break };
            if !self.queues[at].waiting.front().is_some_and(|oldest| self.fits(oldest.work.width())) {
                self.unaccommodated += 1;
                break;
            }
            // Those not chosen win next time, if they are equal.
            self.robin = at;
            let Some(next) = self.take(at, 0) else { break };
            // It was active while it waited, and is while it runs.
            self.active -= usize::from(!self.queues[at].is_active());
            started.push((self.start(Some(at), next.work, next.arrived), next.who));
        }
        started
    }

    fn take(&mut self, at: usize, place: usize) -> Option<Waiting<T>> {
        let queue = &mut self.queues[at];
        let taken = queue.waiting.remove(place)?;
        queue.waiting_seats -= taken.work.width();
        queue.waiting_work = if queue.waiting.is_empty() { 0.0 } else { queue.waiting_work - taken.work.total() };
        queue.bound();
        self.waiting -= 1;
        self.seats_waiting -= taken.work.width();
        Some(taken)
    }

    /// A request waits no longer. `None`: it has been dispatched already.
    pub fn leave(&mut self, now: f64, queue: usize, ticket: u64) -> Option<T> {
        self.pass(now);
        let place = self.queues.get(queue)?.waiting.iter().position(|waiting| waiting.ticket == ticket)?;
        let left = self.take(queue, place)?;
        if !self.queues[queue].is_active() {
            self.active -= 1;
        }
        self.note_demand();
        self.shrink();
        Some(left.who)
    }

    /// A request has ended. Its seats are free, unless it lingers: then [`Queues::release`] is due after [`Running::lingers`] seconds.
    pub fn finish(&mut self, now: f64, running: &Running) -> Vec<(Running, T)> {
        self.pass(now);
        self.executing -= 1;
        if let Some(at) = running.queue {
            let queue = &mut self.queues[at];
            queue.executing -= 1;
            // It was charged with an estimate; now it is known.
            queue.next -= running.work.seats as f64 * (ESTIMATED_SECONDS - (self.now - running.since));
            queue.bound();
            if !queue.is_active() {
                self.active -= 1;
            }
        }
        if running.lingers() > 0.0 { Vec::new() } else { self.free(running) }
    }

    /// A request that lingered has been dealt with.
    pub fn release(&mut self, now: f64, running: &Running) -> Vec<(Running, T)> {
        self.pass(now);
        self.free(running)
    }

    fn free(&mut self, running: &Running) -> Vec<(Running, T)> {
        self.seats_in_use -= running.work.width();
        if let Some(at) = running.queue {
            self.queues[at].seats_in_use -= running.work.width();
        }
        self.note_demand();
        let started = self.dispatch();
        self.shrink();
        started
    }
}

#[cfg(test)]
#[path = "queues_tests.rs"]
mod tests;
