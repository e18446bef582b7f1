//! COPY and ADD: sources from the context, another stage or another image; a layer of files out.

use std::fs::File;
use std::io;
use std::path::{Component, Path, PathBuf};

use crate::compress::{decompressed, is_tar};
use crate::digest::{Digest, Hasher, Hashing};
use crate::dockerfile::{Instruction, json_list};
use crate::layer::{LayerError, LayerWriter, Meta, Node, node_of};
use crate::unpack::{Whiteouts, unpack};
use crate::view::{Found, RootView};

use super::context::Ignore;
use super::steps::absolute;
use super::{BuildError, Builder, glob, users};

/// Where the files come from.
struct Source {
    view: RootView,
    /// Only the context has one.
    ignore: Ignore,
}

/// How copied files are owned, and their mode if it was given.
struct Ownership {
    uid: u32,
    gid: u32,
    mode: Option<u32>,
}

impl Ownership {
    fn apply(&self, mut meta: Meta) -> Meta {
        (meta.uid, meta.gid) = (self.uid, self.gid);
        if let Some(mode) = self.mode {
            meta.mode = mode;
        }
        // The time of a checkout is no content.
        meta.mtime = 0;
        meta
    }
}

impl Builder<'_> {
    pub(super) fn copy(&mut self, instruction: &Instruction) -> Result<(), BuildError> {
        let keyword = instruction.keyword.as_str();
        let at = |message: String| BuildError::Instruction { line: instruction.line, message };
        let mut words = match json_list(&instruction.rest) {
            Some(list) => list.iter().map(|w| self.expand(w)).collect::<Result<Vec<_>, _>>()?,
            None => self.expand_words(&instruction.rest)?,
        };
        let Some(destination) = words.pop().filter(|_| !words.is_empty()) else {
            return Err(at(format!("{keyword} requires at least two arguments")));
        };
        let remote = |w: &String| ["http://", "https://", "ftp://", "git@"].iter().any(|p| w.starts_with(p));
        if let Some(url) = words.iter().find(|w| remote(w)) {
            return Err(at(format!("{keyword} {url}: fetching URLs is not supported; download the file into the build context and COPY it")));
        }
        let source = self.source(instruction)?;
        let store = self.store;
        let stage = self.stage()?;
        let view = stage.view(store);
        let working_dir = stage.config.config.working_dir.clone();
        let owner = self.ownership(instruction, &view)?;

        // `.` and `/` at the end say "directory" too.
        let into_directory = destination.ends_with('/') || destination == "." || destination.ends_with("/.");
        let target = view.resolve(Path::new(&absolute(&working_dir, &destination))).map_err(|e| at(e.to_string()))?;
        let heredocs: Vec<(PathBuf, Node)> = {
            let mut inline = Vec::new();
            for heredoc in &instruction.heredocs {
                let content = if heredoc.expand { self.expand_text(&heredoc.content)? } else { heredoc.content.clone() };
                inline.push((PathBuf::from(&heredoc.name), Node::Inline(content.into_bytes())));
            }
            inline
        };
        words.retain(|w| !w.starts_with("<<"));
        let mut found = Vec::new();
        for word in &words {
            found.extend(source.find(word).map_err(|message| BuildError::Copy(format!("{keyword} failed: {message}")))?);
        }
        if found.is_empty() && heredocs.is_empty() {
            return Err(BuildError::Copy(format!("{keyword} failed: no source files were specified")));
        }
        if found.len() + heredocs.len() > 1 && !into_directory {
            return Err(BuildError::Copy(format!(
                "When using {keyword} with more than one source file, the destination must be a directory and end with a /"
            )));
        }
        let io_at = |e: io::Error| BuildError::Copy(format!("{keyword} failed: {e}"));
        let target_is_directory =
            into_directory || target.as_os_str().is_empty() || view.lstat(&target).map_err(io_at)?.is_some_and(|f| f.metadata.is_dir());

        let mut layer = LayerWriter::new();
        let parents = owner.apply(Meta::root(0o755));
        let parents = Meta { mode: 0o755, ..parents };
        let mut unpacked = Vec::new();
        for path in found {
            let Some(Found { real, metadata }) = source.view.lstat(&path).map_err(io_at)? else { continue };
            if metadata.is_dir() {
                add_directories(&view, &mut layer, &target, &parents, false)?;
                source.add_tree(&path, &view, &target, &owner, &mut layer)?;
                continue;
            }
            if keyword == "ADD" && metadata.is_file() && is_tar(File::open(&real).map_err(io_at)?).map_err(io_at)? {
                add_directories(&view, &mut layer, &target, &parents, false)?;
                unpacked.push(self.add_archive(&real, &view, &target, &mut layer)?);
                continue;
            }
            let name = match target_is_directory {
                true => target.join(path.file_name().unwrap_or_default()),
                false => target.clone(),
            };
            add_directories(&view, &mut layer, &name, &parents, true)?;
            if let Some(node) = node_of(&real, &metadata).map_err(io_at)? {
                layer.insert(name, node, owner.apply(Meta::of(&real, &metadata).map_err(io_at)?));
            }
        }
        for (name, node) in heredocs {
            let name = if target_is_directory { target.join(name) } else { target.clone() };
            add_directories(&view, &mut layer, &name, &parents, true)?;
            layer.insert(name, node, owner.apply(Meta::root(0o644)));
        }
        let content = content_key(&layer)?;
        let owner_key = format!("{}:{}:{:?}", owner.uid, owner.gid, owner.mode);
        let result = self.commit_layer(&instruction.original, &[content.as_str(), &owner_key], |builder| builder.write_layer(Some(layer)));
        drop(unpacked);
        result
    }

    fn source(&mut self, instruction: &Instruction) -> Result<Source, BuildError> {
        let Some(from) = instruction.flags.get("from") else {
            return Ok(Source { view: self.context.view.clone(), ignore: self.context.ignore.clone() });
        };
        let from = self.expand(from)?;
        let current = self.stages.len().saturating_sub(1);
        let earlier = &self.stages[..current];
        let stage = earlier
            .iter()
            .find(|s| s.name.as_deref() == Some(from.to_lowercase().as_str()))
            .or_else(|| earlier.get(from.parse::<usize>().ok()?));
        let view = match stage {
            Some(stage) => stage.view(self.store),
            None => self.base_stage(&from)?.view(self.store),
        };
        Ok(Source { view, ignore: Ignore::default() })
    }

    fn ownership(&self, instruction: &Instruction, view: &RootView) -> Result<Ownership, BuildError> {
        let at = |message: String| BuildError::Instruction { line: instruction.line, message };
        let mut owner = Ownership { uid: 0, gid: 0, mode: None };
        if let Some(chown) = instruction.flags.get("chown") {
            let chown = self.expand(chown)?;
            let ids = users::lookup(view, &chown).map_err(|e| at(e.to_string()))?;
            // A bare number without an entry is its own group, as documented for COPY.
            (owner.uid, owner.gid) = (ids.uid, if ids.gid_known { ids.gid } else { ids.uid });
        }
        if let Some(chmod) = instruction.flags.get("chmod") {
            let chmod = self.expand(chmod)?;
            let mode = u32::from_str_radix(&chmod, 8).ok().filter(|m| *m <= 0o7777);
            owner.mode = Some(mode.ok_or_else(|| at(format!("invalid chmod parameter: '{chmod}'. it should be octal string and between 0 and 07777")))?);
        }
        Ok(owner)
    }

    /// Extracts beside the layer; the directory must live until the layer is written.
    fn add_archive(&self, archive: &Path, view: &RootView, target: &Path, layer: &mut LayerWriter) -> Result<tempfile::TempDir, BuildError> {
        let failed = |source| BuildError::Io { path: archive.to_owned(), source };
        let dir = tempfile::Builder::new().prefix("add.").tempdir_in(self.store.temporary()).map_err(failed)?;
        let stream = decompressed(File::open(archive).map_err(failed)?).map_err(failed)?;
        unpack(stream, dir.path(), Whiteouts::Literal)?;
        let mut content = LayerWriter::new();
        content.insert_upper(dir.path(), None)?;
        for (path, node, meta) in content.entries() {
            let (inside, kept) = settle(view, &target.join(path), matches!(node, Node::Directory))?;
            layer.insert(inside, node.clone(), kept.unwrap_or_else(|| meta.clone()));
        }
        Ok(dir)
    }

    /// A heredoc's variables; its quotes are text.
    fn expand_text(&self, text: &str) -> Result<String, BuildError> {
        let quoted = text.replace('"', "\\\"");
        self.expand(&format!("\"{quoted}\""))
    }
}

