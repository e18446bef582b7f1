//! `kubectl apply`: three-way patches against what was applied last, or server-side apply.
//!
//! Mirrors k8s.io/kubectl/pkg/cmd/apply: the annotation `kubectl.kubernetes.io/last-applied-configuration` holds the last configuration as compact JSON.

mod last_applied;
mod prune;

use serde_json::Value;

use crate::builder::{self, FILES, Found, Wanted};
use crate::command::Command;
use crate::error::{Error, Result, fail};
use crate::flags::{Args, Flag, list, on, optional, switch, text};
use crate::output;
use crate::printers::{self, OUTPUT};
use crate::session::{Query, Session};

pub const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// How often a patch is made anew when the object changed in between.
const MAX_CONFLICT_RETRIES: usize = 5;

/// Flags of every command that writes.
pub const WRITE: &[Flag] = &[
    optional("dry-run", "unchanged", "none", "Must be \"none\", \"server\", or \"client\"."),
    text("field-manager", "", "Name of the manager used to track field ownership."),
    optional("validate", "strict", "strict", "Must be one of: strict (or true), warn, ignore (or false)."),
    switch("save-config", "If true, the configuration of current object will be saved in its annotation."),
];
const FLAGS: &[Flag] = &[
    text("applyset", "", "[alpha] The name of the ApplySet that tracks which resources are being managed").hidden(),
    text("cascade", "background", "Must be \"background\", \"orphan\", or \"foreground\"."),
    text("timeout", "0s", "The length of time to wait before giving up on a delete."),
    switch("all", "Select all resources in the namespace of the specified resource types."),
    switch("force-conflicts", "If true, server-side apply will force the changes against conflicts."),
    switch("force", "If true, immediately remove resources from API and bypass graceful deletion."),
    text("grace-period", "-1", "Period of time in seconds given to the resource to terminate gracefully."),
    on("openapi-patch", "If true, use openapi to calculate diff when the openapi presents and the resource can be found in the openapi spec."),
    on("overwrite", "Automatically resolve conflicts between the modified and live configuration by using values from the modified configuration"),
    switch("prune", "Automatically delete resource objects, that do not appear in the configs."),
    list("prune-allowlist", "Overwrite the default allowlist with <group/version/kind> for --prune"),
    text("selector", "", "Selector (label query) to filter on.").short('l'),
    switch("server-side", "If true, apply runs in the server instead of the client."),
    text("subresource", "", "If specified, apply will operate on the subresource of the requested object."),
    switch("wait", "If true, wait for resources to be gone before returning."),
];

pub static APPLY: Command = Command {
    name: "apply",
    aliases: &[],
    usage: "(-f FILENAME | -k DIRECTORY) [options]",
    short: "Apply a configuration to a resource by file name or stdin",
    flags: &[FLAGS, WRITE, FILES, OUTPUT],
    subcommands: &[&last_applied::EDIT, &last_applied::SET, &last_applied::VIEW],
    run: Some(|session, args| Box::pin(run(session, args))),
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DryRun {
    None,
    Client,
    Server,
}

pub fn dry_run(args: &Args) -> Result<DryRun> {
    match args.text("dry-run") {
        "none" | "" => Ok(DryRun::None),
        "client" => Ok(DryRun::Client),
        "server" => Ok(DryRun::Server),
        "unchanged" => fail("--dry-run flag without a value was specified. A value must be set: \"none\", \"server\", or \"client\"."),
        other => fail(format!("Invalid dry-run value ({other}). Must be \"none\", \"server\", or \"client\".")),
    }
}

fn validation(args: &Args) -> Result<&'static str> {
    match args.text("validate") {
        "" | "true" | "strict" => Ok("Strict"),
        "warn" => Ok("Warn"),
        "false" | "ignore" => Ok("Ignore"),
        other => fail(format!("invalid - validate option {other:?}; must be one of: strict (or true), warn, ignore (or false)")),
    }
}

/// The write options of `args` as a query on `path`.
pub fn write_query(path: String, args: &Args, manager: &str) -> Result<String> {
    let manager = args.given("field-manager").unwrap_or(manager);
    Ok(Query::of(path).with("dryRun", if dry_run(args)? == DryRun::Server { "All" } else { "" }).with("fieldManager", manager).with("fieldValidation", validation(args)?).end())
}

