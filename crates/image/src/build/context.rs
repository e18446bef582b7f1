//! The build context: a directory, minus what `.dockerignore` excludes.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::view::RootView;

use super::BuildError;
use super::glob;

pub struct Context {
    pub view: RootView,
    pub ignore: Ignore,
}

impl Context {
    pub fn open(dir: &Path, dockerfile: &Path) -> Result<Context, BuildError> {
        let dir = fs::canonicalize(dir).map_err(|source| BuildError::Io { path: dir.to_owned(), source })?;
        if !dir.is_dir() {
            return Err(BuildError::Io { path: dir, source: io::ErrorKind::NotADirectory.into() });
        }
        // `<Dockerfile>.dockerignore` wins over the common file.
        let mut own = dockerfile.as_os_str().to_owned();
        own.push(".dockerignore");
        let mut ignore = Ignore::default();
        for file in [PathBuf::from(own), dir.join(".dockerignore")] {
            match fs::read_to_string(&file) {
                Ok(text) => {
                    ignore = Ignore::parse(&text);
                    break;
                }
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(BuildError::Io { path: file, source }),
            }
        }
        Ok(Context { view: RootView::new(vec![dir]), ignore })
    }
}

/// `.dockerignore`: the last pattern that matches a path, or one of its parents, decides.
#[derive(Default, Debug, Clone)]
pub struct Ignore {
    patterns: Vec<(Vec<String>, bool)>,
}

impl Ignore {
    pub fn parse(text: &str) -> Ignore {
        let mut patterns = Vec::new();
        for line in text.trim_start_matches('\u{feff}').lines() {
            if line.starts_with('#') {
                continue;
            }
            let line = line.trim();
            let (line, excludes) = match line.strip_prefix('!') {
                Some(line) => (line.trim(), false),
                None => (line, true),
            };
            let mut components: Vec<String> = Vec::new();
            for component in line.split('/') {
                match component {
                    "" | "." => {}
                    ".." => _ = components.pop(),
                    other => components.push(other.to_owned()),
                }
            }
            if !components.is_empty() {
                patterns.push((components, excludes));
            }
        }
        Ignore { patterns }
    }

    pub fn excludes(&self, path: &Path) -> bool {
        let components: Vec<String> = path.components().map(|c| c.as_os_str().to_string_lossy().into_owned()).collect();
        let mut excluded = false;
        for (pattern, excludes) in &self.patterns {
            if excluded != *excludes && (1..=components.len()).any(|n| path_matches(pattern, &components[..n])) {
                excluded = *excludes;
            }
        }
        excluded
    }

    /// Could something below an excluded directory be taken back in?
    pub fn has_exceptions(&self) -> bool {
        self.patterns.iter().any(|(_, excludes)| !excludes)
    }
}

fn path_matches(pattern: &[String], path: &[String]) -> bool {
    match pattern.split_first() {
        None => path.is_empty(),
        Some((first, rest)) if first == "**" => (0..=path.len()).any(|n| path_matches(rest, &path[n..])),
        Some((first, rest)) => {
            path.split_first().is_some_and(|(name, below)| glob::matches(first, name) && path_matches(rest, below))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dockerignore() {
        let ignore = Ignore::parse("# comment\n*.log\n/target/\n**/tmp\ndocs\n!docs/keep.md\n\n");
        for (path, excluded) in [
            ("a.log", true),
            ("sub/a.log", false),
            ("target", true),
            ("target/x/y", true),
            ("a/b/tmp/c", true),
            ("tmp", true),
            ("docs/x.md", true),
            ("docs/keep.md", false),
            ("src/main.rs", false),
        ] {
            assert_eq!(ignore.excludes(Path::new(path)), excluded, "{path}");
        }
        assert!(ignore.has_exceptions());
    }
}
