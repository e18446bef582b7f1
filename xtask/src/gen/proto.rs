//! Reads `k8s-pb`'s generated sources: protobuf tags, and the Go markers that stand in its comments.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result};

use super::{Types, files, plain};

#[derive(Default, Debug, Clone)]
struct Message {
    fields: Vec<Part>,
    atomic: bool,
}

#[derive(Default, Debug, Clone)]
struct Part {
    name: String,
    tag: String,
    /// The message type it holds, when it holds exactly one.
    message: String,
    marks: Vec<String>,
}

/// Adds tags and markers to what `k8s-openapi` told.
pub(super) fn join(types: &mut Types, folder: &Path) -> Result<()> {
    let mut paths = Vec::new();
    files(folder, &mut paths)?;
    let mut messages = HashMap::new();
    for path in paths {
        let package = package(folder, &path)?;
        if !package.contains("alpha") && !package.contains("beta") {
            parse(&package, &std::fs::read_to_string(&path)?, &mut messages);
        }
    }
    for (name, ty) in types.iter_mut() {
        let Some(message) = messages.get(&plain(name)) else { continue };
        ty.atomic = message.atomic;
        for field in &mut ty.fields {
            let Some((tag, marks)) = find(&messages, name, &plain(&field.json), 0) else { continue };
            field.tag = Some(tag);
            super::facts::marks(field, &marks);
        }
    }
    Ok(())
}

/// `api/core/v1/mod.rs` -> `io.k8s.api.core.v1`
fn package(folder: &Path, path: &Path) -> Result<String> {
    let inner = path.strip_prefix(folder).context("outside of the folder")?.with_extension("");
    let name = inner.to_string_lossy().trim_end_matches("/mod").replace('/', ".");
    Ok(format!("io.k8s.{}", name.replace("kube_aggregator", "kube-aggregator").replace("apiextensions_apiserver", "apiextensions-apiserver")))
}

fn parse(package: &str, text: &str, messages: &mut HashMap<String, Message>) {
    let (mut marks, mut outer) = (Vec::new(), Vec::new());
    let mut current: Option<(String, Message)> = None;
    let mut tag = String::new();
    let mut pending: Option<String> = None;
    for line in text.lines() {
        let trimmed = line.trim();
        // rustfmt breaks long types over lines.
        if let Some(start) = pending.take() {
            let whole = format!("{start} {trimmed}");
            if trimmed.ends_with(">,") && !trimmed.ends_with("<>,") {
                push(&mut current, &whole, &mut tag, &mut marks);
            } else {
                pending = Some(whole);
            }
            continue;
        }
        if let Some(mark) = trimmed.strip_prefix("///").map(str::trim_start) {
            if mark.starts_with('+') {
                marks.push(mark.to_owned());
            }
        } else if let Some(name) = line.strip_prefix("pub struct ") {
            outer = std::mem::take(&mut marks);
            current = Some((name.split([' ', '{']).next().unwrap_or("").to_owned(), Message::default()));
        } else if let Some(at) = trimmed.find("tag = \"").filter(|_| trimmed.starts_with("#[prost(")) {
            tag = trimmed[at + 7..].split('"').next().unwrap_or("").to_owned();
        } else if trimmed.starts_with("pub ") && line.starts_with("    ") {
            if trimmed.ends_with(',') { push(&mut current, trimmed, &mut tag, &mut marks) } else { pending = Some(trimmed.to_owned()) }
        } else if line == "}" || (line.starts_with("pub struct") && line.ends_with("{}")) {
            if let Some((name, mut message)) = current.take() {
                message.atomic = outer.iter().any(|mark| mark == "+structType=atomic");
                messages.insert(plain(&format!("{package}.{name}")), message);
            }
            marks.clear();
        }
    }
}

fn push(current: &mut Option<(String, Message)>, line: &str, tag: &mut String, marks: &mut Vec<String>) {
    let Some((_, message)) = current else { return };
    let Some((name, ty)) = line.trim_start_matches("pub ").split_once(':') else { return };
    let inner = ty.trim().trim_end_matches(',').trim_start_matches("::core::option::Option<").trim_end_matches('>');
    let inner = inner.rsplit("::").next().unwrap_or("").to_owned();
    message.fields.push(Part {
        name: name.trim_start_matches("r#").to_owned(),
        tag: std::mem::take(tag),
        message: inner,
        marks: std::mem::take(marks),
    });
}

/// A field by its plain name, in the message or in one that Go embeds in it (such a message's own name is no JSON field).
fn find(messages: &HashMap<String, Message>, name: &str, plain_name: &str, depth: usize) -> Option<(String, Vec<String>)> {
    const DEEPEST: usize = 2;
    // prost spells acronyms its own way: `PodDnsConfig`.
    let message = messages.get(&plain(name))?;
    if let Some(part) = message.fields.iter().find(|part| plain(&part.name) == plain_name) {
        return Some((part.tag.clone(), part.marks.clone()));
    }
    if depth == DEEPEST {
        return None;
    }
    let package = name.rsplit_once('.')?.0;
    EMBEDDED.iter().filter(|embedded| message.fields.iter().any(|part| part.name == **embedded)).find_map(|embedded| {
        let part = message.fields.iter().find(|part| part.name == *embedded)?;
        let (tag, marks) = find(messages, &format!("{package}.{}", part.message), plain_name, depth + 1)?;
        Some((format!("{}.{tag}", part.tag), marks))
    })
}

/// Fields of a message that JSON has no name for: Go embeds them.
const EMBEDDED: &[&str] = &[
    "volume_source",
    "persistent_volume_source",
    "local_object_reference",
    "handler",
    "ephemeral_container_common",
    "rule",
    "rule_with_operations",
    "ingress_rule_value",
    "device_configuration",
];
