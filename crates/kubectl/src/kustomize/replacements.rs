//! `replacements`: a field of one resource copied into fields of others.
//!
//! Mirrors kustomize's replacement filter and kyaml's paths: `spec.containers.[name=web].image`, `*`, places in lists, and fields inside a text that is JSON or YAML.

use regex::Regex;
use serde_json::{Map, Value};

use super::fields::{plain, split, wrong};
use super::id::{Gvk, Id};
use super::kustomization::{FieldOptions, Replacement, Source, Target, decode};
use super::loader::Loader;
use super::resources::{Resources, Selector};
use crate::error::{Error, Result, fail};
use crate::yaml;

const DEFAULT_PATH: &str = "metadata.name";

pub fn apply(resources: &mut Resources, loader: &Loader, list: &[Replacement]) -> Result<()> {
    let mut all = Vec::new();
    for one in list {
        if one.path.is_empty() {
            all.push(one.clone());
            continue;
        }
        if one.source.is_some() || one.targets.is_some() {
            return fail("cannot specify both path and inline replacement");
        }
        match yaml::parse(&loader.text(&one.path)?).map_err(Error::Message)? {
            Value::Array(items) => {
                for item in items {
                    all.push(decode(item)?);
                }
            }
            item @ Value::Object(_) => all.push(decode(item)?),
            _ => return fail("unsupported replacement type encountered within replacement path: string"),
        }
    }
    for one in &all {
        let Some(targets) = one.targets.as_ref().filter(|_| one.source.is_some() || one.source_value.is_some()) else {
            return fail("replacements must specify a source and at least one target");
        };
        let value = match (&one.source, &one.source_value) {
            (Some(_), Some(_)) => return fail("value and resource selectors are mutually exclusive"),
            (Some(source), None) => read(resources, source)?,
            (None, value) => value.clone().unwrap_or_default().into(),
        };
        for target in targets {
            write(resources, target, &value)?;
        }
    }
    Ok(())
}

fn described(source: &Source) -> String {
    let id = Id { gvk: gvk(source), name: source.name.clone(), namespace: source.namespace.clone() };
    let mut parts = vec![id.to_string()];
    if !source.field_path.is_empty() {
        parts.push(source.field_path.clone());
    }
    if !source.options.delimiter.is_empty() || source.options.create {
        parts.push(format!("{}({}), create={}", source.options.delimiter, source.options.index, source.options.create));
    }
    parts.join(":")
}

fn gvk(source: &Source) -> Gvk {
    Gvk { group: source.group.clone(), version: source.version.clone(), kind: source.kind.clone() }
}

fn read(resources: &Resources, source: &Source) -> Result<Value> {
    let wanted = gvk(source);
    let namespace = if source.namespace.is_empty() { None } else { Some(source.namespace.as_str()) };
    let places = resources.by_any_id(|id| {
        id.gvk.selected(&wanted) && (source.name.is_empty() || id.name == source.name) && namespace.is_none_or(|namespace| id.effective_namespace() == namespace)
    });
    let at = match places[..] {
        [one] => one,
        [] => return fail(format!("nothing selected by {}", described(source))),
        _ => return fail(format!("multiple matches for selector {}", described(source))),
    };
    let path = if source.field_path.is_empty() { DEFAULT_PATH } else { &source.field_path };
    let mut found = None;
    let mut object = resources.0[at].value.clone();
    visit(&mut object, &parts(path), None, &mut |field| {
        found.get_or_insert(field.clone());
        Ok(())
    })?;
    let empty = |value: &Value| value.is_null() || value.as_object().is_some_and(Map::is_empty) || value.as_array().is_some_and(Vec::is_empty);
    let Some(value) = found.filter(|value| !empty(value)) else {
        let id = Id { gvk: wanted, name: source.name.clone(), namespace: source.namespace.clone() };
        return fail(format!("fieldPath `{path}` is missing for replacement source {id}"));
    };
    if source.options.delimiter.is_empty() {
        return Ok(value);
    }
    if value.is_object() || value.is_array() {
        return fail("delimiter option can only be used with scalar nodes");
    }
    let text = plain(&value);
    let pieces: Vec<&str> = text.split(source.options.delimiter.as_str()).collect();
    match usize::try_from(source.options.index).ok().and_then(|at| pieces.get(at)) {
        Some(piece) => Ok((*piece).into()),
        None => fail(format!("options.index {} is out of bounds for value {text}", source.options.index)),
    }
}

