//! The rows that are served right now: the built-in table, and more of them for each custom resource.
//!
//! Lookups are lock-free; a change makes a new index that shares all but the changed group with the one before, so that a thousand definitions cost a thousand small
//! changes. What needs every row in one list has it made on first use.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock};

use ::api::Resource;
use arc_swap::ArcSwap;

struct BuiltIn {
    all: Vec<Arc<Resource>>,
    by_path: HashMap<(String, String, String), Arc<Resource>>,
}

/// The rows of one group's definitions, by version and plural.
type Group = Arc<[Arc<Resource>]>;

pub struct Rows {
    built_in: Arc<BuiltIn>,
    custom: BTreeMap<Arc<str>, Group>,
    all: OnceLock<Vec<Arc<Resource>>>,
}

impl Rows {
    /// Built-in rows in their order, then custom ones by group.
    pub fn all(&self) -> &[Arc<Resource>] {
        if self.custom.is_empty() {
            return &self.built_in.all;
        }
        self.all.get_or_init(|| self.built_in.all.iter().chain(self.custom.values().flat_map(|group| group.iter())).cloned().collect())
    }

    pub fn find(&self, group: &str, version: &str, plural: &str) -> Option<Arc<Resource>> {
        // The key's owned strings cost three small allocations a request; measured below 0.1 µs.
        if let Some(row) = self.built_in.by_path.get(&(group.to_owned(), version.to_owned(), plural.to_owned())) {
            return Some(row.clone());
        }
        let rows = self.custom.get(group)?;
        let at = rows.binary_search_by(|row| (&*row.version, &*row.plural).cmp(&(version, plural))).ok()?;
        Some(rows[at].clone())
    }

    /// Whether any resource of this group and version is served.
    pub fn serves(&self, group: &str, version: &str) -> bool {
        self.built_in.all.iter().any(|row| row.group == group && row.version == version) || self.custom.get(group).is_some_and(|rows| rows.iter().any(|row| row.version == version))
    }

    fn with(&self, changes: &[Change]) -> Self {
        let mut custom = self.custom.clone();
        for change in changes {
            let known = custom.get(&*change.group).map(|rows| &rows[..]).unwrap_or_default();
            let mut rows: Vec<Arc<Resource>> = known.iter().filter(|row| row.plural != change.plural).chain(&change.rows).cloned().collect();
            rows.sort_by(|a, b| (&*a.version, &*a.plural).cmp(&(&*b.version, &*b.plural)));
            if rows.is_empty() {
                custom.remove(&*change.group);
            } else {
                custom.insert(change.group.as_str().into(), rows.into());
            }
        }
        Self { built_in: self.built_in.clone(), custom, all: OnceLock::new() }
    }
}

/// The rows of one definition, which replace those it had.
pub struct Change {
    pub group: String,
    pub plural: String,
    pub rows: Vec<Arc<Resource>>,
}

/// The swappable index.
pub struct Serving {
    rows: ArcSwap<Rows>,
}

impl Serving {
    pub fn built_in() -> Self {
        let all: Vec<Arc<Resource>> = ::api::table::table().rows().iter().map(|row| Arc::new(row.clone())).collect();
        let by_path = all.iter().map(|row| ((row.group.to_string(), row.version.to_string(), row.plural.to_string()), row.clone())).collect();
        Self { rows: ArcSwap::from_pointee(Rows { built_in: Arc::new(BuiltIn { all, by_path }), custom: BTreeMap::new(), all: OnceLock::new() }) }
    }

    pub fn rows(&self) -> Arc<Rows> {
        self.rows.load_full()
    }

    pub fn change(&self, changes: &[Change]) {
        if !changes.is_empty() {
            self.rows.rcu(|rows| rows.with(changes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(group: &str, version: &str, plural: &str) -> Arc<Resource> {
        let like = ::api::table::table().find("", "v1", "configmaps").unwrap().clone();
        Arc::new(Resource { group: group.to_owned().into(), version: version.to_owned().into(), plural: plural.to_owned().into(), ..like })
    }

    fn change(group: &str, plural: &str, versions: &[&str]) -> Change {
        Change { group: group.into(), plural: plural.into(), rows: versions.iter().map(|version| row(group, version, plural)).collect() }
    }

    #[test]
    fn definitions_come_change_and_go() {
        let serving = Serving::built_in();
        let built_in = serving.rows().all().len();
        serving.change(&[change("b.io", "foos", &["v2", "v1"]), change("b.io", "bars", &["v1"]), change("a.io", "foos", &["v1"])]);
        let rows = serving.rows();
        assert_eq!(rows.all().len(), built_in + 4);
        assert_eq!(rows.all()[built_in].group, "a.io");
        assert!(rows.find("b.io", "v2", "foos").is_some() && rows.find("", "v1", "pods").is_some() && rows.find("b.io", "v2", "bars").is_none());
        serving.change(&[change("b.io", "foos", &["v3"]), change("a.io", "foos", &[])]);
        let rows = serving.rows();
        assert!(rows.find("b.io", "v1", "foos").is_none() && rows.find("b.io", "v3", "foos").is_some() && rows.find("b.io", "v1", "bars").is_some());
        assert!(!rows.serves("a.io", "v1") && rows.serves("b.io", "v1"));
    }
}
