//! Server-side apply: who manages which field, what an applied configuration changes, and when two managers conflict.
//!
//! Mirrors structured-merge-diff's `merge.Updater` and apimachinery's `managedfields`. [`apply`] merges a configuration into an object; [`track`] notes who
//! changed what when an object was written any other way. Both keep `metadata.managedFields`. What a manager owns who wrote another version of the kind is told in
//! that version's terms ([`Versions`]). What this core leaves out: keeping kubectl's last-applied annotation in step.

mod element;
mod managers;
mod set;
mod typed;
mod versions;

use api::schema::TypeInfo;
use api::{Cause, Reason, Status};
use serde_json::{Map, Value};

use managers::{Identity, Managers, Operation};
pub use set::Set;
use typed::{Comparison, Node};
pub use typed::Facts;
use versions::Trouble;
pub use versions::{Form, Versions};

/// Who writes.
#[derive(Debug, Clone, Copy)]
pub struct Writer<'a> {
    /// `fieldManager`, or what stands for it (the first part of the user agent).
    pub manager: &'a str,
    /// The version of the kind that is written: `apps/v1`.
    pub api_version: &'a str,
    /// `status`, `scale`; empty for the object itself.
    pub subresource: &'a str,
    /// RFC 3339.
    pub now: &'a str,
    /// Top-level fields this way of writing cannot change and so cannot own: `status` for the object itself, `spec` and `metadata` for its status.
    pub reset: &'a [&'a str],
    /// The kind's other versions; None where there are none.
    pub versions: Option<&'a dyn Versions>,
}

/// One field that another manager has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// As it is to be printed: `"kubectl" using apps/v1`.
    pub manager: String,
    /// `.spec.replicas`
    pub path: String,
}

#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ApplyError {
    #[error("{}", conflict_message(.0))]
    Conflicts(Vec<Conflict>),
    #[error("metadata.managedFields must be nil")]
    ManagedFields,
    /// The configuration does not fit the schema.
    #[error("failed to create typed patch object ({object}): {cause}")]
    Typed { object: String, cause: String },
    /// The object in the store does not fit the schema.
    #[error("failed to create typed live object ({object}): {cause}")]
    Live { object: String, cause: String },
    /// Another manager's version of the object cannot be had.
    #[error("{0}")]
    Conversion(String),
}

impl ApplyError {
    /// What the API server answers.
    pub fn status(&self) -> Status {
        match self {
            Self::Conflicts(conflicts) => {
                let mut status = Status::failure(409, Reason::Conflict, self.to_string());
                status.details.causes = conflicts
                    .iter()
                    .map(|conflict| Cause { reason: "FieldManagerConflict".into(), message: format!("conflict with {}", conflict.manager), field: conflict.path.clone() })
                    .collect();
                status
            }
            Self::ManagedFields => Status::failure(400, Reason::BadRequest, self.to_string()),
            Self::Typed { .. } | Self::Live { .. } | Self::Conversion(_) => Status::failure(500, Reason::Unknown, self.to_string()),
        }
    }
}

fn conflict_message(conflicts: &[Conflict]) -> String {
    if let [only] = conflicts {
        return format!("Apply failed with 1 conflict: conflict with {}: {}", only.manager, only.path);
    }
    let mut managers: Vec<&str> = conflicts.iter().map(|conflict| conflict.manager.as_str()).collect();
    managers.sort_unstable();
    managers.dedup();
    let blocks: Vec<String> = managers
        .into_iter()
        .map(|manager| {
            let paths: Vec<String> = conflicts.iter().filter(|conflict| conflict.manager == manager).map(|conflict| format!("- {}", conflict.path)).collect();
            format!("conflicts with {manager}:\n{}", paths.join("\n"))
        })
        .collect();
    format!("Apply failed with {} conflicts: {}", conflicts.len(), blocks.join("\n"))
}

