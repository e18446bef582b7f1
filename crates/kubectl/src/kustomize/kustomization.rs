//! The file `kustomization.yaml`.
//!
//! Mirrors kustomize's types.Kustomization: what is unknown is refused, what is old is warned of and read as its successor.

use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

use super::fields::FieldSpec;
use super::id::Gvk;
use super::resources::Selector;
use crate::error::{Error, Result, fail};
use crate::{output, yaml};

pub const FILE_NAMES: [&str; 3] = ["kustomization.yaml", "kustomization.yml", "Kustomization"];
pub const COMPONENT: &str = "Component";
const KUSTOMIZATION: &str = "Kustomization";

type Texts = BTreeMap<String, String>;

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Kustomization {
    pub api_version: String,
    pub kind: String,
    pub metadata: Option<Value>,
    pub openapi: Option<BTreeMap<String, String>>,
    pub name_prefix: Option<String>,
    pub name_suffix: Option<String>,
    pub namespace: Option<String>,
    pub common_labels: Option<Texts>,
    pub labels: Option<Vec<Label>>,
    pub common_annotations: Option<Texts>,
    pub patches_strategic_merge: Option<Vec<String>>,
    #[serde(rename = "patchesJson6902")]
    pub patches_json6902: Option<Vec<Patch>>,
    pub patches: Option<Vec<Patch>>,
    pub images: Option<Vec<Image>>,
    pub image_tags: Option<Vec<Image>>,
    pub replacements: Option<Vec<Replacement>>,
    pub replicas: Option<Vec<Replica>>,
    pub vars: Option<Vec<Variable>>,
    pub sort_options: Option<SortOptions>,
    pub resources: Option<Vec<String>>,
    pub components: Option<Vec<String>>,
    pub crds: Option<Vec<String>>,
    pub bases: Option<Vec<String>>,
    pub config_map_generator: Option<Vec<Generator>>,
    pub secret_generator: Option<Vec<Generator>>,
    pub helm_globals: Option<Value>,
    pub helm_charts: Option<Vec<Value>>,
    pub helm_chart_inflation_generator: Option<Vec<Value>>,
    pub generator_options: Option<GeneratorOptions>,
    pub configurations: Option<Vec<String>>,
    pub generators: Option<Vec<String>>,
    pub transformers: Option<Vec<String>>,
    pub validators: Option<Vec<String>>,
    pub build_metadata: Option<Vec<String>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Label {
    pub pairs: Option<Texts>,
    pub include_selectors: bool,
    pub include_templates: bool,
    pub fields: Vec<FieldSpec>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Patch {
    pub path: String,
    pub patch: String,
    pub target: Option<Selector>,
    pub options: PatchOptions,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct PatchOptions {
    pub allow_name_change: bool,
    pub allow_kind_change: bool,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Image {
    pub name: String,
    pub new_name: String,
    pub tag_suffix: String,
    pub new_tag: String,
    pub digest: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Replica {
    pub name: String,
    pub count: i64,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Replacement {
    pub path: String,
    pub source: Option<Source>,
    pub source_value: Option<String>,
    pub targets: Option<Vec<Target>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Source {
    pub group: String,
    pub version: String,
    pub kind: String,
    pub name: String,
    pub namespace: String,
    pub field_path: String,
    pub options: FieldOptions,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Target {
    pub select: Option<Selector>,
    pub reject: Vec<Selector>,
    pub field_paths: Vec<String>,
    pub options: FieldOptions,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct FieldOptions {
    pub delimiter: String,
    pub index: i64,
    pub encoding: String,
    pub create: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Variable {
    pub name: String,
    pub objref: ObjectReference,
    pub fieldref: FieldReference,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct ObjectReference {
    pub api_version: String,
    pub group: String,
    pub version: String,
    pub kind: String,
    pub name: String,
    pub namespace: String,
}

impl ObjectReference {
    pub fn gvk(&self) -> Gvk {
        if self.api_version.is_empty() {
            return Gvk { group: self.group.clone(), version: self.version.clone(), kind: self.kind.clone() };
        }
        Gvk::of(&self.api_version, &self.kind)
    }
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct FieldReference {
    pub field_path: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct SortOptions {
    pub order: String,
    pub legacy_sort_options: Option<LegacySortOptions>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct LegacySortOptions {
    pub order_first: Vec<String>,
    pub order_last: Vec<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Generator {
    pub name: String,
    pub namespace: String,
    pub behavior: String,
    pub literals: Vec<String>,
    pub files: Vec<String>,
    pub envs: Vec<String>,
    pub env: String,
    pub options: Option<GeneratorOptions>,
    /// Of secrets only.
    #[serde(rename = "type")]
    pub secret_type: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct GeneratorOptions {
    pub labels: Texts,
    pub annotations: Texts,
    pub disable_name_suffix_hash: bool,
    pub immutable: bool,
}

impl GeneratorOptions {
    /// Its own, and what `all` says beside them.
    pub fn with(&self, all: &GeneratorOptions) -> Self {
        let both = |mine: &Texts, all: &Texts| all.clone().into_iter().chain(mine.clone()).collect();
        Self {
            labels: both(&self.labels, &all.labels),
            annotations: both(&self.annotations, &all.annotations),
            disable_name_suffix_hash: self.disable_name_suffix_hash || all.disable_name_suffix_hash,
            immutable: self.immutable || all.immutable,
        }
    }
}

/// A null is what stands for nothing, as for Go.
fn without_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(without_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(without_nulls),
        _ => {}
    }
}

pub fn decode<T: serde::de::DeserializeOwned>(mut value: Value) -> Result<T> {
    without_nulls(&mut value);
    serde_json::from_value(value).map_err(|error| {
        let text = error.to_string();
        let unknown = text.strip_prefix("unknown field `").and_then(|rest| rest.split_once('`')).map(|(name, _)| format!("json: unknown field {name:?}"));
        Error::Message(unknown.unwrap_or(format!("json: {text}")))
    })
}

fn deprecated(field: &str, instead: &str, experimental: bool) {
    let mark = if experimental { "[EXPERIMENTAL] " } else { "" };
    output::complain(format!("# Warning: '{field}' is deprecated. Please use '{instead}' instead. {mark}Run 'kustomize edit fix' to update your Kustomization automatically."));
}

impl Kustomization {
    /// `root` is the folder, for what is told.
    pub fn parse(text: &str, root: &str) -> Result<Self> {
        let invalid = |error: Error| Error::Message(format!("invalid Kustomization: {error}"));
        let value = yaml::parse(text).map_err(|error| invalid(Error::Message(format!("yaml: {error}"))))?;
        let said = value.as_object().map_or(0, |map| map.iter().filter(|(key, value)| !matches!(key.as_str(), "apiVersion" | "kind") && !value.is_null()).count());
        let mut file: Kustomization = if value.is_null() { Self::default() } else { decode(value).map_err(invalid)? };
        for (given, field, instead, experimental) in [
            (file.bases.is_some(), "bases", "resources", false),
            (file.common_labels.is_some(), "commonLabels", "labels", false),
            (file.image_tags.is_some(), "imageTags", "images", false),
            (file.patches_json6902.is_some(), "patchesJson6902", "patches", false),
            (file.patches_strategic_merge.is_some(), "patchesStrategicMerge", "patches", false),
            (file.vars.is_some(), "vars", "replacements", true),
        ] {
            if given {
                deprecated(field, instead, experimental);
            }
        }
        if said == 0 {
            return fail("kustomization.yaml is empty");
        }
        file.fix(root)?;
        Ok(file)
    }

    fn fix(&mut self, root: &str) -> Result<()> {
        if self.kind.is_empty() {
            self.kind = KUSTOMIZATION.into();
        }
        let wanted = if self.kind == COMPONENT { "kustomize.config.k8s.io/v1alpha1" } else { "kustomize.config.k8s.io/v1beta1" };
        let mut wrong = Vec::new();
        if self.kind != KUSTOMIZATION && self.kind != COMPONENT {
            wrong.push(format!("kind should be {KUSTOMIZATION} or {COMPONENT}"));
        }
        if !self.api_version.is_empty() && self.api_version != wanted {
            wrong.push(format!("apiVersion for {} should be {wanted}", self.kind));
        }
        if !wrong.is_empty() {
            return fail(format!("Failed to read kustomization file under {root}:\n{}", wrong.join("\n")));
        }
        if let Some(bases) = self.bases.take() {
            self.resources.get_or_insert_default().extend(bases);
        }
        if let Some(images) = self.image_tags.take() {
            self.images.get_or_insert_default().extend(images);
        }
        for generator in self.config_map_generator.iter_mut().chain(&mut self.secret_generator).flatten() {
            if !generator.env.is_empty() {
                let env = std::mem::take(&mut generator.env);
                generator.envs.push(env);
            }
        }
        Ok(())
    }

    /// What no part of this program does.
    pub fn refused(&self) -> Result<()> {
        if let Some(chart) = self.helm_charts.iter().chain(&self.helm_chart_inflation_generator).flatten().next() {
            return Err(Error::Message(format!("trouble configuring builtin HelmChartInflationGenerator with config: `\n{}`: must specify --enable-helm", yaml::emit(chart)))
                .hint("Coracle's kustomize makes nothing of Helm charts; render the chart (helm template) and name the file under resources"));
        }
        for (given, field) in [(&self.generators, "generators"), (&self.validators, "validators"), (&self.transformers, "transformers")] {
            if given.as_ref().is_some_and(|list| !list.is_empty()) {
                return fail(format!("external plugins disabled; unable to load external plugins of '{field}'"));
            }
        }
        Ok(())
    }
}
