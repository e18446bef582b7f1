//! One object as the API promises it: a register that is there or not, whose every write gets a higher version, and which writes may name the version they expect.
//!
//! A write without an answer leaves a version nobody was told; it becomes known when somebody is.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::history::{Answer, Ask, Value, Version};

#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct State {
    /// No version up to this one can be given any more.
    floor: Version,
    object: Option<Present>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Present {
    version: Option<Version>,
    value: Value,
}

impl State {
    fn holding(floor: Version, version: Option<Version>, value: Value) -> Self {
        Self { floor, object: Some(Present { version, value }) }
    }

    pub fn version(&self) -> Option<Version> {
        self.object.as_ref()?.version
    }

    pub fn is_absent(&self) -> bool {
        self.object.is_none()
    }

    /// The state after `ask` if it is carried out now and answered so; `None` when it cannot have been.
    pub fn step(&self, ask: &Ask, answer: &Answer) -> Option<State> {
        match (answer, &self.object) {
            (Answer::Unknown, _) => self.unanswered(ask),
            (Answer::NotFound, None) => (!matches!(ask, Ask::Create(_))).then(|| self.clone()),
            (Answer::AlreadyExists, Some(_)) => matches!(ask, Ask::Create(_)).then(|| self.clone()),
            (Answer::Conflict, Some(present)) => conflicts(ask, present).then(|| self.clone()),
            (Answer::Deleted, Some(_)) => {
                let Ask::Delete { expect } = ask else { return None };
                Some(State { floor: self.expected(*expect)?, object: None })
            }
            (Answer::Object { version, value }, _) => self.told(ask, *version, value),
            _ => None,
        }
    }

    fn told(&self, ask: &Ask, version: Version, told: &Value) -> Option<State> {
        if *ask == Ask::Get {
            let present = self.object.as_ref()?;
            let same = present.value == *told && self.may_be(present, version);
            return same.then(|| State::holding(self.floor.max(version), Some(version), told.clone()));
        }
        let (floor, value) = self.written(ask)?;
        (version > floor && value == *told).then(|| State::holding(version, Some(version), value))
    }

    fn unanswered(&self, ask: &Ask) -> Option<State> {
        if let Ask::Delete { expect } = ask {
            return Some(State { floor: self.expected(*expect)?, object: None });
        }
        let (floor, value) = self.written(ask)?;
        Some(State::holding(floor, None, value))
    }

    /// What a write makes of this state, if it succeeds: the floor under its version, and the value.
    fn written(&self, ask: &Ask) -> Option<(Version, Value)> {
        match ask {
            Ask::Create(value) => self.is_absent().then(|| (self.floor, value.clone())),
            Ask::Replace { value, expect } => Some((self.expected(*expect)?, value.clone())),
            Ask::Merge { field, text, expect } => {
                let floor = self.expected(*expect)?;
                let mut value: BTreeMap<String, String> = self.object.as_ref()?.value.as_ref().clone();
                value.insert(field.clone(), text.clone());
                Some((floor, Arc::new(value)))
            }
            Ask::Get | Ask::Delete { .. } => None,
        }
    }

    fn may_be(&self, present: &Present, version: Version) -> bool {
        present.version.map_or(version > self.floor, |known| known == version)
    }

    /// The floor when the object is there at the expected version.
    fn expected(&self, expect: Option<Version>) -> Option<Version> {
        let present = self.object.as_ref()?;
        match expect {
            None => Some(self.floor),
            Some(expect) => self.may_be(present, expect).then(|| self.floor.max(expect)),
        }
    }
}

/// Who expects nothing may be told of a conflict all the same: a patch is tried against every writer a few times only.
fn conflicts(ask: &Ask, present: &Present) -> bool {
    match ask {
        Ask::Replace { expect, .. } | Ask::Merge { expect, .. } | Ask::Delete { expect } => expect.is_none() || expect.is_some_and(|expect| present.version != Some(expect)),
        Ask::Create(_) | Ask::Get => false,
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.object {
            None => f.write_str("absent"),
            Some(Present { version: Some(version), value }) => write!(f, "at version {version} with {value:?}"),
            Some(Present { version: None, value }) => write!(f, "at a version above {} that nobody was told, with {value:?}", self.floor),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> Value {
        Arc::new(BTreeMap::from([("w".to_owned(), text.to_owned())]))
    }

    #[test]
    fn one_after_the_other() {
        let found = |version, text: &str| Answer::Object { version, value: value(text) };
        let replace = |text: &str, expect| Ask::Replace { value: value(text), expect };
        let absent = State::default();
        let first = absent.step(&Ask::Create(value("a")), &found(5, "a")).expect("a create");
        let lost = first.step(&replace("b", Some(5)), &Answer::Unknown).expect("it may have been done");
        // A state, what is asked, the answer, and whether it can be.
        let table = [
            (&absent, Ask::Get, Answer::NotFound, true),
            (&absent, Ask::Get, found(1, "a"), false),
            (&absent, replace("b", None), Answer::NotFound, true),
            (&absent, replace("b", Some(1)), Answer::Conflict, false),
            (&absent, Ask::Create(value("a")), Answer::AlreadyExists, false),
            (&first, Ask::Create(value("b")), Answer::AlreadyExists, true),
            (&first, Ask::Create(value("b")), found(6, "b"), false),
            (&first, Ask::Get, found(5, "a"), true),
            (&first, Ask::Get, found(6, "a"), false),
            (&first, Ask::Get, found(5, "b"), false),
            (&first, Ask::Get, Answer::NotFound, false),
            (&first, replace("b", Some(5)), found(6, "b"), true),
            (&first, replace("b", Some(5)), found(5, "b"), false),
            (&first, replace("b", Some(5)), Answer::Conflict, false),
            (&first, replace("b", Some(4)), Answer::Conflict, true),
            (&first, replace("b", Some(4)), found(6, "b"), false),
            (&first, Ask::Delete { expect: Some(4) }, Answer::Deleted, false),
            (&first, Ask::Delete { expect: Some(5) }, Answer::Deleted, true),
            (&first, replace("b", Some(4)), Answer::Unknown, false),
            (&lost, Ask::Get, found(5, "b"), false),
            (&lost, Ask::Get, found(9, "b"), true),
            (&lost, Ask::Get, found(9, "a"), false),
            (&lost, replace("c", Some(5)), found(9, "c"), false),
            (&lost, replace("c", Some(8)), found(9, "c"), true),
        ];
        for (state, ask, answer, can) in table {
            assert_eq!(state.step(&ask, &answer).is_some(), can, "{state}: {ask:?} -> {answer:?}");
        }
        let merged = first.step(&Ask::Merge { field: "x".into(), text: "1".into(), expect: None }, &Answer::Unknown).expect("a patch");
        assert_eq!(merged.to_string(), r#"at a version above 5 that nobody was told, with {"w": "a", "x": "1"}"#);
    }
}
