//! Tasks that last as long as the process: one that panics is told of, and begun anew. A panic costs what it was about, never the part of the process it happened in.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// Before the first new beginning; doubled for each that is followed by a panic soon.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Runs what `begin` begins until that ends by itself, or `shutdown` becomes true or its sender is gone; again after each panic.
pub async fn lasting<F>(name: &'static str, mut shutdown: watch::Receiver<bool>, begin: impl Fn() -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let mut pause = FIRST_PAUSE;
    loop {
        let begun = Instant::now();
        // In a task of its own: a panic ends that one. Dropping the set ends it with us.
        let mut running = tokio::task::JoinSet::new();
        match std::panic::catch_unwind(AssertUnwindSafe(&begin)) {
            Ok(work) => drop(running.spawn(work)),
            Err(_) => tracing::error!(task = name, "a task panicked before it began"),
        }
        match running.join_next().await {
            Some(Ok(())) => return,
            Some(Err(error)) => tracing::error!(task = name, %error, "a task panicked and begins anew"),
            None => {}
        }
        if begun.elapsed() > LONGEST_PAUSE {
            pause = FIRST_PAUSE;
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = shutdown.wait_for(|stop| *stop) => return,
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// The same, until whoever runs it is ended.
pub async fn for_ever<F>(name: &'static str, begin: impl Fn() -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let (_running, running) = watch::channel(false);
    lasting(name, running, begin).await;
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_panic_is_followed_by_a_new_beginning() {
        let (_stop, stopped) = watch::channel(false);
        let begun = Arc::new(AtomicU32::new(0));
        let count = begun.clone();
        let start = Instant::now();
        lasting("test", stopped, move || {
            let count = count.clone();
            async move {
                match count.fetch_add(1, Ordering::Relaxed) {
                    2 => {}
                    _ => panic!("on purpose"),
                }
            }
        })
        .await;
        assert_eq!(begun.load(Ordering::Relaxed), 3);
        assert_eq!(start.elapsed(), FIRST_PAUSE * 3);
    }

    #[tokio::test(start_paused = true)]
    async fn who_stops_waits_for_no_new_beginning() {
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(lasting("test", stopped, || async { panic!("on purpose") }));
        stop.send(true).unwrap();
        task.await.unwrap();
    }
}
