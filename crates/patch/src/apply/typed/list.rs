//! Lists whose items are owned one by one.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use super::{Comparison, Node, element};

impl Node<'_> {
    /// The path element of each item.
    pub(super) fn elements(self, items: &[Value]) -> Result<Vec<String>, String> {
        items.iter().enumerate().map(|(at, item)| self.element(item).map_err(|cause| format!(": element {at}: {cause}"))).collect()
    }

    pub(super) fn element(self, item: &Value) -> Result<String, String> {
        match self {
            Node::Keyed(ty, keys) => {
                let default = |key: &str| ty.info().and_then(|info| info.field(key)).and_then(|field| serde_json::from_str(field.default?).ok());
                keyed(keys.iter().copied(), default, item)
            }
            Node::CustomKeyed(schema) => keyed(schema.map_keys.iter().map(|key| &**key), |key| schema.items.as_ref()?.property(key)?.default.clone(), item),
            _ => match item {
                Value::Object(_) => Err("associative list without keys has an element that's a map type".into()),
                Value::Array(_) => Err("not supported: associative list with lists as elements".into()),
                Value::Null => Err("associative list without keys has an element that's an explicit null".into()),
                plain => Ok(element::value(plain)),
            },
        }
    }

    /// Items that stand twice on both sides count as one whole.
    pub(super) fn compare_lists(self, left: &[Value], right: &[Value], found: &mut Comparison) -> Result<(), String> {
        let (left_elements, right_elements) = (self.elements(left)?, self.elements(right)?);
        // Looked up, not looked for: lists are as long as a request may be.
        fn by_element<'v>(elements: &'v [String], items: &'v [Value]) -> HashMap<&'v str, Vec<&'v Value>> {
            let mut found: HashMap<&str, Vec<&Value>> = HashMap::with_capacity(elements.len());
            elements.iter().zip(items).for_each(|(element, item)| found.entry(element).or_default().push(item));
            found
        }
        let (mut befores, mut afters) = (by_element(&left_elements, left), by_element(&right_elements, right));
        let mut seen = HashSet::with_capacity(left_elements.len());
        for element in left_elements.iter().chain(&right_elements) {
            if !seen.insert(element) {
                continue;
            }
            let (before, after) = (befores.remove(element.as_str()).unwrap_or_default(), afters.remove(element.as_str()).unwrap_or_default());
            if before.len() <= 1 && after.len() <= 1 {
                self.item().compare_entry(|| element.clone(), before.first().copied(), after.first().copied(), found)?;
            } else if before != after {
                match (before.len(), after.len()) {
                    (_, 0) => found.removed.insert(element.clone()),
                    (0, _) => found.added.insert(element.clone()),
                    _ => found.modified.insert(element.clone()),
                }
            }
        }
        Ok(())
    }

    /// The applied list's order holds for its items; what only the object has keeps its place as well as it can.
    pub(super) fn merge_lists(self, left: &[Value], right: &[Value]) -> Result<Vec<Value>, String> {
        let (left_elements, right_elements) = (self.elements(left)?, self.elements(right)?);
        let index = |elements: &[String]| -> HashMap<String, usize> { elements.iter().enumerate().rev().map(|(at, element)| (element.clone(), at)).collect() };
        let (in_left, in_right) = (index(&left_elements), index(&right_elements));
        let mut shared = right_elements.iter().filter(|element| in_left.contains_key(*element));
        let mut next_shared = shared.next();
        let mut taken: HashSet<&str> = HashSet::new();
        let mut merged = Vec::with_capacity(left.len().max(right.len()));
        let (mut l, mut r) = (0, 0);
        while l < left.len() || r < right.len() {
            if l < left.len() && r < right.len() {
                if left_elements[l] == right_elements[r] {
                    taken.insert(&right_elements[r]);
                    merged.extend(self.item().merge(Some(&left[l]), Some(&right[r]))?);
                    (l, r) = (l + 1, r + 1);
                    next_shared = shared.next();
                    continue;
                }
                // Shared, but not the one whose turn it is.
                if in_right.contains_key(&left_elements[l]) && next_shared.is_some_and(|next| *next != left_elements[l]) {
                    l += 1;
                    continue;
                }
            }
            if l < left.len() {
                if !in_right.contains_key(&left_elements[l]) {
                    merged.push(left[l].clone());
                    l += 1;
                    continue;
                }
                if taken.contains(left_elements[l].as_str()) {
                    l += 1;
                }
            }
            if r < right.len() {
                let element = &right_elements[r];
                taken.insert(element);
                let mine = in_left.get(element).map(|at| &left[*at]);
                merged.extend(self.item().merge(mine, Some(&right[r]))?);
                r += 1;
                if next_shared == Some(element) {
                    next_shared = shared.next();
                }
            }
        }
        Ok(merged)
    }
}

fn keyed<'k>(keys: impl Iterator<Item = &'k str> + Clone, default: impl Fn(&str) -> Option<Value>, item: &Value) -> Result<String, String> {
    let map = match item {
        Value::Object(map) => map,
        Value::Null => return Err("associative list with keys may not have a null element".into()),
        _ => return Err("associative list with keys may not have non-map elements".into()),
    };
    let mut found = Map::new();
    for key in keys.clone() {
        if let Some(value) = map.get(key).cloned().or_else(|| default(key)) {
            found.insert(key.to_owned(), value);
        }
    }
    if found.is_empty() {
        let keys: Vec<String> = keys.map(|key| format!("{key:?}")).collect();
        return Err(format!("associative list with keys has an element that omits all key fields [{}] (and doesn't have default values for any key fields)", keys.join(" ")));
    }
    Ok(element::keys(found))
}
