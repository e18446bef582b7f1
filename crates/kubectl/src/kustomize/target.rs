//! One kustomization: its resources and those of the kustomizations it names, made and changed in the order upstream's does it.
//!
//! Mirrors kustomize's KustTarget and ResAccumulator.

use std::rc::Rc;

use super::config::Config;
use super::kustomization::{COMPONENT, GeneratorOptions, Kustomization, Variable, decode};
use super::loader::{Loader, is_url};
use super::resource::read;
use super::resources::Resources;
use super::transform::{self, Affix};
use super::{fields::FieldSpec, generate, patches, replacements, variables};
use crate::error::{Error, Result, fail};
use crate::yaml;

/// What has been gathered so far.
#[derive(Default)]
pub struct Gathered {
    pub resources: Resources,
    pub config: Config,
    pub variables: Vec<Variable>,
}

impl Gathered {
    fn merge(&mut self, other: Gathered) -> Result<()> {
        self.resources.append_all(other.resources.0)?;
        self.config.merge(&other.config)?;
        other.variables.into_iter().try_for_each(|variable| variables::add(&mut self.variables, variable))
    }
}

fn within(what: impl std::fmt::Display) -> impl Fn(Error) -> Error {
    move |error| match error {
        Error::Hinted { error, hint } => Error::Message(format!("{what}: {error}")).hint(hint),
        error => Error::Message(format!("{what}: {error}")),
    }
}

/// A kustomization's file, and where it is.
pub struct Target {
    loader: Rc<Loader>,
    pub file: Kustomization,
}

impl Target {
    pub fn load(loader: Rc<Loader>) -> Result<Self> {
        let text = loader.kustomization()?;
        let file = Kustomization::parse(&text, &loader.root.display().to_string())?;
        Ok(Self { loader, file })
    }

    pub fn gather(&self, mut gathered: Gathered) -> Result<Gathered> {
        let file = &self.file;
        for path in file.resources.iter().flatten() {
            gathered = self.resource(gathered, path).map_err(within("accumulating resources"))?;
        }
        let mut config = Config::builtin();
        for path in file.configurations.iter().flatten() {
            config.merge(&decode(yaml::parse(&self.loader.text(path)?).map_err(Error::Message)?)?)?;
        }
        gathered.config.merge(&config)?;
        file.refused()?;
        self.generate(&mut gathered.resources)?;
        for path in file.components.iter().flatten() {
            gathered = self.component(gathered, path).map_err(within("accumulating components"))?;
        }
        self.transform(&mut gathered)?;
        variables::collect(&mut gathered.variables, &mut gathered.resources, file.vars.as_deref().unwrap_or_default()).map_err(within("merging vars"))?;
        Ok(gathered)
    }

    fn resource(&self, mut gathered: Gathered, path: &str) -> Result<Gathered> {
        let file = (|| {
            let text = self.loader.text(path)?;
            let resources = read(&text).map_err(|error| {
                let malformed = error.to_string().starts_with("MalformedYAMLError");
                if malformed { Error::Message(format!("{error} in File: {path}")) } else { error }
            })?;
            gathered.resources.append_all(resources).map_err(within(format_args!("merging resources from '{path}'")))
        })()
        .map_err(|error| if error.to_string().starts_with("merging resources") { error } else { within(format_args!("accumulating resources from '{path}'"))(error) });
        let Err(of_file) = file else { return Ok(gathered) };
        if is_url(path) {
            return Err(of_file);
        }
        let told = format!("accumulation err='{of_file}'");
        let loader = match self.loader.other(path) {
            Ok(loader) => loader,
            Err(_) if of_file.to_string().contains("MalformedYAMLError") => return Err(of_file),
            Err(error) => return Err(within(told)(error)),
        };
        self.folder(gathered, loader, false).map_err(within(told))
    }

    fn component(&self, gathered: Gathered, path: &str) -> Result<Gathered> {
        let loader = self.loader.other(path).map_err(|error| Error::Message(format!("loader.New {:?}", error.to_string())))?;
        self.folder(gathered, loader, true).map_err(|error| Error::Message(format!("accumulateDirectory: {:?}", error.to_string())))
    }

