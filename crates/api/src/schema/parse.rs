//! Reads `schema.txt`.
//!
//! `type core.v1.Pod kind atomic` opens a type; each line below it, indented by one, is a field: name, type, then `#tag` (protobuf; `#2.5` through an embedded message),
//! `required`, `ptr`, `always`, `atomic`, `list=map:key,key`, `list=set`, `list=atomic`, `merge=key`, `strategy=merge,retainKeys`, `go=Name`, `enum=A,B` (`~` for a blank), `default=JSON`.
//! Types: `string`, `int32`, …, `[]` before a list's item, `{}` before a map's value, else a type's short name (`core.v1.`, `meta.v1.` …).
//! The file is ours and held by tests: what cannot be understood is skipped, not reported.

use std::collections::HashMap;

use super::{Field, FieldType, ListType, PatchStrategy, TypeInfo, TypeRef, Wire};

const PREFIXES: &[(&str, &str)] = &[
    ("meta.", "io.k8s.apimachinery.pkg.apis.meta."),
    ("apiextensions.", "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions."),
    ("apiregistration.", "io.k8s.kube-aggregator.pkg.apis.apiregistration."),
    ("version.", "io.k8s.apimachinery.pkg.version."),
];

/// Go's one list type that is a message of its own outside of maps.
const LIST_MESSAGE: &str = "v1.Verbs";

/// How an empty choice is written.
const EMPTY: &str = "\"\"";

/// A blank would end the word.
fn choice(word: &str) -> Box<str> {
    if word == EMPTY { "".into() } else { word.replace('~', " ").into() }
}

fn full(short: &str) -> String {
    PREFIXES.iter().find_map(|(from, to)| short.strip_prefix(from).map(|rest| format!("{to}{rest}"))).unwrap_or_else(|| format!("io.k8s.api.{short}"))
}

struct Draft {
    name: String,
    short: &'static str,
    kind: bool,
    atomic: bool,
    lines: Vec<&'static str>,
}

pub(super) fn parse(text: &'static str) -> Vec<TypeInfo> {
    let mut drafts: Vec<Draft> = Vec::new();
    for line in text.lines() {
        if let Some(head) = line.strip_prefix("type ") {
            let mut words = head.split(' ');
            let short = words.next().unwrap_or("");
            let mut draft = Draft { name: full(short), short, kind: false, atomic: false, lines: Vec::new() };
            for word in words {
                draft.kind |= word == "kind";
                draft.atomic |= word == "atomic";
            }
            drafts.push(draft);
        } else if let Some(draft) = drafts.last_mut() {
            draft.lines.push(line.trim_start());
        }
    }
    drafts.sort_by(|a, b| a.name.cmp(&b.name));
    let places: HashMap<&str, u16> = drafts.iter().enumerate().map(|(at, draft)| (draft.short, at as u16)).collect();
    drafts.iter().map(|draft| unfold(draft, &places)).collect()
}

fn unfold(draft: &Draft, places: &HashMap<&str, u16>) -> TypeInfo {
    let mut fields: Vec<Field> = draft.lines.iter().filter_map(|line| field(line, places)).collect();
    if draft.kind {
        for name in ["apiVersion", "kind"] {
            fields.push(Field { name, ..blank(FieldType::String) });
        }
    }
    fields.sort_by_key(|field| field.name);
    fields.dedup_by_key(|field| field.name);
    let fill = fields.iter().enumerate().filter(|(_, field)| filled(field)).map(|(at, _)| at as u16).collect();
    let wire = Wire::of(&fields);
    TypeInfo { name: draft.name.as_str().into(), fields: fields.into(), wire, atomic: draft.atomic, kind: draft.kind, fill }
}

/// A Go struct is never left out, and a plain value without `omitempty` neither. (Lists and maps would show as null: we leave them out.)
fn filled(field: &Field) -> bool {
    match field.ty {
        FieldType::Type(_) => !field.pointer,
        FieldType::String | FieldType::Bool | FieldType::Int32 | FieldType::Int64 | FieldType::Double => field.always,
        _ => false,
    }
}

fn blank(ty: FieldType) -> Field {
    Field {
        name: "",
        ty,
        required: false,
        pointer: false,
        always: false,
        list_type: None,
        map_keys: Box::default(),
        atomic: false,
        patch_strategy: PatchStrategy::default(),
        patch_merge_key: None,
        proto_tag: Box::default(),
        wrapped: false,
        default: None,
        go: None,
        choices: Box::default(),
    }
}

fn field(line: &'static str, places: &HashMap<&str, u16>) -> Option<Field> {
    let mut words = line.split(' ');
    let name = words.next()?;
    let mut field = Field { name, ..blank(ty(words.next()?, places)?) };
    for word in words {
        match word.split_once('=') {
            None => match word {
                "required" => field.required = true,
                "ptr" => field.pointer = true,
                "always" => field.always = true,
                "atomic" => field.atomic = true,
                _ => field.proto_tag = word.strip_prefix('#')?.split('.').filter_map(|tag| tag.parse().ok()).collect(),
            },
            Some(("list", value)) => match value.split_once(':') {
                Some((_, keys)) => (field.list_type, field.map_keys) = (Some(ListType::Map), keys.split(',').collect()),
                None => field.list_type = Some(if value == "set" { ListType::Set } else { ListType::Atomic }),
            },
            Some(("strategy", value)) => {
                for word in value.split(',') {
                    field.patch_strategy.merge |= word == "merge";
                    field.patch_strategy.retain_keys |= word == "retainKeys";
                    field.patch_strategy.replace |= word == "replace";
                }
            }
            Some(("merge", value)) => field.patch_merge_key = Some(value),
            Some(("go", value)) => (field.go, field.wrapped) = (Some(value), value == LIST_MESSAGE),
            Some(("enum", value)) => field.choices = value.split(',').map(choice).collect(),
            Some(("default", value)) => field.default = Some(value),
            Some(_) => {}
        }
    }
    Some(field)
}

fn ty(text: &str, places: &HashMap<&str, u16>) -> Option<FieldType> {
    if let Some(item) = text.strip_prefix("[]") {
        return Some(FieldType::List(Box::new(ty(item, places)?)));
    }
    if let Some(value) = text.strip_prefix("{}") {
        return Some(FieldType::Map(Box::new(ty(value, places)?)));
    }
    Some(match text {
        "string" => FieldType::String,
        "bool" => FieldType::Bool,
        "int32" => FieldType::Int32,
        "int64" => FieldType::Int64,
        "double" => FieldType::Double,
        "bytes" => FieldType::Bytes,
        "quantity" => FieldType::Quantity,
        "intorstring" => FieldType::IntOrString,
        "time" => FieldType::Time,
        "microtime" => FieldType::MicroTime,
        "any" => FieldType::Any,
        "object" => FieldType::Object,
        "schemaorbool" => FieldType::SchemaOrBool,
        "schemaorarray" => FieldType::SchemaOrArray,
        "schemaorstrings" => FieldType::SchemaOrStrings,
        name => FieldType::Type(TypeRef(*places.get(name)?)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_understood() {
        let text = super::super::FACTS;
        let lines = text.lines().filter(|line| line.starts_with(' ')).count();
        let fields: usize = parse(text).iter().map(|ty| ty.fields.len() - if ty.kind { 2 } else { 0 }).sum();
        assert_eq!(fields, lines);
    }
}
