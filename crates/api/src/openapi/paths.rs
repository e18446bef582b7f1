//! A row's paths and operations: enough to find a kind by its path, and to see which query parameters are understood.

use serde_json::{Map, Value, json};

use super::Style;
use super::parameters::{self, DELETE, FORCE, LOG, WRITE, of_query};
use super::schemas::{DELETE_OPTIONS, PATCH, STATUS, WATCH_EVENT, group_version_kind, reference, subresource};
use crate::resource::{Resource, Verb};

const PATCH_TYPES: &[&str] = &["application/json-patch+json", "application/merge-patch+json", "application/strategic-merge-patch+json", "application/apply-patch+yaml"];
/// Custom kinds are not merged strategically: kubectl reads from here whether a kind is.
const CUSTOM_PATCH_TYPES: &[&str] = &["application/json-patch+json", "application/merge-patch+json", "application/apply-patch+yaml"];

/// Types an answer comes in.
const ANSWERS: &[&str] = &["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];
const STREAMS: &[&str] = &["application/json;stream=watch", "application/vnd.kubernetes.protobuf;stream=watch"];
const ANYTHING: &str = "*/*";
const TEXT: &str = "text/plain";
/// A subresource that passes requests on takes a path below its own.
const PROXY: &str = "proxy";
const BELOW: &str = "{path}";

/// What an operation's id and its sentence are made of.
#[derive(Clone, Copy)]
struct Subject<'a> {
    group: &'a str,
    version: &'a str,
    kind: &'a str,
    namespaced: bool,
    /// A list of what lies in all namespaces.
    everywhere: bool,
    subresource: &'a str,
    /// What an id says after the kind and its subresource: a list, or a path below.
    after: &'static str,
    watched: bool,
}

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
    let subject = Subject { group: &row.group, version: &row.version, kind: &row.kind, namespaced: row.namespaced(), everywhere: false, subresource: "", after: "", watched: row.allows(Verb::Watch) };
    let patches = if row.custom.is_some() { CUSTOM_PATCH_TYPES } else { PATCH_TYPES };

    let mut collection = Vec::new();
    let mut item = Vec::new();
    for verb in row.verbs.iter() {
        match verb {
            Verb::List => collection.push(Operation { method: "get", action: "list", body: None, answer: &list, query: parameters::list() }),
            Verb::Create => collection.push(Operation { method: "post", action: "post", body: Some(schema), answer: schema, query: WRITE.to_vec() }),
            Verb::DeleteCollection => {
                collection.push(Operation { method: "delete", action: "deletecollection", body: Some(DELETE_OPTIONS), answer: STATUS, query: parameters::delete_collection() })
            }
            Verb::Get => item.push(Operation { method: "get", action: "get", body: None, answer: schema, query: Vec::new() }),
            Verb::Update => item.push(put(schema)),
            Verb::Patch => item.push(patch(schema)),
            Verb::Delete => {
                let answer = if row.shows_deleted() { schema } else { STATUS };
                item.push(Operation { method: "delete", action: "delete", body: Some(DELETE_OPTIONS), answer, query: DELETE.to_vec() });
            }
            Verb::Watch => {}
        }
    }
    if row.namespaced() && row.allows(Verb::List) {
        let everywhere = Operation { method: "get", action: "list", body: None, answer: &list, query: parameters::list() };
        insert(paths, format!("{root}/{}", row.plural), &[everywhere], own, Subject { namespaced: false, everywhere: true, ..subject }, style, patches);
    }
    insert(paths, here.clone(), &collection, own, subject, style, patches);
    insert(paths, format!("{here}/{{name}}"), &item, own, subject, style, patches);
    if row.allows(Verb::Watch) && row.custom.is_none() {
        watches(paths, row, &root, subject, style);
    }
    for sub in row.subresources.iter() {
        let name = if sub.kind == row.kind { Some(schema.to_owned()) } else { subresource(&sub.group, &sub.version, &sub.kind) };
        let operations: Vec<Operation<'_>> = match &name {
            Some(name) if sub.name == "log" => vec![Operation { method: "get", action: "get", body: None, answer: name, query: LOG.to_vec() }],
            Some(name) => sub.verbs.iter().filter_map(|verb| below(*verb, name)).collect(),
            // Streams and proxies: what they take is in the query.
            None => {
                let further = ["options", "head"].into_iter().filter(|_| sub.name == PROXY);
                sub.verbs.iter().filter_map(|verb| connect(*verb)).chain(further).map(|method| Operation { method, action: "connect", body: None, answer: "", query: parameters::options(&sub.kind).to_vec() }).collect()
            }
        };
        if sub.name == PROXY {
            let below = Subject { subresource: &sub.name, after: "WithPath", ..subject };
            insert(paths, format!("{here}/{{name}}/{}/{BELOW}", sub.name), &operations, (&*sub.group, &*sub.version, &*sub.kind), below, style, patches);
        }
        insert(paths, format!("{here}/{{name}}/{}", sub.name), &operations, (&*sub.group, &*sub.version, &*sub.kind), Subject { subresource: &sub.name, ..subject }, style, patches);
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