    fn folder(&self, mut gathered: Gathered, loader: Rc<Loader>, component: bool) -> Result<Gathered> {
        let root = loader.root.display().to_string();
        let target = Target::load(loader).map_err(within(format_args!("couldn't make target for path '{root}'")))?;
        match (component, target.file.kind == COMPONENT) {
            (true, false) => return fail(format!("expected kind '{COMPONENT}' for path '{root}' but got '{}'", target.file.kind)),
            (false, true) => return fail(format!("expected kind != '{COMPONENT}' for path '{root}'")),
            _ => {}
        }
        let recursed = within(format!("recursed accumulation of path '{root}'"));
        if component {
            // A component goes on with what is there already.
            return target.gather(gathered).map_err(recursed);
        }
        let below = target.gather(Gathered::default()).map_err(recursed)?;
        gathered.merge(below).map_err(within(format_args!("recursed merging from path '{root}'")))?;
        Ok(gathered)
    }

    fn generate(&self, resources: &mut Resources) -> Result<()> {
        let all = self.file.generator_options.clone().unwrap_or_default();
        let none = GeneratorOptions::default();
        for (list, make) in [(&self.file.config_map_generator, generate::config_map as fn(&Loader, &_, &_) -> _), (&self.file.secret_generator, generate::secret)] {
            for generator in list.iter().flatten() {
                let options = generator.options.as_ref().unwrap_or(&none).with(&all);
                let made = make(&self.loader, generator, &options)?;
                resources.absorb(made).map_err(within("merging from generator"))?;
            }
        }
        Ok(())
    }

    fn transform(&self, gathered: &mut Gathered) -> Result<()> {
        let (file, loader) = (&self.file, &self.loader);
        let Gathered { resources, config, .. } = gathered;
        if let Some(paths) = file.patches_strategic_merge.as_ref().filter(|paths| !paths.is_empty()) {
            patches::strategic_merge(resources, loader, paths)?;
        }
        for patch in file.patches.iter().flatten() {
            patches::apply(resources, loader, patch)?;
        }
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        if let Some(namespace) = given(&file.namespace) {
            transform::namespace(resources, &namespace, &config.namespace)?;
        }
        if let Some(prefix) = given(&file.name_prefix) {
            transform::affix(resources, Affix::Prefix, &prefix, &config.name_prefix)?;
        }
        if let Some(suffix) = given(&file.name_suffix) {
            transform::affix(resources, Affix::Suffix, &suffix, &config.name_suffix)?;
        }
        for label in file.labels.iter().flatten() {
            let mut specs = label.fields.clone();
            let merge = |specs: &mut Vec<FieldSpec>, more: &[FieldSpec]| FieldSpec::merge(specs, more).map_err(within("failed to merge labels"));
            merge(&mut specs, &config.labels)?;
            if label.include_selectors {
                merge(&mut specs, &config.common_labels)?;
            } else {
                if label.include_templates {
                    merge(&mut specs, &config.template_labels)?;
                }
                merge(&mut specs, &[FieldSpec { path: "metadata/labels".into(), create: true, ..FieldSpec::default() }])?;
            }
            transform::texts(resources, &label.pairs.clone().unwrap_or_default(), &specs)?;
        }
        transform::texts(resources, &file.common_labels.clone().unwrap_or_default(), &config.common_labels)?;
        transform::texts(resources, &file.common_annotations.clone().unwrap_or_default(), &config.common_annotations)?;
        for patch in file.patches_json6902.iter().flatten() {
            patches::json6902(resources, loader, patch)?;
        }
        for replica in file.replicas.iter().flatten() {
            transform::replicas(resources, replica, &config.replicas)?;
        }
        for image in file.images.iter().flatten() {
            transform::image(resources, image, &config.images)?;
        }
        replacements::apply(resources, loader, file.replacements.as_deref().unwrap_or_default())
    }
}
