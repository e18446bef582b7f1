//! `kubectl create`: from files, and from flags, one file a family of kinds.

mod access;
mod config;
mod network;
mod policy;
mod workload;

use std::io::Read;

use serde_json::{Map, Value, json};

use super::apply::{DryRun, WRITE, annotated, dry_run, write_query};
use crate::builder::{self, FILES, Found};
use crate::command::{Command, command, family};
use crate::error::{Result, fail};
use crate::flags::{Args, Flag, switch, text};
use crate::output;
use crate::printers::{self, OUTPUT, Printer};
use crate::session::Session;

const FLAGS: &[Flag] = &[
    switch("edit", "Edit the API resource before creating"),
    switch("windows-line-endings", "Only relevant if --edit=true."),
    text("raw", "", "Raw URI to POST to the server."),
    text("selector", "", "Selector (label query) to filter on.").short('l'),
];

pub static CREATE: Command = Command {
    name: "create",
    aliases: &[],
    usage: "-f FILENAME [options]",
    short: "Create a resource from a file or from stdin",
    flags: &[FLAGS, WRITE, FILES, OUTPUT],
    subcommands: &[
        &access::CLUSTERROLE, &access::CLUSTERROLEBINDING, &config::CONFIGMAP, &workload::CRONJOB, &workload::DEPLOYMENT, &network::INGRESS, &workload::JOB, &config::NAMESPACE, &policy::PDB,
        &policy::PRIORITYCLASS, &policy::QUOTA, &access::ROLE, &access::ROLEBINDING, &SECRET, &SERVICE, &config::SERVICEACCOUNT, &access::TOKEN,
    ],
    run: Some(|session, args| Box::pin(run(session, args))),
};
family!(SECRET, "secret", "Create a secret using a specified subcommand", [&config::DOCKER_REGISTRY, &config::GENERIC, &config::TLS]);
pub static SERVICE: Command = Command { aliases: &["svc"], ..SERVICE_FAMILY };
const SERVICE_FAMILY: Command = Command {
    name: "service",
    aliases: &[],
    usage: "SUBCOMMAND",
    short: "Create a service using a specified subcommand",
    flags: &[],
    subcommands: &[&network::CLUSTERIP, &network::EXTERNALNAME, &network::LOADBALANCER, &network::NODEPORT],
    run: None,
};
command!(REPLACE, "replace", [], "-f FILENAME", "Replace a resource by file name or stdin", [REPLACE_FLAGS, WRITE, FILES, OUTPUT], replace);
const REPLACE_FLAGS: &[Flag] = &[
    text("cascade", "background", "Must be \"background\", \"orphan\", or \"foreground\"."),
    text("timeout", "0s", "The length of time to wait before giving up on a delete."),
    switch("wait", "If true, wait for resources to be gone before returning."),
    switch("force", "If true, immediately remove resources from API and bypass graceful deletion."),
    text("grace-period", "-1", "Period of time in seconds given to the resource to terminate gracefully."),
    text("raw", "", "Raw URI to PUT to the server."),
    text("subresource", "", "If specified, replace will operate on the subresource of the requested object."),
];

async fn run(session: &Session, args: &Args) -> Result<()> {
    if !builder::has_files(args) {
        if !args.positional.is_empty() {
            return Err(super::change::usage(args, format!("Unexpected args: [{}]", args.positional.join(" "))));
        }
        output::complain("error: must specify one of -f and -k");
        return Err(crate::error::Error::Silent(1));
    }
    if let Some(raw) = args.given("raw") {
        let mut text = String::new();
        match args.slice("filename").first().map(String::as_str) {
            Some("-") | None => std::io::stdin().read_to_string(&mut text)?,
            Some(file) => {
                text = std::fs::read_to_string(file)?;
                0
            }
        };
        let response = session.open(http::Method::POST, raw, &[("content-type", "application/json")], text.into_bytes()).await?;
        output::line(session.read(response).await?.to_string());
        return Ok(());
    }
    let documents = builder::documents(session, args).await?;
    if documents.is_empty() {
        return fail("no objects passed to create");
    }
    let mut errors = Vec::new();
    for document in documents {
        let outcome = async {
            let wanted = builder::place(session, document?).await?;
            let mut object = wanted.document.clone().unwrap_or_default();
            if args.on("save-config") {
                object = annotated(&object);
            }
            fresh(&mut object);
            if dry_run(args)? != DryRun::Client {
                let path = write_query(wanted.resource.collection(wanted.namespace.as_deref()), args, "kubectl-create")?;
                object = session.post(&path, &object).await.map_err(|error| error.source("creating", &wanted.source))?;
            }
            let found = Found::of(&wanted.resource, object, &wanted.source);
            printers::done(args, &found.object, &found.label(), "created")
        };
        if let Err(error) = outcome.await {
            errors.push(error);
        }
    }
    builder::gather(errors)
}

