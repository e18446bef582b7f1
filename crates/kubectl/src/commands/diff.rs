//! `kubectl diff`: what `apply` would change, as the server would have it.
//!
//! Mirrors k8s.io/kubectl/pkg/cmd/diff: exit code 0 without a difference, 1 with one, more for a failure. The program of `KUBECTL_EXTERNAL_DIFF` shows it, else
//! a unified diff of our own, with the file names upstream's has.

use std::path::Path;
use std::process::Command as Process;

use serde_json::Value;

use super::apply;
use crate::builder::{self, FILES, Wanted};
use crate::command::command;
use crate::error::{Error, Result, fail};
use crate::flags::{Args, Flag, list, switch, text};
use crate::printers::hide_managed_fields;
use crate::session::{Query, Session};
use crate::{output, yaml};

const FLAGS: &[Flag] = &[
    text("concurrency", "1", "Number of objects to process in parallel when diffing against the live version."),
    text("field-manager", "kubectl-client-side-apply", "Name of the manager used to track field ownership."),
    switch("force-conflicts", "If true, server-side apply will force the changes against conflicts."),
    text("selector", "", "Selector (label query) to filter on, supports '=', '==', '!=', 'in', 'notin'.").short('l'),
    switch("server-side", "If true, apply runs in the server instead of the client."),
    switch("prune", "Include resources that would be deleted by pruning."),
    list("prune-allowlist", "Overwrite the default allowlist with <group/version/kind> for --prune"),
    switch("show-managed-fields", "If true, include managed fields in the diff."),
    switch("show-secrets", "If true, include the data values of secrets in the diff."),
];

command!(DIFF, "diff", [], "-f FILENAME [options]", "Diff the live version against a would-be applied version", [FLAGS, FILES], run);

const FAILURE: u8 = 2;
const DIFFERENT: u8 = 1;
/// Unchanged lines around a change.
const CONTEXT: usize = 3;

/// One object before and after.
struct Change {
    file: String,
    live: String,
    merged: String,
}

pub async fn run(session: &Session, args: &Args) -> Result<()> {
    match differences(session, args).await {
        Ok(changes) if changes.iter().all(|change| change.live == change.merged) => Ok(()),
        Ok(changes) => show(&changes),
        Err(error) => {
            output::complain(error.told().trim_end());
            Err(Error::Silent(FAILURE))
        }
    }
}

async fn differences(session: &Session, args: &Args) -> Result<Vec<Change>> {
    if !builder::has_files(args) {
        return fail("must specify one of -f and -k");
    }
    args.none()?;
    let selector = api::selector::LabelSelector::parse(args.text("selector")).map_err(|error| Error::Message(error.to_string()))?;
    let mut changes = Vec::new();
    for document in builder::documents(session, args).await? {
        let document = document?;
        let none = serde_json::Map::new();
        if !selector.matches(document.value.pointer("/metadata/labels").and_then(Value::as_object).unwrap_or(&none)) {
            continue;
        }
        let wanted = builder::place(session, document).await?;
        changes.push(one(session, args, &wanted).await?);
    }
    Ok(changes)
}

async fn one(session: &Session, args: &Args, wanted: &Wanted) -> Result<Change> {
    let document = wanted.document.clone().unwrap_or_default();
    let live = match session.get(&wanted.path()).await {
        Ok(live) => Some(live),
        Err(error) if error.is_not_found() => None,
        Err(error) => return Err(error),
    };
    let query = |path: String| Query::of(path).with("dryRun", "All").with("fieldManager", args.text("field-manager"));
    let mut merged = match &live {
        _ if args.on("server-side") => {
            let path = query(wanted.path()).with("force", if args.on("force-conflicts") { "true" } else { "" }).end();
            session.patch(&path, "application/apply-patch+yaml", &document).await?
        }
        None => {
            let collection = wanted.resource.collection(wanted.namespace.as_deref());
            session.post(&query(collection).end(), &apply::bare(&document)).await?
        }
        Some(live) => {
            let (kind, patch) = apply::three_way(wanted, live, &apply::bare(&document), true)?;
            session.patch(&query(wanted.path()).end(), kind, &patch).await?
        }
    };
    let mut live = live.unwrap_or(Value::Null);
    for object in [&mut live, &mut merged] {
        if !args.on("show-managed-fields") {
            hide_managed_fields(object);
        }
    }
    if wanted.resource.kind == "Secret" && wanted.resource.group.is_empty() && !args.on("show-secrets") {
        mask(&mut live, &mut merged);
    }
    let gv = if wanted.resource.group.is_empty() { wanted.resource.version.clone() } else { format!("{}.{}", wanted.resource.group, wanted.resource.version) };
    let name = wanted.name.as_deref().unwrap_or("");
    let shown = |object: &Value| if object.is_null() { String::new() } else { yaml::emit(object) };
    Ok(Change { file: format!("{gv}.{}.{}.{name}", wanted.resource.kind, wanted.namespace.as_deref().unwrap_or("")), live: shown(&live), merged: shown(&merged) })
}

