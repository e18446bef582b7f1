//! `metadata.resourceVersion` in and out of an object's bytes, without decoding them.
//!
//! What is written starts `{"apiVersion":…,"kind":…,"metadata":{`; the first `"metadata":{` is therefore the object's own.

use bytes::Bytes;

const METADATA: &[u8] = b"\"metadata\":{";
const FIELD: &[u8] = b"\"resourceVersion\":\"";

/// Where the metadata's first field begins.
fn metadata(object: &[u8]) -> Option<usize> {
    object.windows(METADATA.len()).position(|window| window == METADATA).map(|at| at + METADATA.len())
}

/// The bytes as served: with the revision as the first field of the metadata. `None` when they have no metadata.
pub fn insert(object: &[u8], revision: u64) -> Option<Bytes> {
    let at = metadata(object)?;
    let digits = revision.to_string();
    let mut served = Vec::with_capacity(object.len() + FIELD.len() + digits.len() + 2);
    served.extend_from_slice(&object[..at]);
    served.extend_from_slice(FIELD);
    served.extend_from_slice(digits.as_bytes());
    served.push(b'"');
    if object.get(at) != Some(&b'}') {
        served.push(b',');
    }
    served.extend_from_slice(&object[at..]);
    // Exactly as long as its content: a copy for good, kept as long as the object lives.
    Some(Bytes::from(served.into_boxed_slice()))
}

/// The served bytes with another revision.
pub fn replace(served: &[u8], revision: u64) -> Option<Bytes> {
    insert(&remove(served)?, revision)
}

/// The served bytes as they were written: without a revision.
pub fn remove(served: &[u8]) -> Option<Bytes> {
    let at = metadata(served)?;
    let Some(rest) = served[at..].strip_prefix(FIELD) else { return Some(Bytes::copy_from_slice(served)) };
    let end = rest.iter().position(|byte| *byte == b'"')? + 1;
    let rest = rest[end..].strip_prefix(b",").unwrap_or(&rest[end..]);
    let mut plain = Vec::with_capacity(served.len());
    plain.extend_from_slice(&served[..at]);
    plain.extend_from_slice(rest);
    Some(plain.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inserts_and_replaces() {
        let table: &[(&str, &str, &str)] = &[
            (
                r#"{"apiVersion":"v1","kind":"A","metadata":{"name":"a"},"x":{"metadata":{"b":1}}}"#,
                r#"{"apiVersion":"v1","kind":"A","metadata":{"resourceVersion":"7","name":"a"},"x":{"metadata":{"b":1}}}"#,
                r#"{"apiVersion":"v1","kind":"A","metadata":{"resourceVersion":"1000","name":"a"},"x":{"metadata":{"b":1}}}"#,
            ),
            (r#"{"metadata":{}}"#, r#"{"metadata":{"resourceVersion":"7"}}"#, r#"{"metadata":{"resourceVersion":"1000"}}"#),
        ];
        for (stored, served, later) in table {
            assert_eq!(insert(stored.as_bytes(), 7).unwrap(), served.as_bytes());
            assert_eq!(replace(served.as_bytes(), 1000).unwrap(), later.as_bytes());
        }
        assert_eq!(insert(b"{}", 7), None);
    }
}