impl Source {
    /// The paths a source word means; the error is docker's.
    fn find(&self, word: &str) -> Result<Vec<PathBuf>, String> {
        let mut paths = vec![PathBuf::new()];
        let mut pattern = false;
        for component in Path::new(word).components() {
            let name = match component {
                Component::Normal(name) => name,
                Component::ParentDir => {
                    // Never above the root of the context.
                    paths.iter_mut().for_each(|p| _ = p.pop());
                    continue;
                }
                _ => continue,
            };
            let text = name.to_string_lossy();
            if !glob::is_pattern(&text) {
                paths.iter_mut().for_each(|p| p.push(name));
                continue;
            }
            pattern = true;
            let mut next = Vec::new();
            for path in paths {
                let directory = self.view.resolve(&path).map_err(|e| e.to_string())?;
                for entry in self.view.read_dir(&directory).map_err(|e| e.to_string())? {
                    if glob::matches(&text, &entry.to_string_lossy()) {
                        next.push(path.join(entry));
                    }
                }
            }
            paths = next;
        }
        let mut found = Vec::new();
        for path in paths {
            let resolved = self.view.resolve(&path).map_err(|e| e.to_string())?;
            let there = self.view.lstat(&resolved).map_err(|e| e.to_string())?.is_some();
            if there && !(self.ignore.excludes(&resolved) && !self.ignore.has_exceptions()) {
                found.push(resolved);
            } else if !pattern {
                return Err(format!(
                    "file not found in build context or excluded by .dockerignore: stat {}: file does not exist",
                    word.trim_start_matches('/')
                ));
            }
        }
        Ok(found)
    }

