//! A clock that a quiet stream looks at: set seldom, asked for each event, so asking must cost nothing.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use tokio::time::{Instant, Sleep, sleep_until};

pub struct Ticker {
    sleep: Pin<Box<Sleep>>,
    /// Whom the clock wakes already.
    known: Option<Waker>,
}

impl Ticker {
    pub fn at(due: Instant) -> Self {
        Self { sleep: Box::pin(sleep_until(due)), known: None }
    }

    pub fn set(&mut self, due: Instant) {
        self.sleep.as_mut().reset(due);
        self.known = None;
    }

    /// Ready when it is time, until it is set again.
    pub fn poll_due(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.known.as_ref().is_some_and(|known| known.will_wake(cx.waker())) && !self.sleep.is_elapsed() {
            return Poll::Pending;
        }
        let due = self.sleep.as_mut().poll(cx);
        self.known = due.is_pending().then(|| cx.waker().clone());
        due
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn comes_when_it_is_time_and_when_set_again() {
        let start = Instant::now();
        let mut ticker = Ticker::at(start + Duration::from_secs(60));
        assert!(poll_fn(|cx| Poll::Ready(ticker.poll_due(cx))).await.is_pending());
        poll_fn(|cx| ticker.poll_due(cx)).await;
        assert!(start.elapsed() >= Duration::from_secs(60));
        poll_fn(|cx| ticker.poll_due(cx)).await;
        ticker.set(start + Duration::from_secs(120));
        poll_fn(|cx| ticker.poll_due(cx)).await;
        assert!(start.elapsed() >= Duration::from_secs(120));
    }
}
