//! `metav1.Table`: what `kubectl get` prints of each kind. Columns and cells as k8s.io/kubernetes/pkg/printers/internalversion/printers.go.
//!
//! One file a family; a kind is one line of column names and one function from object to cells. Built-in kinds without an entry get NAME and
//! CREATED AT, custom resources what their definition says (`custom.rs`).

mod apps;
mod batch;
mod cluster;
mod config;
mod custom;
mod duration;
mod format;
mod hpa;
mod network;
mod node;
mod pod;
mod policy;
mod storage;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::kinds::json::text;
use crate::resource::Resource;

pub use duration::{age, human_duration, since};
pub use pod::status_word as pod_status;

/// How much of each object goes into its row (`includeObject`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IncludeObject {
    None,
    #[default]
    Metadata,
    Object,
}

/// What is printed of one kind.
///
/// `columns` reads `Name|Desired:i|Age|IP*`: names between bars, `:i` an integer, `:b` a boolean, `:d` a date, `*` only with `-o wide`.
pub(crate) struct Printer {
    pub columns: &'static str,
    pub cells: fn(&Value, Timestamp) -> Vec<Value>,
}

const DEFAULT: Printer = Printer { columns: "Name|Created At:d", cells: |object, _| vec![text(object, "metadata.name").into(), text(object, "metadata.creationTimestamp").into()] };

fn printer(resource: &Resource) -> &'static Printer {
    let families = [pod::printer, apps::printer, batch::printer, network::printer, node::printer, config::printer, storage::printer, policy::printer, cluster::printer, hpa::printer];
    families.iter().find_map(|family| family(&resource.group, &resource.plural)).unwrap_or(&DEFAULT)
}

/// `columnDefinitions`.
pub fn definitions(resource: &Resource) -> Value {
    if let Some(kind) = &resource.custom {
        return custom::definitions(kind);
    }
    let column = |spec: &str| {
        let (spec, priority) = spec.strip_suffix('*').map_or((spec, 0), |rest| (rest, 1));
        let (name, kind) = match spec.rsplit_once(':') {
            Some((name, "i")) => (name, "integer"),
            Some((name, "b")) => (name, "boolean"),
            Some((name, "d")) => (name, "date"),
            _ => (spec, "string"),
        };
        let format = if name == "Name" { "name" } else { "" };
        let description = match name {
            "Name" => "Name of the object, unique within its namespace and kind.".to_owned(),
            "Age" | "Created At" => "When the object was created.".to_owned(),
            _ => format!("{name} of the {}.", resource.singular),
        };
        json!({"name": name, "type": kind, "format": format, "description": description, "priority": priority})
    };
    printer(resource).columns.split('|').map(column).collect()
}

/// The cells of one object.
pub fn cells(resource: &Resource, object: &Value, now: Timestamp) -> Vec<Value> {
    if let Some(kind) = &resource.custom {
        return custom::cells(kind, object, now);
    }
    (printer(resource).cells)(object, now)
}

/// One entry of `rows`.
pub fn row(resource: &Resource, object: &Value, now: Timestamp, include: IncludeObject) -> Value {
    let mut row = Map::new();
    row.insert("cells".to_owned(), Value::Array(cells(resource, object, now)));
    if (&*resource.group, &*resource.plural) == ("", "pods")
        && let Some(conditions) = pod::row_conditions(object)
    {
        row.insert("conditions".to_owned(), conditions);
    }
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
    let mut objects: Vec<&Value> = objects.into_iter().collect();
    if &*resource.plural == "flowschemas" {
        // In the order in which they are tried (`printFlowSchemaList`); what comes sorted by name stays so.
        objects.sort_by_key(|object| crate::kinds::json::number(object, "spec.matchingPrecedence"));
    }
    let rows: Vec<Value> = objects.into_iter().map(|object| row(resource, object, now, include)).collect();
    json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {}, "columnDefinitions": definitions(resource), "rows": rows})
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::table;

    pub fn now() -> Timestamp {
        "2026-01-01T01:00:00Z".parse().unwrap()
    }

    /// The cells, joined by bars, of an object created five minutes ago.
    pub fn line(group: &str, version: &str, plural: &str, mut object: Value) -> String {
        let resource = table::table().find(group, version, plural).expect("a row of the table");
        object["metadata"]["creationTimestamp"] = "2026-01-01T00:55:00Z".into();
        if object["metadata"]["name"].is_null() {
            object["metadata"]["name"] = "x".into();
        }
        let cells = cells(resource, &object, now());
        assert_eq!(definitions(resource).as_array().map(Vec::len), Some(cells.len()), "{plural}: as many cells as columns");
        cells.iter().map(|cell| cell.as_str().map_or_else(|| cell.to_string(), str::to_owned)).collect::<Vec<_>>().join("|")
    }

    #[test]
    fn every_kind_prints_even_an_empty_object() {
        for resource in table::table().rows() {
            for object in [json!({}), json!({"metadata": {"name": "a"}, "spec": {}, "status": {}})] {
                assert_eq!(definitions(resource).as_array().map(Vec::len), Some(cells(resource, &object, now()).len()), "{}", resource.plural);
            }
        }
    }

    #[test]
    fn defaults() {
        assert_eq!(line("rbac.authorization.k8s.io", "v1", "clusterroles", json!({})), "x|2026-01-01T00:55:00Z");
    }

    #[test]
    fn the_shape_of_a_table() {
        let resource = table::table().find("", "v1", "configmaps").unwrap();
        let object = json!({"metadata": {"name": "a", "creationTimestamp": "2026-01-01T00:55:00Z"}, "data": {"x": "y"}});
        let table = table(resource, [&object], now(), IncludeObject::Metadata);
        assert_eq!(table["columnDefinitions"][0], json!({"name": "Name", "type": "string", "format": "name", "description": "Name of the object, unique within its namespace and kind.", "priority": 0}));
        assert_eq!(table["rows"][0]["cells"], json!(["a", 1, "5m"]));
        assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    }
}
