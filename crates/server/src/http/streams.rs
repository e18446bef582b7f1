//! The streams of one HTTP/2 connection that last: watches are polled by their connection's own task.
//!
//! A request runs as a task of its own, so that one connection uses all processors. When its answer turns out to be a watch it moves to the connection: an event for a
//! hundred watches of a connection then wakes one task instead of a hundred, which writes all of it at once instead of piece by piece.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::Pin;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use client::BoxFuture;
use parking_lot::Mutex;
use slab::Slab;
use store::Bell;
use tokio::task::coop::unconstrained;

use super::bells::{Bells, Member, Ringer};

/// Rounds in which streams go on before the connection sends what they said: more would let one connection keep a thread.
const ROUNDS: usize = 64;

/// What the stream that this thread polls right now has done.
#[derive(Clone, Copy)]
struct Polled {
    /// Known by where its alarm lies.
    alarm: *const Alarm,
    lasts: bool,
    /// Its alarm was called by itself.
    woken: bool,
    waits: bool,
    /// The run whose bell it hears, if it hears one.
    run: Option<u64>,
    listens: bool,
}

impl Polled {
    const fn begin(alarm: *const Alarm, run: Option<u64>) -> Self {
        Self { alarm, lasts: false, woken: false, waits: false, run, listens: false }
    }
}

thread_local! {
    static POLLED: Cell<Polled> = const { Cell::new(Polled::begin(ptr::null(), None)) };
    /// What the stream that is polled wants to hear from now on.
    static NEW_BELL: Cell<Option<(u64, Bell)>> = const { Cell::new(None) };
}

/// Until it is dropped, notes are taken of this stream.
struct Notes {
    outer: Polled,
}

impl Notes {
    fn of(alarm: *const Alarm, run: Option<u64>) -> Self {
        Self { outer: POLLED.replace(Polled::begin(alarm, run)) }
    }

    fn taken(&self) -> Polled {
        POLLED.get()
    }
}

impl Drop for Notes {
    fn drop(&mut self) {
        POLLED.set(self.outer);
    }
}

fn note(change: impl FnOnce(&mut Polled)) {
    let mut polled = POLLED.get();
    change(&mut polled);
    POLLED.set(polled);
}

/// Said by a body, while it is polled, that goes on until its client has enough of it.
pub fn lasts() {
    note(|polled| polled.lasts = true);
}

/// Said by such a body when it has nothing to send and is known to all that it waits for. That its stream was woken in the same turn is of no interest then: HTTP/2
/// does so with whoever sends something, to tell of the room for more, and that has been made use of.
pub fn waits() {
    note(|polled| polled.waits = true);
}

/// Said by such a body that is about to look for something in a run of events: if this is true it has its turn when the run's bell rings, and need not leave a waker there.
pub fn listens(run: u64, bell: impl FnOnce() -> Option<Bell>) -> bool {
    let polled = POLLED.get();
    if polled.alarm.is_null() {
        return false;
    }
    if polled.run != Some(run) {
        // It hears of one run for as long as it lasts.
        let Some(bell) = bell().filter(|_| polled.run.is_none()) else { return false };
        NEW_BELL.set(Some((run, bell)));
    }
    note(|polled| polled.listens = true);
    true
}

#[derive(Default)]
struct Inbox {
    moved: Vec<BoxFuture<'static, ()>>,
    /// Streams that have been woken, by their keys.
    woken: Vec<usize>,
    /// Bells that have rung, by their numbers.
    rung: Vec<usize>,
    /// The connection's, which need not be woken while it is at work or has been woken.
    waker: Option<Waker>,
    awake: bool,
    /// The connection is gone.
    closed: bool,
}

impl Inbox {
    /// Whom to wake, when the lock is released.
    fn rouse(&mut self) -> Option<Waker> {
        if std::mem::replace(&mut self.awake, true) { None } else { self.waker.clone() }
    }
}

/// What hyper runs a connection's streams with.
#[derive(Clone, Default)]
pub struct Streams(Arc<Mutex<Inbox>>);

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Streams {
    fn execute(&self, future: F) {
        tokio::spawn(Request { future: Some(Box::pin(future)), streams: self.clone() });
    }
}

/// A request, until it is answered or moves to its connection.
struct Request<F> {
    future: Option<Pin<Box<F>>>,
    streams: Streams,
}

impl<F: Future<Output = ()> + Send + 'static> Future for Request<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(future) = &mut self.future else { return Poll::Ready(()) };
        let notes = Notes::of(ptr::null(), None);
        let done = future.as_mut().poll(cx);
        if done.is_ready() || !notes.taken().lasts {
            return done;
        }
        if let Some(future) = self.future.take() {
            self.streams.take_over(future);
        }
        Poll::Ready(())
    }
}