/// Merges `config` into `live` (None when the object does not exist yet). The result has its managed fields set; it is not defaulted and not validated yet.
/// An apply that changes nothing gives `live` back with the managers' sets as they then are.
pub fn apply<'a>(live: Option<&Value>, config: &Value, facts: impl Into<Facts<'a>>, writer: &Writer<'_>, force: bool) -> Result<Value, ApplyError> {
    let facts = facts.into();
    if config.pointer("/metadata/managedFields").is_some_and(|fields| !fields.is_null()) {
        return Err(ApplyError::ManagedFields);
    }
    let root = Node::root(facts);
    match facts {
        Facts::Type(info) => fits(info, config)?,
        _ => root.validate(config).map_err(|cause| ApplyError::Typed { object: named(config), cause })?,
    }
    let mut before = live.cloned().unwrap_or_else(|| empty(facts, config));
    let mut managers = match live {
        Some(live) => first_apply(Managers::of(live), live, root, facts, writer),
        None => Managers::default(),
    };
    managers::remove(&mut before);
    let broken = |cause| ApplyError::Live { object: named(&before), cause };

    versions::reconcile(&mut managers, &before, writer).map_err(ApplyError::Conversion)?;
    let me = Identity::new(writer, Operation::Apply);
    let last = managers.take(&me);
    let mut owned = root.field_set(config).map_err(|cause| ApplyError::Typed { object: named(config), cause })?;
    exclude(&mut owned, writer.reset);
    let merged = root.merge(Some(&before), Some(config)).map_err(broken)?.unwrap_or_else(|| before.clone());
    managers.put(me.clone(), writer.api_version, owned, None);
    let after = match &last {
        Some(last) => versions::prune(merged, root, &managers, last, writer).map_err(|trouble| match trouble {
            Trouble::Unfit(cause) => broken(cause),
            Trouble::Unconverted(why) => ApplyError::Conversion(format!("failed to prune fields: {why}")),
        })?,
        None => merged,
    };
    let mut changes = versions::changes(&mut managers, &before, &after, writer).map_err(ApplyError::Conversion)?;
    changes.push((writer.api_version.to_owned(), root.compare(&before, &after).map_err(broken)?.without(writer.reset)));
    let conflicts: Vec<Conflict> = changes.iter().flat_map(|(version, changed)| managers.conflicts(changed, &me, version)).collect();
    if !force && !conflicts.is_empty() {
        return Err(ApplyError::Conflicts(conflicts));
    }
    for (version, changed) in &changes {
        managers.take_from_others(changed, &me, version);
    }
    let same = before == after;
    // Whoever came to own what was there already has changed nothing at any time.
    if let Some(time) = if same { last.and_then(|last| last.time) } else { Some(writer.now.to_owned()) } {
        managers.time(&me, time);
    }
    let mut object = after;
    managers.write(&mut object);
    Ok(object)
}

/// Whether a configuration has the shape of that type.
pub fn fits(info: &'static TypeInfo, config: &Value) -> Result<(), ApplyError> {
    typed::fit::object(info, config).map_err(|cause| ApplyError::Typed { object: named(config), cause })
}

/// Notes who changed what: `old` is None on create, `new` is the object about to be stored. Never fails: what cannot be understood is not tracked,
/// and where another manager's version of the object cannot be had, the managed fields go.
pub fn track<'a>(old: Option<&Value>, new: &mut Value, facts: impl Into<Facts<'a>>, writer: &Writer<'_>) {
    let facts = facts.into();
    let root = Node::root(facts);
    let mut managers = Managers::requested(old, new, writer.subresource.is_empty());
    // Its managed fields count as removed, which is nobody's loss: they are never owned.
    let nothing;
    let before = match old {
        Some(old) => old,
        None => {
            nothing = empty(facts, new);
            &nothing
        }
    };
    let Ok(changed) = root.compare(before, new) else { return };
    let Comparison { added: mut gained, modified, removed } = changed.without(writer.reset);
    gained.absorb(modified);
    // As upstream: rather nobody owns anything than the wrong one.
    let Ok(changes) = versions::changes(&mut managers, before, new, writer) else { return };
    for (version, mut changed) in changes {
        changed.added.absorb(changed.modified);
        managers.take_from_everyone(&changed.added, &changed.removed, &version);
    }
    managers.take_from_everyone(&gained, &removed, writer.api_version);
    managers.gain(Identity::new(writer, Operation::Update), writer.api_version, gained, writer.now);
    managers.cap();
    managers.write(new);
}

/// An object nobody has managed yet: what is there belongs to whoever came before the first apply.
fn first_apply(managers: Managers, live: &Value, root: Node<'_>, facts: Facts<'_>, writer: &Writer<'_>) -> Managers {
    const BEFORE: &str = "before-first-apply";
    if !managers.is_empty() {
        return managers;
    }
    let mut managers = managers;
    let mut stripped = live.clone();
    managers::remove(&mut stripped);
    if let Ok(found) = root.compare(&empty(facts, live), &stripped) {
        let before = Writer { manager: BEFORE, subresource: "", ..*writer };
        let found = found.without(writer.reset);
        managers.gain(Identity::new(&before, Operation::Update), writer.api_version, found.added.union(&found.modified), writer.now);
    }
    managers
}

/// What an object of the kind is before anything is set in it, as Go has it: structs are there, pointers are not.
fn empty(facts: Facts<'_>, like: &Value) -> Value {
    let mut value = match facts {
        Facts::Type(ty) => ty.empty(),
        _ => Value::Object(Map::new()),
    };
    for key in ["apiVersion", "kind"] {
        if let Some(text) = like.get(key) {
            value[key] = text.clone();
        }
    }
    value
}

fn exclude(set: &mut Set, fields: &[&str]) {
    for field in fields {
        set.remove_tree(&element::field(field));
    }
}

/// `default/web; apps/v1, Kind=Deployment`
pub fn named(object: &Value) -> String {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or("");
    format!("{}/{}; {}", text("/metadata/namespace"), text("/metadata/name"), go_kind(object))
}

/// Kind and version as Go prints them: `apps/v1, Kind=Deployment`, `/v1, Kind=Pod`.
pub fn go_kind(object: &Value) -> String {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or("");
    let version = text("/apiVersion");
    let slash = if version.contains('/') { "" } else { "/" };
    format!("{slash}{version}, Kind={}", text("/kind"))
}

#[cfg(test)]
mod tests;
