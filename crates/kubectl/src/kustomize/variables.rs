//! `vars`: texts `$(NAME)` that stand for a field of another resource.
//!
//! Mirrors kustomize's refvar filter; replacements are their successor.

use serde_json::Value;

use super::fields::{FieldSpec, Make, plain, split, visit};
use super::id::Id;
use super::kustomization::Variable;
use super::resources::Resources;
use crate::error::{Error, Result, fail};

/// Marks the resources that variables read; names must be used once only.
pub fn collect(known: &mut Vec<Variable>, resources: &mut Resources, more: &[Variable]) -> Result<()> {
    for variable in more {
        let gvk = variable.objref.gvk();
        let id = Id { gvk, name: variable.objref.name.clone(), namespace: variable.objref.namespace.clone() };
        let exact = !id.namespace.is_empty() || id.cluster_scoped();
        let found = resources.by_any_id(|other| if exact { id.same(other) } else { id.gvk == other.gvk && id.name == other.name });
        match found[..] {
            [] => {}
            [one] => resources.0[one].variables.push(variable.name.clone()),
            _ => return fail(format!("found {} resId matches for var {} (unable to disambiguate)", found.len(), variable.name)),
        }
        add(known, variable.clone())?;
    }
    Ok(())
}

pub fn add(known: &mut Vec<Variable>, variable: Variable) -> Result<()> {
    if known.iter().any(|other| other.name == variable.name) {
        return fail(format!("var '{}' already encountered", variable.name));
    }
    known.push(variable);
    Ok(())
}

pub fn resolve(resources: &mut Resources, variables: &[Variable], specs: &[FieldSpec]) -> Result<()> {
    let mut values: Vec<(String, Value)> = Vec::new();
    for variable in variables {
        let path = if variable.fieldref.field_path.is_empty() { "metadata.name" } else { &variable.fieldref.field_path };
        let Some(resource) = resources.0.iter().find(|resource| resource.variables.contains(&variable.name)) else {
            return fail(format!("var '{}' cannot be mapped to a field in the set of known resources", variable.name));
        };
        let mut value = Some(&resource.value);
        for part in split(&path.replace('[', ".").replace(']', ""), '.') {
            value = value.and_then(|value| match part.parse::<usize>() {
                Ok(at) if value.is_array() => value.get(at),
                _ => value.get(&part),
            });
        }
        let Some(value) = value else { return fail(format!("field specified in var '{}' not found in corresponding resource", variable.name)) };
        values.push((variable.name.clone(), value.clone()));
    }
    if values.is_empty() {
        return Ok(());
    }
    for resource in &mut resources.0 {
        let id = resource.id();
        for spec in specs {
            visit(&mut resource.value, &id, spec, Make::Nothing, &mut |field| {
                match field {
                    Value::Array(items) => {
                        for item in items {
                            if !item.is_string() {
                                return Err(Error::Message("invalid value type expect a string".into()));
                            }
                            replace(item, &values);
                        }
                    }
                    Value::Object(map) => map.values_mut().for_each(|value| replace(value, &values)),
                    other => replace(other, &values),
                }
                Ok(())
            })?;
        }
    }
    Ok(())
}

/// `$$` is a dollar sign; what no variable is called stays as it is.
fn replace(field: &mut Value, values: &[(String, Value)]) {
    let Value::String(text) = &*field else { return };
    let (mut out, mut rest) = (String::new(), text.as_str());
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        match rest.chars().next() {
            None => out.push('$'),
            Some('$') => {
                out.push('$');
                rest = &rest[1..];
            }
            Some('(') => match rest.find(')') {
                Some(end) => {
                    let name = &rest[1..end];
                    let value = values.iter().find(|(known, value)| known == name && !value.is_object() && !value.is_array()).map(|(_, value)| value);
                    if let (Some(value), true) = (value, text.len() == name.len() + 3) {
                        // The whole text: its type is kept.
                        *field = value.clone();
                        return;
                    }
                    out.push_str(&value.map_or_else(|| format!("$({name})"), plain));
                    rest = &rest[end + 1..];
                }
                None => {
                    out.push_str("$(");
                    rest = &rest[1..];
                }
            },
            Some(c) => {
                out.push('$');
                out.push(c);
                rest = &rest[c.len_utf8()..];
            }
        }
    }
    out.push_str(rest);
    *field = out.into();
}
