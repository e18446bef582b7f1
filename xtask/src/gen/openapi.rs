//! Reads `k8s-openapi`'s generated sources: one type a file, in a fixed layout.

use std::path::Path;

use anyhow::{Context, Result};

use super::{Field, Type, Types, files, plain};

const MARK: &str = "// Generated from definition ";

pub(super) fn read(folder: &Path) -> Result<Types> {
    let mut paths = Vec::new();
    files(folder, &mut paths)?;
    let mut types = Types::new();
    for path in paths {
        let text = std::fs::read_to_string(&path)?;
        let Some(name) = text.lines().next().and_then(|line| line.strip_prefix(MARK)) else { continue };
        let version = name.rsplit('.').nth(1).unwrap_or("");
        if version.contains("alpha") || version.contains("beta") {
            continue;
        }
        if let Some(ty) = parse(name, &text).with_context(|| format!("in {}", path.display()))? {
            types.insert(name.to_owned(), ty);
        }
    }
    rename_map_keys(&mut types);
    Ok(types)
}

/// None for the wrappers (`Quantity`, `Time`, …), which are leaves.
fn parse(name: &str, text: &str) -> Result<Option<Type>> {
    let short = name.rsplit('.').next().unwrap_or(name);
    let head = format!("pub struct {short} {{");
    let Some(start) = text.find(&head) else { return Ok(None) };
    let body = &text[start + head.len()..];
    let body = &body[..body.find("\n}").context("struct without an end")?];
    let mut fields = Vec::new();
    for line in body.lines() {
        let Some((rust, ty)) = line.trim().strip_prefix("pub ").and_then(|line| line.split_once(": ")) else { continue };
        let json = json_name(text, rust).with_context(|| format!("{rust} has no JSON name"))?;
        let ty = ty.trim_end_matches(',');
        let (ty, required) = match ty.strip_prefix("Option<").and_then(|ty| ty.strip_suffix('>')) {
            Some(inner) => (inner, false),
            // Metadata is always there in the library, but nobody has to write it.
            None => (ty, rust != "metadata"),
        };
        let ty = self::ty(ty)?;
        let (list, map_atomic) = strategy(text, rust);
        let list = list.filter(|_| ty.starts_with("[]"));
        fields.push(Field { rust: rust.to_owned(), json, ty, required, list, map_atomic, ..Field::default() });
    }
    fields.sort_by(|a, b| a.json.cmp(&b.json));
    let kind = text.contains(&format!("impl crate::Resource for {short} "));
    Ok(Some(Type { fields, atomic: false, kind }))
}

fn json_name(text: &str, rust: &str) -> Option<String> {
    let end = format!("\" => Field::Key_{rust},");
    let at = text.find(&end)?;
    let start = text[..at].rfind('"')? + 1;
    Some(text[start..at].to_owned())
}

/// How the library's `DeepMerge` treats a field: the schema's list type and map keys (the keys by their Rust names still).
fn strategy(text: &str, rust: &str) -> (Option<String>, bool) {
    let call = |kind: &str| text.contains(&format!("merge_strategies::{kind}(&mut self.{rust}, "));
    if call("list::set") {
        return (Some("set".into()), false);
    }
    let map = format!("list::map(\n            &mut self.{rust},");
    if let Some(at) = text.find(&map) {
        let keys = text[at..].lines().nth(3).unwrap_or("");
        let keys: Vec<&str> = keys.split("== rhs.").skip(1).filter_map(|key| key.split([',', ']']).next()).collect();
        return (Some(format!("map:{}", keys.join(","))), false);
    }
    (None, call("map::atomic"))
}

/// Rust's type in the table's words.
fn ty(rust: &str) -> Result<String> {
    Ok(match rust {
        "std::string::String" => "string".into(),
        "bool" => "bool".into(),
        "i32" => "int32".into(),
        "i64" => "int64".into(),
        "f64" => "double".into(),
        "crate::ByteString" => "bytes".into(),
        _ => {
            if let Some(inner) = wrapped(rust, "std::vec::Vec<") {
                format!("[]{}", ty(inner)?)
            } else if let Some(inner) = wrapped(rust, "std::collections::BTreeMap<std::string::String, ") {
                format!("{{}}{}", ty(inner)?)
            } else if let Some(inner) = wrapped(rust, "std::boxed::Box<") {
                ty(inner)?
            } else {
                leaf(&definition(rust).with_context(|| format!("type {rust} is not understood"))?)
            }
        }
    })
}

fn wrapped<'a>(rust: &'a str, head: &str) -> Option<&'a str> {
    rust.strip_prefix(head)?.strip_suffix('>')
}

/// `crate::api::core::v1::Pod` as OpenAPI names it.
fn definition(rust: &str) -> Option<String> {
    let path = rust.strip_prefix("crate::")?;
    let name = format!("io.k8s.{}", path.replace("::", "."));
    Some(name.replace("apiextensions_apiserver", "apiextensions-apiserver").replace("kube_aggregator", "kube-aggregator"))
}

fn leaf(name: &str) -> String {
    match name.rsplit('.').next().unwrap_or(name) {
        "Quantity" => "quantity",
        "IntOrString" => "intorstring",
        "Time" => "time",
        "MicroTime" => "microtime",
        "RawExtension" | "FieldsV1" => "object",
        "JSON" | "JSONSchemaPropsOrBool" | "JSONSchemaPropsOrArray" | "JSONSchemaPropsOrStringArray" => {
            return match name.rsplit('.').next() {
                Some("JSON") => "any".into(),
                Some("JSONSchemaPropsOrBool") => "schemaorbool".into(),
                Some("JSONSchemaPropsOrArray") => "schemaorarray".into(),
                _ => "schemaorstrings".into(),
            };
        }
        _ => name,
    }
    .to_owned()
}

/// The keys of map lists are Rust names so far; the item type knows their JSON names.
fn rename_map_keys(types: &mut Types) {
    let known = types.clone();
    for field in types.values_mut().flat_map(|ty| &mut ty.fields) {
        let Some(keys) = field.list.as_deref().and_then(|list| list.strip_prefix("map:")) else { continue };
        let item = field.ty.strip_prefix("[]").and_then(|name| known.get(name));
        let json = |rust: &str| {
            item.and_then(|item| item.fields.iter().find(|field| plain(&field.rust) == plain(rust)))
                .map_or_else(|| rust.to_owned(), |field| field.json.clone())
        };
        field.list = Some(format!("map:{}", keys.split(',').map(json).collect::<Vec<_>>().join(",")));
    }
}
