//! Managers that wrote another version of the kind: their fields are compared, pruned and lost in the terms of their own version.
//!
//! Mirrors structured-merge-diff's `merge.Updater` (reconcileManagedFieldsWithSchemaChanges, update, prune, addBackOwnedItems) with a `Converter`.

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
    /// Not known yet: what was owned in it stays as it is. Who can find out does, and starts anew.
    Untold,
    /// Who was asked could not tell, and why.
    Failed(String),
}

/// Why nothing could be pruned.
pub(super) enum Trouble {
    /// The object does not fit its schema.
    Unfit(String),
    Unconverted(String),
}

impl From<String> for Trouble {
    fn from(cause: String) -> Self {
        Self::Unfit(cause)
    }
}

fn unconverted(what: &str, why: String) -> Trouble {
    Trouble::Unconverted(format!("{what}: {why}"))
}

pub trait Versions: fmt::Debug + Sync {
    /// `api_version` as managers have it: `apps/v1`.
    fn form(&self, object: &Value, api_version: &str) -> Form<'_>;
}

/// Owners in versions that are gone go, before anything else is looked at.
pub(super) fn reconcile(managers: &mut Managers, live: &Value, writer: &Writer<'_>) -> Result<(), String> {
    let Some(versions) = writer.versions else { return Ok(()) };
    for version in managers.versions().into_iter().filter(|version| version != writer.api_version) {
        match versions.form(live, &version) {
            Form::Gone => managers.forget(&version),
            Form::Failed(why) => return Err(why),
            Form::Known(..) | Form::Untold => {}
        }
    }
    Ok(())
}

/// How two states of an object differ, for each version but the writer's that somebody owns fields in. Owners in versions that are gone go.
pub(super) fn changes(managers: &mut Managers, before: &Value, after: &Value, writer: &Writer<'_>) -> Result<Vec<(String, Comparison)>, String> {
    let Some(versions) = writer.versions else { return Ok(Vec::new()) };
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
            (Form::Failed(why), _) => return Err(format!("failed to convert old object: {why}")),
            (_, Form::Failed(why)) => return Err(format!("failed to convert new object: {why}")),
            (Form::Untold, _) | (_, Form::Untold) => {}
        }
    }
    Ok(changes)
}

/// Takes out what the manager applied last time, in whichever version, and nobody owns any more.
pub(super) fn prune(merged: Value, root: Node<'_>, managers: &Managers, last: &Owned, writer: &Writer<'_>) -> Result<Value, Trouble> {
    let set = last.set();
    if set.is_empty() {
        return Ok(merged);
    }
    let version = last.api_version();
    if version == writer.api_version {
        return at_version(&merged, root, managers, version, &set, writer);
    }
    let (then, facts) = match writer.versions.map(|versions| versions.form(&merged, version)) {
        Some(Form::Known(then, facts)) => (then, facts),
        Some(Form::Failed(why)) => return Err(unconverted("failed to convert merged object to last applied version", why)),
        _ => return Ok(merged),
    };
    let pruned = at_version(&then, Node::root(facts), managers, version, &set, writer)?;
    match writer.versions.map(|versions| versions.form(&pruned, writer.api_version)) {
        Some(Form::Known(pruned, _)) => Ok(pruned),
        Some(Form::Failed(why)) => Err(Trouble::Unconverted(why)),
        _ => Ok(merged),
    }
}

fn at_version(merged: &Value, root: Node<'_>, managers: &Managers, version: &str, last: &Set, writer: &Writer<'_>) -> Result<Value, Trouble> {
    let last = root.with_named_fields(last);
    let pruned = root.remove(merged, &last);
    // Back come fields that somebody owns …
    let mut pruned = owned_again(merged, &pruned, root, &managers.union(version))?;
    for other in managers.versions().into_iter().filter(|other| other != version) {
        let Some(versions) = writer.versions else { break };
        let failed = |what: &str, why| unconverted(&format!("failed add back owned items: failed to convert {what} object at version {other}"), why);
        match (versions.form(merged, &other), versions.form(&pruned, &other)) {
            (Form::Known(whole, facts), Form::Known(left, _)) => {
                let back = owned_again(&whole, &left, Node::root(facts), &managers.union(&other))?;
                if back != left {
                    match versions.form(&back, version) {
                        Form::Known(back, _) => pruned = back,
                        Form::Failed(why) => return Err(unconverted("failed add back dangling items: failed to convert pruned object to last applied version", why)),
                        Form::Gone | Form::Untold => {}
                    }
                }
            }
            (Form::Failed(why), _) => return Err(failed("merged", why)),
            (_, Form::Failed(why)) => return Err(failed("pruned", why)),
            (Form::Gone | Form::Untold, _) | (_, Form::Gone | Form::Untold) => {}
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