/// The object as its manifest means it, without the annotation that repeats it.
pub fn bare(object: &Value) -> Value {
    let mut bare = object.clone();
    if let Some(annotations) = bare.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        annotations.remove(LAST_APPLIED);
    }
    if !bare.pointer("/metadata/annotations").is_some_and(Value::is_object) {
        bare["metadata"]["annotations"] = Value::Object(Default::default());
    }
    bare
}

/// As Go's encoder writes an object on one line.
fn compact(object: &Value) -> String {
    format!("{}\n", object.to_string().replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026"))
}

/// The object with itself, as it was given, in the annotation.
pub fn annotated(object: &Value) -> Value {
    let mut bare = bare(object);
    let text = compact(&bare);
    bare["metadata"]["annotations"][LAST_APPLIED] = text.into();
    bare
}

async fn run(session: &Session, args: &Args) -> Result<()> {
    if !builder::has_files(args) {
        return fail("must specify one of -f and -k");
    }
    args.none()?;
    let dry = dry_run(args)?;
    validation(args)?;
    if args.on("force-conflicts") && !args.on("server-side") {
        return fail("--force-conflicts only works with --server-side");
    }
    if dry == DryRun::Client && args.on("server-side") {
        return fail("--dry-run=client doesn't work with --server-side (did you mean --dry-run=server instead?)");
    }
    if args.on("server-side") && args.on("force") {
        return fail("--force cannot be used with --server-side");
    }
    prune::check(args)?;
    let mut set = prune::ApplySet::of(session, args).await?;
    let prunable = if args.on("prune") && set.is_none() { prune::kinds(session, args).await? } else { Vec::new() };
    let selector = api::selector::LabelSelector::parse(args.text("selector")).map_err(|error| Error::Message(error.to_string()))?;
    let documents = builder::documents(session, args).await?;
    if documents.is_empty() {
        let error = Error::Message("no objects passed to apply".to_owned());
        let empty = args.slice("filename").into_iter().find(|name| std::fs::metadata(name).is_ok_and(|file| file.is_file() && file.len() == 0));
        return Err(match empty {
            Some(name) => error.hint(format!(
                "{name} is empty: the command that was to write it failed. For a manifest to start from, try:\nkubectl create deployment NAME --image=IMAGE --dry-run=client -o yaml > {name}"
            )),
            None => error,
        });
    }
    let mut errors = Vec::new();
    let mut all = Vec::new();
    for document in documents {
        let wanted = async {
            let mut document = document?;
            let none = serde_json::Map::new();
            if !selector.matches(document.value.pointer("/metadata/labels").and_then(Value::as_object).unwrap_or(&none)) {
                return Ok(None);
            }
            if let Some(set) = &set {
                set.mark(&mut document.value)?;
            }
            builder::place(session, document).await.map(Some)
        };
        all.push(wanted.await);
    }
    if args.changed("selector") && all.iter().all(|wanted| matches!(wanted, Ok(None))) {
        return fail("no objects passed to apply");
    }
    if let Some(set) = &mut set {
        let known: Vec<Wanted> = all.iter().filter_map(|wanted| wanted.as_ref().ok().and_then(Option::clone)).collect();
        set.begin(session, args, &known).await?;
    }
    let mut applied = prune::Applied::default();
    for wanted in all {
        let outcome = async {
            let Some(wanted) = wanted? else { return Ok(None) };
            if args.on("server-side") { server_side(session, args, &wanted).await } else { client_side(session, args, &wanted).await }.map(Some)
        };
        match outcome.await {
            Ok(object) => object.iter().for_each(|object| applied.note(object)),
            Err(error) => errors.push(error),
        }
    }
    if errors.is_empty() && args.on("prune") {
        match &set {
            Some(set) => set.prune(session, args, &applied).await?,
            None => prune::by_labels(session, args, prunable, &applied).await?,
        }
    }
    builder::gather(errors)
}

async fn server_side(session: &Session, args: &Args, wanted: &Wanted) -> Result<Value> {
    let document = wanted.document.clone().unwrap_or_default();
    let query = Query::of(write_query(wanted.path(), args, "kubectl")?).with("force", if args.on("force-conflicts") { "true" } else { "" }).end();
    let object = session.patch(&query, "application/apply-patch+yaml", &document).await.map_err(|error| {
        let conflict = error.status().is_some_and(api::Status::is_conflict);
        if conflict { error.hint("another manager owns these fields; to take them over, apply with --server-side --force-conflicts") } else { error }
    })?;
    let found = Found::of(&wanted.resource, object, &wanted.source);
    printers::done(args, &found.object, &found.label(), "serverside-applied")?;
    Ok(found.object)
}

async fn client_side(session: &Session, args: &Args, wanted: &Wanted) -> Result<Value> {
    let document = wanted.document.clone().unwrap_or_default();
    let modified = annotated(&document);
    let dry = dry_run(args)?;
    let Some(name) = &wanted.name else {
        return fail(format!("error when retrieving current configuration of:\nResource: \"{}, Resource={}\", GroupVersionKind: \"{}, Kind={}\"\nName: \"\", Namespace: \"{}\"\nfrom server for: \"{}\": resource name may not be empty", wanted.resource.api_version(), wanted.resource.plural, wanted.resource.api_version(), wanted.resource.kind, wanted.namespace.as_deref().unwrap_or(""), wanted.source));
    };
    let label = format!("{}/{name}", wanted.resource.label());
    let said = |object: Value, verb: &str| printers::done(args, &object, &label, verb).map(|()| object);
    let mut attempt = 0;
    loop {
        let current = match session.get(&wanted.path()).await {
            Ok(current) => Some(current),
            Err(error) if error.is_not_found() => None,
            Err(error) => return Err(error),
        };
        let Some(current) = current else {
            if dry == DryRun::Client {
                return said(modified, "created");
            }
            let path = write_query(wanted.resource.collection(wanted.namespace.as_deref()), args, "kubectl-client-side-apply")?;
            let object = session.post(&path, &modified).await.map_err(|error| error.source("creating", &wanted.source))?;
            return said(object, "created");
        };
        if current.pointer("/metadata/annotations").and_then(|annotations| annotations.get(LAST_APPLIED)).is_none() {
            output::complain(format!(
                "Warning: resource {}/{name} is missing the {LAST_APPLIED} annotation which is required by kubectl apply. kubectl apply should only be used on resources created declaratively by either kubectl create --save-config or kubectl apply. The missing annotation will be patched automatically.",
                wanted.resource.plural
            ));
        }
        let (kind, patch) = three_way(wanted, &current, &modified, args.on("overwrite")).map_err(|error| error.source("applying patch to", &wanted.source))?;
        // Upstream does not ask what a dry run would change.
        if dry == DryRun::Client {
            return said(current, "configured");
        }
        if patch.as_object().is_some_and(serde_json::Map::is_empty) {
            return said(current, "unchanged");
        }
        let path = write_query(wanted.path(), args, "kubectl-client-side-apply")?;
        match session.patch(&path, kind, &patch).await {
            Ok(object) => {
                let same = object.pointer("/metadata/resourceVersion") == current.pointer("/metadata/resourceVersion");
                return said(object, if same { "unchanged" } else { "configured" });
            }
            Err(error) if error.status().is_some_and(api::Status::is_conflict) && attempt < MAX_CONFLICT_RETRIES => attempt += 1,
            Err(error) => {
                let error = match error {
                    Error::Server { status, .. } => Error::Server {
                        context: Some(format!(
                            "error when applying patch:\n{patch}\nto:\nResource: \"{}, Resource={}\", GroupVersionKind: \"{}, Kind={}\"\nName: \"{name}\", Namespace: \"{}\"\nfor: {:?}: error when patching {:?}: ",
                            gv(wanted), wanted.resource.plural, gv(wanted), wanted.resource.kind, wanted.namespace.as_deref().unwrap_or(""), wanted.source, wanted.source
                        )),
                        status,
                    },
                    other => other,
                };
                return Err(error);
            }
        }
    }
}

/// `apps/v1`, and `/v1` for the core group, as Go prints a GroupVersion here.
fn gv(wanted: &Wanted) -> String {
    format!("{}/{}", wanted.resource.group, wanted.resource.version)
}

/// The patch's media type and the patch.
pub fn three_way(wanted: &Wanted, current: &Value, modified: &Value, overwrite: bool) -> Result<(&'static str, Value)> {
    let original: Value = current
        .pointer("/metadata/annotations")
        .and_then(|annotations| annotations.get(LAST_APPLIED))
        .and_then(Value::as_str)
        .and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or_else(|| Value::Object(Default::default()));
    let bad = |error: patch::PatchError| Error::Message(format!("error when creating patch: {error}"));
    Ok(match wanted.resource.schema() {
        Some(schema) => ("application/strategic-merge-patch+json", patch::three_way(&original, modified, current, Some(schema), overwrite).map_err(bad)?),
        None => ("application/merge-patch+json", patch::three_way_merge(&original, modified, current).map_err(bad)?),
    })
}
