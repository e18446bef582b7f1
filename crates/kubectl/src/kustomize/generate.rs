//! Config maps and secrets from texts and files, and the hash at the end of their names.
//!
//! Mirrors kustomize's generators, kv loader and hasher.

use base64::Engine;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::kustomization::{Generator, GeneratorOptions};
use super::loader::Loader;
use super::resource::{Behavior, Resource};
use crate::error::{Error, Result, fail};

/// Base64 is broken into lines of this length, when it is longer.
const BASE64_LINE: usize = 70;
const HASH_LENGTH: usize = 10;

pub fn config_map(loader: &Loader, generator: &Generator, options: &GeneratorOptions) -> Result<Resource> {
    let mut object = base("ConfigMap", generator)?;
    for (key, value) in pairs(loader, generator)? {
        match String::from_utf8(value) {
            Ok(text) => object["data"][&key] = text.into(),
            Err(error) => object["binaryData"][&key] = base64_lines(error.as_bytes()).into(),
        }
    }
    Ok(finish(object, generator, options))
}

pub fn secret(loader: &Loader, generator: &Generator, options: &GeneratorOptions) -> Result<Resource> {
    let mut object = base("Secret", generator)?;
    object["type"] = if generator.secret_type.is_empty() { "Opaque".into() } else { generator.secret_type.clone().into() };
    for (key, value) in pairs(loader, generator)? {
        object["data"][&key] = base64_lines(&value).into();
    }
    Ok(finish(object, generator, options))
}

fn base(kind: &str, generator: &Generator) -> Result<Value> {
    if generator.name.is_empty() {
        return fail("a configmap must have a name");
    }
    let mut object = json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": generator.name}});
    if !generator.namespace.is_empty() {
        object["metadata"]["namespace"] = generator.namespace.clone().into();
    }
    Ok(object)
}

fn finish(mut object: Value, generator: &Generator, options: &GeneratorOptions) -> Resource {
    for (key, texts) in [("labels", &options.labels), ("annotations", &options.annotations)] {
        if !texts.is_empty() {
            object["metadata"][key] = texts.iter().map(|(key, text)| (key.clone(), Value::from(text.clone()))).collect::<Map<_, _>>().into();
        }
    }
    if options.immutable {
        object["immutable"] = true.into();
    }
    let mut resource = Resource::new(object);
    resource.hash = !options.disable_name_suffix_hash;
    resource.behavior = match generator.behavior.as_str() {
        "create" => Behavior::Create,
        "merge" => Behavior::Merge,
        "replace" => Behavior::Replace,
        _ => Behavior::Unspecified,
    };
    resource
}

fn base64_lines(bytes: &[u8]) -> String {
    let text = base64::engine::general_purpose::STANDARD.encode(bytes);
    if text.len() < BASE64_LINE {
        return text;
    }
    text.as_bytes().chunks(BASE64_LINE).flat_map(|line| line.iter().map(|byte| char::from(*byte)).chain(['\n'])).collect()
}

fn pairs(loader: &Loader, generator: &Generator) -> Result<Vec<(String, Vec<u8>)>> {
    let go = |list: &[String]| format!("[{}]", list.join(" "));
    let within = |what: String| move |error: Error| Error::Message(format!("loading KV pairs: {what}: {error}"));
    let mut found = Vec::new();
    for path in &generator.envs {
        env_file(&loader.load(path).map_err(within(format!("env source files: {}", go(&generator.envs))))?, &mut found).map_err(within(format!("env source files: {}", go(&generator.envs))))?;
    }
    for source in &generator.literals {
        match source.split_once('=') {
            Some((key, value)) if !key.is_empty() => found.push((key.to_owned(), unquoted(value).as_bytes().to_vec())),
            _ => return Err(within(format!("literal sources {}", go(&generator.literals)))(Error::Message(format!("invalid literal source {source}, expected key=value")))),
        }
    }
    for source in &generator.files {
        let (key, path) = file_source(source).map_err(within(format!("file sources: {}", go(&generator.files))))?;
        found.push((key, loader.load(&path).map_err(within(format!("file sources: {}", go(&generator.files))))?));
    }
    for (at, (key, _)) in found.iter().enumerate() {
        if key.is_empty() || key.len() > 253 || !key.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')) {
            return fail(format!("{key:?} is not a valid key name: a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"));
        }
        if found[..at].iter().any(|(known, _)| known == key) {
            return fail(format!("configmap {} illegally repeats the key `{key}`", generator.name));
        }
    }
    Ok(found)
}

fn file_source(source: &str) -> Result<(String, String)> {
    match source.matches('=').count() {
        0 => Ok((source.rsplit('/').next().unwrap_or(source).to_owned(), source.to_owned())),
        1 => match source.split_once('=').unwrap_or((source, "")) {
            ("", path) => fail(format!("missing key name for file path {path:?} in source {source:?}")),
            (key, "") => fail(format!("missing file path for key name {key:?} in source {source:?}")),
            (key, path) => Ok((key.to_owned(), path.to_owned())),
        },
        _ => fail(format!("source {source:?} key name or file path contains '='")),
    }
}

fn env_file(bytes: &[u8], found: &mut Vec<(String, Vec<u8>)>) -> Result<()> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    for line in bytes.split(|byte| *byte == b'\n') {
        let Ok(line) = std::str::from_utf8(line.strip_suffix(b"\r").unwrap_or(line)) else {
            return fail(format!("line {line:?} has invalid utf8 bytes : {}", String::from_utf8_lossy(line)));
        };
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (key, value) = line.split_once('=').unwrap_or((line, ""));
        let valid = key.starts_with(|c: char| c.is_ascii_alphabetic() || matches!(c, '-' | '_' | '.')) && key.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
        if !valid {
            return fail(format!("{key:?} is not a valid key name: a valid environment variable name must consist of alphabetic characters, digits, '_', '-', or '.', and must not start with a digit (e.g. 'my.env-name',  or 'MY_ENV.NAME',  or 'MyEnvName1', regex used for validation is '[-._a-zA-Z][-._a-zA-Z0-9]*')"));
        }
        found.push((key.to_owned(), value.as_bytes().to_vec()));
    }
    Ok(())
}

fn unquoted(text: &str) -> &str {
    for quote in ['"', '\''] {
        if let Some(inner) = text.strip_prefix(quote).and_then(|text| text.strip_suffix(quote)) {
            return inner;
        }
    }
    text
}

/// Of what a resource holds; its name is no part of it.
pub fn hash(resource: &Resource) -> String {
    let value = &resource.value;
    let part = |key: &str| match value.get(key) {
        None => json!(""),
        Some(found) => found.clone(),
    };
    let mut held = match resource.kind() {
        "ConfigMap" => json!({"kind": "ConfigMap", "name": "", "data": part("data")}),
        "Secret" => json!({"kind": "Secret", "type": part("type"), "name": "", "data": part("data")}),
        _ => value.clone(),
    };
    for key in ["binaryData", "stringData"] {
        if value.get(key).is_some_and(Value::is_object) && (key == "binaryData") == (resource.kind() == "ConfigMap") {
            held[key] = value[key].clone();
        }
    }
    // As Go's encoder escapes.
    let text = held.to_string().replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026").replace('\u{2028}', "\\u2028").replace('\u{2029}', "\\u2029");
    let digest: String = Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    digest
        .chars()
        .take(HASH_LENGTH)
        .map(|c| match c {
            '0' => 'g',
            '1' => 'h',
            '3' => 'k',
            'a' => 'm',
            'e' => 't',
            other => other,
        })
        .collect()
}
