//! Mutations of JSON documents that leave them JSON.

use serde_json::{Map, Value, json};

use crate::random::Random;

/// Values that seldom stand where they are put.
const STRINGS: &[&str] = &[
    "", " ", "a", "A", "-", ".", "/", "..", "a/b", "a.b", "a..b", "-a", "a-", "default", "kube-system", "0", "-1", "1.5", "10m", "1Gi", "1e3", "99999999999999999999", "true", "null", "*", "$", "{}", "[]", "\0", "\n", "é", "日本語",
    "😀", "\u{202e}abc", "\u{feff}", "%2e%2e", "%00", "$(HOME)", "a=b", "a,b", "2026-01-01T00:00:00Z", "2026-13-45T99:99:99Z", "10.0.0.1", "10.0.0.0/8", "::1", "256.1.1.1", "http://[::1", "Always", "ClusterIP", "spec.replicas", "app",
];
const DEEP: usize = 200;
const LONG: usize = 70_000;

/// Something of any type.
pub fn any(random: &mut Random) -> Value {
    match random.below(16) {
        0 => Value::Null,
        1 => Value::Bool(random.once_in(2)),
        2 => json!(random.below(10)),
        3 => json!(*random.pick(&[-1i64, i64::MAX, i64::MIN, i64::from(i32::MAX) + 1, i64::from(i32::MIN) - 1, 65_536, 1 << 53]).unwrap_or(&0)),
        4 => json!(*random.pick(&[0.5, -0.0, 1e300, 1e-300, 1.0]).unwrap_or(&0.5)),
        5 => json!(u64::MAX),
        6 => json!([]),
        7 => json!({}),
        8 => json!([any(random)]),
        9 => json!({"a": any(random)}),
        10 if random.once_in(20) => Value::String(random.word(STRINGS).repeat(LONG / 8)),
        11 if random.once_in(10) => (0..DEEP.min(random.below(DEEP))).fold(json!(1), |inner, _| json!([inner])),
        _ => Value::String(random.word(STRINGS).to_owned()),
    }
}

fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(count).sum(),
        Value::Object(map) => map.values().map(count).sum(),
        _ => 0,
    }
}

/// The node with that number, counted from the root.
fn node<'a>(value: &'a mut Value, number: &mut usize) -> Option<&'a mut Value> {
    if *number == 0 {
        return Some(value);
    }
    *number -= 1;
    match value {
        Value::Array(items) => items.iter_mut().find_map(|item| node(item, number)),
        Value::Object(map) => map.values_mut().find_map(|item| node(item, number)),
        _ => None,
    }
}

fn some_node<'a>(value: &'a mut Value, random: &mut Random) -> Option<&'a mut Value> {
    let mut number = random.below(count(value));
    node(value, &mut number)
}

fn key(map: &Map<String, Value>, random: &mut Random) -> Option<String> {
    let at = random.below(map.len());
    map.keys().nth(at).cloned()
}

/// One mutation somewhere in `value`. `words` become keys and strings; pieces of `other` are put in.
pub fn mutate(value: &mut Value, words: &[&'static str], other: &Value, random: &mut Random) {
    let piece = {
        let mut other = other.clone();
        some_node(&mut other, random).cloned().unwrap_or_default()
    };
    let own = some_node(value, random).cloned().unwrap_or_default();
    let Some(node) = some_node(value, random) else { return };
    match (random.below(12), node) {
        (0, node) => *node = any(random),
        (1, node) => *node = piece,
        (2, node) => *node = own,
        (3, node) => *node = Value::String(random.word(words).to_owned()),
        (4, node) => *node = json!([node.clone()]),
        (5..=7, Value::Object(map)) => {
            let name = if random.once_in(4) { random.word(STRINGS) } else { random.word(words) };
            let value = match random.below(4) {
                0 => piece,
                1 => own,
                2 => Value::String(random.word(words).to_owned()),
                _ => any(random),
            };
            map.insert(name.to_owned(), value);
        }
        (8 | 9, Value::Object(map)) => {
            if let Some(gone) = key(map, random) {
                let value = map.remove(&gone).unwrap_or_default();
                if random.once_in(2) {
                    map.insert(random.word(words).to_owned(), value);
                }
            }
        }
        (5..=7, Value::Array(items)) => {
            let at = random.below(items.len() + 1);
            let item = items.get(random.below(items.len())).cloned().unwrap_or(piece);
            items.insert(at, if random.once_in(3) { any(random) } else { item });
        }
        (8 | 9, Value::Array(items)) => {
            if !items.is_empty() {
                items.remove(random.below(items.len()));
            }
        }
        (_, Value::String(text)) => {
            let word = if random.once_in(2) { random.word(STRINGS) } else { random.word(words) };
            let mut at = random.below(text.len() + 1);
            while !text.is_char_boundary(at) {
                at -= 1;
            }
            text.insert_str(at, word);
        }
        (_, node) => *node = any(random),
    }
}
