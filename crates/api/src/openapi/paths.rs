//! A row's paths and operations: enough to find a kind by its path, and to see which query parameters are understood.

use serde_json::{Map, Value, json};

use super::Style;
use super::schemas::{DELETE_OPTIONS, PATCH, STATUS, group_version_kind, reference, subresource};
use crate::resource::{Resource, Verb};

/// Query parameters of writes.
const WRITE: &[&str] = &["dryRun", "fieldManager", "fieldValidation"];
const FORCE: &str = "force";
/// Query parameters of lists.
const LIST: &[&str] = &[
    "allowWatchBookmarks",
    "continue",
    "fieldSelector",
    "labelSelector",
    "limit",
    "resourceVersion",
    "resourceVersionMatch",
    "sendInitialEvents",
    "timeoutSeconds",
    "watch",
];
const DELETE: &[&str] = &["dryRun", "gracePeriodSeconds", "orphanDependents", "propagationPolicy"];
const PATCH_TYPES: &[&str] = &["application/json-patch+json", "application/merge-patch+json", "application/strategic-merge-patch+json", "application/apply-patch+yaml"];
/// Custom kinds are not merged strategically: kubectl reads from here whether a kind is.
const CUSTOM_PATCH_TYPES: &[&str] = &["application/json-patch+json", "application/merge-patch+json", "application/apply-patch+yaml"];

struct Operation<'a> {
    method: &'static str,
    action: &'static str,
    body: Option<&'a str>,
    answer: &'a str,
    query: Vec<&'static str>,
}

/// `schema` is the name of the row's type in the document.
pub(super) fn add(paths: &mut Map<String, Value>, row: &Resource, schema: &str, style: Style) {
    let root = format!("/{}", super::path(&row.group, &row.version));
    let list = format!("{}{}", schema.strip_suffix(&*row.kind).unwrap_or(schema), row.list_kind);
    let here = if row.namespaced() { format!("{root}/namespaces/{{namespace}}/{}", row.plural) } else { format!("{root}/{}", row.plural) };
    let own = (&*row.group, &*row.version, &*row.kind);
    let patches = if row.custom.is_some() { CUSTOM_PATCH_TYPES } else { PATCH_TYPES };

    let mut collection = Vec::new();
    let mut item = Vec::new();
    for verb in row.verbs.iter() {
        match verb {
            Verb::List => collection.push(Operation { method: "get", action: "list", body: None, answer: &list, query: LIST.to_vec() }),
            Verb::Create => collection.push(Operation { method: "post", action: "post", body: Some(schema), answer: schema, query: WRITE.to_vec() }),
            Verb::DeleteCollection => {
                collection.push(Operation { method: "delete", action: "deletecollection", body: Some(DELETE_OPTIONS), answer: STATUS, query: [DELETE, LIST].concat() })
            }
            Verb::Get => item.push(Operation { method: "get", action: "get", body: None, answer: schema, query: Vec::new() }),
            Verb::Update => item.push(put(schema)),
            Verb::Patch => item.push(patch(schema)),
            Verb::Delete => item.push(Operation { method: "delete", action: "delete", body: Some(DELETE_OPTIONS), answer: STATUS, query: DELETE.to_vec() }),
            Verb::Watch => {}
        }
    }
    if row.namespaced() && row.allows(Verb::List) {
        let everywhere = Operation { method: "get", action: "list", body: None, answer: &list, query: LIST.to_vec() };
        insert(paths, format!("{root}/{}", row.plural), &[everywhere], own, style, patches);
    }
    insert(paths, here.clone(), &collection, own, style, patches);
    insert(paths, format!("{here}/{{name}}"), &item, own, style, patches);
    for sub in row.subresources.iter() {
        let name = if sub.kind == row.kind { Some(schema.to_owned()) } else { subresource(&sub.group, &sub.version, &sub.kind) };
        let operations: Vec<Operation<'_>> = match &name {
            Some(name) => sub.verbs.iter().filter_map(|verb| below(*verb, name)).collect(),
            // Streams and proxies: what they take is in the query.
            None => sub.verbs.iter().filter_map(|verb| connect(*verb)).collect(),
        };
        insert(paths, format!("{here}/{{name}}/{}", sub.name), &operations, (&*sub.group, &*sub.version, &*sub.kind), style, patches);
    }
}

