//! The resources of a build, in order, and how they are found among each other.
//!
//! Mirrors kustomize's ResMap.

use api::selector::LabelSelector;
use regex::Regex;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::id::Id;
use super::resource::{Behavior, Resource};
use crate::error::{Error, Result, fail};

#[derive(Debug, Clone, Default)]
pub struct Resources(pub Vec<Resource>);

/// Which resources; every text is a pattern for the whole of what it is held against.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Selector {
    pub group: String,
    pub version: String,
    pub kind: String,
    pub name: String,
    pub namespace: String,
    pub annotation_selector: String,
    pub label_selector: String,
}

/// A selector, made ready.
pub struct Pattern {
    parts: [Option<Regex>; 5],
    labels: LabelSelector,
    annotations: LabelSelector,
    /// Has it any pattern at all (rather than only selectors of labels)?
    pub names_something: bool,
    pub selects_labels: bool,
}

impl Selector {
    pub fn pattern(&self) -> Result<Pattern> {
        let compile = |text: &str| -> Result<Option<Regex>> {
            if text.is_empty() {
                return Ok(None);
            }
            Regex::new(&format!("^(?:{text})$")).map(Some).map_err(|error| Error::Message(format!("error parsing regexp: {error}")))
        };
        let labels = |text: &str| LabelSelector::parse(text).map_err(Error::Message);
        let parts = [compile(&self.group)?, compile(&self.version)?, compile(&self.kind)?, compile(&self.name)?, compile(&self.namespace)?];
        let names_something = parts.iter().any(Option::is_some);
        let selects_labels = !self.label_selector.is_empty() || !self.annotation_selector.is_empty();
        Ok(Pattern { parts, labels: labels(&self.label_selector)?, annotations: labels(&self.annotation_selector)?, names_something, selects_labels })
    }
}

impl Pattern {
    fn fits(&self, part: usize, text: &str) -> bool {
        self.parts[part].as_ref().is_none_or(|pattern| pattern.is_match(text))
    }

    pub fn fits_kind(&self, id: &Id) -> bool {
        self.fits(0, &id.gvk.group) && self.fits(1, &id.gvk.version) && self.fits(2, &id.gvk.kind)
    }

    pub fn fits_id(&self, id: &Id) -> bool {
        self.fits_kind(id) && self.fits(3, &id.name) && self.fits(4, &id.namespace)
    }

    pub fn fits_labels(&self, resource: &Resource) -> bool {
        let none = Map::new();
        let of = |key: &str| resource.value.pointer(&format!("/metadata/{key}")).and_then(Value::as_object).unwrap_or(&none);
        self.labels.matches(of("labels")) && self.annotations.matches(of("annotations"))
    }

    /// By its first name or its present one.
    pub fn fits_resource(&self, resource: &Resource) -> bool {
        let (now, first) = (resource.id(), resource.original_id());
        (self.fits(4, first.effective_namespace()) || self.fits(4, now.effective_namespace()))
            && (self.fits(3, &first.name) || self.fits(3, &now.name))
            && self.fits_kind(&now)
            && self.fits_labels(resource)
    }
}

impl Resources {
    pub fn append(&mut self, resource: Resource) -> Result<()> {
        let id = resource.id();
        if self.0.iter().any(|known| known.id().same(&id)) {
            return fail(format!("may not add resource with an already registered id: {id}"));
        }
        self.0.push(resource);
        Ok(())
    }

    pub fn append_all(&mut self, resources: impl IntoIterator<Item = Resource>) -> Result<()> {
        resources.into_iter().try_for_each(|resource| self.append(resource))
    }

    /// Where resources stand that have, or had, a name that `matches`.
    pub fn by_any_id(&self, matches: impl Fn(&Id) -> bool) -> Vec<usize> {
        self.0.iter().enumerate().filter(|(_, resource)| resource.ids().iter().any(&matches)).map(|(at, _)| at).collect()
    }

    /// The one that is meant by a patch.
    pub fn target(&self, id: &Id) -> Result<usize> {
        match self.by_any_id(|known| id.same(known))[..] {
            [one] => Ok(one),
            [] => fail(format!("no matches for Id {id}; failed to find unique target for patch {id}")),
            _ => fail(format!("multiple matches for Id {id}; failed to find unique target for patch {id}")),
        }
    }

    /// Takes in what a generator made.
    pub fn absorb(&mut self, mut resource: Resource) -> Result<()> {
        let id = resource.id();
        let go = format!("resid.ResId{{Gvk:resid.Gvk{{Group:{:?}, Version:{:?}, Kind:{:?}, isClusterScoped:false}}, Name:{:?}, Namespace:{:?}}}", id.gvk.group, id.gvk.version, id.gvk.kind, id.name, id.namespace);
        match (&self.by_any_id(|known| id.same(known))[..], resource.behavior) {
            ([], Behavior::Merge | Behavior::Replace) => fail(format!("id {go} does not exist; cannot merge or replace")),
            ([], _) => self.append(resource),
            ([one], Behavior::Replace | Behavior::Merge) => {
                let merges = resource.behavior == Behavior::Merge;
                let old = &mut self.0[*one];
                resource.inherit(old);
                if merges {
                    resource.inherit_data(old);
                }
                *old = resource;
                Ok(())
            }
            ([_], behavior) => {
                let word = if behavior == Behavior::Create { "create" } else { "unspecified" };
                fail(format!("id {go} exists; can not use behavior: '{word}', behavior must be merge or replace"))
            }
            (many, _) => fail(format!("found multiple objects {many:?} that could accept merge of {id}")),
        }
    }

    /// Patches those at `places`; what a patch deletes goes.
    pub fn patch(&mut self, places: &[usize], patch: &Resource) -> Result<()> {
        let mut gone = Vec::new();
        for at in places {
            let mut own = patch.clone();
            own.value["apiVersion"] = self.0[*at].value["apiVersion"].clone();
            if !self.0[*at].patch(&own)? {
                gone.push(*at);
            }
        }
        let mut at = 0;
        self.0.retain(|_| {
            at += 1;
            !gone.contains(&(at - 1))
        });
        Ok(())
    }

    pub fn select(&self, selector: &Selector) -> Result<Vec<usize>> {
        let pattern = selector.pattern()?;
        Ok((0..self.0.len()).filter(|at| pattern.fits_resource(&self.0[*at])).collect())
    }
}
