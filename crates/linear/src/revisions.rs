//! What the revisions alone can tell, across all objects at once: they count the writes of the whole store.
//!
//! A write's revision is above every one that was told before it began, and its own. A list is not older than that either, and shows of each object exactly what
//! was written up to its revision: nothing newer, nothing older.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;

use crate::history::{Answer, Ask, History, Moment, Operation, Version};
use crate::violation::Violation;

fn written(operation: &Operation) -> Option<Version> {
    match (&operation.ask, &operation.answer) {
        (Ask::Get, _) => None,
        (_, Answer::Object { version, .. }) => Some(*version),
        _ => None,
    }
}

/// The highest revision told before each moment at which one was told.
struct Told(BTreeMap<Moment, Version>);

impl Told {
    fn new(history: &History) -> Self {
        let operations = history.operations.iter().filter_map(|operation| match &operation.answer {
            Answer::Object { version, .. } => Some((operation.end, *version)),
            _ => None,
        });
        let mut told: BTreeMap<Moment, Version> = operations.chain(history.listings.iter().map(|listing| (listing.end, listing.revision))).collect();
        let mut highest = 0;
        for version in told.values_mut() {
            highest = highest.max(*version);
            *version = highest;
        }
        Self(told)
    }

    fn before(&self, moment: Moment) -> Version {
        self.0.range(..moment).next_back().map_or(0, |(_, version)| *version)
    }
}

pub fn check(history: &History) -> Result<(), Violation> {
    let told = Told::new(history);
    let mut by_revision: HashMap<Version, &Operation> = HashMap::new();
    let mut by_key: BTreeMap<&str, BTreeMap<Version, &Operation>> = BTreeMap::new();
    for operation in &history.operations {
        let Some(version) = written(operation) else { continue };
        let before = told.before(operation.call);
        if version <= before {
            return Err(Violation::Backwards { operation: Box::new(operation.clone()), told: before });
        }
        if let Some(first) = by_revision.insert(version, operation) {
            return Err(Violation::Twice { first: Box::new(first.clone()), second: Box::new(operation.clone()) });
        }
        by_key.entry(&operation.key).or_default().insert(version, operation);
    }
    for listing in &history.listings {
        let before = told.before(listing.call);
        if listing.revision < before {
            return Err(Violation::StaleList { listing: Box::new(listing.clone()), told: before });
        }
        for (key, (version, _)) in &listing.items {
            if *version > listing.revision {
                return Err(Violation::Ahead { listing: Box::new(listing.clone()), key: key.clone(), version: *version });
            }
            // Whatever was written between what is shown and the list's revision should be shown instead.
            let missed = by_key.get(key.as_str()).and_then(|writes| writes.range((Bound::Excluded(*version), Bound::Included(listing.revision))).next());
            if let Some((_, written)) = missed {
                return Err(Violation::Snapshot { listing: Box::new(listing.clone()), key: key.clone(), written: Box::new((*written).clone()) });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::history::{Listing, Value};

    fn value() -> Value {
        Arc::new(BTreeMap::new())
    }

    fn write(key: &str, call: Moment, end: Moment, version: Version) -> Operation {
        Operation { client: 0, key: key.into(), ask: Ask::Create(value()), answer: Answer::Object { version, value: value() }, call, end }
    }

    fn list(call: Moment, end: Moment, revision: Version, items: &[(&str, Version)]) -> Listing {
        let items = items.iter().map(|(key, version)| ((*key).to_owned(), (*version, value()))).collect();
        Listing { client: 1, revision, items, call, end }
    }

    #[test]
    fn across_objects() {
        let writes = || vec![write("a", 0, 1, 5), write("b", 2, 3, 7)];
        let check = |operations: Vec<Operation>, listings: Vec<Listing>| History { operations, listings }.check();
        check(writes(), vec![list(4, 5, 7, &[("a", 5), ("b", 7)])]).expect("a snapshot");
        check(writes(), vec![list(2, 5, 6, &[("a", 5)])]).expect("begun before the second was told");
        // Planted violations.
        assert!(matches!(check(vec![write("a", 0, 1, 5), write("b", 2, 3, 4)], vec![]), Err(Violation::Backwards { told: 5, .. })));
        assert!(matches!(check(vec![write("a", 0, 3, 5), write("b", 1, 2, 5)], vec![]), Err(Violation::Twice { .. })));
        assert!(matches!(check(writes(), vec![list(4, 5, 6, &[("a", 5)])]), Err(Violation::StaleList { told: 7, .. })));
        assert!(matches!(check(writes(), vec![list(2, 5, 6, &[("a", 5), ("b", 7)])]), Err(Violation::Ahead { version: 7, .. })));
        let newer = vec![write("a", 0, 1, 5), Operation { ask: Ask::Replace { value: value(), expect: None }, ..write("a", 2, 3, 7) }];
        assert!(matches!(check(newer, vec![list(4, 5, 8, &[("a", 5)])]), Err(Violation::Snapshot { .. })));
        // One that lacks an object is found out as a read of that object.
        assert!(matches!(check(writes(), vec![list(4, 5, 7, &[("a", 5)])]), Err(Violation::Order(_))));
    }
}