/// Secrets are not shown; that they differ is.
fn mask(live: &mut Value, merged: &mut Value) {
    let before = live["data"].clone();
    let after = merged["data"].clone();
    let hide = |object: &mut Value, other: &Value, word: &str| {
        for (key, value) in object.get_mut("data").and_then(Value::as_object_mut).into_iter().flatten() {
            let text = match other.get(key) {
                Some(same) if same == value => "***".to_owned(),
                Some(_) => format!("*** ({word})"),
                None => "***".to_owned(),
            };
            *value = text.into();
        }
    };
    hide(live, &after, "before");
    hide(merged, &before, "after");
}

fn show(changes: &[Change]) -> Result<()> {
    let failed = |error: std::io::Error| {
        output::complain(format!("error: {error}"));
        Error::Silent(FAILURE)
    };
    let live = tempfile::Builder::new().prefix("LIVE-").tempdir().map_err(failed)?;
    let merged = tempfile::Builder::new().prefix("MERGED-").tempdir().map_err(failed)?;
    let Some(program) = std::env::var("KUBECTL_EXTERNAL_DIFF").ok().filter(|program| !program.is_empty()) else {
        changes.iter().for_each(|change| output::write(unified(change, live.path(), merged.path()).as_bytes()));
        return Err(Error::Silent(DIFFERENT));
    };
    for change in changes {
        for (folder, text) in [(live.path(), &change.live), (merged.path(), &change.merged)] {
            if !text.is_empty() {
                std::fs::write(folder.join(&change.file), text).map_err(failed)?;
            }
        }
    }
    let mut words = program.split_whitespace();
    let status = Process::new(words.next().unwrap_or("diff")).args(words).arg(live.path()).arg(merged.path()).status().map_err(failed)?;
    match status.code() {
        Some(0) => Ok(()),
        Some(code) => Err(Error::Silent(u8::try_from(code).unwrap_or(FAILURE))),
        None => Err(Error::Silent(FAILURE)),
    }
}

/// As `diff -u -N` of two folders.
fn unified(change: &Change, live: &Path, merged: &Path) -> String {
    if change.live == change.merged {
        return String::new();
    }
    let (before, after) = (live.join(&change.file).display().to_string(), merged.join(&change.file).display().to_string());
    let diff = similar::TextDiff::from_lines(&change.live, &change.merged);
    let body = diff.unified_diff().context_radius(CONTEXT).header(&before, &after).to_string();
    format!("diff -u -N {before} {after}\n{body}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn as_diff_writes_it() {
        let change = Change { file: "v1.Pod.n.x".into(), live: "a: 1\nb: 2\n".into(), merged: "a: 1\nb: 3\n".into() };
        let want = "diff -u -N /l/v1.Pod.n.x /m/v1.Pod.n.x\n--- /l/v1.Pod.n.x\n+++ /m/v1.Pod.n.x\n@@ -1,2 +1,2 @@\n a: 1\n-b: 2\n+b: 3\n";
        assert_eq!(unified(&change, Path::new("/l"), Path::new("/m")), want);
    }

    #[test]
    fn secrets_stay_secret() {
        let (mut live, mut merged) = (json!({"data": {"a": "x", "b": "y"}}), json!({"data": {"a": "x", "b": "z", "c": "w"}}));
        mask(&mut live, &mut merged);
        assert_eq!(live["data"], json!({"a": "***", "b": "*** (before)"}));
        assert_eq!(merged["data"], json!({"a": "***", "b": "*** (after)", "c": "***"}));
    }
}
