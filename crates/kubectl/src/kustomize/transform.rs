//! Namespaces, prefixes and suffixes, labels and annotations, images, replicas.
//!
//! Mirrors kustomize's built-in transformers of these names.

use regex::Regex;
use serde_json::Value;
use std::collections::BTreeMap;

use super::fields::{FieldSpec, Make, plain, scalar, set_text, visit, wrong};
use super::kustomization::{Image, Replica};
use super::resources::Resources;
use crate::error::{Result, fail};

pub fn namespace(resources: &mut Resources, namespace: &str, specs: &[FieldSpec]) -> Result<()> {
    for at in 0..resources.0.len() {
        let resource = &mut resources.0[at];
        resource.remember();
        let id = resource.id();
        if !id.cluster_scoped() {
            resource.set_namespace(namespace);
        }
        if matches!(id.gvk.kind.as_str(), "RoleBinding" | "ClusterRoleBinding") {
            for subject in resource.value.get_mut("subjects").and_then(Value::as_array_mut).into_iter().flatten() {
                if subject.get("name").and_then(Value::as_str) == Some("default") {
                    subject["namespace"] = namespace.into();
                }
            }
        }
        for spec in specs {
            let own = spec.path == "metadata/namespace"
                || spec.path == "metadata/name" && !(id.gvk.group.is_empty() && id.gvk.version == "v1")
                || matches!(spec.gvk.kind.as_str(), "RoleBinding" | "ClusterRoleBinding") && spec.path == "subjects/namespace";
            if !own {
                visit(&mut resource.value, &id, spec, Make::Text, &mut |field| set_text(field, namespace))?;
            }
        }
        let now = resource.id();
        let same: Vec<String> = resources.0.iter().filter(|other| other.id().same(&now)).map(|resource| resource.value.to_string()).collect();
        if same.len() != 1 {
            return fail(format!("namespace transformation produces ID conflict: [{}]", same.join(" ")));
        }
    }
    Ok(())
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Affix {
    Prefix,
    Suffix,
}

pub fn affix(resources: &mut Resources, kind: Affix, text: &str, specs: &[FieldSpec]) -> Result<()> {
    for resource in &mut resources.0 {
        let id = resource.original_id();
        let skipped = matches!(id.gvk.kind.as_str(), "CustomResourceDefinition" | "Namespace") || id.gvk.kind == "APIService" && id.gvk.group == "apiregistration.k8s.io";
        if skipped {
            continue;
        }
        for spec in specs.iter().filter(|spec| id.gvk.selected(&spec.gvk)) {
            if spec.path == "metadata/name" {
                if kind == Affix::Prefix { &mut resource.prefixes } else { &mut resource.suffixes }.push(text.to_owned());
                resource.remember();
            }
            let now = resource.id();
            visit(&mut resource.value, &now, spec, Make::Text, &mut |field| {
                let old = plain(field);
                set_text(field, &if kind == Affix::Prefix { format!("{text}{old}") } else { format!("{old}{text}") })
            })?;
        }
    }
    Ok(())
}

/// Labels, or annotations.
pub fn texts(resources: &mut Resources, texts: &BTreeMap<String, String>, specs: &[FieldSpec]) -> Result<()> {
    for resource in &mut resources.0 {
        let id = resource.id();
        for (key, text) in texts {
            for spec in specs {
                visit(&mut resource.value, &id, spec, Make::Object, &mut |field| match field {
                    Value::Object(map) => {
                        map.insert(key.clone(), text.clone().into());
                        Ok(())
                    }
                    other => fail(wrong("MappingNode", other)),
                })?;
            }
        }
    }
    Ok(())
}

pub fn replicas(resources: &mut Resources, replica: &Replica, specs: &[FieldSpec]) -> Result<()> {
    let mut found = false;
    for spec in specs {
        for at in resources.by_any_id(|id| id.name == replica.name && id.gvk.selected(&spec.gvk)) {
            found = true;
            let id = resources.0[at].id();
            visit(&mut resources.0[at].value, &id, spec, Make::Text, &mut |field| {
                scalar(field)?;
                *field = replica.count.into();
                Ok(())
            })?;
        }
    }
    if !found {
        let kinds: Vec<String> = specs.iter().map(|spec| spec.gvk.to_string()).collect();
        return fail(format!("resource with name {} does not match a config with the following GVK [{}]", replica.name, kinds.join(" ")));
    }
    Ok(())
}

pub fn image(resources: &mut Resources, image: &Image, specs: &[FieldSpec]) -> Result<()> {
    let Ok(pattern) = Regex::new(&format!("^{}(:[a-zA-Z0-9_.{{}}-]*)?(@sha256:[a-zA-Z0-9_.{{}}-]*)?$", image.name)) else { return Ok(()) };
    for resource in resources.0.iter_mut().filter(|resource| resource.kind() != "CustomResourceDefinition") {
        anywhere(&mut resource.value, image, &pattern)?;
        let id = resource.id();
        for spec in specs {
            visit(&mut resource.value, &id, spec, Make::Nothing, &mut |field| set_image(field, image, &pattern))?;
        }
    }
    Ok(())
}

/// In whatever is called `containers` or `initContainers`, in kinds nobody knows too.
fn anywhere(value: &mut Value, image: &Image, pattern: &Regex) -> Result<()> {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                anywhere(value, image, pattern)?;
                if let (true, Value::Array(items)) = (key == "containers" || key == "initContainers", value) {
                    for field in items.iter_mut().filter_map(|item| item.get_mut("image")).filter(|field| !field.is_null()) {
                        set_image(field, image, pattern)?;
                    }
                }
            }
            Ok(())
        }
        Value::Array(items) => items.iter_mut().try_for_each(|item| anywhere(item, image, pattern)),
        _ => Ok(()),
    }
}

