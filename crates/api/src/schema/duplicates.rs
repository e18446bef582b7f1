//! Finds keys that stand twice in one JSON object; `serde_json::Value` keeps the last one and forgets that.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// As upstream, no more are listed.
const MOST: usize = 100;
/// Below this many keys a list is faster than a set.
const FEW: usize = 16;

/// The paths of duplicate keys, each once: `spec.containers[0].name`. JSON that does not parse has none; whoever decodes it reports that.
pub fn duplicate_fields(bytes: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let _ = Seek { found: &mut found, path: None, all: false }.deserialize(&mut json);
    found
}

/// The paths of all keys as they stand in the text, one that stands twice two times. For refusals, which tell mistakes in this order.
pub fn fields_in_order(bytes: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let _ = Seek { found: &mut found, path: None, all: true }.deserialize(&mut json);
    found
}

struct Path<'a> {
    outer: Option<&'a Path<'a>>,
    place: Place<'a>,
}

enum Place<'a> {
    Key(&'a str),
    Index(usize),
}

fn write(path: Option<&Path<'_>>, text: &mut String) {
    let Some(path) = path else { return };
    write(path.outer, text);
    match path.place {
        Place::Key(key) => {
            if !text.is_empty() {
                text.push('.');
            }
            text.push_str(key);
        }
        Place::Index(index) => text.push_str(&format!("[{index}]")),
    }
}

struct Seek<'a> {
    found: &'a mut Vec<String>,
    path: Option<&'a Path<'a>>,
    all: bool,
}

impl<'de> DeserializeSeed<'de> for Seek<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seek<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut few: Vec<Cow<'de, str>> = Vec::new();
        let mut many: HashSet<Cow<'de, str>> = HashSet::new();
        while let Some(Key(key)) = map.next_key()? {
            let path = Path { outer: self.path, place: Place::Key(&key) };
            if self.all {
                let mut text = String::new();
                write(Some(&path), &mut text);
                self.found.push(text);
            } else if (few.contains(&key) || many.contains(&key)) && self.found.len() < MOST {
                let mut text = String::new();
                write(Some(&path), &mut text);
                if !self.found.contains(&text) {
                    self.found.push(text);
                }
            }
            map.next_value_seed(Seek { found: self.found, path: Some(&path), all: self.all })?;
            if few.len() < FEW {
                few.push(key);
            } else {
                many.insert(key);
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        for index in 0.. {
            let path = Path { outer: self.path, place: Place::Index(index) };
            if items.next_element_seed(Seek { found: self.found, path: Some(&path), all: self.all })?.is_none() {
                break;
            }
        }
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        IgnoredAny::deserialize(deserializer).map(|_| ())
    }
}

/// A key, borrowed from the input where it has no escapes.
struct Key<'de>(Cow<'de, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeyVisitor;

        impl<'de> Visitor<'de> for KeyVisitor {
            type Value = Key<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }

            fn visit_borrowed_str<E>(self, key: &'de str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Borrowed(key)))
            }

            fn visit_str<E>(self, key: &str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Owned(key.to_owned())))
            }
        }

        deserializer.deserialize_str(KeyVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::duplicate_fields;

    #[test]
    fn names_each_duplicate_once_by_path() {
        let json = br#"{"a":1,"b":[{"c":1},{"c":1,"c":{"d":1,"d":2,"d":3}}],"a":2,"e":null}"#;
        assert_eq!(duplicate_fields(json), ["b[1].c", "b[1].c.d", "a"]);
        assert!(duplicate_fields(br#"{"a":{"a":1},"b":{"a":1}}"#).is_empty());
        assert!(duplicate_fields(b"{]").is_empty());
        let many: Vec<String> = (0..40).map(|i| format!("\"k{i}\":1")).collect();
        assert_eq!(duplicate_fields(format!("{{{},\"k39\":2}}", many.join(",")).as_bytes()), ["k39"]);
    }
}
