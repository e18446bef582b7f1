//! The preferences file `~/.kube/kuberc`: aliases of commands, and defaults of their flags.
//!
//! Mirrors k8s.io/kubectl/pkg/kuberc: `--kuberc`, `KUBERC` (a path, or `off`), and that what is typed wins over what the file says.

use std::path::PathBuf;
use std::sync::OnceLock;

use client::exec_credential::PluginPolicy;

use serde::Deserialize;
use serde_json::Value;

use crate::command::ROOT;
use crate::error::{Error, Result, fail};
use crate::flags::Args;
use crate::output::complain;
use crate::yaml;

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Preference {
    api_version: String,
    kind: String,
    /// Until v1alpha1.
    overrides: Vec<Defaults>,
    defaults: Vec<Defaults>,
    aliases: Vec<Alias>,
    credential_plugin_policy: String,
    credential_plugin_allowlist: Option<Vec<AllowlistEntry>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct AllowlistEntry {
    #[serde(alias = "name")]
    command: String,
}

/// What the preferences say about credential plugins: which may be run. Read with the rest of them, before the command line is known.
static PLUGIN_POLICY: OnceLock<PluginPolicy> = OnceLock::new();

pub fn plugin_policy() -> PluginPolicy {
    PLUGIN_POLICY.get().cloned().unwrap_or_default()
}

/// As client-go's ValidatePluginPolicy: a mistake here is not passed over, it would open what was to be shut.
fn policy(preference: &Preference) -> std::result::Result<PluginPolicy, String> {
    let list = preference.credential_plugin_allowlist.as_ref();
    match (preference.credential_plugin_policy.as_str(), list) {
        (policy @ ("" | "AllowAll" | "DenyAll"), Some(_)) => Err(format!("misconfigured credential plugin allowlist: plugin policy is {policy:?} but allowlist is non-nil")),
        ("" | "AllowAll", None) => Ok(PluginPolicy::AllowAll),
        ("DenyAll", None) => Ok(PluginPolicy::DenyAll),
        ("Allowlist", None) => Err("credential plugin policy set to \"Allowlist\", but allowlist is unspecified".to_owned()),
        ("Allowlist", Some(list)) if list.is_empty() => Err("credential plugin policy set to \"Allowlist\", but allowlist is empty; use \"DenyAll\" policy instead".to_owned()),
        ("Allowlist", Some(list)) => {
            if let Some(at) = list.iter().position(|entry| entry.command.is_empty()) {
                return Err(format!("misconfigured credential plugin allowlist: empty allowlist entry #{}", at + 1));
            }
            Ok(PluginPolicy::Allowlist(list.iter().map(|entry| entry.command.clone()).collect()))
        }
        (other, _) => Err(format!("unknown plugin policy: {other:?}")),
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Defaults {
    command: String,
    /// Until v1alpha1.
    flags: Vec<FlagDefault>,
    options: Vec<FlagDefault>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct FlagDefault {
    name: String,
    default: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Alias {
    name: String,
    command: String,
    prepend_args: Vec<String>,
    append_args: Vec<String>,
    flags: Vec<FlagDefault>,
    options: Vec<FlagDefault>,
}

/// The file that is meant, and whether it was asked for by name.
pub fn path(arguments: &[String]) -> Option<(PathBuf, bool)> {
    if std::env::var("KUBECTL_KUBERC").is_ok_and(|value| value == "false") {
        return None;
    }
    for (at, word) in arguments.iter().enumerate() {
        if word == "--" {
            break;
        }
        if let Some(path) = word.strip_prefix("--kuberc=") {
            return (path != "off").then(|| (path.into(), true));
        }
        if word == "--kuberc" {
            return arguments.get(at + 1).filter(|path| *path != "off").map(|path| (path.into(), true));
        }
    }
    match std::env::var("KUBERC") {
        Ok(value) if value == "off" => None,
        Ok(value) if !value.is_empty() => Some((value.into(), true)),
        _ => std::env::var_os("HOME").map(|home| (PathBuf::from(home).join(".kube/kuberc"), false)),
    }
}

/// None where there is no file.
pub fn load(arguments: &[String]) -> Result<Option<(PathBuf, Value)>> {
    let Some((path, asked)) = path(arguments) else { return Ok(None) };
    match std::fs::read_to_string(&path) {
        Ok(text) => match yaml::documents(&text).first().map(|document| yaml::parse(document)) {
            Some(Ok(value)) => Ok(Some((path, value))),
            Some(Err(error)) => fail(format!("kuberc: {}: {error}", path.display())),
            None => Ok(None),
        },
        Err(_) if !asked => Ok(None),
        Err(error) => {
            let reason = if error.kind() == std::io::ErrorKind::NotFound { "no such file or directory".to_owned() } else { error.to_string() };
            complain(format!("error occurred while applying preferences kuberc error kuberc: open {}: {reason}", path.display()));
            Err(Error::Silent(1))
        }
    }
}

/// The command line as the preferences mean it.
pub fn applied(arguments: Vec<String>) -> Result<Vec<String>> {
    let Some((path, value)) = load(&arguments)? else { return Ok(arguments) };
    let preference: Preference = match serde_json::from_value(value) {
        Ok(preference) => preference,
        Err(error) => {
            complain(format!("kuberc: no preferences found in {}: {error}", path.display()));
            return Ok(arguments);
        }
    };
    if preference.kind != "Preference" || !preference.api_version.starts_with("kubectl.config.k8s.io/") {
        complain(format!("kuberc: no preferences found in {}", path.display()));
        return Ok(arguments);
    }
    // Set once: there is one command line a process.
    let policy = policy(&preference).map_err(|wrong| {
        complain(format!("error occurred while applying preferences {wrong}"));
        Error::Silent(1)
    })?;
    let _ = PLUGIN_POLICY.set(policy);
    let typed = arguments.clone();
    let arguments = with_alias(arguments, &preference);
    // An alias has options of its own; the defaults are of commands that are typed.
    Ok(if arguments == typed { with_defaults(arguments, &preference) } else { arguments })
}

/// Flags that are not typed, put before a `--`.
fn add(arguments: &mut Vec<String>, defaults: &[FlagDefault], args: &Args) {
    let end = arguments.iter().position(|word| word == "--").unwrap_or(arguments.len());
    let more = defaults.iter().filter(|flag| !args.changed(&flag.name)).map(|flag| format!("--{}={}", flag.name, flag.default));
    arguments.splice(end..end, more);
}

fn with_alias(mut arguments: Vec<String>, preference: &Preference) -> Vec<String> {
    let Some(first) = arguments.first() else { return arguments };
    // A command of ours is never hidden by an alias.
    if ROOT.subcommands.iter().any(|command| command.name == first || command.aliases.contains(&first.as_str())) {
        return arguments;
    }
    let Some(alias) = preference.aliases.iter().find(|alias| alias.name == *first) else { return arguments };
    let mut words: Vec<String> = alias.command.split_whitespace().map(str::to_owned).collect();
    words.extend(alias.prepend_args.clone());
    arguments.splice(..1, words);
    let end = arguments.iter().position(|word| word == "--").unwrap_or(arguments.len());
    // What is appended may itself hold a `--`.
    arguments.splice(end..end, alias.append_args.clone());
    if let Ok(args) = Args::parse(&ROOT, arguments.clone()) {
        add(&mut arguments, &alias.options, &args);
        add(&mut arguments, &alias.flags, &args);
    }
    arguments
}

fn with_defaults(mut arguments: Vec<String>, preference: &Preference) -> Vec<String> {
    let Ok(args) = Args::parse(&ROOT, arguments.clone()) else { return arguments };
    let command = args.path.split_once(' ').map_or("", |(_, command)| command);
    for defaults in preference.defaults.iter().chain(&preference.overrides).filter(|defaults| defaults.command == command) {
        add(&mut arguments, &defaults.options, &args);
        add(&mut arguments, &defaults.flags, &args);
    }
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_typed_wins() {
        let preference: Preference = serde_json::from_value(json!({
            "defaults": [{"command": "get", "options": [{"name": "output", "default": "wide"}]}, {"command": "create role", "options": [{"name": "dry-run", "default": "client"}]}],
            "aliases": [{"name": "getn", "command": "get", "prependArgs": ["namespace"], "options": [{"name": "output", "default": "json"}]}, {"name": "runx", "command": "run", "appendArgs": ["--", "sh"]}, {"name": "get", "command": "delete"}],
        }))
        .unwrap();
        let run = |line: &str| {
            let typed: Vec<String> = line.split(' ').map(str::to_owned).collect();
            let words = with_alias(typed.clone(), &preference);
            if words == typed { with_defaults(words, &preference) } else { words }.join(" ")
        };
        for (line, want) in [
            ("get pods", "get pods --output=wide"), ("get pods -o yaml", "get pods -o yaml"), ("getn x", "get namespace x --output=json"), ("getn x -o name", "get namespace x -o name"),
            ("create role r", "create role r --dry-run=client"), ("describe pods", "describe pods"), ("runx --image=a y", "run --image=a y -- sh"),
        ] {
            assert_eq!(run(line), want);
        }
    }
}
