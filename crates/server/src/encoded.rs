//! Objects on the wire that several clients want at once: an event that goes to a thousand watchers is encoded once.
//!
//! A small table of what was encoded last. An object is known by being the same `Arc`, which the table holds, so that no other can take its place in memory.

use std::sync::Arc;

use ::api::protobuf::ProtobufError;
use ::api::{Object, Resource};
use bytes::Bytes;
use parking_lot::Mutex;

use crate::encode;

const SLOT_BITS: u32 = 9;
/// Larger objects are encoded for each client: the table never holds more than 512 of these, 16 MiB.
const MAX_ENCODED_BYTES: usize = 32 * 1024;

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

/// Fibonacci hashing of the address.
fn slot(object: &Arc<Object>) -> usize {
    const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
    ((Arc::as_ptr(object) as u64).wrapping_mul(GOLDEN) >> (u64::BITS - SLOT_BITS)) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

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
