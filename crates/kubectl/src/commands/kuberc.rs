//! `kubectl kuberc view` and `kubectl kuberc set`: the preferences file, shown and changed.
//!
//! Mirrors k8s.io/kubectl/pkg/cmd/kuberc.

use serde_json::{Value, json};

use crate::command::{command, family};
use crate::error::{Result, fail};
use crate::flags::{Args, Flag, list, switch, text};
use crate::session::Session;
use crate::{kuberc, output, printers, yaml};

const VIEW_FLAGS: &[Flag] = &[text("output", "yaml", "Output format.").short('o')];
const SET_FLAGS: &[Flag] = &[
    list("appendarg", "Argument to append to the command for aliases"),
    text("command", "", "Command to configure (e.g., 'get', 'create', 'set env')"),
    text("name", "", "Alias name (required for --section=aliases)"),
    list("option", "Flag option in the form flag=value (can be specified multiple times)"),
    switch("overwrite", "Allow overwriting existing entries"),
    list("prependarg", "Argument to prepend to the command for aliases"),
    text("section", "", "Section to modify: 'defaults' or 'aliases'"),
];
command!(VIEW, "view", [], "[options]", "Display the current kuberc configuration", [VIEW_FLAGS], view);
command!(SET, "set", [], "--section (defaults|aliases) --command COMMAND [options]", "Set values in the kuberc configuration", [SET_FLAGS], set);
family!(KUBERC, "kuberc", "Manage kuberc configuration files", [&SET, &VIEW]);

const OFF: &str = "KUBERC is disabled via KUBERC=off environment variable";
const VERSION: &str = "kubectl.config.k8s.io/v1beta1";

/// The words that choose the file, as they were typed.
fn chosen(args: &Args) -> Vec<String> {
    args.given("kuberc").map(|path| format!("--kuberc={path}")).into_iter().collect()
}

async fn view(_: &Session, args: &Args) -> Result<()> {
    let Some((path, _)) = kuberc::path(&chosen(args)) else { return fail(OFF) };
    let Some((_, value)) = kuberc::load(&chosen(args))? else { return offer(&path) };
    output::write(printers::document(args.text("output"), &value)?.as_bytes());
    Ok(())
}

/// There is no file: shall there be one?
fn offer(path: &std::path::Path) -> Result<()> {
    output::line(format!("kuberc file not found at {}", path.display()));
    output::write(b"Would you like to generate a default kuberc file with recommended options? (y/N): ");
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    if !matches!(answer.trim().to_lowercase().as_str(), "y" | "yes") {
        return Ok(());
    }
    let option = |name: &str| json!([{"name": name, "default": "true"}]);
    let file = json!({"apiVersion": VERSION, "kind": "Preference", "defaults": [{"command": "apply", "options": option("server-side")}, {"command": "delete", "options": option("interactive")}]});
    write(path, &file)
}

fn write(path: &std::path::Path, file: &Value) -> Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(path, yaml::emit(file))?;
    output::line(format!("Updated {}", path.display()));
    Ok(())
}

async fn set(_: &Session, args: &Args) -> Result<()> {
    let section = args.text("section");
    if !matches!(section, "defaults" | "aliases") {
        return fail(format!("--section must be \"defaults\", \"aliases\", or \"credentialplugin\", got: {section}"));
    }
    let has = |flag: &str| args.given(flag).is_some();
    if section == "aliases" && !has("name") {
        return fail("--name is required when --section=aliases");
    }
    if section == "defaults" && has("name") {
        return fail("--name should not be specified when --section=defaults");
    }
    if section == "defaults" && (args.changed("prependarg") || args.changed("appendarg")) {
        return fail("--prependarg and --appendarg are only valid for --section=aliases");
    }
    let Some(command) = args.given("command") else { return fail("--command is required when --section=aliases or --section=defaults") };
    let key = if section == "defaults" { "command" } else { "name" };
    let name = if section == "defaults" { command } else { args.text("name") };
    let Some((path, _)) = kuberc::path(&chosen(args)) else { return fail(OFF) };
    let mut file = kuberc::load(&[format!("--kuberc={}", path.display())]).ok().flatten().map_or_else(|| json!({"apiVersion": VERSION, "kind": "Preference"}), |(_, value)| value);
    let mut entry = json!({key: name, "command": command});
    let mut options = Vec::new();
    for option in args.list("option") {
        let Some((flag, value)) = option.split_once('=') else { return fail(format!("invalid option format {option:?}, expected flag=value")) };
        options.push(json!({"name": flag.trim_start_matches('-'), "default": value}));
    }
    if !options.is_empty() {
        entry["options"] = options.into();
    }
    for (flag, field) in [("prependarg", "prependArgs"), ("appendarg", "appendArgs")] {
        if section == "aliases" && args.changed(flag) {
            entry[field] = args.list(flag).into();
        }
    }
    let mut entries = file[section].as_array().cloned().unwrap_or_default();
    match entries.iter().position(|known: &Value| known[key] == name) {
        Some(_) if !args.on("overwrite") => {
            let what = if section == "defaults" { format!("defaults for command {name:?} already exist") } else { format!("alias {name:?} already exists") };
            return fail(format!("{what}, use --overwrite to replace"));
        }
        Some(at) => {
            for field in ["options", "prependArgs", "appendArgs"] {
                // What the command line does not say stays.
                if let (None, Some(old)) = (entry.get(field), entries[at].get(field)) {
                    entry[field] = old.clone();
                }
            }
            entries[at] = entry;
        }
        None => entries.push(entry),
    }
    file[section] = entries.into();
    write(&path, &file)
}
