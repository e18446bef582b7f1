//! `Policy`: a [`Strategy`] written as a value. A kind names only where it differs from [`BUILT_IN`].

use serde_json::Value;

use super::json::{child, empty, set_generation};
use crate::status::Cause;
use crate::strategy::{Context, Strategy, bump_generation, keep, keep_all_but_status};
use crate::validation::{Errors, MetadataAgain, same};

/// When `metadata.generation` is kept at all, and when it goes up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Generation {
    /// The kind has none.
    None,
    /// When the spec changes.
    Spec,
    /// When the spec or the annotations change.
    SpecOrAnnotations,
    /// When anything but metadata and status changes.
    Content,
    /// When anything but metadata changes.
    ContentAndStatus,
}

/// For [`Policy::metadata_again`]: of the object, and of its status.
pub const CHANGE: [MetadataAgain; 2] = [MetadataAgain::Change, MetadataAgain::Change];
pub const WHOLE: [MetadataAgain; 2] = [MetadataAgain::Whole, MetadataAgain::Change];
pub const NEITHER: [MetadataAgain; 2] = [MetadataAgain::Neither, MetadataAgain::Change];

pub struct Policy {
    pub generation: Generation,
    /// Whether the kind has a status, which create empties and update keeps.
    pub status: bool,
    /// Whether a status update leaves the metadata alone.
    pub status_keeps_metadata: bool,
    pub create_on_update: bool,
    pub unconditional_update: bool,
    /// See [`Strategy::metadata_again`].
    pub metadata_again: [MetadataAgain; 2],
    pub defaults: fn(&mut Value),
    /// After status and generation are set.
    pub on_create: fn(&mut Value, &Context),
    pub on_update: fn(&mut Value, &Value, &Context),
    pub on_status: fn(&mut Value, &Value, &Context),
    /// Holds for new and changed objects.
    pub check: fn(&mut Errors, &Value),
    /// Holds for new objects only.
    pub check_create: fn(&mut Errors, &Value),
    /// Holds for changes, beyond `check`.
    pub check_update: fn(&mut Errors, &Value, &Value),
    pub check_status: fn(&mut Errors, &Value, &Value),
    pub warnings: fn(&Value, &mut Vec<String>),
    pub delete_grace: fn(&Value, Option<i64>) -> Option<i64>,
    pub selectable: fn(&Value, &str) -> Option<String>,
}

pub const BUILT_IN: Policy = Policy {
    generation: Generation::None,
    status: false,
    status_keeps_metadata: false,
    create_on_update: false,
    unconditional_update: true,
    metadata_again: [MetadataAgain::Both, MetadataAgain::Change],
    defaults: |_| {},
    on_create: |_, _| {},
    on_update: |_, _, _| {},
    on_status: |_, _, _| {},
    check: |_, _| {},
    check_create: |_, _| {},
    check_update: |_, _, _| {},
    check_status: |_, _, _| {},
    warnings: |_, _| {},
    delete_grace: |_, _| None,
    selectable: |_, _| None,
};

impl Policy {
    fn count(&self, new: &mut Value, old: &Value) {
        match self.generation {
            Generation::None => {}
            Generation::Spec => bump_generation(new, old, &[]),
            Generation::SpecOrAnnotations => bump_generation(new, old, &["metadata.annotations"]),
            Generation::Content | Generation::ContentAndStatus => {
                let content = |value: &Value| {
                    let mut map = value.as_object().cloned().unwrap_or_default();
                    map.remove("metadata");
                    if self.generation == Generation::Content {
                        map.remove("status");
                    }
                    Value::Object(map)
                };
                let before = child(old, "metadata.generation").and_then(Value::as_i64).unwrap_or(1);
                let (now, then) = (content(new), content(old));
                let info = crate::schema::of_kind(super::json::text(new, "apiVersion"), super::json::text(new, "kind"));
                let changed = !info.map_or_else(|| same(Some(&now), Some(&then)), |info| info.same(Some(&now), Some(&then)));
                set_generation(new, before + i64::from(changed));
            }
        }
    }
}

impl Strategy for Policy {
    fn default(&self, object: &mut Value) {
        (self.defaults)(object);
    }

    fn prepare_create(&self, object: &mut Value, cx: &Context) {
        if self.status {
            super::json::set(object, "status", empty());
        }
        if self.generation != Generation::None {
            set_generation(object, 1);
        }
        (self.on_create)(object, cx);
    }

    fn prepare_update(&self, new: &mut Value, old: &Value, cx: &Context) {
        if self.status {
            keep(new, old, "status");
        }
        (self.on_update)(new, old, cx);
        self.count(new, old);
    }

    fn prepare_status(&self, new: &mut Value, old: &Value, cx: &Context) {
        keep_all_but_status(new, old);
        if self.status_keeps_metadata {
            keep_metadata(new, old);
        }
        (self.on_status)(new, old, cx);
    }

    fn validate(&self, object: &Value) -> Vec<Cause> {
        let mut errors = Errors::new();
        (self.check)(&mut errors, object);
        (self.check_create)(&mut errors, object);
        errors.into_causes()
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<Cause> {
        let mut errors = Errors::new();
        (self.check)(&mut errors, new);
        (self.check_update)(&mut errors, new, old);
        errors.into_causes()
    }

    fn validate_status(&self, new: &Value, old: &Value) -> Vec<Cause> {
        let mut errors = Errors::new();
        (self.check_status)(&mut errors, new, old);
        errors.into_causes()
    }

    fn metadata_again(&self) -> [MetadataAgain; 2] {
        self.metadata_again
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        let mut warnings = Vec::new();
        (self.warnings)(object, &mut warnings);
        warnings
    }

    /// Of kinds that count their generations, a change that counts is warned about.
    fn update_warnings(&self, new: &Value, old: &Value) -> Vec<String> {
        let generation = |object| child(object, "metadata.generation").and_then(Value::as_i64);
        if self.generation != Generation::None && generation(new) == generation(old) { Vec::new() } else { self.warnings(new) }
    }

    fn delete_grace(&self, object: &Value, requested: Option<i64>) -> Option<i64> {
        (self.delete_grace)(object, requested)
    }

    fn selectable(&self, object: &Value, field: &str) -> Option<String> {
        (self.selectable)(object, field)
    }

    fn allow_create_on_update(&self) -> bool {
        self.create_on_update
    }

    fn allow_unconditional_update(&self) -> bool {
        self.unconditional_update
    }
}

/// `metav1.ResetObjectMetaForStatus`: a status update changes no metadata but who manages the fields and the version it is based on.
pub fn keep_metadata(new: &mut Value, old: &Value) {
    let mut metadata = old.get("metadata").cloned().unwrap_or_else(empty);
    for name in ["managedFields", "resourceVersion"] {
        if let (Some(map), Some(value)) = (metadata.as_object_mut(), child(new, "metadata").and_then(|metadata| metadata.get(name))) {
            map.insert(name.to_owned(), value.clone());
        }
    }
    super::json::set(new, "metadata", metadata);
}
