//! One request: an operation, its path, query, headers and body, right or nearly so.

use bytes::Bytes;
use http::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use super::NAMESPACE;
use super::bodies::{NAMES, Schemas};
use super::operations::{Operation, Operations};
use crate::json as mutations;
use crate::mutate;
use crate::random::Random;

/// Names of what was made are kept up to this many.
const MOST_NAMES: usize = 200;
const JSON: &str = "application/json";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const WEIRD: &[&str] = &["", "..", "a/b", "%", "é", "日本", "😀", "a b", "A", "-", "a..b", "\u{202e}x", "system:x", "\n", "\0", "null"];
/// What changes how everything else is answered is only tried.
const TRIED_ONLY: &[&str] = &["admissionregistration.k8s.io", "apiregistration.k8s.io", "apiextensions.k8s.io", "flowcontrol.apiserver.k8s.io"];
const WORDS: &[&str] = &["metadata", "name", "namespace", "labels", "spec", "status", "$patch", "delete", "replace", "kind", "apiVersion", "finalizers", "ownerReferences", "managedFields", "resourceVersion", "uid", "generateName", "deletionTimestamp"];

#[derive(Debug, Clone)]
pub struct Request {
    pub method: Method,
    /// With its query.
    pub path: String,
    /// As the OpenAPI has it.
    pub template: String,
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
}

/// What is known to be there.
#[derive(Default)]
pub struct Names(Vec<String>);

impl Names {
    pub fn learn(&mut self, code: u16, body: &[u8]) {
        if code == 201
            && let Ok(value) = serde_json::from_slice::<Value>(body)
            && let Some(name) = value.pointer("/metadata/name").and_then(Value::as_str).filter(|name| !self.0.iter().any(|known| known == name))
        {
            if self.0.len() >= MOST_NAMES {
                self.0.remove(0);
            }
            self.0.push(name.to_owned());
        }
    }

