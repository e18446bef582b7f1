//! The bells that streams of a connection wait for together: watches of the same run of events sleep in one list, and are woken by one call.
//!
//! An event for a thousand watches on sixteen connections would otherwise mean a thousand wakers taken, called and set again, each in memory of its own.

use std::collections::HashMap;
use std::task::Waker;

use slab::Slab;
use store::Bell;

/// Who makes a waker of a bell's number.
pub trait Ringer {
    fn waker(&self, number: usize) -> Waker;
}

struct Heard {
    run: u64,
    bell: Bell,
    waker: Waker,
    /// Counts how often it rang.
    rings: u64,
    /// The keys of the streams that wait for its next ring.
    waiting: Vec<usize>,
    members: usize,
}

#[derive(Default)]
pub struct Bells {
    heard: Slab<Heard>,
    by_run: HashMap<u64, usize>,
}

/// A stream's share in a bell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    pub run: u64,
    number: usize,
    /// It waits for the ring after so many; none, if it does not wait.
    waits: Option<u64>,
}

impl Bells {
    /// A bell that is new here is set: who looked before that has to look again.
    pub fn join(&mut self, run: u64, bell: Bell, ringer: &impl Ringer) -> Member {
        let number = *self.by_run.entry(run).or_insert_with(|| {
            let place = self.heard.vacant_entry();
            let (number, waker) = (place.key(), ringer.waker(place.key()));
            bell.listen(&waker);
            place.insert(Heard { run, bell, waker, rings: 0, waiting: Vec::new(), members: 0 });
            number
        });
        self.heard[number].members += 1;
        Member { run, number, waits: None }
    }

    /// The stream has its turn when the bell rings next.
    pub fn wait(&mut self, member: &mut Member, key: usize) {
        let Some(heard) = self.heard.get_mut(member.number) else { return };
        if member.waits.replace(heard.rings) != Some(heard.rings) {
            heard.waiting.push(key);
        }
    }

    /// It rang: it is set again, and then all who waited look.
    pub fn rung(&mut self, number: usize, turn: &mut Vec<usize>) {
        // One that is gone may have rung before.
        let Some(heard) = self.heard.get_mut(number) else { return };
        heard.bell.listen(&heard.waker);
        heard.rings += 1;
        turn.append(&mut heard.waiting);
    }

    /// The stream is over.
    pub fn leave(&mut self, member: Member, key: usize) {
        let Some(heard) = self.heard.get_mut(member.number) else { return };
        heard.members -= 1;
        if heard.members == 0 {
            self.by_run.remove(&heard.run);
            drop(self.heard.remove(member.number));
        } else if member.waits == Some(heard.rings)
            && let Some(at) = heard.waiting.iter().position(|other| *other == key)
        {
            heard.waiting.swap_remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use parking_lot::Mutex;
    use store::Ring;

    use super::*;

    #[derive(Default)]
    struct Rope(Mutex<Option<Waker>>);

    struct Tied(Arc<Rope>);

    impl Ring for Tied {
        fn listen(&self, waker: &Waker) {
            *self.0.0.lock() = Some(waker.clone());
        }
    }

    impl Rope {
        fn pull(&self) -> bool {
            self.0.lock().take().map(Waker::wake).is_some()
        }
    }

    #[derive(Default)]
    struct Sound(AtomicUsize);

    impl Wake for Sound {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    impl Ringer for Arc<Sound> {
        fn waker(&self, _number: usize) -> Waker {
            self.clone().into()
        }
    }

    #[test]
    fn all_who_wait_have_one_turn_at_each_ring() {
        let (sound, rope) = (Arc::new(Sound::default()), Arc::new(Rope::default()));
        let mut bells = Bells::default();
        let mut members: Vec<Member> = (0..3).map(|_| bells.join(7, Box::new(Tied(rope.clone())), &sound)).collect();
        for _ in 0..2 {
            for (key, member) in members.iter_mut().enumerate() {
                // Looked twice, for another reason than the bell.
                bells.wait(member, key);
                bells.wait(member, key);
            }
            let mut turn = Vec::new();
            assert!(rope.pull());
            assert!(!rope.pull());
            bells.rung(members[0].number, &mut turn);
            assert_eq!(turn, [0, 1, 2]);
        }
        assert_eq!(sound.0.load(Ordering::Relaxed), 2);
        // One that ends is not waited for, another does not wait.
        bells.wait(&mut members[1], 1);
        bells.wait(&mut members[2], 2);
        bells.leave(members[1], 1);
        let mut turn = Vec::new();
        bells.rung(members[0].number, &mut turn);
        assert_eq!(turn, [2]);
        bells.leave(members[0], 0);
        bells.leave(members[2], 2);
        assert!(bells.heard.is_empty() && bells.by_run.is_empty());
        bells.rung(members[0].number, &mut turn);
        assert_eq!(turn, [2]);
    }
}
