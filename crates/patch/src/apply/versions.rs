//! Managers that wrote another version of the kind: their fields are compared, pruned and lost in the terms of their own version.
//!
//! Mirrors structured-merge-diff's `merge.Updater` (update, prune, addBackOwnedItems) with a `Converter`.

use std::fmt;

use serde_json::Value;

use super::managers::{Managers, Owned};
use super::typed::{Comparison, Facts, Node};
use super::{Set, Writer};

/// What an object is in another version of its kind.
pub enum Form<'a> {
    Known(Value, Facts<'a>),
    /// There is no such version (any more): what was owned in it is forgotten.
    Gone,
    /// Only a third party could tell: what was owned in it stays as it is.
    Untold,
}

pub trait Versions: fmt::Debug + Sync {
    /// `api_version` as managers have it: `apps/v1`.
    fn form(&self, object: &Value, api_version: &str) -> Form<'_>;
}

/// How two states of an object differ, for each version but the writer's that somebody owns fields in. Owners in versions that are gone go.
pub(super) fn changes(managers: &mut Managers, before: &Value, after: &Value, writer: &Writer<'_>) -> Vec<(String, Comparison)> {
    let Some(versions) = writer.versions else { return Vec::new() };
    let mut changes = Vec::new();
    for version in managers.versions() {
        if version == writer.api_version {
            continue;
        }
        match (versions.form(before, &version), versions.form(after, &version)) {
            (Form::Known(before, facts), Form::Known(after, _)) => {
                // What does not fit its version changes nobody's fields.
                if let Ok(changed) = Node::root(facts).compare(&before, &after) {
                    changes.push((version, changed.without(writer.reset)));
                }
            }
            (Form::Gone, _) | (_, Form::Gone) => managers.forget(&version),
            _ => {}
        }
    }
    changes
}

/// Takes out what the manager applied last time, in whichever version, and nobody owns any more.
pub(super) fn prune(merged: Value, root: Node<'_>, managers: &Managers, last: &Owned, writer: &Writer<'_>) -> Result<Value, String> {
    let set = last.set();
    if set.is_empty() {
        return Ok(merged);
    }
    let version = last.api_version();
    if version == writer.api_version {
        return at_version(&merged, root, managers, version, &set, writer);
    }
    let Some(Form::Known(then, facts)) = writer.versions.map(|versions| versions.form(&merged, version)) else { return Ok(merged) };
    let pruned = at_version(&then, Node::root(facts), managers, version, &set, writer)?;
    match writer.versions.map(|versions| versions.form(&pruned, writer.api_version)) {
        Some(Form::Known(pruned, _)) => Ok(pruned),
        _ => Ok(merged),
    }
}

fn at_version(merged: &Value, root: Node<'_>, managers: &Managers, version: &str, last: &Set, writer: &Writer<'_>) -> Result<Value, String> {
    let last = root.with_named_fields(last);
    let pruned = root.remove(merged, &last);
    // Back come fields that somebody owns …
    let mut pruned = owned_again(merged, &pruned, root, &managers.union(version))?;
    for other in managers.versions().into_iter().filter(|other| other != version) {
        let Some(versions) = writer.versions else { break };
        if let (Form::Known(whole, facts), Form::Known(left, _)) = (versions.form(merged, &other), versions.form(&pruned, &other)) {
            let back = owned_again(&whole, &left, Node::root(facts), &managers.union(&other))?;
            if back != left
                && let Form::Known(back, _) = versions.form(&back, version)
            {
                pruned = back;
            }
        }
    }
    // … and fields that were never this manager's.
    let whole = root.with_named_fields(&root.field_set(merged)?);
    let left = root.with_named_fields(&root.field_set(&pruned)?);
    Ok(root.remove(merged, &whole.difference(&left).intersection(&last)))
}

fn owned_again(merged: &Value, pruned: &Value, root: Node<'_>, owned: &Set) -> Result<Value, String> {
    let whole = root.with_named_fields(&root.field_set(merged)?);
    let left = root.with_named_fields(&root.field_set(pruned)?);
    Ok(root.remove(merged, &whole.difference(&left.union(&root.with_named_fields(owned)))))
}