    /// The content of a directory, below `target`.
    fn add_tree(&self, directory: &Path, view: &RootView, target: &Path, owner: &Ownership, layer: &mut LayerWriter) -> Result<(), BuildError> {
        let failed = |source| BuildError::Io { path: directory.to_owned(), source };
        for name in self.view.read_dir(directory).map_err(failed)? {
            let path = directory.join(&name);
            let excluded = self.ignore.excludes(&path);
            let Some(Found { real, metadata }) = self.view.lstat(&path).map_err(failed)? else { continue };
            if excluded && !(metadata.is_dir() && self.ignore.has_exceptions()) {
                continue;
            }
            let (inside, kept) = settle(view, &target.join(&name), metadata.is_dir())?;
            let Some(node) = node_of(&real, &metadata).map_err(failed)? else { continue };
            let before = layer.entries().count();
            if metadata.is_dir() {
                self.add_tree(&path, view, &inside, owner, layer)?;
                // An excluded directory is there only for what was taken back in.
                if excluded && layer.entries().count() == before {
                    continue;
                }
            }
            let meta = owner.apply(Meta::of(&real, &metadata).map_err(failed)?);
            layer.insert(inside, node, kept.unwrap_or(meta));
        }
        Ok(())
    }
}

/// Where a path really comes to lie in the image, and what a directory that is there already keeps of itself. A symlink to
/// a directory stays one: what is copied "over" it goes to where it leads (`/lib` → `/usr/lib`).
fn settle(view: &RootView, path: &Path, directory: bool) -> Result<(PathBuf, Option<Meta>), BuildError> {
    let failed = |source| BuildError::Io { path: path.to_owned(), source };
    let settled = if directory { view.resolve(path) } else { view.resolve_parent(path) }.map_err(failed)?;
    if !directory {
        return Ok((settled, None));
    }
    match view.lstat(&settled).map_err(failed)? {
        Some(found) if found.metadata.is_dir() => Ok((settled, Some(Meta::of(&found.real, &found.metadata).map_err(failed)?))),
        // Something else is there, or nothing: the directory takes the name itself.
        _ => Ok((view.resolve_parent(path).map_err(failed)?, None)),
    }
}

/// Lists `path` (or its parents only) as directories of the layer: those the image has keep their owner and mode.
pub fn add_directories(view: &RootView, layer: &mut LayerWriter, path: &Path, new: &Meta, parents_only: bool) -> Result<(), BuildError> {
    let failed = |source| BuildError::Io { path: path.to_owned(), source };
    let path = if parents_only { path.parent().unwrap_or(Path::new("")) } else { path };
    let mut so_far = PathBuf::new();
    for component in path.components() {
        let Component::Normal(name) = component else { continue };
        so_far.push(name);
        let so_far = view.resolve(&so_far).map_err(failed)?;
        if layer.contains(&so_far) {
            continue;
        }
        let meta = match view.lstat(&so_far).map_err(failed)? {
            Some(found) if found.metadata.is_dir() => Meta::of(&found.real, &found.metadata).map_err(failed)?,
            Some(_) => return Err(BuildError::Copy(format!("cannot create directory {}: a file is there", so_far.display()))),
            None => new.clone(),
        };
        layer.insert(so_far, Node::Directory, meta);
    }
    Ok(())
}

/// What a layer holds, as a key: names, kinds, owners, modes and content.
pub fn content_key(layer: &LayerWriter) -> Result<Digest, BuildError> {
    let mut hasher = Hasher::default();
    for (path, node, meta) in layer.entries() {
        hasher.field(path.as_os_str().as_encoded_bytes());
        hasher.field(format!("{meta:?}"));
        match node {
            Node::File(real) => {
                let failed = |source| LayerError::Source { path: real.clone(), source };
                let mut content = Hashing::new(io::sink());
                io::copy(&mut File::open(real).map_err(failed)?, &mut content).map_err(failed)?;
                hasher.field(content.hasher.finish().as_str());
            }
            other => hasher.field(format!("{other:?}")),
        }
    }
    Ok(hasher.finish())
}
