//! Objects on the wire that several clients want at once: an event that goes to a thousand watchers is encoded once.
//!
//! A small table of what was encoded last. An object is known by being the same `Arc`, which the table holds, so that no other can take its place in memory.

use std::cell::RefCell;
use std::sync::Arc;

use ::api::protobuf::ProtobufError;
use ::api::{Object, Resource};
use bytes::Bytes;
use parking_lot::Mutex;

use crate::encode;

const SLOT_BITS: u32 = 9;
/// Larger objects are encoded for each client: the table never holds more than 512 of these, 16 MiB.
const MAX_ENCODED_BYTES: usize = 32 * 1024;

/// Lines that a thread of the server keeps: as many as one watcher may take at a time, more or less.
const LINES: usize = 16;

type Slot = Mutex<Option<(Arc<Object>, Bytes)>>;

pub struct Encoded {
    slots: Box<[Slot]>,
}

impl Default for Encoded {
    fn default() -> Self {
        Self { slots: (0..1 << SLOT_BITS).map(|_| Slot::default()).collect() }
    }
}

impl Encoded {
    /// The object in protobuf's envelope.
    pub fn protobuf(&self, row: &Resource, object: &Arc<Object>) -> Result<Bytes, ProtobufError> {
        if object.bytes().len() > MAX_ENCODED_BYTES || Arc::strong_count(object) == 1 {
            return encode::protobuf(row, object.bytes());
        }
        // Whoever comes second waits for the first one's work.
        let mut slot = self.slots[slot(object)].lock();
        if let Some((known, bytes)) = &*slot
            && Arc::ptr_eq(known, object)
        {
            return Ok(bytes.clone());
        }
        let bytes = encode::protobuf(row, object.bytes())?;
        *slot = Some((object.clone(), bytes.clone()));
        Ok(bytes)
    }
}

type Line = Option<(Arc<Object>, &'static str, Bytes)>;

thread_local! {
    /// Each thread has its own, so that threads do not wait for each other, nor for the count of who holds the bytes.
    static RECENT: RefCell<[Line; LINES]> = RefCell::default();
}

/// One line of a watch stream.
pub fn event(kind: &'static str, object: &Arc<Object>) -> Bytes {
    if object.bytes().len() > MAX_ENCODED_BYTES || Arc::strong_count(object) == 1 {
        return encode::event(kind, object.bytes());
    }
    RECENT.with_borrow_mut(|lines| {
        let line = &mut lines[object.resource_version() as usize % LINES];
        if let Some((known, as_kind, bytes)) = line
            && Arc::ptr_eq(known, object)
            && *as_kind == kind
        {
            return bytes.clone();
        }
        let bytes = encode::event(kind, object.bytes());
        *line = Some((object.clone(), kind, bytes.clone()));
        bytes
    })
}

/// Fibonacci hashing of the address.
fn slot(object: &Arc<Object>) -> usize {
    const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
    ((Arc::as_ptr(object) as u64).wrapping_mul(GOLDEN) >> (u64::BITS - SLOT_BITS)) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_written_once_for_an_object_and_a_kind() {
        let object = Arc::new(Object::new(Bytes::from_static(b"{}"), 7));
        let _held = object.clone();
        let first = event("ADDED", &object);
        assert_eq!(first, "{\"type\":\"ADDED\",\"object\":{}}\n");
        assert_eq!(first.as_ptr(), event("ADDED", &object).as_ptr());
        assert_eq!(event("DELETED", &object), "{\"type\":\"DELETED\",\"object\":{}}\n");
        let other = Arc::new(Object::new(Bytes::from_static(b"[]"), 7 + LINES as u64));
        let _held = other.clone();
        assert_eq!(event("DELETED", &other), "{\"type\":\"DELETED\",\"object\":[]}\n");
    }

    #[test]
    fn the_same_object_is_encoded_once_and_another_for_itself() {
        let row = ::api::table::table().find("", "v1", "configmaps").unwrap();
        let object = |name: &str| Arc::new(Object::new(Bytes::from(format!(r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"{name}"}}}}"#)), 1));
        let encoded = Encoded::default();
        let a = object("a");
        let _also_held_by_the_store = a.clone();
        let first = encoded.protobuf(row, &a).unwrap();
        assert_eq!(first.as_ptr(), encoded.protobuf(row, &a).unwrap().as_ptr());
        for index in 0..2000 {
            let other = object(&index.to_string());
            let _held = other.clone();
            assert_eq!(encoded.protobuf(row, &other).unwrap(), encode::protobuf(row, other.bytes()).unwrap());
        }
    }
}
