//! `Strategy`: what a kind does differently from others when it is created, updated and deleted. Every method has a safe default.
//!
//! Mirrors k8s.io/apiserver/pkg/registry/rest (RESTCreateStrategy and friends) and the kinds' strategies in pkg/registry. All methods are pure and
//! total on any JSON whose fields have the right types. The order in which the server calls them, as upstream: on create `default`,
//! `prepare_create`, `validation::object_meta`, `validate`; on update `default`, `prepare_update`, `validation::object_meta_update`, `validate_update`.

use jiff::Timestamp;
use serde_json::Value;

use crate::kinds;
use crate::kinds::json::{child, set_generation, take, text};
use crate::resource::Resource;
use crate::status::Cause;
use crate::validation::{MetadataAgain, same};

/// Who asks, for the few kinds that record it (CertificateSigningRequest).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Requester {
    pub name: String,
    pub uid: String,
    pub groups: Vec<String>,
    pub extra: Vec<(String, Vec<String>)>,
}

/// What a strategy cannot know by itself.
#[derive(Debug, Clone)]
pub struct Context {
    pub now: Timestamp,
    pub requester: Option<Requester>,
}

impl Context {
    pub fn at(now: Timestamp) -> Self {
        Self { now, requester: None }
    }
}

pub trait Strategy: Send + Sync {
    /// Fills in what was left out. Runs on create and update, before `prepare_*`.
    fn default(&self, _object: &mut Value) {}

    /// Makes a new object fit to be stored: no status of the client's, generation 1.
    fn prepare_create(&self, object: &mut Value, _cx: &Context) {
        if child(object, "spec").is_some() {
            set_generation(object, 1);
        }
    }

    /// An update of the main resource: keeps the old status, counts the generation up when the spec changed.
    fn prepare_update(&self, new: &mut Value, old: &Value, _cx: &Context) {
        keep(new, old, "status");
        bump_generation(new, old, &[]);
    }

    /// An update of the status subresource: keeps everything but status and metadata.
    fn prepare_status(&self, new: &mut Value, old: &Value, _cx: &Context) {
        keep_all_but_status(new, old);
    }

    fn validate(&self, _object: &Value) -> Vec<Cause> {
        Vec::new()
    }

    /// The whole new object is judged again, as most kinds upstream do.
    fn validate_update(&self, new: &Value, _old: &Value) -> Vec<Cause> {
        self.validate(new)
    }

    fn validate_status(&self, _new: &Value, _old: &Value) -> Vec<Cause> {
        Vec::new()
    }

    /// What the kind looks at again of the metadata of an update, and of one of its status.
    fn metadata_again(&self) -> [MetadataAgain; 2] {
        [MetadataAgain::Change; 2]
    }

    /// `Warning:` headers.
    fn warnings(&self, _object: &Value) -> Vec<String> {
        Vec::new()
    }

    /// The same for an update.
    fn update_warnings(&self, new: &Value, _old: &Value) -> Vec<String> {
        self.warnings(new)
    }

    /// Seconds of grace a delete gives; `None` deletes at once.
    fn delete_grace(&self, _object: &Value, _requested: Option<i64>) -> Option<i64> {
        None
    }

    /// The value of a field for field selectors; `None` for a field this kind does not offer. `metadata.name` and `metadata.namespace` are the server's.
    fn selectable(&self, object: &Value, field: &str) -> Option<String> {
        let _ = (object, field);
        None
    }

    /// Whether a PUT of an object that is not there creates it.
    fn allow_create_on_update(&self) -> bool {
        false
    }

    /// Whether an update may come without a resourceVersion.
    fn allow_unconditional_update(&self) -> bool {
        true
    }
}

/// A custom kind is its own strategy; a built-in one has it by group and plural.
pub fn of(resource: &Resource) -> &dyn Strategy {
    match &resource.custom {
        Some(custom) => &**custom,
        None => kinds::strategy(&resource.group, &resource.plural),
    }
}

/// Puts the old value of a top-level field back, or removes it if there was none.
pub fn keep(new: &mut Value, old: &Value, name: &str) {
    let Some(map) = new.as_object_mut() else { return };
    match old.get(name) {
        Some(value) => map.insert(name.to_owned(), value.clone()),
        None => map.remove(name),
    };
}

pub fn keep_all_but_status(new: &mut Value, old: &Value) {
    let status = take(new, "status");
    let metadata = take(new, "metadata");
    *new = old.clone();
    let Some(map) = new.as_object_mut() else { return };
    for (name, value) in [("status", status), ("metadata", metadata)] {
        match value {
            Some(value) => map.insert(name.to_owned(), value),
            None => map.remove(name),
        };
    }
}

/// Generation: the old one, plus one if the spec or one of the `also` fields (paths) differs.
pub fn bump_generation(new: &mut Value, old: &Value, also: &[&str]) {
    let before = child(old, "metadata.generation").and_then(Value::as_i64);
    let known = crate::schema::of_kind(text(new, "apiVersion"), text(new, "kind")).and_then(|info| info.field("spec"));
    let unchanged = known.map_or_else(|| same(new.get("spec"), old.get("spec")), |field| field.ty.same(field.pointer, new.get("spec"), old.get("spec")));
    let changed = !unchanged || also.iter().any(|path| !same(child(new, path), child(old, path)));
    match (before, changed) {
        (_, true) => set_generation(new, before.unwrap_or(0) + 1),
        (Some(before), false) => set_generation(new, before),
        (None, false) => {}
    }
}
