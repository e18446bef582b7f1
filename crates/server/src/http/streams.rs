//! The streams of one HTTP/2 connection that last: watches are polled by their connection's own task.
//!
//! A request runs as a task of its own, so that one connection uses all processors. When its answer turns out to be a watch it moves to the connection: an event for a
//! hundred watches of a connection then wakes one task instead of a hundred, which writes all of it at once instead of piece by piece.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use client::BoxFuture;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use parking_lot::Mutex;
use tokio::task::coop::unconstrained;

/// Rounds in which streams go on before the connection sends what they said: more would let one connection keep a thread.
const ROUNDS: usize = 64;

thread_local! {
    /// Whether what is being polled lasts.
    static LASTS: Cell<bool> = const { Cell::new(false) };
}

/// Said by a body, while it is polled, that goes on until its client has enough of it.
pub fn lasts() {
    LASTS.set(true);
}

#[derive(Default)]
struct Inbox {
    moved: Vec<BoxFuture<'static, ()>>,
    /// The connection's.
    waker: Option<Waker>,
    /// The connection is gone.
    closed: bool,
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
        LASTS.set(false);
        if future.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        if !LASTS.get() {
            return Poll::Pending;
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
        let waker = inbox.waker.take();
        drop(inbox);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// Whoever waits for any of a connection's streams. A stream that wakes itself while it is polled (each does that sends something: HTTP/2 tells it of the room that it asks
/// for) is polled again in the next round, at once, and its connection need not be woken for it.
#[derive(Default)]
struct Alarm {
    state: AtomicU8,
    connection: Mutex<Option<Waker>>,
}

const ASLEEP: u8 = 0;
const POLLED: u8 = 1;
const POLLED_AND_WOKEN: u8 = 2;

impl Alarm {
    /// Whether nothing has asked to be polled since this round began; then everybody sleeps.
    fn sleeps(&self) -> bool {
        self.state.compare_exchange(POLLED, ASLEEP, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.state.load(Ordering::Acquire) == POLLED_AND_WOKEN || self.state.compare_exchange(POLLED, POLLED_AND_WOKEN, Ordering::AcqRel, Ordering::Acquire) != Err(ASLEEP) {
            return;
        }
        if let Some(connection) = &*self.connection.lock() {
            connection.wake_by_ref();
        }
    }
}

/// A connection's end of its streams: dropped with it, and they with this.
pub struct Lasting {
    streams: Streams,
    running: FuturesUnordered<BoxFuture<'static, ()>>,
    alarm: Arc<Alarm>,
    waker: Waker,
}

impl Lasting {
    pub fn of(streams: &Streams) -> Self {
        let alarm = Arc::<Alarm>::default();
        Self { streams: streams.clone(), running: FuturesUnordered::new(), waker: alarm.clone().into(), alarm }
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
        {
            let mut inbox = self.streams.0.lock();
            self.running.extend(inbox.moved.drain(..));
            if !inbox.waker.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
                inbox.waker = Some(cx.waker().clone());
                *self.alarm.connection.lock() = Some(cx.waker().clone());
            }
        }
        let mut alarmed = Context::from_waker(&self.waker);
        for _ in 0..ROUNDS {
            self.alarm.state.store(POLLED, Ordering::Release);
            while let Poll::Ready(Some(())) = self.running.poll_next_unpin(&mut alarmed) {}
            if self.running.is_empty() || self.alarm.sleeps() {
                return;
            }
        }
        self.alarm.state.store(ASLEEP, Ordering::Release);
        cx.waker().wake_by_ref();
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
        assert_eq!(lasting.alarm.state.load(Ordering::Relaxed), ASLEEP);
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
