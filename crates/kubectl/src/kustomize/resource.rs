//! A resource while it is built: the object, and what it was called before.
//!
//! Mirrors kustomize's Resource; what that keeps in annotations of its own is in fields here.

use serde_json::{Map, Value};

use super::id::{Gvk, Id};
use super::merge;
use crate::error::{Error, Result, fail};
use crate::yaml;

/// What a generated resource does to one of the same name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Behavior {
    #[default]
    Unspecified,
    Create,
    Merge,
    Replace,
}

#[derive(Debug, Clone, Default)]
pub struct Resource {
    pub value: Value,
    /// Former kinds, names and namespaces, the first first.
    previous: Vec<(String, String, String)>,
    pub prefixes: Vec<String>,
    pub suffixes: Vec<String>,
    /// Shall its name end in a hash of what it holds?
    pub hash: bool,
    pub behavior: Behavior,
    pub name_may_change: bool,
    pub kind_may_change: bool,
    /// Variables that read a field of it.
    pub variables: Vec<String>,
}

impl Resource {
    pub fn new(value: Value) -> Self {
        Self { value, ..Self::default() }
    }

    fn text(&self, pointer: &str) -> &str {
        self.value.pointer(pointer).and_then(Value::as_str).unwrap_or("")
    }

    pub fn kind(&self) -> &str {
        self.text("/kind")
    }

    pub fn name(&self) -> &str {
        self.text("/metadata/name")
    }

    pub fn namespace(&self) -> &str {
        self.text("/metadata/namespace")
    }

    pub fn gvk(&self) -> Gvk {
        Gvk::of(self.text("/apiVersion"), self.kind())
    }

    pub fn id(&self) -> Id {
        Id { gvk: self.gvk(), name: self.name().to_owned(), namespace: self.namespace().to_owned() }
    }

    pub fn previous_ids(&self) -> Vec<Id> {
        let gvk = self.gvk();
        self.previous
            .iter()
            .map(|(kind, name, namespace)| Id { gvk: Gvk { kind: kind.clone(), ..gvk.clone() }, name: name.clone(), namespace: namespace.clone() })
            .collect()
    }

    /// As it was called in its file.
    pub fn original_id(&self) -> Id {
        self.previous_ids().into_iter().next().unwrap_or_else(|| self.id())
    }

    /// All names, those before the present one first.
    pub fn ids(&self) -> Vec<Id> {
        let mut ids = self.previous_ids();
        ids.push(self.id());
        ids
    }

    /// To be called before its name, kind or namespace changes.
    pub fn remember(&mut self) {
        let id = self.id();
        self.previous.push((id.gvk.kind.clone(), id.name.clone(), id.effective_namespace().to_owned()));
    }

    pub fn metadata(&mut self) -> &mut Map<String, Value> {
        object(&mut self.value, "metadata")
    }

    pub fn set_name(&mut self, name: &str) {
        self.metadata().insert("name".into(), name.into());
    }

    pub fn set_namespace(&mut self, namespace: &str) {
        if namespace.is_empty() {
            self.metadata().remove("namespace");
        } else {
            self.metadata().insert("namespace".into(), namespace.into());
        }
    }

    /// Do the names of both end and begin alike? What has no prefix of its own is compared by suffixes only, if `lenient`.
    pub fn affixes_fit(&self, other: &Resource, lenient: bool) -> bool {
        let fits = |mine: &[String], theirs: &[String]| lenient && (mine.is_empty() || theirs.is_empty()) || same_end(mine, theirs);
        fits(&self.prefixes, &other.prefixes) && fits(&self.suffixes, &other.suffixes)
    }

