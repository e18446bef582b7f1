//! Values as upstream's messages show them: as Go encodes its internal types, which have names, an order of fields and zero values of their own.
//!
//! `Invalid value: {"Type":"x","RollingUpdate":null}` is what clients see of a Deployment's strategy, for the internal types carry no JSON tags. Which fields
//! they have, in which order, and which are pointers (`*`) is in `schema/internal.txt`; what the fields hold, the schema facts know. `&metadata` is an embedded
//! ObjectMeta, `Name=field` a field that is called otherwise in JSON, and types written in lower case are those of apimachinery, which have tags.

use std::collections::HashMap;
use std::sync::LazyLock;

use serde_json::Value;

use crate::schema::{self, FieldType, TypeInfo};
use crate::validation::{self, Errors, IMMUTABLE, Path, Raw, Shown, is_empty};

static FIELDS: LazyLock<HashMap<&'static str, &'static str>> = LazyLock::new(|| include_str!("schema/internal.txt").lines().filter_map(|line| line.split_once(' ')).collect());

/// What a PodSpec says of the host's namespaces is in its security context, internally.
const HOST_FIELDS: [&str; 5] = ["hostIPC", "hostNetwork", "hostPID", "hostUsers", "shareProcessNamespace"];

/// A value of the type of that name (`core.v1.Taint`; `[]core.v1.Taint` for a list of them). A missing struct has no fields set; a missing list is null.
pub struct Internal<'a>(pub &'a str, pub Option<&'a Value>);

/// As [`Internal`], where upstream has a pointer: a missing value is null.
pub struct Pointer<'a>(pub &'a str, pub Option<&'a Value>);

impl Shown for Internal<'_> {
    fn shown(&self) -> String {
        self.node(false).compact()
    }
}

impl Shown for Pointer<'_> {
    fn shown(&self) -> String {
        self.1.filter(|value| !value.is_null()).map_or_else(|| "null".to_owned(), |value| Internal(self.0, Some(value)).shown())
    }
}

impl Internal<'_> {
    /// One JSON value over many lines, each indented by a space a level. Of a `stored` value nothing is empty: a list without items was lost on the wire.
    pub fn lines(&self, stored: bool) -> Vec<String> {
        let mut out = vec![String::new()];
        self.node(stored).pretty(0, &mut out);
        out
    }

    fn node(&self, stored: bool) -> Node {
        let (list, name) = self.0.strip_prefix("[]").map_or((false, self.0), |name| (true, name));
        let Some(info) = info(name) else { return plain(self.1.unwrap_or(&Value::Null)) };
        match (list, self.1) {
            (false, value) => structure(name, info, value, stored),
            (true, Some(Value::Array(items))) => Node::List(items.iter().map(|item| structure(name, info, Some(item), stored)).collect()),
            (true, _) => Node::Leaf("null".into()),
        }
    }
}

/// Whether two values of the type of that name are the same for Go.
pub fn same(name: &str, a: Option<&Value>, b: Option<&Value>) -> bool {
    info(name).map_or_else(|| validation::same(a, b), |info| info.same(a, b))
}

/// `ValidateImmutableField` of a field of a struct of the type of that name.
pub fn immutable(errors: &mut Errors, path: &Path, name: &str, field: &str, new: Option<&Value>, old: Option<&Value>) {
    let Some(field) = info(name).and_then(|info| info.field(field)) else { return };
    let of = |object: Option<&'_ Value>| object.and_then(|object| object.get(field.name)).cloned();
    let (new, old) = (of(new), of(old));
    if field.ty.same(field.pointer, new.as_ref(), old.as_ref()) {
        return;
    }
    let shown = match new.as_ref().filter(|value| !value.is_null()) {
        Some(Value::String(text)) => text.shown(),
        held => self::of(&field.ty, field.pointer, held, false).compact(),
    };
    errors.invalid(&path.child(field.name), &Raw(&shown), IMMUTABLE);
}

fn info(name: &str) -> Option<&'static TypeInfo> {
    // A type of its own internally, part of the spec elsewhere.
    let name = if name == "core.v1.PersistentVolumeSource" { "core.v1.PersistentVolumeSpec" } else { name };
    schema::of(&format!("io.k8s.api.{name}")).or_else(|| schema::of(&format!("io.k8s.apimachinery.pkg.apis.{name}")))
}

enum Node {
    Leaf(String),
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
}

impl Node {
    fn compact(&self) -> String {
        match self {
            Node::Leaf(text) => text.clone(),
            Node::List(items) => format!("[{}]", items.iter().map(Node::compact).collect::<Vec<_>>().join(",")),
            Node::Map(fields) => format!("{{{}}}", fields.iter().map(|(name, value)| format!("{name}:{}", value.compact())).collect::<Vec<_>>().join(",")),
        }
    }

