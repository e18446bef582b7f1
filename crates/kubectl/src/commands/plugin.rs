//! `kubectl plugin list`, and programs named `kubectl-…` run as commands.
//!
//! Mirrors k8s.io/kubectl/pkg/cmd/plugin and HandlePluginCommand: the longest name that is found wins, dashes within a word are written `_`.

use std::collections::HashMap;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};

use crate::command::{Command, ROOT, command, family};
use crate::error::{Error, Result};
use crate::flags::{Args, Flag, switch};
use crate::output;
use crate::session::Session;

const FLAGS: &[Flag] = &[switch("name-only", "If true, display only the binary name of each plugin, rather than its full path")];
command!(LIST, "list", [], "[flags] [options]", "List all visible plugin executables on a user's PATH", [FLAGS], list);
family!(PLUGIN, "plugin", "Provides utilities for interacting with plugins", [&LIST]);

fn folders() -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = Vec::new();
    for folder in std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()) {
        if !folder.as_os_str().is_empty() && !found.contains(&folder) {
            found.push(folder);
        }
    }
    found
}

fn executable(path: &Path) -> std::io::Result<bool> {
    let file = std::fs::metadata(path)?;
    Ok(!file.is_dir() && file.permissions().mode() & 0o111 != 0)
}

fn named<'a>(commands: &'a [&'static Command], word: &str) -> Option<&'a &'static Command> {
    commands.iter().find(|command| command.name == word || command.aliases.contains(&word))
}

/// The command that a program's name would hide: `kubectl-get-x` hides `get`.
fn hidden(name: &str) -> Option<String> {
    let mut words = name.split('-').skip(1);
    let mut found = named(ROOT.subcommands, words.next()?)?;
    let mut path = format!("{} {}", ROOT.name, found.name);
    for word in words {
        let Some(below) = named(found.subcommands, word) else { break };
        found = below;
        path = format!("{path} {}", found.name);
    }
    Some(path)
}

async fn list(_: &Session, args: &Args) -> Result<()> {
    let mut found = Vec::new();
    for folder in folders() {
        let mut entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries.flatten().collect::<Vec<_>>(),
            Err(error) => {
                let reason = if error.kind() == std::io::ErrorKind::NotFound { "no such file or directory".to_owned() } else { error.to_string() };
                output::complain(format!("Unable to read directory {:?} from your PATH: open {}: {reason}. Skipping...", folder.display().to_string(), folder.display()));
                continue;
            }
        };
        entries.sort_by_key(std::fs::DirEntry::file_name);
        found.extend(entries.into_iter().filter(|entry| entry.file_name().to_string_lossy().starts_with("kubectl-") && !entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()));
    }
    if found.is_empty() {
        return Err(Error::Message("unable to find any kubectl plugins in your PATH".into()));
    }
    output::line("The following compatible plugins are available:\n");
    let (mut seen, mut warnings): (HashMap<String, PathBuf>, usize) = (HashMap::new(), 0);
    for path in found {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        output::line(if args.on("name-only") { name.clone() } else { path.display().to_string() });
        let mut warn = |text: String| {
            warnings += 1;
            output::complain(format!("  - {text}"));
        };
        match executable(&path) {
            Ok(true) => {}
            Ok(false) => warn(format!("warning: {} identified as a kubectl plugin, but it is not executable", path.display())),
            Err(error) => warn(format!("error: unable to identify {} as an executable file: {error}", path.display())),
        }
        match seen.get(&name) {
            Some(first) => warn(format!("warning: {} is overshadowed by a similarly named plugin: {}", path.display(), first.display())),
            None => {
                seen.insert(name.clone(), path.clone());
            }
        }
        if let Some(command) = hidden(&name) {
            warn(format!("warning: {name} overwrites existing command: {command:?}"));
        }
    }
    match warnings {
        0 => Ok(()),
        1 => Err(Error::Message("one plugin warning was found".into())),
        many => Err(Error::Message(format!("{many} plugin warnings were found"))),
    }
}

/// The program that the words mean, and how many of them name it.
fn program(words: &[String], within: &[PathBuf], at_least: usize) -> Option<(PathBuf, usize)> {
    let names: Vec<String> = words.iter().take_while(|word| !word.starts_with('-')).map(|word| word.replace('-', "_")).collect();
    (at_least..=names.len()).rev().find_map(|count| {
        let name = format!("kubectl-{}", names[..count].join("-"));
        within.iter().map(|folder| folder.join(&name)).find(|path| executable(path).unwrap_or(false)).map(|path| (path, count))
    })
}

/// A plugin's own flags are not ours to read: none may stand before its name.
fn before_name(arguments: &[String], first: &str) -> Result<()> {
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        if word == "--" {
            return Ok(());
        }
        if !word.starts_with('-') {
            if named(ROOT.subcommands, word).is_some() || program(std::slice::from_ref(word), &folders(), 1).is_none() {
                return Ok(());
            }
            output::complain(format!("Error: flags cannot be placed before plugin name: {first}"));
            return Err(Error::Silent(1));
        }
        let name = word.trim_start_matches('-');
        let takes = |flag: &Flag| if word.starts_with("--") { flag.name == name } else { name.len() == 1 && flag.short == name.chars().next() };
        if crate::flags::GLOBAL.iter().any(|flag| takes(flag) && flag.kind != crate::flags::Kind::Bool) {
            words.next();
        }
    }
    Ok(())
}

/// Becomes the plugin that is meant, if no command of our own is.
pub fn instead(arguments: &[String]) -> Result<()> {
    let Some(first) = arguments.first() else { return Ok(()) };
    if first.starts_with('-') {
        return before_name(arguments, first);
    }
    let at_least = match named(ROOT.subcommands, first) {
        None if matches!(first.as_str(), "help" | "__complete" | "__completeNoDesc") => return Ok(()),
        None => 1,
        // The one command of ours that plugins may add to.
        Some(command) if command.name == "create" && arguments.get(1).is_some_and(|second| !second.starts_with('-') && named(command.subcommands, second).is_none()) => 2,
        Some(_) => return Ok(()),
    };
    let Some((path, count)) = program(arguments, &folders(), at_least) else { return Ok(()) };
    let error = std::process::Command::new(&path).args(&arguments[count..]).exec();
    output::complain(format!("Error: fork/exec {}: {error}", path.display()));
    Err(Error::Silent(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_name_wins() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["kubectl-foo", "kubectl-foo-bar_baz", "kubectl-plain"] {
            let path = folder.path().join(name);
            std::fs::write(&path, "").unwrap();
            let mode = if name == "kubectl-plain" { 0o644 } else { 0o755 };
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        }
        let find = |line: &str| {
            let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
            program(&words, &[folder.path().to_owned()], 1).map(|(path, count)| (path.file_name().unwrap().to_string_lossy().into_owned(), count))
        };
        for (line, want) in [
            ("foo x -y", Some(("kubectl-foo", 1))), ("foo bar-baz z", Some(("kubectl-foo-bar_baz", 2))), ("foo -x bar-baz", Some(("kubectl-foo", 1))), ("plain", None), ("bar", None),
        ] {
            assert_eq!(find(line), want.map(|(name, count)| (name.to_owned(), count)), "{line}");
        }
        assert_eq!(hidden("kubectl-get-x").as_deref(), Some("kubectl get"));
        assert_eq!(hidden("kubectl-foo"), None);
    }
}
