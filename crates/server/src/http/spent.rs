//! What of a request's time was not ours: waiting for its turn, and for webhooks. And whether it was ended in self-defence.
//!
//! Upstream's `apiserver_request_sli_duration_seconds` leaves the first out, `apiserver_request_terminations_total` counts the second. Kept with the request's task,
//! so that whoever waits need not be handed the request.

use std::cell::Cell;
use std::time::Duration;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Spent {
    pub aside: Duration,
    pub terminated: bool,
}

tokio::task_local! {
    static SPENT: Cell<Spent>;
}

/// Does the work of a request, and says what it spent.
pub async fn followed<T>(work: impl Future<Output = T>) -> (T, Spent) {
    SPENT.scope(Cell::default(), async { (work.await, SPENT.with(Cell::get)) }).await
}

fn change(change: impl FnOnce(&mut Spent)) {
    // Components in this process make requests that nobody follows.
    let _ = SPENT.try_with(|spent| {
        let mut now = spent.get();
        change(&mut now);
        spent.set(now);
    });
}

/// So long somebody else was waited for.
pub fn aside(took: Duration) {
    change(|spent| spent.aside += took);
}

/// It is refused or broken off because there is too much to do.
pub fn terminated() {
    change(|spent| spent.terminated = true);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_request_has_its_own() {
        aside(Duration::from_secs(9));
        let one = followed(async {
            aside(Duration::from_secs(1));
            tokio::task::yield_now().await;
            aside(Duration::from_secs(2));
            7
        });
        let other = followed(async { terminated() });
        let (one, other) = tokio::join!(one, other);
        assert_eq!(one, (7, Spent { aside: Duration::from_secs(3), terminated: false }));
        assert_eq!(other.1, Spent { aside: Duration::ZERO, terminated: true });
    }
}
