//! Whether one object's history is linearizable: just-in-time linearization (Wing & Gong 1993, in the breadth-first form of Lowe 2017).
//!
//! The events are read in order. At each moment there is the set of all that can be the case: which of the open requests have been carried out, and the
//! state they left. A request is carried out as late as its answer allows; when no case is left that fits an answer, there is no order that explains the history.

use std::collections::{BTreeSet, HashMap, HashSet};

use crate::history::{Answer, Ask, Operation};
use crate::model::State;
use crate::violation::{Unordered, Violation};

/// Requests without an answer stay open for ever; a history with more of them on one object is too bad to be judged.
const MOST_OPEN: usize = 64;
/// Steps of one object's search. A history that needs more has too many requests without an answer.
const MOST_STEPS: usize = 4_000_000;

#[derive(Clone, PartialEq, Eq, Hash)]
struct Case {
    /// One bit an open request: it has been carried out.
    done: u64,
    state: State,
}

/// A set of cases. What can still happen in one can also happen in another of the same state in which fewer of the requests that never end were carried
/// out: the former is not kept.
#[derive(Default)]
struct Cases(HashMap<(State, u64), Vec<u64>>);

impl Cases {
    /// False when nothing is new in it. `endless` are the requests that will never be answered.
    fn insert(&mut self, case: &Case, endless: u64) -> bool {
        let few = case.done & endless;
        let known = self.0.entry((case.state.clone(), case.done & !endless)).or_default();
        if known.iter().any(|fewer| fewer & few == *fewer) {
            return false;
        }
        known.retain(|more| more & few != few);
        known.push(few);
        true
    }

    fn into_vec(self) -> Vec<Case> {
        self.0.into_iter().flat_map(|((state, done), few)| few.into_iter().map(move |few| Case { done: done | few, state: state.clone() })).collect()
    }
}

struct Open<'a> {
    operation: &'a Operation,
    /// What could be the case when it was called.
    before: Vec<State>,
}

struct Search<'a> {
    cases: Vec<Case>,
    open: Vec<Option<Open<'a>>>,
    /// Of `open`, those without an answer.
    endless: u64,
    steps: usize,
}

impl<'a> Search<'a> {
    fn states(&self) -> Vec<State> {
        let states: HashSet<&State> = self.cases.iter().map(|case| &case.state).collect();
        states.into_iter().cloned().collect()
    }

    /// False when too many are open.
    fn call(&mut self, operation: &'a Operation) -> bool {
        let opened = Some(Open { operation, before: self.states() });
        let slot = self.open.iter().position(Option::is_none).unwrap_or(self.open.len());
        if slot >= MOST_OPEN {
            return false;
        }
        if operation.answer == Answer::Unknown {
            self.endless |= 1 << slot;
        }
        match self.open.get_mut(slot) {
            Some(place) => *place = opened,
            None => self.open.push(opened),
        }
        true
    }

    /// Only what fits the answer of `slot` stays; false when the search became too long.
    fn end(&mut self, slot: usize) -> bool {
        let bit = 1 << slot;
        let (mut fit, mut seen) = (Cases::default(), Cases::default());
        let mut waiting = std::mem::take(&mut self.cases);
        while let Some(case) = waiting.pop() {
            if case.done & bit != 0 {
                fit.insert(&Case { done: case.done & !bit, state: case.state }, self.endless);
                continue;
            }
            for (next, open) in self.open.iter().enumerate() {
                let Some(open) = open.as_ref().filter(|_| case.done & (1 << next) == 0) else { continue };
                self.steps += 1;
                let Some(state) = case.state.step(&open.operation.ask, &open.operation.answer) else { continue };
                let after = Case { done: case.done | (1 << next), state };
                if seen.insert(&after, self.endless) {
                    waiting.push(after);
                }
            }
            if self.steps > MOST_STEPS {
                return false;
            }
        }
        self.cases = fit.into_vec();
        true
    }
}

