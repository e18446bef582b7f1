//! `kubectl label`, `annotate`, `patch`.

use serde_json::{Map, Value, json};

use super::apply::{DryRun, WRITE, dry_run, write_query};
use crate::builder::{self, FILES, SELECT};
use crate::command::command;
use crate::error::{Error, Result, fail};
use crate::flags::{Args, Flag, switch, text};
use crate::output;
use crate::printers::{self, OUTPUT};
use crate::session::Session;
use crate::yaml;

const FLAGS: &[Flag] = &[
    switch("list", "If true, display the labels for a given resource."),
    switch("local", "If true, label will NOT contact api-server but run locally."),
    switch("overwrite", "If true, allow labels to be overwritten, otherwise reject label updates that overwrite existing labels."),
    text("resource-version", "", "If non-empty, the labels update will only succeed if this is the current resource-version for the object."),
];
command!(LABEL, "label", [], "[--overwrite] (-f FILENAME | TYPE NAME) KEY_1=VAL_1 ... KEY_N=VAL_N [--resource-version=version] [options]", "Update the labels on a resource", [FLAGS, WRITE, FILES, SELECT, OUTPUT], label);
command!(ANNOTATE, "annotate", [], "[--overwrite] (-f FILENAME | TYPE NAME) KEY_1=VAL_1 ... KEY_N=VAL_N [--resource-version=version] [options]", "Update the annotations on a resource", [FLAGS, WRITE, FILES, SELECT, OUTPUT], annotate);
command!(PATCH, "patch", [], "(-f FILENAME | TYPE NAME) [-p PATCH|--patch-file FILE] [options]", "Update fields of a resource", [PATCH_FLAGS, WRITE, FILES, OUTPUT], patch_objects);
const PATCH_FLAGS: &[Flag] = &[
    switch("local", "If true, patch will operate on the content of the file, not the server-side resource."),
    text("patch", "", "The patch to be applied to the resource JSON file.").short('p'),
    text("patch-file", "", "A file containing a patch to be applied to the resource."),
    text("subresource", "", "If specified, patch will operate on the subresource of the requested object."),
    text("type", "strategic", "The type of patch being provided; one of [json merge strategic]"),
];

async fn label(session: &Session, args: &Args) -> Result<()> {
    metadata(session, args, "labels").await
}

async fn annotate(session: &Session, args: &Args) -> Result<()> {
    metadata(session, args, "annotations").await
}

/// What can be told without asking the server.
fn check(changes: &[String], what: &str) -> Result<()> {
    for change in changes {
        let Some((key, value)) = change.split_once('=') else { continue };
        if changes.iter().any(|other| other.strip_suffix('-') == Some(key)) {
            return fail(format!("can not both modify and remove {} {what} in the same command", if what == "label" { "a" } else { "an" }));
        }
        let word = |c: char| c.is_ascii_alphanumeric();
        let fine = value.is_empty() || value.len() <= LABEL_MAX && value.starts_with(word) && value.ends_with(word) && value.chars().all(|c| word(c) || "-_.".contains(c));
        if what == "label" && !fine {
            return fail(format!("invalid label value: {change:?}: {LABEL_RULE}"));
        }
    }
    Ok(())
}

const LABEL_MAX: usize = 63;
const LABEL_RULE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";

