//! What refers to a resource whose name changed gets the new one.
//!
//! Mirrors kustomize's nameref filter: who can be meant by an old name, in which namespace, from which layer.

use serde_json::Value;

use super::config::{Config, NameReference};
use super::fields::{FieldSpec, Make, plain, visit};
use super::id::{Gvk, Id};
use super::resource::Resource;
use super::resources::Resources;
use crate::error::{Result, fail};

pub fn fix(resources: &mut Resources, config: &Config) -> Result<()> {
    let known = resources.0.clone();
    for resource in &mut resources.0 {
        let first = resource.original_id();
        let before = resource.clone();
        let reachable = candidates(&known, &before);
        for reference in &config.name_reference {
            for spec in reference.field_specs.iter().filter(|spec| first.gvk.selected(&spec.gvk)) {
                let search = Search { referrer: &before, reference, spec, reachable: &reachable };
                let now = resource.id();
                let spec = FieldSpec { gvk: Gvk::default(), ..spec.clone() };
                visit(&mut resource.value, &now, &spec, Make::Nothing, &mut |field| search.set(field)).map_err(|error| {
                    crate::error::Error::Message(format!("updating name reference in '{}' field of '{now}': {error}", spec.path))
                })?;
            }
        }
    }
    Ok(())
}

/// What the referrer can refer to at all.
fn candidates<'a>(known: &'a [Resource], referrer: &Resource) -> Vec<&'a Resource> {
    let id = referrer.id();
    if id.cluster_scoped() {
        return known.iter().collect();
    }
    let accounts: Vec<&str> = if referrer.kind() == "RoleBinding" {
        let subjects = referrer.value.get("subjects").and_then(Value::as_array).into_iter().flatten();
        subjects.filter(|subject| subject["kind"] == "ServiceAccount").filter_map(|subject| subject["namespace"].as_str()).collect()
    } else {
        Vec::new()
    };
    known.iter().filter(|other| other.id().cluster_scoped() || other.id().same_namespace(&id) || accounts.contains(&other.namespace())).collect()
}

struct Search<'a> {
    referrer: &'a Resource,
    reference: &'a NameReference,
    spec: &'a FieldSpec,
    reachable: &'a [&'a Resource],
}

impl Search<'_> {
    fn set(&self, field: &mut Value) -> Result<()> {
        match field {
            Value::Null => Ok(()),
            Value::Object(_) => self.set_object(field),
            Value::Array(items) => items.iter_mut().try_for_each(|item| if item.is_object() { self.set_object(item) } else { self.set_scalar(item) }),
            _ => self.set_scalar(field),
        }
    }

    fn set_scalar(&self, field: &mut Value) -> Result<()> {
        let same = |a: &Resource, b: &Resource| a.name() == b.name();
        if let Some(found) = self.select(&plain(field), self.reachable.to_vec(), same)? {
            *field = found.name().into();
        }
        Ok(())
    }

    /// A name beside a namespace, as subjects have it.
    fn set_object(&self, field: &mut Value) -> Result<()> {
        let Some(name) = field.get("name").map(plain) else { return fail("path config error; no 'name' field in node") };
        let reachable = match field.get("namespace") {
            None => self.reachable.to_vec(),
            Some(namespace) => {
                let namespace = plain(namespace);
                let within = |of: &dyn Fn(&Resource) -> Id| self.reachable.iter().copied().filter(|one| of(one).effective_namespace() == namespace).collect::<Vec<_>>();
                match within(&Resource::original_id) {
                    none if none.is_empty() => within(&Resource::id),
                    some => some,
                }
            }
        };
        let same = |a: &Resource, b: &Resource| a.name() == b.name() && a.namespace() == b.namespace();
        if let Some(found) = self.select(&name, reachable, same)? {
            field["name"] = found.name().into();
            if !found.namespace().is_empty() {
                field["namespace"] = found.namespace().into();
            }
        }
        Ok(())
    }

    fn select<'b>(&self, name: &str, mut found: Vec<&'b Resource>, same: impl Fn(&Resource, &Resource) -> bool) -> Result<Option<&'b Resource>> {
        let referrer = self.referrer.id();
        found.retain(|one| one.previous_ids().iter().any(|id| id.name == name));
        found.retain(|one| one.previous_ids().iter().any(|id| id.gvk.selected(&self.reference.gvk)));
        if self.spec.path.ends_with("roleRef/name") {
            let of = |key: &str| self.referrer.value.pointer(&format!("/roleRef/{key}")).map(plain);
            if let (Some(group), Some(kind)) = (of("apiGroup"), of("kind")) {
                let role = Gvk { group, version: String::new(), kind };
                found.retain(|one| one.previous_ids().iter().any(|id| id.gvk.selected(&role)));
            }
        }
        if !referrer.cluster_scoped() {
            found.retain(|one| one.id().cluster_scoped() || one.kind() == "ServiceAccount" || one.id().same_namespace(&referrer));
        }
        if found.len() > 1 {
            found.retain(|one| one.affixes_fit(self.referrer, true));
        }
        if found.len() > 1 {
            found.retain(|one| one.affixes_fit(self.referrer, false));
        }
        match found[..] {
            [] => Ok(None),
            [first, ref rest @ ..] if rest.iter().all(|other| same(first, other)) => Ok(Some(first)),
            _ => {
                let ids: Vec<String> = found.iter().map(|one| one.id().to_string()).collect();
                let mut told = format!("found multiple possible referrals: {}\n\n**** Too many possible referral targets to referrer:\n{}\n", ids.join(", "), crate::yaml::emit(&self.referrer.value));
                for (at, one) in found.iter().enumerate() {
                    told.push_str(&format!("--- possible referral {at}:\n{}\n", crate::yaml::emit(&one.value)));
                }
                fail(told)
            }
        }
    }
}
