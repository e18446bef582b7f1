//! `kubectl delete`: by file, name or selector; waits for the end by watching.

use http::Method;
use serde_json::{Value, json};

use super::apply::{DryRun, dry_run};
use crate::builder::{self, FILES, Found, SELECT, Wanted};
use crate::command::command;
use crate::error::{Error, Result, fail};
use crate::flags::{Args, Flag, on, optional, switch, text};
use crate::output;
use crate::session::{Query, Session};

const FLAGS: &[Flag] = &[
    optional("cascade", "background", "background", "Must be \"background\", \"orphan\", or \"foreground\"."),
    optional("dry-run", "unchanged", "none", "Must be \"none\", \"server\", or \"client\"."),
    switch("force", "If true, immediately remove resources from API and bypass graceful deletion."),
    text("grace-period", "-1", "Period of time in seconds given to the resource to terminate gracefully."),
    switch("ignore-not-found", "Treat \"resource not found\" as a successful delete."),
    switch("interactive", "If true, delete resource only when user confirms.").short('i'),
    switch("now", "If true, resources are signaled for immediate shutdown (same as --grace-period=1)."),
    text("output", "", "Output mode. Use \"-o name\" for shorter output (resource/name).").short('o'),
    text("raw", "", "Raw URI to DELETE to the server."),
    text("timeout", "0s", "The length of time to wait before giving up on a delete."),
    on("wait", "If true, wait for resources to be gone before returning."),
];
command!(DELETE, "delete", [], "([-f FILENAME] | [-k DIRECTORY] | TYPE [(NAME | -l label | --all)]) [options]", "Delete resources by file names, stdin, resources and names, or by resources and label selector", [FLAGS, FILES, SELECT], run);

fn options(args: &Args) -> Result<(Value, Option<i64>)> {
    let mut grace = args.int("grace-period")?;
    if args.on("now") {
        if grace != -1 {
            return fail("--now and --grace-period cannot be specified together");
        }
        grace = 1;
    }
    if grace == 0 && !args.on("force") {
        // Upstream: without --force, 0 means as fast as is safe.
        grace = 1;
    }
    if args.on("force") && grace < 0 {
        grace = 0;
    }
    let policy = match args.text("cascade") {
        "background" | "true" => "Background",
        "orphan" | "false" => "Orphan",
        "foreground" => "Foreground",
        other => return fail(format!("invalid cascade value ({other}). Must be \"background\", \"foreground\", or \"orphan\"")),
    };
    let mut body = json!({"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": policy});
    if grace >= 0 {
        body["gracePeriodSeconds"] = grace.into();
    }
    if dry_run(args)? == DryRun::Server {
        body["dryRun"] = json!(["All"]);
    }
    Ok((body, Some(grace).filter(|grace| *grace >= 0)))
}

async fn run(session: &Session, args: &Args) -> Result<()> {
    if !matches!(args.text("output"), "" | "name") {
        return fail(format!("unexpected -o output mode: {}. We only support '-o name'", args.text("output")));
    }
    let (body, _) = options(args)?;
    let mut errors = Vec::new();
    let mut wanted = Vec::new();
    let files = builder::has_files(args);
    if files {
        for document in builder::documents(session, args).await? {
            match document {
                Ok(document) => wanted.push(builder::place(session, document).await?),
                Err(error) => errors.push(error),
            }
        }
    } else {
        if args.positional.is_empty() {
            return fail(builder::NOTHING_GIVEN);
        }
        wanted = builder::arguments(session, &args.positional, args.on("all-namespaces")).await?;
    }
    let selecting = args.given("selector").is_some() || args.given("field-selector").is_some() || args.on("all") || args.on("all-namespaces");
    let mut targets: Vec<Found> = Vec::new();
    for one in wanted {
        match &one.name {
            Some(name) => targets.push(Found { resource: one.resource.clone(), namespace: one.namespace.clone(), name: name.clone(), object: Value::Null, source: one.source.clone() }),
            None if !selecting => return fail("resource(s) were provided, but no name was specified"),
            None => {
                let list = session.get(&builder::list_path(&one, args)).await?;
                targets.extend(list["items"].as_array().into_iter().flatten().map(|item| Found::of(&one.resource, item.clone(), "")));
            }
        }
    }
    if targets.is_empty() && errors.is_empty() {
        output::line("No resources found");
        return Ok(());
    }
    if args.on("interactive") {
        output::line("You are about to delete the following resource(s):");
        targets.iter().for_each(|target| output::line(target.label()));
        output::line("Do you want to continue? (y/N): ");
        let mut answer = String::new();
        std::io::stdin().read_line(&mut answer)?;
        if !matches!(answer.trim(), "y" | "Y") {
            output::line("deletion is cancelled");
            return Ok(());
        }
    }
    if args.on("force") {
        output::complain("Warning: Immediate deletion does not wait for confirmation that the running resource has been terminated. The resource may continue to run on the cluster indefinitely.");
    }
    let dry = dry_run(args)?;
    let mut gone = Vec::new();
    for target in targets {
        if target.resource.plural == "namespaces" && target.resource.group.is_empty() && args.on("all-namespaces") {
            continue;
        }
        if dry != DryRun::Client {
            match session.delete(&target.path(), &body).await {
                Ok(answer) => gone.push((target.clone(), uid(&answer))),
                Err(error) if error.is_not_found() && (args.on("ignore-not-found") || selecting) => continue,
                Err(error) => {
                    let error = if files { error.source("deleting", &target.source) } else { hint(session, &target, error).await };
                    errors.push(error);
                    continue;
                }
            }
        }
        say(args, &target, dry);
    }
    if args.on("wait") && dry == DryRun::None {
        let seconds = args.duration("timeout")?;
        for (target, uid) in gone {
            let waiting = until_gone(session, &target, &uid);
            if seconds > 0.0 {
                match tokio::time::timeout(std::time::Duration::from_secs_f64(seconds), waiting).await {
                    Ok(outcome) => outcome?,
                    Err(_) => errors.push(Error::Message(format!("timed out waiting for the condition on {}/{}", target.resource.plural, target.name))),
                }
            } else {
                waiting.await?;
            }
        }
    }
    builder::gather(errors)
}

