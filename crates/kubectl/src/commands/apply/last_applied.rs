//! `kubectl apply view-last-applied`, `set-last-applied` and `edit-last-applied`: the annotation that holds the last configuration, by itself.

use serde_json::{Value, json};

use super::{DryRun, LAST_APPLIED, compact, dry_run};
use crate::builder::{self, FILES, Found};
use crate::command::command;
use crate::commands::change::{MERGE, usage};
use crate::commands::edit::{HEADER, body, editor};
use crate::error::{Error, Result, fail};
use crate::flags::{Args, Flag, list, optional, switch, text};
use crate::printers::{self, OUTPUT};
use crate::session::{Query, Session};
use crate::{output, yaml};

const VIEW_FLAGS: &[Flag] = &[
    switch("all", "Select all resources in the namespace of the specified resource types"),
    text("output", "yaml", "Output format. Must be one of (yaml, json)").short('o'),
    text("selector", "", "Selector (label query) to filter on.").short('l'),
];
const SET_FLAGS: &[Flag] = &[
    switch("create-annotation", "Will create 'last-applied-configuration' annotations if current objects doesn't have one"),
    optional("dry-run", "unchanged", "none", "Must be \"none\", \"server\", or \"client\"."),
    list("filename", "Filename, directory, or URL to files that contains the last-applied-configuration annotations").short('f'),
];
const EDIT_FLAGS: &[Flag] = &[
    text("field-manager", "kubectl-client-side-apply", "Name of the manager used to track field ownership."),
    switch("windows-line-endings", "Defaults to the line ending native to your platform."),
];
command!(VIEW, "view-last-applied", [], "(TYPE [NAME | -l label] | TYPE/NAME | -f FILENAME) [options]", "View the latest last-applied-configuration annotations of a resource/object", [VIEW_FLAGS, FILES], view);
command!(SET, "set-last-applied", [], "-f FILENAME [options]", "Set the last-applied-configuration annotation on a live object to match the contents of a file", [SET_FLAGS, OUTPUT], set);
command!(EDIT, "edit-last-applied", [], "(RESOURCE/NAME | -f FILENAME) [options]", "Edit latest last-applied-configuration annotations of a resource/object", [EDIT_FLAGS, FILES, OUTPUT], edit);

fn held(object: &Value) -> Option<&str> {
    object.pointer("/metadata/annotations")?.get(LAST_APPLIED)?.as_str()
}

async fn view(session: &Session, args: &Args) -> Result<()> {
    let mut texts = Vec::new();
    for found in builder::resolve(session, args, &args.positional).await? {
        let found = found?;
        match held(&found.object) {
            Some(text) => texts.push(text.to_owned()),
            // Upstream loses this error where no file is named.
            None if found.source.is_empty() => break,
            None => return fail(format!("error when no last-applied-configuration annotation found on resource: {}\n {:?}: <nil>", found.name, found.source)),
        }
    }
    for text in texts {
        let value: Value = serde_json::from_str(&text).map_err(|error| Error::Message(error.to_string()))?;
        match args.text("output") {
            "json" => {
                let shown = serde_json::to_string_pretty(&value).unwrap_or_default().replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026");
                output::write(format!("{shown}{}", if text.ends_with('\n') { "\n" } else { "" }).as_bytes());
            }
            "yaml" => output::write(yaml::emit(&value).as_bytes()),
            other => return Err(usage(args, format!("Unexpected -o output mode: {other}, the flag 'output' must be one of yaml|json"))),
        }
    }
    Ok(())
}

/// The object as it was given: unlike `apply`, these commands add no empty annotations to it.
fn annotation(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(annotations) = object.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        annotations.remove(LAST_APPLIED);
    }
    compact(&object).into()
}

/// Is it the same configuration, however it is written?
fn same(before: Option<&str>, text: &Value) -> bool {
    let read = |text: &str| serde_json::from_str::<Value>(text).ok();
    before.and_then(read).is_some_and(|before| text.as_str().and_then(read) == Some(before))
}

async fn set(session: &Session, args: &Args) -> Result<()> {
    let dry = dry_run(args)?;
    if !args.changed("filename") {
        return fail(builder::NOTHING_GIVEN);
    }
    let mut changes: Vec<(Found, Value)> = Vec::new();
    for document in builder::documents(session, args).await? {
        let wanted = builder::place(session, document?).await?;
        let text = annotation(&wanted.document.clone().unwrap_or_default());
        let found = Found::of(&wanted.resource, session.get(&wanted.path()).await?, &wanted.source);
        let before = held(&found.object);
        if before.is_none() && !args.on("create-annotation") {
            return fail(format!("no last-applied-configuration annotation found on resource: {}, to create the annotation, run the command with --create-annotation", found.name));
        }
        if same(before, &text) {
            output::line(format!("set-last-applied {}: no changes required.", found.name));
        } else {
            changes.push((found, text));
        }
    }
    for (found, text) in changes {
        let mut object = found.object.clone();
        if dry != DryRun::Client {
            let path = Query::of(found.path()).with("dryRun", if dry == DryRun::Server { "All" } else { "" }).end();
            object = session.patch(&path, MERGE, &json!({"metadata": {"annotations": {LAST_APPLIED: text}}})).await?;
        }
        printers::done(args, &object, &found.label(), "configured")?;
    }
    Ok(())
}

async fn edit(session: &Session, args: &Args) -> Result<()> {
    let found: Vec<Found> = builder::resolve(session, args, &args.positional).await?.into_iter().collect::<Result<_>>()?;
    let found: Vec<Found> = found.into_iter().filter(|one| held(&one.object).is_some()).collect();
    if found.is_empty() {
        return fail("no last-applied-configuration annotation found on resources, to create the annotation, use command `kubectl apply set-last-applied --create-annotation`");
    }
    for one in found {
        let before: Value = serde_json::from_str(held(&one.object).unwrap_or_default()).map_err(|error| Error::Message(error.to_string()))?;
        let shown = yaml::emit(&before);
        let mut text = format!("{HEADER}{shown}");
        loop {
            let file = tempfile::Builder::new().prefix("kubectl-edit-").suffix(".yaml").tempfile()?;
            std::fs::write(file.path(), &text)?;
            editor(file.path())?;
            let edited = body(&std::fs::read_to_string(file.path())?);
            if edited.trim().is_empty() {
                output::complain("Edit cancelled, saved file was empty.");
                break;
            }
            if edited == body(&shown) {
                output::complain("Edit cancelled, no changes made.");
                break;
            }
            match yaml::parse(&edited) {
                Err(_) if edited == body(&text) => return fail("Edit cancelled, no valid changes were saved."),
                Err(error) => text = format!("{HEADER}# The edited file had a syntax error: error parsing edited-file: error converting YAML to JSON: yaml: {}\n#\n{edited}", error.replace('\n', "\n# ")),
                Ok(value) => {
                    let path = Query::of(one.path()).with("fieldManager", args.text("field-manager")).end();
                    let object = session.patch(&path, MERGE, &json!({"metadata": {"annotations": {LAST_APPLIED: annotation(&value)}}})).await?;
                    printers::done(args, &object, &one.label(), "edited")?;
                    break;
                }
            }
        }
    }
    Ok(())
}
