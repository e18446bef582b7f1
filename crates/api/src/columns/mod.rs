//! `metav1.Table`: what `kubectl get` prints of each kind. Columns and cells as k8s.io/kubernetes/pkg/printers/internalversion/printers.go.
//!
//! One file a family; a kind is its column definitions and one function from object to cells. Kinds without an entry get NAME and AGE.

mod duration;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::kinds::json::text;
use crate::resource::Resource;

pub use duration::{age, human_duration};

/// How much of each object goes into its row (`includeObject`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IncludeObject {
    None,
    #[default]
    Metadata,
    Object,
}

/// One column: name, type, format, priority (0 is always shown, 1 with `-o wide`), description.
pub(crate) type Column = (&'static str, &'static str, &'static str, i64, &'static str);

pub(crate) const NAME: Column = ("Name", "string", "name", 0, "Name must be unique within a namespace.");
pub(crate) const AGE: Column = ("Age", "string", "", 0, "Time since this object was created.");

/// What is printed of one kind.
pub(crate) struct Printer {
    pub columns: &'static [Column],
    pub cells: fn(&Value, Timestamp) -> Vec<Value>,
}

const DEFAULT: Printer = Printer { columns: &[NAME, AGE], cells: |object, now| vec![text(object, "metadata.name").into(), age(object, now).into()] };

fn printer(resource: &Resource) -> &'static Printer {
    let _ = resource;
    &DEFAULT
}

/// `columnDefinitions`.
pub fn definitions(resource: &Resource) -> Value {
    let column = |(name, kind, format, priority, description): &Column| json!({"name": name, "type": kind, "format": format, "description": description, "priority": priority});
    printer(resource).columns.iter().map(column).collect()
}

/// One entry of `rows`.
pub fn row(resource: &Resource, object: &Value, now: Timestamp, include: IncludeObject) -> Value {
    let mut row = Map::new();
    row.insert("cells".to_owned(), Value::Array((printer(resource).cells)(object, now)));
    match include {
        IncludeObject::None => {}
        IncludeObject::Metadata => {
            let metadata = object.get("metadata").cloned().unwrap_or_else(|| json!({}));
            row.insert("object".to_owned(), json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata}));
        }
        IncludeObject::Object => {
            row.insert("object".to_owned(), object.clone());
        }
    }
    Value::Object(row)
}

/// A whole table. The list's own metadata (resourceVersion, continue) is put in by the caller.
pub fn table<'a>(resource: &Resource, objects: impl IntoIterator<Item = &'a Value>, now: Timestamp, include: IncludeObject) -> Value {
    let rows: Vec<Value> = objects.into_iter().map(|object| row(resource, object, now, include)).collect();
    json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {}, "columnDefinitions": definitions(resource), "rows": rows})
}
