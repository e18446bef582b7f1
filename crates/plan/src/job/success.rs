//! `successPolicy`: an Indexed Job that has succeeded before all of its indexes have. Mirrors `success_policy.go` (KEP-3998).

use std::collections::BTreeSet;

use super::{Work, count, indexes};

impl Work<'_> {
    /// Which rule is met by the indexes that have succeeded.
    pub(super) fn success_policy(&self, succeeded: &BTreeSet<i32>) -> Option<String> {
        let policy = self.spec.success_policy.as_ref().filter(|_| self.indexed && !succeeded.is_empty())?;
        let met = policy.rules.iter().position(|rule| match &rule.succeeded_indexes {
            Some(text) => {
                let required = indexes::parse(text, self.spec.completions.unwrap_or(0));
                let have = count(required.intersection(succeeded));
                !required.is_empty() && (required.is_subset(succeeded) || rule.succeeded_count.is_some_and(|enough| have >= enough))
            }
            None => rule.succeeded_count.is_some_and(|enough| count(succeeded.iter()) >= enough),
        })?;
        Some(format!("Matched rules at index {met}"))
    }
}