fn write(resources: &mut Resources, target: &Target, value: &Value) -> Result<()> {
    let Some(select) = &target.select else { return fail("target must specify resources to select") };
    let select = select.pattern()?;
    let reject = target.reject.iter().map(Selector::pattern).collect::<Result<Vec<_>>>()?;
    let default = [DEFAULT_PATH.to_owned()];
    let paths: &[String] = if target.field_paths.is_empty() { &default } else { &target.field_paths };
    for resource in &mut resources.0 {
        let ids = resource.ids();
        let rejected = reject.iter().any(|pattern| pattern.names_something && ids.iter().any(|id| pattern.fits_id(id)) || pattern.selects_labels && pattern.fits_labels(resource));
        if !select.fits_labels(resource) || rejected || !ids.iter().any(|id| select.fits_id(id)) {
            continue;
        }
        for path in paths {
            let missing = || Error::Message(format!("unable to find{} field {path:?} in replacement target", if target.options.create { " or create" } else { "" }));
            let mut count = 0;
            let create = target.options.create.then_some(value);
            visit(&mut resource.value, &parts(path), create, &mut |field| {
                count += 1;
                set(field, value, &target.options)
            })
            .map_err(|error| Error::Message(format!("{}: {error}", missing())))?;
            if count == 0 {
                return Err(missing());
            }
        }
    }
    Ok(())
}

fn set(field: &mut Value, value: &Value, options: &FieldOptions) -> Result<()> {
    let mut value = value.clone();
    if !options.delimiter.is_empty() {
        if field.is_object() || field.is_array() {
            return fail("delimiter option can only be used with scalar nodes");
        }
        let old = plain(field);
        let mut pieces: Vec<String> = old.split(options.delimiter.as_str()).map(str::to_owned).collect();
        let new = plain(&value);
        match usize::try_from(options.index) {
            Err(_) => pieces.insert(0, new),
            Ok(at) if at >= pieces.len() => pieces.push(new),
            Ok(at) => pieces[at] = new,
        }
        value = pieces.join(&options.delimiter).into();
    }
    let holds_text = field.is_string();
    *field = match value {
        Value::Object(_) | Value::Array(_) => value,
        // A text stays one, whatever comes into it; what was none takes what the letters mean.
        other if holds_text => plain(&other).into(),
        Value::String(text) if field.is_number() || field.is_boolean() => yaml::parse(&text).ok().filter(|value| !value.is_object() && !value.is_array()).unwrap_or(Value::String(text)),
        other => other,
    };
    Ok(())
}

/// The path's parts; what is in brackets is one.
fn parts(path: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut open: Option<String> = None;
    for part in split(path, '.') {
        let whole = match open.take() {
            Some(begun) => format!("{begun}.{part}"),
            None => part,
        };
        if whole.starts_with('[') && !whole.ends_with(']') {
            open = Some(whole);
        } else if whole.starts_with('[') && !whole.contains('=') && whole.contains('.') {
            found.push(whole.trim_matches(['[', ']']).to_owned());
        } else {
            found.push(whole);
        }
    }
    found.extend(open);
    found
}

/// An empty holder for what `next` is a part of.
fn holder(next: Option<&String>, leaf: &Value) -> Value {
    match next {
        None => match leaf {
            Value::Object(_) => Value::Object(Map::new()),
            Value::Array(_) => Value::Array(Vec::new()),
            _ => Value::String(String::new()),
        },
        Some(part) if part.starts_with('[') || part == "*" || part == "-" || part.parse::<usize>().is_ok() => Value::Array(Vec::new()),
        Some(_) => Value::Object(Map::new()),
    }
}