/// E7 of the workshop: the lesson's `pingpong-yyyy` typed as it stands.
async fn hint(session: &Session, target: &Found, error: Error) -> Error {
    if !error.is_not_found() || target.resource.plural != "pods" {
        return error;
    }
    let Some((stem, _)) = target.name.rsplit_once('-') else { return error };
    let Ok(list) = session.get(&target.resource.collection(target.namespace.as_deref())).await else { return error };
    let near: Vec<&str> = list["items"].as_array().into_iter().flatten().filter_map(|item| item["metadata"]["name"].as_str()).filter(|name| name.starts_with(stem)).take(3).collect();
    if near.is_empty() { error } else { error.hint(format!("pod names end in letters and digits of their own; here are: {}", near.join(", "))) }
}

fn uid(answer: &Value) -> String {
    answer.pointer("/metadata/uid").or_else(|| answer.pointer("/details/uid")).and_then(Value::as_str).unwrap_or("").to_owned()
}

fn say(args: &Args, target: &Found, dry: DryRun) {
    if args.text("output") == "name" {
        return output::line(target.label());
    }
    let operation = if args.on("force") { "force deleted" } else { "deleted" };
    let place = target.namespace.as_ref().filter(|_| target.resource.namespaced).map(|namespace| format!(" from {namespace} namespace")).unwrap_or_default();
    let note = match dry {
        DryRun::None => "",
        DryRun::Client => " (dry run)",
        DryRun::Server => " (server dry run)",
    };
    output::line(format!("{} \"{}\" {operation}{place}{note}", target.resource.label(), target.name));
}

/// Until the object is gone, or another one stands under its name.
pub async fn until_gone(session: &Session, target: &Found, uid: &str) -> Result<()> {
    loop {
        let object = match session.get(&target.path()).await {
            Err(error) if error.is_not_found() => return Ok(()),
            other => other?,
        };
        if !uid.is_empty() && object.pointer("/metadata/uid").and_then(Value::as_str) != Some(uid) {
            return Ok(());
        }
        let version = object.pointer("/metadata/resourceVersion").and_then(Value::as_str).unwrap_or("");
        let path = Query::of(target.resource.collection(target.namespace.as_deref())).with("watch", "true").with("fieldSelector", &format!("metadata.name={}", target.name)).with("resourceVersion", version).end();
        let response = session.open(Method::GET, &path, &[("accept", "application/json")], Vec::new()).await?;
        let mut lines = client::remote::Lines::new(response);
        while let Some(Ok(line)) = lines.next().await {
            let event: Value = serde_json::from_slice(&line).unwrap_or_default();
            match event["type"].as_str() {
                Some("DELETED") => return Ok(()),
                Some("ERROR") => break,
                _ => {}
            }
        }
    }
}

/// For `replace --force`.
pub async fn remove_and_wait(session: &Session, wanted: &Wanted) -> Result<()> {
    let target = Found { resource: wanted.resource.clone(), namespace: wanted.namespace.clone(), name: wanted.name.clone().unwrap_or_default(), object: Value::Null, source: String::new() };
    match session.delete(&target.path(), &json!({"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0, "propagationPolicy": "Background"})).await {
        Ok(answer) => {
            output::line(format!("{} \"{}\" deleted{}", target.resource.label(), target.name, target.namespace.as_ref().map(|namespace| format!(" from {namespace} namespace")).unwrap_or_default()));
            until_gone(session, &target, &uid(&answer)).await
        }
        Err(error) if error.is_not_found() => Ok(()),
        Err(error) => Err(error),
    }
}