    /// Goes on in the last line.
    fn pretty(&self, depth: usize, out: &mut Vec<String>) {
        let (open, close, children): (_, _, Vec<(Option<&String>, &Node)>) = match self {
            Node::List(items) if !items.is_empty() => ("[", "]", items.iter().map(|item| (None, item)).collect()),
            Node::Map(fields) if !fields.is_empty() => ("{", "}", fields.iter().map(|(name, value)| (Some(name), value)).collect()),
            other => return add(out, &other.compact()),
        };
        add(out, open);
        let last = children.len() - 1;
        for (index, (name, child)) in children.into_iter().enumerate() {
            out.push(" ".repeat(depth + 1));
            if let Some(name) = name {
                add(out, &format!("{name}: "));
            }
            child.pretty(depth + 1, out);
            if index < last {
                add(out, ",");
            }
        }
        out.push(format!("{}{close}", " ".repeat(depth)));
    }
}

fn add(lines: &mut [String], text: &str) {
    if let Some(last) = lines.last_mut() {
        last.push_str(text);
    }
}

/// As Go's encoder writes it, which escapes what HTML could trip over.
fn plain(value: &Value) -> Node {
    match value {
        Value::Array(items) => Node::List(items.iter().map(plain).collect()),
        Value::Object(map) => Node::Map(map.iter().map(|(name, value)| (quoted(name), plain(value))).collect()),
        other => Node::Leaf(escaped(&other.to_string())),
    }
}

fn escaped(json: &str) -> String {
    json.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}

fn quoted(name: &str) -> String {
    escaped(&Value::from(name).to_string())
}

fn short(info: &TypeInfo) -> &str {
    let name = &*info.name;
    name.strip_prefix("io.k8s.api.").or_else(|| name.strip_prefix("io.k8s.apimachinery.pkg.apis.")).unwrap_or(name)
}

fn structure(short: &str, info: &TypeInfo, value: Option<&Value>, stored: bool) -> Node {
    let Some(tokens) = FIELDS.get(short) else { return value.map_or(Node::Leaf("null".into()), plain) };
    let mut fields = Vec::new();
    for token in tokens.split(' ') {
        let (pointer, token) = token.strip_prefix('*').map_or((false, token), |token| (true, token));
        if token == "&metadata" {
            if let Some(Node::Map(metadata)) = self::info("meta.v1.ObjectMeta").map(|meta| structure("meta.v1.ObjectMeta", meta, value.and_then(|value| value.get("metadata")), stored)) {
                fields.extend(metadata);
            }
            continue;
        }
        let (name, json) = token.split_once('=').unwrap_or((token, token));
        let field = info.field(json).or_else(|| info.fields.iter().find(|field| field.name.eq_ignore_ascii_case(json)));
        let held = field.and_then(|field| value.and_then(|value| value.get(field.name))).filter(|held| !held.is_null());
        let node = match field {
            // Apimachinery's types say themselves what is left out.
            Some(field) if name.starts_with(char::is_lowercase) => {
                if is_empty(held) && !field.always {
                    continue;
                }
                of(&field.ty, false, held, stored)
            }
            Some(field) if short == "core.v1.PodSpec" && field.name == "securityContext" => {
                let mut context = held.cloned().unwrap_or_else(|| Value::Object(Default::default()));
                for host in HOST_FIELDS {
                    if let (Some(map), Some(held)) = (context.as_object_mut(), value.and_then(|value| value.get(host))) {
                        map.insert(host.to_owned(), held.clone());
                    }
                }
                of(&field.ty, false, Some(&context), stored)
            }
            Some(field) => of(&field.ty, pointer, held, stored),
            // The host's namespaces, from where they were put above.
            None => of(&FieldType::Bool, pointer, value.and_then(|value| value.get(json)), stored),
        };
        fields.push((quoted(name), node));
    }
    Node::Map(fields)
}