pub fn object(key: &str, operations: &[&Operation]) -> Result<(), Violation> {
    let mut events: Vec<(u64, bool, &Operation)> = Vec::new();
    for operation in operations.iter().copied() {
        let unanswered = operation.answer == Answer::Unknown;
        // A read that was not answered tells nothing.
        if unanswered && operation.ask == Ask::Get {
            continue;
        }
        events.push((operation.call, false, operation));
        if !unanswered {
            events.push((operation.end, true, operation));
        }
    }
    events.sort_by_key(|(moment, end, _)| (*moment, *end));
    let mut search = Search { cases: vec![Case { done: 0, state: State::default() }], open: Vec::new(), endless: 0, steps: 0 };
    for (_, end, operation) in events {
        if !end {
            if !search.call(operation) {
                return Err(Violation::TooWide { key: key.to_owned() });
            }
            continue;
        }
        let Some(slot) = search.open.iter().position(|open| open.as_ref().is_some_and(|open| std::ptr::eq(open.operation, operation))) else { continue };
        if !search.end(slot) {
            return Err(Violation::TooWide { key: key.to_owned() });
        }
        let Some(ended) = search.open[slot].take() else { continue };
        if search.cases.is_empty() {
            return Err(Violation::Order(Box::new(explain(key, operations, ended))));
        }
    }
    Ok(())
}

