//! The witness: writes down who asked what, and when the answer came, in one order.

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::history::{Answer, Ask, History, Listing, Moment, Operation};

#[derive(Default)]
pub struct Recorder {
    inner: Mutex<Inner>,
    /// A request was begun.
    told: Notify,
}

#[derive(Default)]
struct Inner {
    now: Moment,
    begun: usize,
    history: History,
    strange: Vec<String>,
}

impl Inner {
    fn tick(&mut self) -> Moment {
        self.now += 1;
        self.now
    }
}

impl Recorder {
    /// A request is about to be sent.
    pub fn call(&self) -> Moment {
        let mut inner = self.inner.lock();
        inner.begun += 1;
        let now = inner.tick();
        drop(inner);
        self.told.notify_waiters();
        now
    }

    /// Its answer is there, or will never be.
    pub fn end(&self, client: usize, key: &str, ask: Ask, call: Moment, answer: Answer) {
        let mut inner = self.inner.lock();
        let end = inner.tick();
        inner.history.operations.push(Operation { client, key: key.to_owned(), ask, answer, call, end });
    }

    /// The end of `listing` is now.
    pub fn listed(&self, listing: Listing) {
        let mut inner = self.inner.lock();
        let end = inner.tick();
        inner.history.listings.push(Listing { end, ..listing });
    }

    /// An answer that no request of this kind can have.
    pub fn strange(&self, text: String) {
        self.inner.lock().strange.push(text);
    }

    /// What was written down, and the strange answers.
    pub fn take(&self) -> (History, Vec<String>) {
        let mut inner = self.inner.lock();
        (std::mem::take(&mut inner.history), std::mem::take(&mut inner.strange))
    }

    /// Waits until that many requests were begun, whatever becomes of them: for whoever wants to break something in the middle.
    pub async fn reaches(&self, requests: usize) {
        loop {
            let mut told = std::pin::pin!(self.told.notified());
            told.as_mut().enable();
            if self.inner.lock().begun >= requests {
                return;
            }
            told.await;
        }
    }
}