fn of(ty: &FieldType, pointer: bool, value: Option<&Value>, stored: bool) -> Node {
    let null = || Node::Leaf("null".into());
    match (ty, value) {
        (FieldType::List(_) | FieldType::Map(_), value) if stored && is_empty(value) => null(),
        (FieldType::Type(reference), value) if value.is_some() || !pointer => structure(short(reference.info()), reference.info(), value, stored),
        (FieldType::List(item), Some(Value::Array(items))) => Node::List(items.iter().map(|value| of(item, false, Some(value), stored)).collect()),
        (FieldType::Map(item), Some(Value::Object(map))) => Node::Map(map.iter().map(|(name, value)| (quoted(name), of(item, false, Some(value), stored))).collect()),
        (_, Some(value)) => plain(value),
        (_, None) if pointer => null(),
        (FieldType::String, None) => Node::Leaf("\"\"".into()),
        (FieldType::Quantity, None) => Node::Leaf("\"0\"".into()),
        (FieldType::Bool, None) => Node::Leaf("false".into()),
        (FieldType::Int32 | FieldType::Int64 | FieldType::Double | FieldType::IntOrString, None) => Node::Leaf("0".into()),
        (_, None) => null(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn as_go_shows_them() {
        for (ty, value, shown) in [
            ("apps.v1.DeploymentStrategy", json!({"type": "x", "rollingUpdate": {"maxSurge": "25%"}}), r#"{"Type":"x","RollingUpdate":{"MaxUnavailable":0,"MaxSurge":"25%"}}"#),
            ("apps.v1.DeploymentStrategy", json!({}), r#"{"Type":"","RollingUpdate":null}"#),
            ("core.v1.Taint", json!({"key": "a<b", "effect": "NoExecute"}), r#"{"Key":"a\u003cb","Value":"","Effect":"NoExecute","TimeAdded":null}"#),
            ("[]core.v1.NodeSelectorTerm", json!([{"matchFields": []}]), r#"[{"MatchExpressions":null,"MatchFields":[]}]"#),
            ("meta.v1.LabelSelector", json!({"matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}], "matchLabels": {"a": "b"}}), r#"{"matchLabels":{"a":"b"},"matchExpressions":[{"key":"a","operator":"In","values":["b"]}]}"#),
            ("resource.v1.DeviceAttribute", json!({"int": 5}), r#"{"IntValue":5,"BoolValue":null,"StringValue":null,"VersionValue":null,"IntValues":null,"BoolValues":null,"StringValues":null,"VersionValues":null}"#),
        ] {
            assert_eq!(Internal(ty, Some(&value)).shown(), shown);
        }
        assert_eq!(Internal("core.v1.EventSource", None).shown(), r#"{"Component":"","Host":""}"#);
        assert_eq!(Pointer("core.v1.ObjectReference", None).shown(), "null");
    }

    #[test]
    fn what_may_not_change() {
        let (old, new) = (json!({"source": {"host": "h"}, "count": 0}), json!({"action": "a", "related": {}, "source": {}}));
        let mut errors = Errors::new();
        for field in ["action", "related", "source", "count", "reason"] {
            immutable(&mut errors, &Path::Root(""), "core.v1.Event", field, Some(&new), Some(&old));
        }
        let lines: Vec<String> = errors.into_causes().into_iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect();
        assert_eq!(
            lines,
            [
                "action: Invalid value: \"a\": field is immutable",
                "related: Invalid value: {\"Kind\":\"\",\"Namespace\":\"\",\"Name\":\"\",\"UID\":\"\",\"APIVersion\":\"\",\"ResourceVersion\":\"\",\"FieldPath\":\"\"}: field is immutable",
                "source: Invalid value: {\"Component\":\"\",\"Host\":\"\"}: field is immutable",
            ]
        );
    }

    #[test]
    fn pod_specs() {
        let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"hostNetwork": true, "containers": [{"name": "c"}]}});
        let shown = Internal("core.v1.PodTemplateSpec", Some(&template)).shown();
        assert!(shown.starts_with(r#"{"labels":{"a":"b"},"Spec":{"Volumes":null,"InitContainers":null,"Containers":[{"Name":"c","Image":"","#), "{shown}");
        assert!(shown.contains(r#""SecurityContext":{"HostNetwork":true,"HostPID":false,"HostIPC":false,"ShareProcessNamespace":null,"HostUsers":null,"#), "{shown}");
    }

    #[test]
    fn over_many_lines() {
        let claim = json!({"matchLabels": {"a": "b"}, "matchExpressions": []});
        assert_eq!(Internal("meta.v1.LabelSelector", Some(&claim)).lines(true), ["{", " \"matchLabels\": {", "  \"a\": \"b\"", " }", "}"]);
        let devices = json!({"limits": {}});
        assert_eq!(Internal("core.v1.VolumeResourceRequirements", Some(&devices)).lines(false), ["{", " \"Limits\": {},", " \"Requests\": null", "}"]);
        assert_eq!(Internal("core.v1.VolumeResourceRequirements", Some(&devices)).lines(true), ["{", " \"Limits\": null,", " \"Requests\": null", "}"]);
    }

    #[test]
    fn every_field_is_a_field() {
        for (name, tokens) in FIELDS.iter() {
            let info = info(name).unwrap_or_else(|| panic!("{name} is no type"));
            for token in tokens.split(' ').filter(|token| *token != "&metadata") {
                let token = token.trim_start_matches('*');
                let json = token.split_once('=').map_or(token, |(_, json)| json);
                let known = info.fields.iter().any(|field| field.name.eq_ignore_ascii_case(json)) || HOST_FIELDS.contains(&json);
                assert!(known, "{name} has no {token}");
            }
        }
    }
}
