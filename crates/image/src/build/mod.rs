//! `build`: a Dockerfile and a context directory become an image in the store.
//!
//! Mirrors the classic builder: one step per instruction, its output lines, its cache (a step is reused when its
//! instruction, what it copies and everything before it are the same). Layers are deterministic: copied files carry no
//! time of day. RUN goes through [`RunStep`], so that this crate needs no container engine.

mod cache;
mod chroot;
mod context;
mod copy;
mod glob;
mod run;
mod stage;
mod steps;
mod users;

pub use chroot::ChrootRunner;
pub use run::{RunRequest, RunStep};
pub use users::{LookupError, UserIds, lookup as lookup_user};

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;

use crate::dockerfile::{self, ExpandError, ParseError};
use crate::layer::LayerError;
use crate::oci::architecture;
use crate::reference::{InvalidReference, Reference};
use crate::store::{Image, Store, StoreError};
use crate::unpack::UnpackError;

use stage::Stage;
use steps::Arguments;

/// Brings a base image into the store when it is not there.
pub type Pull = Arc<dyn Fn(&str) -> Result<(), String> + Send + Sync>;

#[derive(Default, Clone)]
pub struct BuildOptions {
    /// The directory COPY and ADD read.
    pub context: PathBuf,
    /// `<context>/Dockerfile` when absent.
    pub dockerfile: Option<PathBuf>,
    pub tags: Vec<String>,
    pub build_args: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
    /// Stop after this stage.
    pub target: Option<String>,
    pub no_cache: bool,
    /// RFC 3339 time put into the image; now when absent.
    pub created: Option<String>,
    pub pull: Option<Pull>,
}

#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error("unable to read Dockerfile {path:?}: {source}")]
    Dockerfile { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Parse(#[from] ParseError),
    #[error("failed to process {word:?}: {source}")]
    Expand { word: String, source: ExpandError },
    #[error("Dockerfile line {line}: {message}")]
    Instruction { line: usize, message: String },
    #[error("{0}")]
    Copy(String),
    #[error("pull access denied for {0}: not in the local store, and it could not be pulled{1}")]
    NoBase(String, String),
    #[error("failed to reach build target {0} in Dockerfile")]
    NoTarget(String),
    #[error("The command '{command}' returned a non-zero code: {code}")]
    Run { command: String, code: i32 },
    #[error("running '{command}': {source}")]
    Runner { command: String, source: io::Error },
    #[error(transparent)]
    Layer(#[from] LayerError),
    #[error(transparent)]
    Unpack(#[from] UnpackError),
    #[error(transparent)]
    Reference(#[from] InvalidReference),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("writing build output: {0}")]
    Output(#[source] io::Error),
}

/// Builds, printing progress to `out`. Blocking; nothing is tagged unless everything succeeded.
pub fn build(store: &Store, options: &BuildOptions, runner: &dyn RunStep, out: &mut dyn Write) -> Result<Image, BuildError> {
    let path = options.dockerfile.clone().unwrap_or_else(|| options.context.join("Dockerfile"));
    let text = fs::read_to_string(&path).map_err(|source| BuildError::Dockerfile { path: path.clone(), source })?;
    let tags = options.tags.iter().map(|t| Reference::parse(t)).collect::<Result<Vec<_>, _>>()?;
    let file = dockerfile::parse(&text)?;
    let context = context::Context::open(&options.context, &path)?;
    let _adding = store.adding()?;
    let created = options.created.clone().unwrap_or_else(|| jiff::Timestamp::now().to_string());
    let mut builder = Builder {
        store,
        options,
        runner,
        out,
        context,
        created,
        escape: file.escape,
        stages: Vec::new(),
        global_arguments: predefined(),
        used_arguments: Default::default(),
    };
    let mut steps = file.instructions.as_slice();
    if let Some(target) = &options.target {
        steps = &steps[..builder.target_end(steps, target)?];
    }
    for (number, instruction) in steps.iter().enumerate() {
        builder.say(format_args!("Step {}/{} : {}", number + 1, steps.len(), instruction.original))?;
        builder.step(instruction)?;
    }
    builder.finish(&tags)
}

/// The images a Dockerfile starts from, for a caller that wants to pull them first. Names with variables are left out.
pub fn base_images(text: &str) -> Result<Vec<String>, ParseError> {
    let file = dockerfile::parse(text)?;
    let mut stages = Vec::new();
    let mut bases = Vec::new();
    for instruction in file.instructions.iter().filter(|i| i.keyword == "FROM") {
        let words: Vec<&str> = instruction.rest.split_whitespace().collect();
        if let [base, ..] = words[..]
            && base != "scratch"
            && !base.contains('$')
            && !stages.contains(&base.to_lowercase())
        {
            bases.push(base.to_owned());
        }
        if let [_, as_, name] = words[..]
            && as_.eq_ignore_ascii_case("as")
        {
            stages.push(name.to_lowercase());
        }
    }
    Ok(bases)
}

/// Arguments that need no ARG before FROM (the automatic platform ones).
fn predefined() -> Arguments {
    let architecture = architecture();
    [
        ("TARGETPLATFORM", format!("linux/{architecture}")),
        ("TARGETOS", "linux".to_owned()),
        ("TARGETARCH", architecture.to_owned()),
        ("BUILDPLATFORM", format!("linux/{architecture}")),
        ("BUILDOS", "linux".to_owned()),
        ("BUILDARCH", architecture.to_owned()),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), Some(value)))
    .collect()
}

struct Builder<'a> {
    store: &'a Store,
    options: &'a BuildOptions,
    runner: &'a dyn RunStep,
    out: &'a mut dyn Write,
    context: context::Context,
    created: String,
    escape: char,
    /// The last one is being built.
    stages: Vec<Stage>,
    global_arguments: Arguments,
    used_arguments: std::collections::BTreeSet<String>,
}

impl Builder<'_> {
    fn say(&mut self, line: std::fmt::Arguments<'_>) -> Result<(), BuildError> {
        writeln!(self.out, "{line}").and_then(|()| self.out.flush()).map_err(BuildError::Output)
    }

    fn finish(mut self, tags: &[Reference]) -> Result<Image, BuildError> {
        if !self.options.labels.is_empty() {
            let labels = self.options.labels.clone();
            let line = format!("LABEL {}", labels.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(" "));
            self.commit(&line, &[], |_, stage| {
                stage.config.config.labels.extend(labels);
                Ok(None)
            })?;
        }
        let unused: Vec<&str> =
            self.options.build_args.keys().map(String::as_str).filter(|name| !self.used_arguments.contains(*name)).collect();
        if !unused.is_empty() {
            let line = format!("[Warning] One or more build-args [{}] were not consumed", unused.join(" "));
            self.say(format_args!("{line}"))?;
        }
        let Some(stage) = self.stages.last() else {
            return Err(BuildError::Instruction { line: 1, message: "no build stage in current context".into() });
        };
        let manifest = stage.write(self.store)?;
        let names: Vec<String> = tags.iter().map(Reference::to_string).collect();
        self.store.name_image(&manifest, &names)?;
        let image = self.store.resolve(manifest.as_str())?.ok_or_else(|| StoreError::NotFound(manifest.to_string()))?;
        self.say(format_args!("Successfully built {}", image.id.short()))?;
        for tag in tags {
            self.say(format_args!("Successfully tagged {}", tag.familiar()))?;
        }
        Ok(image)
    }
}

#[cfg(test)]
mod tests;