/// The deprecated way to watch: paths of their own.
fn watches(paths: &mut Map<String, Value>, row: &Resource, root: &str, subject: Subject<'_>, style: Style) {
    let watch = |action| Operation { method: "get", action, body: None, answer: WATCH_EVENT, query: parameters::list() };
    let own = (&*row.group, &*row.version, &*row.kind);
    let (root, all) = (format!("{root}/watch"), Subject { after: "List", ..subject });
    let here = if row.namespaced() { format!("{root}/namespaces/{{namespace}}/{}", row.plural) } else { format!("{root}/{}", row.plural) };
    if row.namespaced() {
        insert(paths, format!("{root}/{}", row.plural), &[watch("watchlist")], own, Subject { namespaced: false, everywhere: true, ..all }, style, &[]);
    }
    insert(paths, format!("{here}/{{name}}"), &[watch("watch")], own, subject, style, &[]);
    insert(paths, here, &[watch("watchlist")], own, all, style, &[]);
}

fn connect(verb: Verb) -> Option<&'static str> {
    match verb {
        Verb::Get => Some("get"),
        Verb::Update => Some("put"),
        Verb::Patch => Some("patch"),
        Verb::Create => Some("post"),
        Verb::Delete => Some("delete"),
        _ => None,
    }
}

fn insert(paths: &mut Map<String, Value>, path: String, operations: &[Operation<'_>], kind: (&str, &str, &str), subject: Subject<'_>, style: Style, patches: &[&str]) {
    if operations.is_empty() {
        return;
    }
    let mut item = Map::new();
    for operation in operations {
        let mut described = describe(operation, kind, style, patches);
        name(&mut described, operation, subject);
        item.insert(operation.method.to_owned(), described);
    }
    let plain = operations.iter().all(|operation| operation.action != "connect");
    parameters::shared(&mut item, &path, kind.2, plain, style);
    paths.insert(path, Value::Object(item));
}

/// `operationId`, tags and a sentence: by them clients that are generated name their functions (`GetOperationIDAndTags`).
fn name(value: &mut Value, operation: &Operation<'_>, subject: Subject<'_>) {
    let group = short(subject.group);
    let mut subresource = subject.subresource.to_owned();
    if let Some(first) = subresource.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    let (verb, after) = match operation.action {
        "post" => ("create", String::new()),
        "deletecollection" => ("delete", "Collection".to_owned()),
        "get" => ("read", String::new()),
        "put" => ("replace", String::new()),
        "watchlist" => ("watch", String::new()),
        "connect" => ("connect", identifier(operation.method, true)),
        other => (other, String::new()),
    };
    let (namespaced, everywhere) = (if subject.namespaced { "Namespaced" } else { "" }, if subject.everywhere { "ForAllNamespaces" } else { "" });
    value["operationId"] = format!("{verb}{}{}{after}{namespaced}{}{subresource}{}{everywhere}", identifier(group, true), identifier(subject.version, true), subject.kind, subject.after).into();
    value["tags"] = json!([format!("{}_{}", identifier(group, false), identifier(subject.version, false))]);
    let (kind, sub) = (subject.kind, subject.subresource);
    value["description"] = match (operation.action, sub.is_empty()) {
        ("list", _) if subject.watched => format!("list or watch objects of kind {kind}"),
        ("list", _) => format!("list objects of kind {kind}"),
        ("watch", _) => format!("watch changes to an object of kind {kind}. deprecated: use the 'watch' parameter with a list operation instead, filtered to a single item with the 'fieldSelector' parameter."),
        ("watchlist", _) => format!("watch individual changes to a list of {kind}. deprecated: use the 'watch' parameter with a list operation instead."),
        ("deletecollection", _) => format!("delete collection of {kind}"),
        ("connect", _) => format!("connect {} requests to {sub} of {kind}", operation.method.to_uppercase()),
        ("post", true) => format!("create {}{kind}", article(kind)),
        ("post", false) => format!("create {sub} of {}{kind}", article(kind)),
        ("delete", _) => format!("delete {}{kind}", article(kind)),
        ("patch", true) => format!("partially update the specified {kind}"),
        ("patch", false) => format!("partially update {sub} of the specified {kind}"),
        (_, true) => format!("{verb} the specified {kind}"),
        (_, false) => format!("{verb} {sub} of the specified {kind}"),
    }
    .into();
}

fn article(kind: &str) -> &'static str {
    match kind {
        many if many.ends_with('s') && !many.ends_with("ss") => "",
        kind if kind.starts_with(['A', 'E', 'I', 'O', 'U']) => "an ",
        _ => "a ",
    }
}

