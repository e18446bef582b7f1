//! `kubectl rollout`: how a workload's latest change goes, what changes there were, and back to one of them.
//!
//! Mirrors k8s.io/kubectl/pkg/cmd/rollout and polymorphichelpers.

mod history;
mod status;
mod undo;

use serde_json::{Value, json};

use super::apply::WRITE;
use super::change;
use super::pods;
use crate::builder::{self, FILES, Found};
use crate::command::{command, family};
use crate::error::{Error, Result, fail};
use crate::flags::{Args, Flag, on, text};
use crate::output;
use crate::printers::{OUTPUT, done};
use crate::session::Session;

const SELECTOR: &[Flag] = &[text("selector", "", "Selector (label query) to filter on, supports '=', '==', '!=', 'in', 'notin'.").short('l')];
const HISTORY_FLAGS: &[Flag] = &[text("revision", "0", "See the details, including podTemplate of the revision specified")];
const STATUS_FLAGS: &[Flag] = &[
    text("revision", "0", "Pin to a specific revision for showing its status. Defaults to 0 (last revision)."),
    text("timeout", "0s", "The length of time to wait before ending watch, zero means never."),
    on("watch", "Watch the status of the rollout until it's done.").short('w'),
];
const UNDO_FLAGS: &[Flag] = &[text("to-revision", "0", "The revision to rollback to. Default to 0 (last revision).")];
const MANAGER: &str = "kubectl-rollout";

command!(HISTORY, "history", [], "(TYPE NAME | TYPE/NAME) [flags] [options]", "View rollout history", [HISTORY_FLAGS, SELECTOR, FILES, OUTPUT], show_history);
command!(PAUSE, "pause", [], "RESOURCE [options]", "Mark the provided resource as paused", [SELECTOR, WRITE, FILES, OUTPUT], pause);
command!(RESTART, "restart", [], "RESOURCE [options]", "Restart a resource", [SELECTOR, WRITE, FILES, OUTPUT], restart);
command!(RESUME, "resume", [], "RESOURCE [options]", "Resume a paused resource", [SELECTOR, WRITE, FILES, OUTPUT], resume);
command!(STATUS, "status", [], "(TYPE NAME | TYPE/NAME) [flags] [options]", "Show the status of the rollout", [STATUS_FLAGS, SELECTOR, FILES], show_status);
command!(UNDO, "undo", [], "(TYPE NAME | TYPE/NAME) [flags] [options]", "Undo a previous rollout", [UNDO_FLAGS, SELECTOR, WRITE, FILES, OUTPUT], go_back);
family!(ROLLOUT, "rollout", "Manage the rollout of a resource", [&HISTORY, &PAUSE, &RESTART, &RESUME, &STATUS, &UNDO]);

/// The workloads meant; a type alone means all of them.
async fn find(session: &Session, args: &Args) -> Result<Vec<Result<Found>>> {
    if args.positional.is_empty() && !builder::has_files(args) {
        return fail("required resource not specified");
    }
    if builder::has_files(args) || args.given("selector").is_some() {
        return builder::resolve(session, args, &args.positional).await;
    }
    let mut all = Vec::new();
    for wanted in builder::arguments(session, &args.positional, false).await? {
        if wanted.name.is_some() {
            all.push(match session.get(&wanted.path()).await {
                Ok(object) => Ok(Found { namespace: wanted.namespace.clone(), ..Found::of(&wanted.resource, object, "") }),
                Err(error) => Err(match args.positional.first() {
                    Some(word) if error.is_not_found() => hinted(session, error, word).await,
                    _ => error,
                }),
            });
            continue;
        }
        let list = session.get(&wanted.path()).await?;
        all.extend(pods::array(&list, "/items").map(|item| {
            let mut item = item.clone();
            item["apiVersion"] = wanted.resource.api_version().into();
            item["kind"] = wanted.resource.kind.clone().into();
            Ok(Found::of(&wanted.resource, item, ""))
        }));
    }
    Ok(all)
}

