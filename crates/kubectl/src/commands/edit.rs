//! `kubectl edit`: the object in an editor, again until it is taken or left.

use std::io::Write;
use std::process::Command as Process;

use serde_json::Value;

use super::apply::{WRITE, write_query};
use super::change::difference;
use crate::builder::{self, FILES, Found};
use crate::command::command;
use crate::error::{Error, Result, fail};
use crate::flags::{Args, Flag, switch, text};
use crate::output;
use crate::printers::{self, OUTPUT};
use crate::session::Session;
use crate::yaml;

pub const HEADER: &str = "# Please edit the object below. Lines beginning with a '#' will be ignored,\n# and an empty file will abort the edit. If an error occurs while saving this file will be\n# reopened with the relevant failures.\n#\n";
const FLAGS: &[Flag] = &[
    switch("output-patch", "Output the patch if the resource is edited."),
    text("subresource", "", "If specified, edit will operate on the subresource of the requested object."),
    switch("windows-line-endings", "Defaults to the line ending native to your platform."),
];
command!(EDIT, "edit", [], "(RESOURCE/NAME | -f FILENAME) [options]", "Edit a resource on the server", [FLAGS, WRITE, FILES, OUTPUT], run);

pub fn editor(file: &std::path::Path) -> Result<()> {
    let program = ["KUBE_EDITOR", "EDITOR"].iter().filter_map(|name| std::env::var(name).ok()).find(|text| !text.is_empty()).unwrap_or_else(|| "vi".to_owned());
    // As upstream: through the shell where there are quotes in the variable, else its words are the program and its arguments.
    if !program.contains(['"', '\'', '\\']) {
        let mut words = program.split(' ').filter(|word| !word.is_empty());
        let status = Process::new(words.next().unwrap_or("vi")).args(words).arg(file).status();
        return match status {
            Ok(status) if status.success() => Ok(()),
            Ok(_) => fail(format!("there was a problem with the editor {program:?}")),
            Err(error) => fail(format!("unable to launch the editor {program:?}: {error}")),
        };
    }
    let shell = std::env::var("SHELL").ok().filter(|shell| std::path::Path::new(shell).exists()).unwrap_or_else(|| "/bin/sh".to_owned());
    let quoted = file.display().to_string();
    let status = Process::new(&shell).arg("-c").arg(format!("{program} {quoted:?}")).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(_) => fail(format!("there was a problem with the editor {program:?}")),
        Err(error) => fail(format!("unable to launch the editor {program:?}: {error}")),
    }
}

async fn run(session: &Session, args: &Args) -> Result<()> {
    let found: Vec<Found> = builder::resolve(session, args, &args.positional).await?.into_iter().collect::<Result<_>>()?;
    let mut errors = Vec::new();
    for one in found {
        if let Err(error) = edit(session, args, &one).await {
            errors.push(error);
        }
    }
    builder::gather(errors)
}

pub fn body(text: &str) -> String {
    text.lines().filter(|line| !line.trim_start().starts_with('#')).map(|line| format!("{line}\n")).collect()
}

async fn edit(session: &Session, args: &Args, found: &Found) -> Result<()> {
    let mut original = found.object.clone();
    printers::hide_managed_fields(&mut original);
    let original_text = yaml::emit(&original);
    let mut text = format!("{HEADER}{original_text}");
    let mut last = original_text.clone();
    loop {
        let mut file = tempfile::Builder::new().prefix("kubectl-edit-").suffix(".yaml").tempfile()?;
        file.write_all(text.as_bytes())?;
        editor(file.path())?;
        let edited = body(&std::fs::read_to_string(file.path())?);
        let keep = |file: tempfile::NamedTempFile| {
            if let Ok((_, path)) = file.keep() {
                output::complain(format!("A copy of your changes has been stored to \"{}\"", path.display()));
            }
        };
        if edited.trim().is_empty() {
            output::complain("Edit cancelled, saved file was empty.");
            return Ok(());
        }
        if edited == body(&original_text) {
            output::complain("Edit cancelled, no changes made.");
            return Ok(());
        }
        if edited == body(&last) {
            keep(file);
            return fail("Edit cancelled, no valid changes were saved.");
        }
        last = edited.clone();
        let name = format!("{} {:?}", found.resource.qualified(), found.name);
        let note = match yaml::parse(&edited) {
            Err(error) => format!("# The edited file had a syntax error: error parsing edited-file: error converting YAML to JSON: yaml: {}\n", error.replace('\n', "\n# ")),
            Ok(modified) => match submit(session, args, found, &original, modified).await {
                Ok(()) => return Ok(()),
                Err(error) if error.status().is_some_and(|status| status.reason == api::Reason::Invalid) => {
                    output::complain(format!("error: {name} is invalid"));
                    let causes = error.status().map(|status| status.details.causes.as_slice()).unwrap_or_default();
                    let causes: String = causes.iter().map(|cause| format!("# * {}: {}\n", cause.field, cause.message)).collect();
                    format!("# {name} was not valid:\n{causes}")
                }
                Err(error) if error.status().is_some_and(|status| status.code == 404) => return Err(error),
                Err(error) => {
                    output::complain(format!("error: {name} could not be patched: {error}"));
                    if let Ok((_, path)) = file.keep() {
                        output::complain(format!("You can run `kubectl replace -f {}` to try this update again.", path.display()));
                    }
                    return Err(Error::Silent(1));
                }
            },
        };
        text = format!("{HEADER}{note}#\n{edited}");
    }
}

async fn submit(session: &Session, args: &Args, found: &Found, original: &Value, modified: Value) -> Result<()> {
    for field in ["/metadata/name", "/kind", "/apiVersion"] {
        if modified.pointer(field) != original.pointer(field) {
            return fail("At least one of apiVersion, kind and name was changed");
        }
    }
    let before = Found { object: original.clone(), ..found.clone() };
    let (kind, patch) = difference(&before, &modified)?;
    if args.on("output-patch") {
        output::line(format!("Patch: {patch}"));
    }
    let path = match args.given("subresource") {
        Some(subresource) => found.sub(subresource),
        None => found.path(),
    };
    let object = session.patch(&write_query(path, args, "kubectl-edit")?, kind, &patch).await?;
    printers::done(args, &object, &found.label(), "edited")
}
