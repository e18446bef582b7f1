//! Kustomize: folders with a `kustomization.yaml`, built into manifests, byte for byte as `kubectl kustomize` prints them.
//!
//! [`build`] is the door. `kustomization` is the file, `loader` reads it and what it names, `target` says what happens in which order: `resource` and `resources` are what
//! is built, `generate`, `patches` (by `merge`), `transform`, `replacements`, `references` and `variables` change it, `order` sorts it. `config` says which fields are
//! meant, `fields` walks to them, `id` is how resources are called. README.md says what is not here.

mod config;
mod fields;
mod generate;
mod id;
mod kustomization;
mod loader;
mod merge;
mod order;
mod patches;
mod references;
mod replacements;
mod resource;
mod resources;
mod target;
mod transform;
mod variables;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde_json::Value;

use crate::error::Result;
use loader::Loader;
use target::{Gathered, Target};

/// The version that `managedByLabel` names, of the kustomize in kubectl 1.36.
const VERSION: &str = "v5.8.1";

#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// May files be read that are not below their kustomization?
    pub anywhere: bool,
    /// As found, not sorted.
    pub unsorted: bool,
    pub managed_by_label: bool,
}

/// The objects of the kustomization in `folder`.
pub fn build(folder: &str, options: Options) -> Result<Vec<Value>> {
    let target = Target::load(Loader::new(folder, options.anywhere)?)?;
    let Gathered { mut resources, config, variables } = target.gather(Gathered::default())?;
    for resource in resources.0.iter_mut().filter(|resource| resource.hash) {
        let hash = generate::hash(resource);
        resource.remember();
        let name = format!("{}-{hash}", resource.name());
        resource.set_name(&name);
    }
    references::fix(&mut resources, &config)?;
    variables::resolve(&mut resources, &variables, &config.var_reference)?;
    resources.0.retain(|resource| !resource.is_local());
    match &target.file.sort_options {
        Some(sort) => order::sort(&mut resources, sort)?,
        None if options.unsorted => {}
        None => order::legacy(&mut resources, None),
    }
    if options.managed_by_label || target.file.build_metadata.iter().flatten().any(|word| word == "managedByLabel") {
        let label = BTreeMap::from([("app.kubernetes.io/managed-by".to_owned(), format!("kustomize-{VERSION}"))]);
        let spec = fields::FieldSpec { path: "metadata/labels".into(), create: true, ..Default::default() };
        transform::texts(&mut resources, &label, &[spec])?;
    }
    for resource in &mut resources.0 {
        // Upstream writes the annotations once more in the end, which loses empty ones.
        if resource.value.pointer("/metadata/annotations").is_some_and(|annotations| annotations.as_object().is_none_or(serde_json::Map::is_empty)) {
            resource.metadata().remove("annotations");
        }
    }
    Ok(resources.0.into_iter().map(|resource| resource.value).collect())
}

/// As it is printed: documents with `---` between them.
pub fn text(objects: &[Value]) -> String {
    objects.iter().map(crate::yaml::emit).collect::<Vec<_>>().join("---\n")
}