fn visit(value: &mut Value, path: &[String], create: Option<&Value>, set: &mut dyn FnMut(&mut Value) -> Result<()>) -> Result<()> {
    let Some((part, rest)) = path.split_first() else { return set(value) };
    if let Value::String(text) = value {
        return within_text(text, path, create, set);
    }
    if let (Ok(at), Value::Array(items)) = (part.parse::<usize>(), &mut *value) {
        if at == items.len()
            && let Some(leaf) = create
        {
            items.push(holder(rest.first(), leaf));
        }
        let count = items.len();
        return match items.get_mut(at) {
            Some(item) => visit(item, rest, create, set),
            None => fail(format!("index {at} specified but only {count} elements found")),
        };
    }
    if let Some((key, text)) = part.strip_prefix('[').and_then(|part| part.strip_suffix(']')).and_then(|inner| inner.split_once('=')) {
        let Value::Array(items) = value else { return fail(wrong("SequenceNode", value)) };
        let pattern = Regex::new(text).map_err(|error| Error::Message(format!("error parsing regexp: {error}")))?;
        let fits = |item: &Value| if key.is_empty() { pattern.is_match(&plain(item)) } else { item.get(key).is_some_and(|field| pattern.is_match(&plain(field))) };
        if create.is_some() && !items.iter().any(fits) {
            items.push(if key.is_empty() { text.into() } else { Value::Object(Map::from_iter([(key.to_owned(), text.into())])) });
        }
        return items.iter_mut().filter(|item| fits(item)).try_for_each(|item| if key.is_empty() { set(item) } else { visit(item, rest, create, set) });
    }
    if part == "*" {
        let Value::Array(items) = value else { return fail(wrong("SequenceNode", value)) };
        return items.iter_mut().try_for_each(|item| visit(item, rest, create, set));
    }
    match value {
        Value::Object(map) => {
            if let (Some(leaf), false) = (create, map.contains_key(part)) {
                map.insert(part.clone(), holder(rest.first(), leaf));
            }
            map.get_mut(part).map_or(Ok(()), |field| visit(field, rest, create, set))
        }
        Value::Null => Ok(()),
        other => fail(wrong("MappingNode", other)),
    }
}

/// A text that is itself JSON or YAML is changed inside.
fn within_text(text: &mut String, path: &[String], create: Option<&Value>, set: &mut dyn FnMut(&mut Value) -> Result<()>) -> Result<()> {
    let mut inner = yaml::parse(text).map_err(Error::Message)?;
    if !inner.is_object() && !inner.is_array() {
        return fail(wrong("MappingNode", &Value::String(text.clone())));
    }
    let before = inner.clone();
    visit(&mut inner, path, create, set)?;
    if inner == before {
        return Ok(());
    }
    *text = if text.trim_start().starts_with(['{', '[']) {
        if text.contains('\n') && text.contains("  ") { serde_json::to_string_pretty(&inner).unwrap_or_default() } else { inner.to_string() }
    } else {
        yaml::emit(&inner).trim().to_owned()
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths() {
        for (path, want) in [("a.b", vec!["a", "b"]), ("a.[x.y/z].c", vec!["a", "x.y/z", "c"]), ("a.[name=x.y].c", vec!["a", "[name=x.y]", "c"]), ("a.b\\.c", vec!["a", "b.c"]), ("a.0.b", vec!["a", "0", "b"])] {
            assert_eq!(parts(path), want);
        }
        let put = |mut object: Value, path: &str, create: bool| {
            let value = json!("new");
            visit(&mut object, &parts(path), create.then_some(&value), &mut |field| super::set(field, &value, &FieldOptions::default())).map(|()| object).map_err(|error| error.to_string())
        };
        assert_eq!(put(json!({"a": [{"name": "x", "v": "1"}, {"name": "y", "v": "2"}]}), "a.[name=y].v", false), Ok(json!({"a": [{"name": "x", "v": "1"}, {"name": "y", "v": "new"}]})));
        assert_eq!(put(json!({"a": ["x", "y"]}), "a.1", false), Ok(json!({"a": ["x", "new"]})));
        assert_eq!(put(json!({"a": [{"v": "1"}, {"v": "2"}]}), "a.*.v", false), Ok(json!({"a": [{"v": "new"}, {"v": "new"}]})));
        assert_eq!(put(json!({}), "a.b.[name=x].v", true), Ok(json!({"a": {"b": [{"name": "x", "v": "new"}]}})));
        assert_eq!(put(json!({"a": "{\"b\": \"c\"}"}), "a.b", false), Ok(json!({"a": "{\"b\":\"new\"}"})));
    }
}