async fn hinted(session: &Session, error: Error, word: &str) -> Error {
    match pods::hinted(session, error, word, "rollout").await {
        Error::Hinted { error, .. } => error.hint("kubectl run makes a Pod since 1.18, and a Pod has no rollout; try: kubectl create deployment NAME --image=IMAGE"),
        other => other,
    }
}

/// Runs `act` on each object; what fails does not stop the others.
async fn each<'a, F, O>(session: &'a Session, args: &'a Args, act: F) -> Result<()>
where
    F: Fn(Found) -> O,
    O: Future<Output = Result<()>> + 'a,
{
    let mut errors = Vec::new();
    for found in find(session, args).await? {
        let outcome = match found {
            Ok(found) => act(found).await,
            Err(error) => Err(error),
        };
        errors.extend(outcome.err());
    }
    builder::gather(errors)
}

/// `deployments.apps "web"`
fn quoted(found: &Found) -> String {
    format!("{} {:?}", found.resource.qualified(), found.name)
}

async fn patch(session: &Session, args: &Args, found: &Found, change: Value, verb: &str) -> Result<()> {
    let kind = if found.resource.schema().is_some() { change::STRATEGIC } else { change::MERGE };
    let object = change::send(session, args, found, MANAGER, kind, &change).await?;
    done(args, &object, &found.label(), verb)
}

fn paused(found: &Found) -> bool {
    found.object["spec"]["paused"] == true
}

async fn pause(session: &Session, args: &Args) -> Result<()> {
    each(session, args, |found| async move {
        match (found.resource.kind.as_str(), paused(&found)) {
            ("Deployment", false) => patch(session, args, &found, json!({"spec": {"paused": true}}), "paused").await,
            ("Deployment", true) => fail(format!("{} is already paused", quoted(&found))),
            _ => fail(format!("{} pausing is not supported", quoted(&found))),
        }
    })
    .await
}

async fn resume(session: &Session, args: &Args) -> Result<()> {
    each(session, args, |found| async move {
        match (found.resource.kind.as_str(), paused(&found)) {
            ("Deployment", true) => patch(session, args, &found, json!({"spec": {"paused": null}}), "resumed").await,
            ("Deployment", false) => fail(format!("{} is not paused", quoted(&found))),
            _ => fail(format!("{} resuming is not supported", quoted(&found))),
        }
    })
    .await
}

async fn restart(session: &Session, args: &Args) -> Result<()> {
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let change = json!({"spec": {"template": {"metadata": {"annotations": {"kubectl.kubernetes.io/restartedAt": now}}}}});
    let change = &change;
    each(session, args, |found| async move {
        match found.resource.kind.as_str() {
            "Deployment" if paused(&found) => fail(format!("{} can't restart paused deployment (run rollout resume first)", quoted(&found))),
            "Deployment" | "DaemonSet" | "StatefulSet" => patch(session, args, &found, change.clone(), "restarted").await,
            _ => fail(format!("{} restarting is not supported", quoted(&found))),
        }
    })
    .await
}

async fn show_status(session: &Session, args: &Args) -> Result<()> {
    each(session, args, |found| async move { status::follow(session, args, &found).await }).await
}

async fn show_history(session: &Session, args: &Args) -> Result<()> {
    let revision = args.int("revision")?;
    if revision < 0 {
        return fail(format!("revision must be a positive integer: {revision}"));
    }
    each(session, args, |found| async move {
        let past = history::of(session, &found).await?;
        if revision == 0 {
            output::write(format!("{} \n{}\n", found.label(), history::table(&past)).as_bytes());
            return Ok(());
        }
        let Some(one) = past.iter().find(|one| one.number == revision) else { return fail("unable to find the specified revision") };
        output::write(format!("{} with revision #{revision}\n{}\n", found.label(), history::template(&one.template)).as_bytes());
        Ok(())
    })
    .await
}

async fn go_back(session: &Session, args: &Args) -> Result<()> {
    each(session, args, |found| async move { undo::run(session, args, &found).await }).await
}