async fn metadata(session: &Session, args: &Args, field: &str) -> Result<()> {
    let what = field.trim_end_matches('s');
    let (words, changes): (Vec<String>, Vec<String>) = args.positional.iter().cloned().partition(|word| !(word.contains('=') || word.ends_with('-') && word.len() > 1));
    if words.is_empty() && !builder::has_files(args) {
        return fail("one or more resources must be specified as <resource> <name> or <resource>/<name>");
    }
    if changes.is_empty() && !args.on("list") {
        return fail(format!("at least one {what} update is required"));
    }
    check(&changes, what)?;
    let mut errors = Vec::new();
    for found in builder::resolve(session, args, &words).await? {
        let outcome = async {
            let found = found?;
            let current = found.object.pointer(&format!("/metadata/{field}")).and_then(Value::as_object).cloned().unwrap_or_default();
            if args.on("list") {
                current.iter().for_each(|(key, value)| output::line(format!("{key}={}", value.as_str().unwrap_or(""))));
                return Ok(());
            }
            let mut patch = Map::new();
            let mut added = false;
            for change in &changes {
                match change.split_once('=') {
                    Some((key, value)) => {
                        let known = current.get(key).and_then(Value::as_str);
                        if let Some(known) = known.filter(|known| *known != value && !args.on("overwrite")) {
                            return fail(if what == "label" {
                                format!("'{key}' already has a value ({known}), and --overwrite is false")
                            } else {
                                format!("--overwrite is false but found the following declared annotation(s): '{key}' already has a value ({known})")
                            });
                        }
                        if known != Some(value) {
                            patch.insert(key.to_owned(), value.into());
                        }
                        added = true;
                    }
                    None => {
                        let key = change.trim_end_matches('-');
                        if current.contains_key(key) {
                            patch.insert(key.to_owned(), Value::Null);
                        } else if what == "label" {
                            output::line(format!("{what} {key:?} not found."));
                        }
                    }
                }
            }
            let verb = match (patch.is_empty(), added, what) {
                (true, _, "label") => "not labeled",
                (false, false, "label") => "unlabeled",
                (_, _, "label") => "labeled",
                _ => "annotated",
            };
            let mut object = found.object.clone();
            let mut body = json!({"metadata": {field: patch}});
            if let Some(version) = args.given("resource-version") {
                body["metadata"]["resourceVersion"] = version.into();
            }
            if dry_run(args)? == DryRun::Client {
                patch::merge(&mut object, &body);
            } else if verb != "not labeled" {
                object = session.patch(&write_query(found.path(), args, if what == "label" { "kubectl-label" } else { "kubectl-annotate" })?, "application/merge-patch+json", &body).await?;
            }
            printers::done(args, &object, &found.label(), verb)
        };
        if let Err(error) = outcome.await {
            errors.push(error);
        }
    }
    builder::gather(errors)
}

async fn patch_objects(session: &Session, args: &Args) -> Result<()> {
    let text = match (args.given("patch"), args.given("patch-file")) {
        (Some(_), Some(_)) => return fail("cannot specify --patch and --patch-file together"),
        (Some(text), None) => text.to_owned(),
        (None, Some(file)) => std::fs::read_to_string(file).map_err(|error| Error::Message(format!("unable to read patch file: {error}")))?,
        (None, None) => return fail("must specify --patch or --patch-file containing the contents of the patch"),
    };
    let content_type = match args.text("type") {
        "json" => "application/json-patch+json",
        "merge" => "application/merge-patch+json",
        "strategic" => "application/strategic-merge-patch+json",
        other => return fail(format!("--type must be one of [json merge strategic], not {other:?}")),
    };
    let body = yaml::parse(&text).map_err(|error| Error::Message(format!("unable to parse {text:?}: {error}")))?;
    let mut errors = Vec::new();
    for found in builder::resolve(session, args, &args.positional).await? {
        let outcome = async {
            let found = found?;
            let path = match args.given("subresource") {
                Some(subresource) => found.sub(subresource),
                None => found.path(),
            };
            // Upstream does not ask for strict fields here.
            let query = crate::session::Query::of(path).with("dryRun", if dry_run(args)? == DryRun::Server { "All" } else { "" }).with("fieldManager", args.given("field-manager").unwrap_or("kubectl-patch")).end();
            let object = if dry_run(args)? == DryRun::Client {
                let mut object = found.object.clone();
                match args.text("type") {
                    "json" => patch::json(&mut object, &body),
                    "merge" => {
                        patch::merge(&mut object, &body);
                        Ok(())
                    }
                    _ => patch::strategic(&mut object, &body, found.resource.schema()),
                }
                .map_err(|error| Error::Message(error.to_string()))?;
                object
            } else {
                session.patch(&query, content_type, &body).await?
            };
            let same = object.pointer("/metadata/resourceVersion") == found.object.pointer("/metadata/resourceVersion") && dry_run(args)? == DryRun::None;
            printers::said(args, &object, &found.label(), if same { "patched (no change)" } else { "patched" })
        };
        if let Err(error) = outcome.await {
            errors.push(error);
        }
    }
    builder::gather(errors)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_checked_here() {
        let words = |text: &str| text.split('|').map(str::to_owned).collect::<Vec<_>>();
        assert!(check(&words("a=b|c-|d="), "label").is_ok());
        assert_eq!(check(&words("a=b|a-"), "label").unwrap_err().to_string(), "can not both modify and remove a label in the same command");
        assert_eq!(check(&words("a=b|a-"), "annotation").unwrap_err().to_string(), "can not both modify and remove an annotation in the same command");
        assert!(check(&words("a=b c"), "label").unwrap_err().to_string().starts_with("invalid label value: \"a=b c\": a valid label must be"));
        assert!(check(&words("a=b c"), "annotation").is_ok());
    }
}