/// A group as ids have it.
pub(super) fn short(group: &str) -> &str {
    if group.is_empty() { "core" } else { group.strip_suffix(".k8s.io").unwrap_or(group) }
}

/// `ToValidOperationID`: what is no letter goes, and the next one is large.
pub(super) fn identifier(text: &str, mut large: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for (at, ch) in text.chars().enumerate() {
        if !(ch.is_alphabetic() || ch == '_' || (at > 0 && ch.is_numeric())) {
            large = true;
        } else if std::mem::take(&mut large) {
            out.extend(ch.to_uppercase());
        } else {
            out.push(ch);
        }
    }
    out
}

fn describe(operation: &Operation<'_>, (group, version, kind): (&str, &str, &str), style: Style, patches: &[&str]) -> Value {
    let logs = operation.query == LOG;
    let mut parameters: Vec<Value> = operation.query.iter().map(|name| of_query(name, style)).collect();
    let mut ok = json!({"description": "OK"});
    let mut value = json!({"x-kubernetes-action": operation.action, "x-kubernetes-group-version-kind": group_version_kind(group, version, kind)});
    let answers: Vec<&str> = match (operation.answer.is_empty(), operation.action) {
        (true, _) => vec![ANYTHING],
        (false, "list" | "watch" | "watchlist") => [ANSWERS, STREAMS].concat(),
        (false, _) if logs => [&[TEXT], ANSWERS].concat(),
        (false, _) => ANSWERS.to_vec(),
    };
    let schema = if operation.answer.is_empty() || logs { json!({"type": "string"}) } else { reference(style, operation.answer) };
    match style {
        Style::V2 => ok["schema"] = schema,
        Style::V3 => ok["content"] = answers.iter().map(|ty| ((*ty).to_owned(), json!({"schema": schema}))).collect::<Map<String, Value>>().into(),
    }
    let body_types: &[&str] = if operation.action == "patch" { patches } else { &[ANYTHING] };
    if style == Style::V2 {
        value["consumes"] = body_types.iter().copied().map(Value::from).collect();
        value["produces"] = answers.into_iter().map(Value::from).collect();
        value["schemes"] = json!(["https"]);
    }
    if let Some(body) = operation.body {
        let schema = reference(style, body);
        match style {
            Style::V2 => {
                parameters.push(json!({"name": "body", "in": "body", "schema": schema}));
                if let Some(body) = parameters.last_mut().filter(|_| operation.method != "delete") {
                    body["required"] = true.into();
                }
            }
            Style::V3 => {
                let content: Map<String, Value> = body_types.iter().map(|ty| ((*ty).to_owned(), json!({"schema": schema}))).collect();
                value["requestBody"] = json!({"content": content});
                if operation.method != "delete" {
                    value["requestBody"]["required"] = true.into();
                }
            }
        }
    }
    if !parameters.is_empty() {
        value["parameters"] = Value::Array(parameters);
    }
    // The same, of something that is new, or will be done later.
    let further: &[(&str, &str)] = match operation.action {
        "post" => &[("201", "Created"), ("202", "Accepted")],
        "put" | "patch" => &[("201", "Created")],
        "delete" => &[("202", "Accepted")],
        _ => &[],
    };
    let mut responses = json!({"401": {"description": "Unauthorized"}});
    for (code, description) in further {
        responses[code] = ok.clone();
        responses[code]["description"] = (*description).into();
    }
    responses["200"] = ok;
    value["responses"] = responses;
    value
}