/// The shortest piece that shows it: from where the impossible request began.
fn explain(key: &str, operations: &[&Operation], ended: Open<'_>) -> Unordered {
    let (impossible, mut could_be) = (ended.operation, ended.before);
    could_be.sort_by_key(|state| (state.version(), state.is_absent()));
    let versions: BTreeSet<u64> = could_be.iter().filter_map(State::version).collect();
    let gone = could_be.iter().any(State::is_absent);
    let told = |operation: &Operation| match &operation.answer {
        Answer::Object { version, .. } => versions.contains(version),
        Answer::Deleted | Answer::NotFound => gone,
        _ => false,
    };
    // The last one that told of each state says enough.
    let mut earlier: Vec<&Operation> = operations.iter().copied().filter(|operation| operation.end < impossible.call && told(operation)).collect();
    earlier.sort_by_key(|operation| operation.end);
    let mut witnesses: Vec<Operation> = Vec::new();
    for operation in earlier.into_iter().rev() {
        let same = |other: &Operation| match (&other.answer, &operation.answer) {
            (Answer::Object { version, .. }, Answer::Object { version: other, .. }) => version == other,
            (Answer::Object { .. }, _) | (_, Answer::Object { .. }) => false,
            _ => true,
        };
        if !witnesses.iter().any(same) {
            witnesses.insert(0, operation.clone());
        }
    }
    let overlaps = |operation: &Operation| operation.call < impossible.end && (operation.end > impossible.call || operation.answer == Answer::Unknown);
    let matters = |operation: &Operation| operation.ask != Ask::Get && !matches!(operation.answer, Answer::Conflict | Answer::AlreadyExists | Answer::NotFound);
    let mut meanwhile: Vec<Operation> = operations.iter().filter(|operation| !std::ptr::eq(**operation, impossible) && overlaps(operation) && matters(operation)).map(|operation| (*operation).clone()).collect();
    meanwhile.sort_by_key(|operation| operation.call);
    Unordered { key: key.to_owned(), could_be: could_be.iter().map(State::to_string).collect(), witnesses, meanwhile, impossible: impossible.clone() }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use super::*;
    use crate::history::{History, Value};

    fn value(text: &str) -> Value {
        Arc::new(BTreeMap::from([("w".to_owned(), text.to_owned())]))
    }

    fn found(version: u64, text: &str) -> Answer {
        Answer::Object { version, value: value(text) }
    }

    fn replace(text: &str, expect: Option<u64>) -> Ask {
        Ask::Replace { value: value(text), expect }
    }

    fn verdict(table: Vec<(u64, u64, Ask, Answer)>) -> Result<(), String> {
        let operations = table.into_iter().enumerate().map(|(client, (call, end, ask, answer))| Operation { client, key: "k".into(), ask, answer, call, end }).collect();
        History { operations, ..History::default() }.check().map(drop).map_err(|violation| violation.to_string())
    }

    #[test]
    fn what_can_be() {
        // A read at the same time as a write may see the old or the new; both orders at once are told by two reads.
        let create = (0, 1, Ask::Create(value("a")), found(1, "a"));
        verdict(vec![create.clone(), (2, 9, replace("b", None), found(2, "b")), (3, 4, Ask::Get, found(1, "a")), (5, 6, Ask::Get, found(2, "b"))]).expect("it can be");
        // A write without an answer is seen late, after others, or never.
        let lost = (2, 3, replace("b", None), Answer::Unknown);
        verdict(vec![create.clone(), lost.clone(), (4, 5, Ask::Get, found(1, "a")), (6, 7, Ask::Get, found(3, "b"))]).expect("late");
        verdict(vec![create.clone(), lost, (4, 5, replace("c", Some(1)), found(2, "c")), (6, 7, Ask::Get, found(2, "c"))]).expect("never, or before");
        // A delete and a create at the same time.
        verdict(vec![create, (2, 8, Ask::Delete { expect: None }, Answer::Deleted), (3, 7, Ask::Create(value("n")), found(4, "n")), (9, 10, Ask::Get, found(4, "n"))]).expect("deleted first");
    }

    #[test]
    fn planted_violations_are_found() {
        let create = (0, 1, Ask::Create(value("a")), found(1, "a"));
        let second = (2, 3, replace("b", None), found(2, "b"));
        let planted = [
            // A stale read.
            vec![create.clone(), second.clone(), (4, 5, Ask::Get, found(1, "a"))],
            // A write that was acknowledged and is gone.
            vec![create.clone(), second.clone(), (4, 5, Ask::Get, Answer::NotFound)],
            // Two that both replaced the same version.
            vec![create.clone(), (2, 5, replace("b", Some(1)), found(2, "b")), (3, 6, replace("c", Some(1)), found(3, "c"))],
            // Two that both created it.
            vec![create.clone(), (0, 2, Ask::Create(value("b")), found(2, "b"))],
            // Seen, then unseen.
            vec![create.clone(), (2, 20, replace("b", None), Answer::Unknown), (4, 5, Ask::Get, found(2, "b")), (6, 7, Ask::Get, found(1, "a"))],
            // A patch that overwrote another's field.
            vec![create.clone(), (2, 3, Ask::Merge { field: "x".into(), text: "1".into(), expect: None }, found(2, "a"))],
            // A conflict with nobody.
            vec![create, (2, 3, replace("b", Some(1)), Answer::Conflict)],
        ];
        for history in planted {
            assert!(verdict(history.clone()).is_err(), "{history:?}");
        }
    }

    #[test]
    fn the_offending_piece_is_short() {
        let mut table = vec![(0, 1, Ask::Create(value("a0")), found(1, "a0"))];
        for number in 1..50 {
            table.push((number * 2, number * 2 + 1, replace(&format!("a{number}"), Some(number)), found(number + 1, &format!("a{number}"))));
        }
        table.push((110, 130, replace("z", None), found(60, "z")));
        table.push((112, 113, Ask::Get, found(49, "a48")));
        let told = verdict(table).expect_err("a stale read");
        assert_eq!(
            told,
            "object k is not linearizable\n\
             when the last request here began, it could only be\n\
             \x20 at version 50 with {\"w\": \"a49\"}\n\
             as was told by\n\
             \x20 [98..99] client 49: replace with {\"w\": \"a49\"} over version 49 -> version 50 with {\"w\": \"a49\"}\n\
             meanwhile\n\
             \x20 [110..130] client 50: replace with {\"w\": \"z\"} -> version 60 with {\"w\": \"z\"}\n\
             and no order of these explains\n\
             \x20 [112..113] client 51: get -> version 49 with {\"w\": \"a48\"}"
        );
    }

    #[test]
    fn many_without_an_answer_end_in_a_verdict() {
        let mut table = vec![(0, 1, Ask::Create(value("a")), found(1, "a"))];
        for number in 0..40 {
            table.push((2, 3, replace(&format!("lost{number}"), None), Answer::Unknown));
        }
        table.push((4, 5, Ask::Get, found(9, "lost3")));
        assert_eq!(verdict(table.clone()), Ok(()));
        table.push((6, 7, Ask::Get, found(8, "lost4")));
        assert!(verdict(table).is_err());
    }
}
