//! Watchers who see the same are sent the same: what one of them was sent for an event serves all others of its thread, without another look at the event.
//!
//! The event is known by its number in the run that they share ([`Place`]). Each thread has its own small table: an event that goes to a thousand watchers would
//! otherwise have its counts and locks taken a thousand times by every thread at once, which costs more than all else that is done for one of them.

use std::cell::RefCell;
use std::sync::Arc;

use ::api::Resource;
use bytes::Bytes;
use store::Place;

use super::negotiate::Media;

/// Events that a thread knows: more than one connection's watchers usually have before them at a time.
const EVENTS: usize = 16;
/// Larger ones are written for each client.
const MAX_LINE_BYTES: usize = 32 * 1024;

struct Sent {
    run: u64,
    number: u64,
    row: Arc<Resource>,
    media: Media,
    revision: u64,
    line: Bytes,
}

thread_local! {
    static SENT: RefCell<[Option<Sent>; EVENTS]> = RefCell::default();
}

/// What was sent for the event that comes next at this place, and its revision.
pub fn sent(place: Place, row: &Arc<Resource>, media: Media) -> Option<(u64, Bytes)> {
    SENT.with_borrow(|sent| {
        let known = sent[place.next as usize % EVENTS].as_ref()?;
        let same = known.number == place.next && known.run == place.run && known.media == media && Arc::ptr_eq(&known.row, row);
        same.then(|| (known.revision, known.line.clone()))
    })
}

/// `line` is being sent for the event of that revision, the one before this place.
pub fn keep(place: Place, row: &Arc<Resource>, media: Media, revision: u64, line: &Bytes) {
    if line.len() <= MAX_LINE_BYTES {
        let number = place.next - 1;
        SENT.with_borrow_mut(|sent| sent[number as usize % EVENTS] = Some(Sent { run: place.run, number, row: row.clone(), media, revision, line: line.clone() }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_those_at_the_same_place_are_served() {
        let row = |version: &str| Arc::new(::api::table::table().find("autoscaling", version, "horizontalpodautoscalers").unwrap().clone());
        let (old, new) = (row("v1"), row("v2"));
        let place = |run, next| Place { run, next, there: true };
        keep(place(1, 8), &new, Media::Json, 70, &Bytes::from_static(b"line"));
        assert_eq!(sent(place(1, 7), &new, Media::Json), Some((70, Bytes::from_static(b"line"))));
        let others = [(1, 8, &new, Media::Json), (2, 7, &new, Media::Json), (1, 7, &old, Media::Json), (1, 7, &new, Media::Cbor), (1, 7 + EVENTS as u64, &new, Media::Json)];
        for (run, next, row, media) in others {
            assert_eq!(sent(place(run, next), row, media), None);
        }
        keep(place(1, 8), &old, Media::Json, 70, &Bytes::from(vec![b' '; MAX_LINE_BYTES + 1]));
        assert!(sent(place(1, 7), &new, Media::Json).is_some());
    }
}