    fn some(&self, random: &mut Random) -> String {
        match random.below(8) {
            0 => WEIRD.get(random.below(WEIRD.len())).copied().unwrap_or_default().to_owned(),
            1 if random.once_in(10) => "n".repeat(random.below(70_000)),
            1..4 => random.word(NAMES).to_owned(),
            _ => random.pick(&self.0).cloned().unwrap_or_else(|| "a".to_owned()),
        }
    }
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

fn path(template: &str, names: &Names, random: &mut Random) -> String {
    template
        .split('/')
        .map(|part| match part {
            "{namespace}" if random.once_in(12) => encoded(&names.some(random)),
            "{namespace}" => random.word(&[NAMESPACE, NAMESPACE, NAMESPACE, "default", "kube-system"]).to_owned(),
            part if part.starts_with('{') => encoded(&names.some(random)),
            part => part.to_owned(),
        })
        .collect::<Vec<_>>()
        .join("/")
}

fn value_of(name: &str, kind: &str, random: &mut Random) -> String {
    let words: &[&str] = match name {
        "labelSelector" => &["a=b", "a in (b,c)", "!a", "a in (", "=,=", "a>1", "é=1", "a/b/c=d", ",", "a notin ()"],
        "fieldSelector" => &["metadata.name=a", "spec.nodeName=x", "status.phase!=Running", "no.such=1", "=", "a", "metadata.name=a,metadata.name=b", "\\", "spec.s=x"],
        "resourceVersion" => &["0", "1", "5", "", "abc", "-1", "18446744073709551615", "99999999999999999999999"],
        "resourceVersionMatch" => &["Exact", "NotOlderThan", "x", ""],
        "continue" => &["", "x", "e30", "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MSwic3RhcnQiOiJhXHUwMDAwIn0", "%00", "=="],
        "limit" | "timeoutSeconds" | "gracePeriodSeconds" | "tailLines" | "sinceSeconds" | "limitBytes" => &["0", "1", "2", "-1", "x", "9223372036854775807", "99999999999999999999", "1.5"],
        "dryRun" => &["All", "all", "", "None", "x"],
        "fieldManager" => &["m", "", "é", "a b", "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", "\0"],
        "fieldValidation" => &["Strict", "Warn", "Ignore", "strict", ""],
        "propagationPolicy" => &["Orphan", "Background", "Foreground", "x", ""],
        "pretty" => &["true", "false", "x", ""],
        "ports" => &["80", "x", "-1", "70000"],
        "path" => &["/", "a/b", "..", "", "http://x"],
        _ if kind == "boolean" => &["true", "false", "1", "0", "x", ""],
        _ if kind == "integer" => &["0", "1", "-1", "x"],
        _ => &["", "a", "true", "é", "\0", "/"],
    };
    random.word(words).to_owned()
}

fn query(operation: &Operation, random: &mut Random) -> String {
    let mut pairs: Vec<(String, String)> = Vec::new();
    for (name, kind) in &operation.query {
        // A watch ends by itself, see below.
        if random.once_in(8) && !matches!(name.as_str(), "timeoutSeconds" | "follow") {
            pairs.push((name.clone(), value_of(name, kind, random)));
        }
    }
    if random.once_in(30) {
        pairs.push((random.word(&["nope", "", "watch", "limit", "as", "includeObject", "sendInitialEvents"]).to_owned(), random.word(WEIRD).to_owned()));
    }
    if operation.method == Method::GET || operation.method == Method::DELETE {
        pairs.push(("timeoutSeconds".to_owned(), if random.once_in(30) { random.word(&["2", "x", "1.5", "99999999999999999999x"]).to_owned() } else { "1".to_owned() }));
    }
    if operation.method != Method::GET && (TRIED_ONLY.contains(&operation.group.as_str()) || matches!(operation.kind.as_str(), "Namespace" | "ServiceCIDR")) {
        pairs.retain(|(name, _)| name != "dryRun");
        pairs.push(("dryRun".to_owned(), "All".to_owned()));
    }
    let text: Vec<String> = pairs.iter().map(|(name, value)| format!("{}={}", encoded(name), encoded(value))).collect();
    if text.is_empty() { String::new() } else { format!("?{}", text.join("&")) }
}

fn json_patch(random: &mut Random) -> Value {
    let path = |random: &mut Random| random.word(&["/metadata/labels", "/metadata/labels/a", "/spec", "/spec/-", "/metadata/name", "/data/x", "/spec/template/spec/containers/0/image", "", "/", "x", "/~2", "/status", "/metadata/finalizers/-"]).to_owned();
    let ops = (0..random.below(4)).map(|_| json!({"op": random.word(&["add", "remove", "replace", "move", "copy", "test", "x"]), "path": path(random), "from": path(random), "value": mutations::any(random)})).collect();
    Value::Array(ops)
}

/// A body and its content type.
fn body(operations: &Operations, operation: &Operation, name: &str, random: &mut Random) -> (Bytes, &'static str) {
    let patch = operation.method == Method::PATCH;
    let schemas = Schemas(&operations.schemas[operation.document]);
    let schema = if patch { operations.schema_of(operation) } else { operation.body.as_ref() };
    let mut value = match schema {
        Some(schema) => schemas.value(schema, random),
        None if operation.method == Method::GET => return (Bytes::new(), JSON),
        None => mutations::any(random),
    };
    if let Some(map) = value.as_object_mut() {
        if !operation.kind.is_empty() && operation.method != Method::DELETE && !random.once_in(20) {
            let api_version = if operation.group.is_empty() { operation.version.clone() } else { format!("{}/{}", operation.group, operation.version) };
            map.insert("apiVersion".into(), api_version.into());
            map.insert("kind".into(), operation.kind.clone().into());
        }
        if let Some(metadata) = map.get_mut("metadata").and_then(Value::as_object_mut).filter(|_| !random.once_in(10)) {
            // Refused at once otherwise, before anything interesting.
            for field in ["resourceVersion", "uid", "managedFields", "namespace", "deletionTimestamp", "deletionGracePeriodSeconds", "creationTimestamp", "selfLink"] {
                metadata.remove(field);
            }
            if operation.method != Method::POST {
                metadata.insert("name".into(), name.into());
            }
        }
    }
    let other = value.clone();
    if random.once_in(3) {
        for _ in 0..1 + random.below(3) {
            mutations::mutate(&mut value, WORDS, &other, random);
        }
    }
    let mut kind = match (patch, random.below(16)) {
        (true, 0..4) => {
            if !random.once_in(6) {
                value = json_patch(random);
            }
            "application/json-patch+json"
        }
        (true, 4..8) => "application/merge-patch+json",
        (true, 8..11) => "application/strategic-merge-patch+json",
        (true, _) => "application/apply-patch+yaml",
        (false, 0) => "application/yaml",
        (false, 1) => PROTOBUF,
        (false, 2) if random.once_in(4) => random.word(&["text/plain", "application/cbor", "", "*/*", "application/json;charset=utf-8", "application/json; stream=watch", ";", "multipart/form-data", "application/apply-patch+cbor"]),
        _ => JSON,
    };
    let mut bytes = value.to_string().into_bytes();
    if kind == PROTOBUF {
        bytes = api::protobuf::encode(&bytes).map_or(b"k8s\0".to_vec(), |bytes| bytes.to_vec());
    }
    if random.once_in(if kind == PROTOBUF { 2 } else { 12 }) {
        bytes = mutate::mutate(&bytes, WORDS, other.to_string().as_bytes(), random);
    }
    if random.once_in(100) {
        kind = random.word(&[PROTOBUF, JSON, "application/yaml", "application/json-patch+json", "application/merge-patch+json"]);
    }
    (bytes.into(), kind)
}

pub fn make(operations: &Operations, names: &Names, random: &mut Random) -> Request {
    let operation = &operations.all[random.below(operations.all.len())];
    let mut filled = path(&operation.path, names, random);
    let name = filled.rsplit('/').find(|part| !matches!(*part, "status" | "scale" | "finalize" | "approval")).unwrap_or_default().replace("%2D", "-");
    let (body, content_type) = body(operations, operation, &name, random);
    filled.push_str(&query(operation, random));
    let mut headers = vec![("content-type".to_owned(), content_type.to_owned())];
    let accepts: &[&str] = &[
        "application/json;as=Table;v=v1;g=meta.k8s.io,application/json", "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io", "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io", PROTOBUF, "application/yaml", "*/*",
        "application/cbor", "x", "", "application/json;as=Table;v=v9;g=x", "application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io", "application/vnd.kubernetes.protobuf;stream=watch",
    ];
    if random.once_in(3) {
        headers.push(("accept".to_owned(), random.word(accepts).to_owned()));
    }
    if random.once_in(10) {
        headers.push(("accept-encoding".to_owned(), random.word(&["gzip", "br", "gzip;q=0", "*", ""]).to_owned()));
    }
    Request { method: operation.method.clone(), path: filled, template: operation.path.clone(), headers, body }
}