async fn replace(session: &Session, args: &Args) -> Result<()> {
    if !builder::has_files(args) {
        return fail("must specify one of -f and -k");
    }
    let documents = builder::documents(session, args).await?;
    if documents.is_empty() {
        return fail("no objects passed to replace");
    }
    let mut errors = Vec::new();
    for document in documents {
        let outcome = async {
            let wanted = builder::place(session, document?).await?;
            let mut object = wanted.document.clone().unwrap_or_default();
            if object.pointer("/metadata/annotations").and_then(|annotations| annotations.get(super::apply::LAST_APPLIED)).is_some() || args.on("save-config") {
                object = annotated(&object);
            }
            if args.on("force") {
                fresh(&mut object);
                super::delete::remove_and_wait(session, &wanted).await?;
                let path = write_query(wanted.resource.collection(wanted.namespace.as_deref()), args, "kubectl-replace")?;
                object = session.post(&path, &object).await.map_err(|error| error.source("replacing", &wanted.source))?;
            } else if dry_run(args)? != DryRun::Client {
                let mut path = wanted.path();
                if let Some(subresource) = args.given("subresource") {
                    path = format!("{path}/{subresource}");
                }
                object = session.put(&write_query(path, args, "kubectl-replace")?, &object).await.map_err(|error| error.source("replacing", &wanted.source))?;
            }
            let found = Found::of(&wanted.resource, object, &wanted.source);
            printers::done(args, &found.object, &found.label(), "replaced")
        };
        if let Err(error) = outcome.await {
            errors.push(error);
        }
    }
    builder::gather(errors)
}



/// Creates `object` (or only shows it) and says so. `root` is `/apis/apps/v1`.
pub async fn submit(session: &Session, args: &Args, root: &str, plural: &str, namespaced: bool, label: &str, mut object: Value) -> Result<()> {
    let dry = dry_run(args)?;
    let name = object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or("").to_owned();
    if namespaced {
        let explicit = session.explicit_namespace();
        let namespace = session.namespace_or_default();
        // Upstream writes the namespace into the manifest only when it was asked for.
        if let Some(namespace) = explicit.as_ref().or((dry != DryRun::Client).then_some(&namespace)) {
            object["metadata"]["namespace"] = namespace.clone().into();
        }
    }
    if args.on("save-config") {
        object = annotated(&object);
    }
    if dry != DryRun::Client {
        let path = if namespaced { format!("{root}/namespaces/{}/{plural}", session.namespace()?) } else { format!("{root}/{plural}") };
        object = session.post(&write_query(path, args, "kubectl-create")?, &object).await.map_err(|error| failed(error, label, &object))?;
    }
    if let Some(printer) = Printer::of(args)? {
        if !args.on("show-managed-fields") {
            printers::hide_managed_fields(&mut object);
        }
        return printer.print(&object, &format!("{label}/{name}"));
    }
    printers::done(args, &object, &format!("{label}/{name}"), "created")
}

/// `a=b` pairs.
pub fn pairs(args: &Args, flag: &str) -> Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    for text in args.slice(flag) {
        match text.split_once('=') {
            Some((key, value)) => found.push((key.to_owned(), value.to_owned())),
            None => return fail(format!("invalid {flag}, expected key=value, got {text}")),
        }
    }
    Ok(found)
}

pub fn labels(name: &str) -> Value {
    json!({"app": name})
}

pub fn map(pairs: Vec<(String, Value)>) -> Value {
    Value::Object(pairs.into_iter().collect::<Map<_, _>>())
}

/// What is created has no version yet, whatever its manifest says: upstream's client takes it out.
fn fresh(object: &mut Value) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("resourceVersion");
    }
}

/// Upstream wraps these errors, which costs them their `Error from server`.
fn failed(error: crate::error::Error, label: &str, object: &Value) -> crate::error::Error {
    let service = format!("{} service", object.pointer("/spec/type").and_then(Value::as_str).unwrap_or("ClusterIP"));
    let what = match label {
        "deployment.apps" => "deployment",
        "job.batch" => "job",
        "cronjob.batch" => "cronjob",
        "service" => service.as_str(),
        "configmap" => "configmap",
        "secret" => "secret",
        "resourcequota" => "quota",
        "serviceaccount" => "serviceaccount",
        "rolebinding.rbac.authorization.k8s.io" => "rolebinding",
        "clusterrolebinding.rbac.authorization.k8s.io" => "clusterrolebinding",
        "ingress.networking.k8s.io" => "ingress",
        "poddisruptionbudget.policy" => "poddisruptionbudgets",
        "priorityclass.scheduling.k8s.io" => "priorityclass",
        _ => return error,
    };
    match error.status() {
        Some(status) => crate::error::Error::Message(format!("failed to create {what}: {}", status.message)),
        None => error,
    }
}
