//! Debian packages as a source of files: downloaded and unpacked into a folder, never installed, no script of theirs run.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::elf;

/// Where shared libraries lie inside packages.
const LIBRARY_FOLDERS: &[&str] = &["lib", "usr/lib", "lib64"];
/// Chains of libraries needing libraries are this long at most.
const ROUNDS_MAX: usize = 8;

/// A folder into which packages are unpacked one over the other.
pub struct Packages {
    downloads: PathBuf,
    pub root: PathBuf,
    have: BTreeSet<String>,
}

impl Packages {
    pub fn new(work: &Path) -> Result<Packages> {
        let packages = Packages { downloads: work.join("debs"), root: work.join("unpacked"), have: BTreeSet::new() };
        if packages.root.exists() {
            fs::remove_dir_all(&packages.root)?;
        }
        fs::create_dir_all(&packages.root)?;
        fs::create_dir_all(&packages.downloads)?;
        Ok(packages)
    }

    /// Downloads (once) and unpacks.
    pub fn add(&mut self, names: &[String]) -> Result<()> {
        for name in names {
            if !self.have.insert(name.clone()) {
                continue;
            }
            let file = match self.downloaded(name)? {
                Some(file) => file,
                None => {
                    self.download(name)?;
                    self.downloaded(name)?.with_context(|| format!("apt-get download {name} left no package"))?
                }
            };
            run(Command::new("dpkg-deb").arg("-x").arg(&file).arg(&self.root))?;
        }
        Ok(())
    }

    /// Adds packages until every library that `programs` (paths in the root) need is there. Returns all needed files:
    /// soname or interpreter path → path in the root.
    pub fn close_over_libraries(&mut self, programs: &[&str]) -> Result<BTreeMap<String, PathBuf>> {
        for _ in 0..ROUNDS_MAX {
            let (found, missing) = self.libraries(programs)?;
            if missing.is_empty() {
                return Ok(found);
            }
            let mut more = BTreeSet::new();
            for name in &self.have {
                more.extend(depends(name)?.into_iter().filter(|d| d.starts_with("lib")));
            }
            let more: Vec<String> = more.difference(&self.have).cloned().collect();
            if more.is_empty() {
                bail!("no package found for {missing:?}");
            }
            self.add(&more)?;
        }
        bail!("libraries still missing after {ROUNDS_MAX} rounds of packages")
    }

    fn libraries(&self, programs: &[&str]) -> Result<(BTreeMap<String, PathBuf>, BTreeSet<String>)> {
        let mut by_name = BTreeMap::new();
        for folder in LIBRARY_FOLDERS {
            collect(&self.root.join(folder), &mut by_name)?;
        }
        let mut found = BTreeMap::new();
        let mut missing = BTreeSet::new();
        let mut todo: Vec<PathBuf> = programs.iter().map(|p| self.root.join(p)).collect();
        while let Some(file) = todo.pop() {
            let bytes = fs::read(&file).with_context(|| file.display().to_string())?;
            let Some(needs) = elf::needs(&bytes).with_context(|| file.display().to_string())? else { continue };
            let interpreter = needs.interpreter.as_deref().and_then(|i| Path::new(i).file_name()?.to_str());
            for name in needs.libraries.iter().map(String::as_str).chain(interpreter) {
                match by_name.get(name) {
                    Some(path) if found.insert(name.to_owned(), path.clone()).is_none() => todo.push(path.clone()),
                    Some(_) => {}
                    None => drop(missing.insert(name.to_owned())),
                }
            }
        }
        Ok((found, missing))
    }

    fn downloaded(&self, name: &str) -> Result<Option<PathBuf>> {
        let start = format!("{name}_");
        for entry in fs::read_dir(&self.downloads)? {
            let entry = entry?;
            let file = entry.file_name();
            if file.to_str().is_some_and(|f| f.starts_with(&start) && f.ends_with(".deb")) {
                return Ok(Some(entry.path()));
            }
        }
        Ok(None)
    }

    fn download(&self, name: &str) -> Result<()> {
        let fetch = || {
            let mut command = Command::new("apt-get");
            // apt's own user could not write into our folder.
            command.args(["-qq", "-o", "APT::Sandbox::User=root", "download", name]).current_dir(&self.downloads);
            run(&mut command)
        };
        if fetch().is_ok() {
            return Ok(());
        }
        // A fresh machine has no package lists.
        run(Command::new("apt-get").args(["-qq", "update"]))?;
        fetch()
    }
}

/// Direct dependencies, alternatives included.
fn depends(name: &str) -> Result<Vec<String>> {
    let output = Command::new("apt-cache").args(["depends", "--important", name]).output().context("apt-cache")?;
    if !output.status.success() {
        bail!("apt-cache depends {name}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text
        .lines()
        .filter_map(|line| line.trim_start_matches([' ', '|']).split_once("Depends: "))
        .filter(|(kind, name)| matches!(*kind, "" | "Pre") && !name.starts_with('<'))
        .map(|(_, name)| name.split(':').next().unwrap_or(name).to_owned())
        .collect())
}

fn collect(folder: &Path, found: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    let Ok(entries) = fs::read_dir(folder) else { return Ok(()) };
    for entry in entries {
        let path = entry?.path();
        if fs::symlink_metadata(&path)?.is_dir() {
            collect(&path, found)?;
        } else if let Some(name) = path.file_name().and_then(|n| n.to_str())
            && name.contains(".so")
            && path.is_file()
        {
            found.entry(name.to_owned()).or_insert_with(|| path.clone());
        }
    }
    Ok(())
}

pub fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