fn set_image(field: &mut Value, image: &Image, pattern: &Regex) -> Result<()> {
    scalar(field)?;
    let old = plain(field);
    if !pattern.is_match(&old) {
        return Ok(());
    }
    let (name, mut tag, mut digest) = split_image(&old);
    let mut whole = if image.new_name.is_empty() { name.to_owned() } else { image.new_name.clone() };
    let suffixed = format!("{tag}{}", image.tag_suffix);
    match (image.new_tag.as_str(), image.digest.as_str()) {
        ("", "") if !image.tag_suffix.is_empty() => (tag, digest) = (&suffixed, ""),
        ("", "") => {}
        (new_tag, new_digest) => (tag, digest) = (new_tag, new_digest),
    }
    if !tag.is_empty() {
        whole = format!("{whole}:{tag}");
    }
    if !digest.is_empty() {
        whole = format!("{whole}@{digest}");
    }
    *field = whole.into();
    Ok(())
}

/// Name, tag and digest; a port of the registry is no tag.
fn split_image(image: &str) -> (&str, &str, &str) {
    let after = image.find('/').filter(|at| *at > 0).unwrap_or(0);
    let find = |c: char| image[after..].find(c).map(|at| at + after);
    match (find(':'), find('@')) {
        (None, None) => (image, "", ""),
        (Some(colon), None) => (&image[..colon], &image[colon + 1..], ""),
        (Some(colon), Some(at)) if colon < at => (&image[..colon], &image[colon + 1..at], &image[at + 1..]),
        (_, Some(at)) => (&image[..at], "", &image[at + 1..]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn images() {
        let digest = "sha256:abc";
        for (old, change, want) in [
            ("nginx", json!({"name": "nginx", "newTag": "1.2"}), "nginx:1.2"),
            ("nginx:1.0", json!({"name": "nginx", "newName": "r.io:5000/x"}), "r.io:5000/x:1.0"),
            ("nginx:1.0@sha256:abc", json!({"name": "nginx", "newTag": "2"}), "nginx:2"),
            ("nginx:1.0", json!({"name": "nginx", "digest": digest}), "nginx@sha256:abc"),
            ("nginx:1.0", json!({"name": "nginx", "digest": digest, "newTag": "2"}), "nginx:2@sha256:abc"),
            ("nginx:1.0", json!({"name": "nginx", "tagSuffix": "-a"}), "nginx:1.0-a"),
            ("r.io:5000/nginx", json!({"name": "r.io:5000/nginx", "newTag": "3"}), "r.io:5000/nginx:3"),
            ("other/nginx:1", json!({"name": "nginx", "newTag": "3"}), "other/nginx:1"),
        ] {
            let change: Image = serde_json::from_value(change).unwrap();
            let pattern = Regex::new(&format!("^{}(:[a-zA-Z0-9_.{{}}-]*)?(@sha256:[a-zA-Z0-9_.{{}}-]*)?$", change.name)).unwrap();
            let mut field = json!(old);
            set_image(&mut field, &change, &pattern).unwrap();
            assert_eq!(field, want);
        }
    }
}
