//! What clients were told, and what went wrong: the simulation's witness.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::Object;
use parking_lot::Mutex;

/// An acknowledged write: at this revision, the object with this uid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acknowledged {
    pub component: String,
    pub object: String,
    pub uid: String,
}

#[derive(Default)]
pub struct Ledger {
    acknowledged: Mutex<BTreeMap<u64, Acknowledged>>,
    violations: Mutex<Vec<String>>,
}

impl Ledger {
    pub fn acknowledged(&self, component: &str, object: &Arc<Object>) {
        let (revision, meta) = (object.resource_version(), object.meta());
        // Bare statuses, tokens and reviews leave nothing behind.
        if revision > 0 && !meta.uid.is_empty() {
            let written = Acknowledged { component: component.to_owned(), object: format!("{object:?}"), uid: meta.uid.clone() };
            self.acknowledged.lock().insert(revision, written);
        }
    }

    pub fn violation(&self, text: String) {
        self.violations.lock().push(text);
    }

    pub fn violations(&self) -> Vec<String> {
        self.violations.lock().clone()
    }

    pub fn writes(&self) -> BTreeMap<u64, Acknowledged> {
        self.acknowledged.lock().clone()
    }
}
