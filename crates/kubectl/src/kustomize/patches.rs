//! Patches: strategic merge and JSON, in files and inline, for one resource or all that a selector selects.
//!
//! Mirrors kustomize's PatchTransformer and its two older forms.

use serde_json::Value;

use super::kustomization::Patch;
use super::loader::Loader;
use super::resource::{Resource, read};
use super::resources::Resources;
use crate::error::{Error, Result, fail};
use crate::yaml;

fn message(error: Error) -> String {
    error.to_string()
}

/// A JSON patch: a list of operations.
fn operations(text: &str) -> Result<Vec<Value>> {
    match yaml::parse(text) {
        Ok(Value::Array(operations)) if operations.iter().all(Value::is_object) => Ok(operations),
        Ok(_) => fail("it is no list of operations"),
        Err(error) => fail(format!("yaml: {error}")),
    }
}

fn trouble(kind: &str, patch: &Patch, error: String) -> Error {
    let mut said = serde_json::Map::new();
    for (key, text) in [("path", &patch.path), ("patch", &patch.patch)] {
        if !text.is_empty() {
            said.insert(key.into(), text.clone().into());
        }
    }
    Error::Message(format!("trouble configuring builtin {kind} with config: `\n{}`: {error}", yaml::emit(&said.into())))
}

pub fn apply(resources: &mut Resources, loader: &Loader, patch: &Patch) -> Result<()> {
    let inline = patch.patch.trim();
    let configure = |error: String| trouble("PatchTransformer", patch, error);
    let (text, source) = match (inline, patch.path.as_str()) {
        ("", "") => return Err(configure("must specify one of patch and path in\n{}\n".to_owned())),
        ("", path) => (
            loader.text(path).map_err(|error| configure(format!("failed to get the patch file from path({path}): {}", message(error))))?,
            format!("[path: {path:?}]"),
        ),
        (inline, "") => (inline.to_owned(), format!("[patch: {inline:?}]")),
        _ => return Err(configure("patch and path can't be set at the same time".to_owned())),
    };
    match (read(&text), operations(&text)) {
        (Err(_), Err(_)) => Err(configure(format!("unable to parse SM or JSON patch from {source}"))),
        (Ok(patches), _) if !patches.is_empty() => strategic(resources, patch, patches, &source),
        (_, Ok(operations)) => json(resources, patch, operations, &source),
        (Ok(_), Err(_)) => Ok(()),
    }
}

fn strategic(resources: &mut Resources, patch: &Patch, mut patches: Vec<Resource>, source: &str) -> Result<()> {
    for one in &mut patches {
        one.name_may_change = patch.options.allow_name_change;
        one.kind_may_change = patch.options.allow_kind_change;
    }
    if let Some(target) = &patch.target {
        if patches.len() > 1 {
            return fail(format!("Multiple Strategic-Merge Patches in one `patches` entry is not allowed to set `patches.target` field: {source}"));
        }
        let places = resources.select(target)?;
        return resources.patch(&places, &patches[0]);
    }
    for one in patches {
        let id = one.id();
        let at = resources.target(&id).map_err(|error| Error::Message(format!("no resource matches strategic merge patch \"{id}\": {}", message(error))))?;
        resources.patch(&[at], &one)?;
    }
    Ok(())
}

fn json(resources: &mut Resources, patch: &Patch, operations: Vec<Value>, source: &str) -> Result<()> {
    let Some(target) = &patch.target else { return fail(format!("must specify a target for JSON patch {source}")) };
    let operations = Value::Array(operations);
    for at in resources.select(target)? {
        resources.0[at].remember();
        patch::json(&mut resources.0[at].value, &operations).map_err(|error| Error::Message(error.to_string()))?;
    }
    Ok(())
}

/// `patchesStrategicMerge`: a file, or a patch itself.
pub fn strategic_merge(resources: &mut Resources, loader: &Loader, paths: &[String]) -> Result<()> {
    let mut patches = Vec::new();
    for path in paths {
        // A file's name is a plain word in YAML: no resource.
        match read(path) {
            Ok(found) if !found.is_empty() => patches.extend(found),
            _ => patches.extend(read(&loader.text(path)?)?),
        }
    }
    for one in patches {
        let at = resources.target(&one.id())?;
        resources.patch(&[at], &one)?;
    }
    Ok(())
}

/// `patchesJson6902`.
pub fn json6902(resources: &mut Resources, loader: &Loader, patch: &Patch) -> Result<()> {
    let configure = |error: &str| trouble("PatchJson6902Transformer", patch, error.to_owned());
    let Some(target) = patch.target.as_ref().filter(|target| !target.name.is_empty()) else { return Err(configure("must specify the target name")) };
    let text = match (patch.patch.as_str(), patch.path.as_str()) {
        ("", "") => return Err(configure("empty file path and empty jsonOp")),
        ("", path) => loader.text(path)?,
        (text, "") => text.to_owned(),
        _ => return Err(configure("must specify a file path or jsonOp, not both")),
    };
    let operations = Value::Array(operations(&text)?);
    for at in resources.select(target)? {
        patch::json(&mut resources.0[at].value, &operations).map_err(|error| Error::Message(error.to_string()))?;
    }
    Ok(())
}