    /// A strategic merge patch; false when it deletes the resource.
    pub fn patch(&mut self, patch: &Resource) -> Result<bool> {
        let (name, namespace, kind) = (self.name().to_owned(), self.namespace().to_owned(), self.kind().to_owned());
        if patch.name_may_change || patch.kind_may_change {
            self.remember();
        }
        match merge::strategic(self.value.take(), &patch.value)? {
            Some(merged) if merged.as_object().is_some_and(|map| !map.is_empty()) => self.value = merged,
            _ => return Ok(false),
        }
        if !patch.kind_may_change {
            self.value["kind"] = kind.into();
        }
        if !patch.name_may_change {
            self.set_name(&name);
        }
        self.set_namespace(&namespace);
        Ok(true)
    }

    /// Takes over what `old` has, which this one is put in the place of.
    pub fn inherit(&mut self, old: &Resource) {
        for key in ["labels", "annotations"] {
            combine(self.metadata(), &old.value["metadata"], key);
        }
        self.set_name(old.name());
        self.set_namespace(old.namespace());
        let hash = self.hash && old.hash;
        let value = self.value.take();
        *self = Resource { value, hash, ..old.clone() };
    }

    /// Adds the data of `old` that this one does not have itself.
    pub fn inherit_data(&mut self, old: &Resource) {
        if let Value::Object(map) = &mut self.value {
            combine(map, &old.value, "data");
            combine(map, &old.value, "binaryData");
        }
    }

    pub fn is_local(&self) -> bool {
        self.value.pointer("/metadata/annotations/config.kubernetes.io~1local-config").is_some_and(|value| value.as_str() != Some("false"))
    }
}

fn combine(into: &mut Map<String, Value>, from: &Value, key: &str) {
    let Some(old) = from.get(key).and_then(Value::as_object).filter(|old| !old.is_empty()) else { return };
    let mut both = old.clone();
    if let Some(new) = into.get(key).and_then(Value::as_object) {
        both.extend(new.clone());
    }
    into.insert(key.into(), Value::Object(both));
}

fn object<'a>(value: &'a mut Value, key: &str) -> &'a mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    if !value[key].is_object() {
        value[key] = Value::Object(Map::new());
    }
    match &mut value[key] {
        Value::Object(map) => map,
        // It was just made one.
        _ => unreachable!("{key} is an object"),
    }
}

fn same_end(a: &[String], b: &[String]) -> bool {
    let (short, long) = if a.len() > b.len() { (b, a) } else { (a, b) };
    if short.is_empty() { long.is_empty() } else { long.ends_with(short) }
}

/// The resources of a file; `List`s are their items.
pub fn read(text: &str) -> Result<Vec<Resource>> {
    let mut found = Vec::new();
    for document in yaml::documents(text) {
        let value = yaml::parse_core(document).map_err(|error| Error::Message(format!("MalformedYAMLError: yaml: {}", error.lines().next().unwrap_or("").trim_start_matches("error: "))))?;
        flatten(value, &mut found)?;
    }
    Ok(found)
}

fn flatten(value: Value, found: &mut Vec<Resource>) -> Result<()> {
    match &value {
        Value::Null => return Ok(()),
        Value::Object(map) if map.is_empty() => return Ok(()),
        Value::Object(_) => {}
        // Upstream's reader says the same of anything that is no object.
        other => return fail(super::fields::wrong("MappingNode", other)),
    }
    let resource = Resource::new(value);
    let (kind, version) = (resource.kind(), resource.text("/apiVersion"));
    let described = || format!("{{{{{version} {kind}}} {{{{{} {}}} map[] map[]}}}}", resource.name(), resource.namespace());
    if kind.is_empty() {
        return fail(format!("missing kind in object {}", described()));
    }
    if kind.ends_with("List") {
        match resource.value.get("items") {
            Some(Value::Array(items)) => return items.iter().try_for_each(|item| flatten(item.clone(), found)),
            Some(Value::Null) => return Ok(()),
            Some(_) => return fail(format!("expected array in {kind}/items, but found map[string]interface {{}}")),
            None => {}
        }
    } else if resource.name().is_empty() {
        return fail(format!("missing metadata.name in object {}", described()));
    }
    found.push(resource);
    Ok(())
}
