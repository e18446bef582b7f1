//! Who waits for a run of events to go on: one place each, for as long as it watches.
//!
//! A sleeper leaves its waker in its own place, so that a thousand of them neither queue for one lock nor allocate to fall asleep; waking takes all wakers out first
//! and calls them with no lock held, as what a waker does (and what goes with the last of them) is not ours to know.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Waker;

use parking_lot::Mutex;

#[derive(Default)]
pub struct Sleepers(Mutex<Vec<Arc<Place>>>);

#[derive(Default)]
struct Place {
    waker: Mutex<Option<Waker>>,
    /// Where it stands among the others; changed under their lock.
    index: AtomicUsize,
}

/// A place among them; given up with `Sleepers::leave`.
pub struct Sleeper(Arc<Place>);

impl Sleepers {
    pub fn join(&self) -> Sleeper {
        let place = Arc::new(Place::default());
        let mut places = self.0.lock();
        place.index.store(places.len(), Ordering::Relaxed);
        places.push(Arc::clone(&place));
        Sleeper(place)
    }

    pub fn leave(&self, sleeper: &Sleeper) {
        let mut places = self.0.lock();
        let index = sleeper.0.index.load(Ordering::Relaxed);
        if places.get(index).is_some_and(|place| Arc::ptr_eq(place, &sleeper.0)) {
            places.swap_remove(index);
            if let Some(moved) = places.get(index) {
                moved.index.store(index, Ordering::Relaxed);
            }
        }
    }

    pub fn wake(&self) {
        let wakers: Vec<Waker> = self.0.lock().iter().filter_map(|place| place.waker.lock().take()).collect();
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl Sleeper {
    /// From now on `waker` is woken, once. Whoever calls this looks again afterwards: what came before did not wake it.
    pub fn sleep(&self, waker: &Waker) {
        let mut place = self.0.waker.lock();
        let old = match &mut *place {
            Some(known) if known.will_wake(waker) => None,
            other => other.replace(waker.clone()),
        };
        drop(place);
        drop(old);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicU32);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn each_is_woken_once_and_who_left_is_not() {
        let sleepers = Sleepers::default();
        let counts: Vec<Arc<Count>> = (0..4).map(|_| Arc::default()).collect();
        let places: Vec<Sleeper> = counts.iter().map(|_| sleepers.join()).collect();
        for (place, count) in places.iter().zip(&counts).take(3) {
            place.sleep(&count.clone().into());
            place.sleep(&count.clone().into());
        }
        sleepers.leave(&places[0]);
        sleepers.leave(&places[0]);
        sleepers.wake();
        sleepers.wake();
        places[3].sleep(&counts[3].clone().into());
        sleepers.leave(&places[1]);
        sleepers.wake();
        assert_eq!(counts.iter().map(|count| count.0.load(Ordering::Relaxed)).collect::<Vec<_>>(), [0, 1, 1, 1]);
        assert_eq!(sleepers.0.lock().len(), 2);
    }
}