impl Streams {
    /// Polled from now on by the connection; dropped, when that is gone already.
    fn take_over(&self, future: BoxFuture<'static, ()>) {
        let mut inbox = self.0.lock();
        if inbox.closed {
            drop(inbox);
            return;
        }
        inbox.moved.push(future);
        let waker = inbox.rouse();
        drop(inbox);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// One stream's way to its connection.
struct Alarm {
    key: usize,
    /// Among those that have been woken; or its stream is over.
    called: AtomicBool,
    streams: Streams,
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if ptr::eq(POLLED.get().alarm, Arc::as_ptr(self)) {
            note(|polled| polled.woken = true);
            return;
        }
        if self.called.load(Ordering::Acquire) || self.called.swap(true, Ordering::AcqRel) {
            return;
        }
        let mut inbox = self.streams.0.lock();
        inbox.woken.push(self.key);
        let waker = inbox.rouse();
        drop(inbox);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// A bell's way to its connection.
struct Pull {
    number: usize,
    streams: Streams,
}

impl Wake for Pull {
    fn wake(self: Arc<Self>) {
        let mut inbox = self.streams.0.lock();
        inbox.rung.push(self.number);
        let waker = inbox.rouse();
        drop(inbox);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Ringer for Streams {
    fn waker(&self, number: usize) -> Waker {
        Arc::new(Pull { number, streams: self.clone() }).into()
    }
}

struct Stream {
    future: BoxFuture<'static, ()>,
    alarm: Arc<Alarm>,
    waker: Waker,
    bell: Option<Member>,
}

/// A connection's end of its streams: dropped with it, and they with this.
pub struct Lasting {
    streams: Streams,
    running: Slab<Stream>,
    bells: Bells,
    /// Whose turn it is.
    turn: Vec<usize>,
    rung: Vec<usize>,
}

impl Lasting {
    pub fn of(streams: &Streams) -> Self {
        Self { streams: streams.clone(), running: Slab::new(), bells: Bells::default(), turn: Vec::new(), rung: Vec::new() }
    }

    /// Lets all go on that can. Before the connection itself is polled, which sends what they have to say.
    pub fn poll(&mut self, cx: &mut Context<'_>) {
        // Their timers must not use up what the runtime lets the connection do at a time: those that come last would wake each other in vain.
        let unconstrained = unconstrained(poll_fn(|cx| {
            self.go_on(cx);
            Poll::Ready(())
        }));
        let _ = std::pin::pin!(unconstrained).poll(cx);
    }

    fn go_on(&mut self, cx: &mut Context<'_>) {
        for _ in 0..ROUNDS {
            {
                let mut inbox = self.streams.0.lock();
                if !inbox.waker.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
                    inbox.waker = Some(cx.waker().clone());
                }
                for future in inbox.moved.drain(..) {
                    let place = self.running.vacant_entry();
                    let alarm = Arc::new(Alarm { key: place.key(), called: AtomicBool::new(true), streams: self.streams.clone() });
                    self.turn.push(place.key());
                    place.insert(Stream { future, waker: alarm.clone().into(), alarm, bell: None });
                }
                self.turn.append(&mut inbox.woken);
                self.rung.append(&mut inbox.rung);
                inbox.awake = !self.turn.is_empty() || !self.rung.is_empty();
                if !inbox.awake {
                    return;
                }
            }
            for number in self.rung.drain(..) {
                self.bells.rung(number, &mut self.turn);
            }
            self.take_turns();
        }
        cx.waker().wake_by_ref();
    }

    /// Everybody's turn: something has changed that concerns all, and none was woken for it.
    pub fn rouse(&mut self) {
        self.turn.extend(self.running.iter().map(|(key, _)| key));
    }

    fn take_turns(&mut self) {
        let mut again = 0;
        for index in 0..self.turn.len() {
            let key = self.turn[index];
            let Some(stream) = self.running.get_mut(key) else { continue };
            stream.alarm.called.store(false, Ordering::Release);
            let mut alarmed = Context::from_waker(&stream.waker);
            let notes = Notes::of(Arc::as_ptr(&stream.alarm), stream.bell.map(|bell| bell.run));
            let done = stream.future.as_mut().poll(&mut alarmed);
            let noted = notes.taken();
            drop(notes);
            let mut look_again = false;
            if noted.listens {
                if let Some((run, bell)) = NEW_BELL.take() {
                    stream.bell = Some(self.bells.join(run, bell, &self.streams));
                    look_again = true;
                }
                if let Some(bell) = &mut stream.bell {
                    self.bells.wait(bell, key);
                }
            }
            if done.is_ready() {
                // Whoever still knows its alarm calls in vain: the key may be another's by then.
                stream.alarm.called.store(true, Ordering::Release);
                let over = self.running.remove(key);
                if let Some(bell) = over.bell {
                    self.bells.leave(bell, key);
                }
            } else if (look_again || (noted.woken && !noted.waits)) && !stream.alarm.called.swap(true, Ordering::AcqRel) {
                self.turn[again] = key;
                again += 1;
            }
        }
        self.turn.truncate(again);
    }
}

impl Drop for Lasting {
    fn drop(&mut self) {
        let mut inbox = self.streams.0.lock();
        inbox.closed = true;
        // A stream holds its executor: they would keep each other.
        let (moved, waker) = (std::mem::take(&mut inbox.moved), inbox.waker.take());
        drop(inbox);
        drop((moved, waker));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use hyper::rt::Executor;
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn what_lasts_moves_to_the_connection_and_ends_with_it() {
        let streams = Streams::default();
        let mut lasting = Lasting::of(&streams);
        let (begun, beginning) = oneshot::channel();
        let (alive, ended) = oneshot::channel::<()>();
        let mut begun = Some(begun);
        let mut rounds = 0;
        streams.execute(poll_fn(move |cx| {
            let _alive = &alive;
            lasts();
            rounds += 1;
            if rounds == 3 {
                let _ = begun.take().map(|begun| begun.send(()));
                return Poll::Pending;
            }
            cx.waker().wake_by_ref();
            Poll::<()>::Pending
        }));
        let mut beginning = std::pin::pin!(beginning);
        poll_fn(|cx| {
            lasting.poll(cx);
            beginning.as_mut().poll(cx)
        })
        .await
        .unwrap();
        assert_eq!(lasting.running.len(), 1);
        drop(lasting);
        assert!(ended.await.is_err());
    }

    /// What wakes itself while it is polled, as each stream does that sends something, does not keep others from their turn until the connection is woken again.
    #[tokio::test]
    async fn all_go_on_in_one_turn() {
        const MANY: usize = 50;
        let streams = Streams::default();
        let mut lasting = Lasting::of(&streams);
        let turns = Arc::new(AtomicUsize::new(0));
        for _ in 0..MANY {
            let (turns, mut woken) = (turns.clone(), false);
            streams.take_over(Box::pin(poll_fn(move |cx| {
                turns.fetch_add(1, Ordering::Relaxed);
                if !std::mem::replace(&mut woken, true) {
                    cx.waker().wake_by_ref();
                }
                Poll::<()>::Pending
            })));
        }
        poll_fn(|cx| {
            lasting.poll(cx);
            Poll::Ready(())
        })
        .await;
        assert_eq!(turns.load(Ordering::Relaxed), 2 * MANY);
        assert!(!streams.0.lock().awake);
    }

    /// A stream that sends something is woken by that; when it has looked again for more since, it has its turn only when there is more.
    #[tokio::test]
    async fn what_waits_is_not_polled_for_what_it_did_itself() {
        let streams = Streams::default();
        let mut lasting = Lasting::of(&streams);
        let (turns, known) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(None::<Waker>)));
        let (counted, told) = (turns.clone(), known.clone());
        streams.take_over(Box::pin(poll_fn(move |cx| {
            counted.fetch_add(1, Ordering::Relaxed);
            cx.waker().wake_by_ref();
            *told.lock() = Some(cx.waker().clone());
            waits();
            Poll::<()>::Pending
        })));
        for polled in 1..4 {
            poll_fn(|cx| {
                lasting.poll(cx);
                lasting.poll(cx);
                Poll::Ready(())
            })
            .await;
            assert_eq!(turns.load(Ordering::Relaxed), polled);
            assert!(!streams.0.lock().awake);
            // From elsewhere, as often as they like.
            let waker = known.lock().clone().unwrap();
            std::thread::spawn(move || (0..3).for_each(|_| waker.wake_by_ref())).join().unwrap();
            assert_eq!(streams.0.lock().woken.len(), 1);
        }
    }

    #[tokio::test]
    async fn what_ends_soon_does_not() {
        let streams = Streams::default();
        let mut lasting = Lasting::of(&streams);
        let (done, doing) = oneshot::channel();
        streams.execute(async move {
            tokio::task::yield_now().await;
            let _ = done.send(());
        });
        doing.await.unwrap();
        poll_fn(|cx| {
            lasting.poll(cx);
            Poll::Ready(())
        })
        .await;
        assert!(lasting.running.is_empty());
    }
}