fn put(schema: &str) -> Operation<'_> {
    Operation { method: "put", action: "put", body: Some(schema), answer: schema, query: WRITE.to_vec() }
}

fn patch(schema: &str) -> Operation<'_> {
    Operation { method: "patch", action: "patch", body: Some(PATCH), answer: schema, query: [WRITE, &[FORCE]].concat() }
}

fn below(verb: Verb, schema: &str) -> Option<Operation<'_>> {
    match verb {
        Verb::Get => Some(Operation { method: "get", action: "get", body: None, answer: schema, query: Vec::new() }),
        Verb::Update => Some(put(schema)),
        Verb::Patch => Some(patch(schema)),
        Verb::Create => Some(Operation { method: "post", action: "post", body: Some(schema), answer: schema, query: WRITE.to_vec() }),
        _ => None,
    }
}

fn connect(verb: Verb) -> Option<Operation<'static>> {
    let method = match verb {
        Verb::Get => "get",
        Verb::Update => "put",
        Verb::Patch => "patch",
        Verb::Create => "post",
        Verb::Delete => "delete",
        _ => return None,
    };
    Some(Operation { method, action: "connect", body: None, answer: "", query: Vec::new() })
}

fn insert(paths: &mut Map<String, Value>, path: String, operations: &[Operation<'_>], kind: (&str, &str, &str), style: Style, patches: &[&str]) {
    if operations.is_empty() {
        return;
    }
    let mut item = Map::new();
    for operation in operations {
        item.insert(operation.method.to_owned(), describe(operation, kind, style, patches));
    }
    let places: Vec<Value> = ["namespace", "name"]
        .into_iter()
        .filter(|name| path.contains(&format!("{{{name}}}")))
        .map(|name| parameter(name, "path", style))
        .collect();
    if !places.is_empty() {
        item.insert("parameters".to_owned(), Value::Array(places));
    }
    paths.insert(path, Value::Object(item));
}

fn parameter(name: &str, place: &str, style: Style) -> Value {
    let ty = match name {
        "allowWatchBookmarks" | "force" | "orphanDependents" | "sendInitialEvents" | "watch" => "boolean",
        "gracePeriodSeconds" | "limit" | "timeoutSeconds" => "integer",
        _ => "string",
    };
    let mut value = json!({"name": name, "in": place});
    if place == "path" {
        value["required"] = true.into();
    }
    match style {
        Style::V2 => {
            value["type"] = ty.into();
            value["uniqueItems"] = true.into();
        }
        Style::V3 => value["schema"] = json!({"type": ty, "uniqueItems": true}),
    }
    value
}

fn describe(operation: &Operation<'_>, (group, version, kind): (&str, &str, &str), style: Style, patches: &[&str]) -> Value {
    let mut parameters: Vec<Value> = operation.query.iter().map(|name| parameter(name, "query", style)).collect();
    let mut ok = json!({"description": "OK"});
    let mut value = json!({"x-kubernetes-action": operation.action, "x-kubernetes-group-version-kind": group_version_kind(group, version, kind)});
    if !operation.answer.is_empty() {
        let schema = reference(style, operation.answer);
        match style {
            Style::V2 => ok["schema"] = schema,
            Style::V3 => ok["content"] = json!({"application/json": {"schema": schema}}),
        }
    }
    let body_types: &[&str] = if operation.method == "patch" { patches } else { &["application/json"] };
    if let Some(body) = operation.body {
        let schema = reference(style, body);
        match style {
            Style::V2 => {
                value["consumes"] = body_types.iter().copied().map(Value::from).collect();
                parameters.push(json!({"name": "body", "in": "body", "required": operation.method != "delete", "schema": schema}));
            }
            Style::V3 => {
                let content: Map<String, Value> = body_types.iter().map(|ty| ((*ty).to_owned(), json!({"schema": schema}))).collect();
                value["requestBody"] = json!({"content": content});
            }
        }
    }
    if !parameters.is_empty() {
        value["parameters"] = Value::Array(parameters);
    }
    value["responses"] = json!({"200": ok});
    value
}
