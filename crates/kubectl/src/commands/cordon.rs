//! `kubectl cordon` and `uncordon`: may new pods come to a node?
//!
//! Mirrors k8s.io/kubectl/pkg/cmd/drain (RunCordonOrUncordon).

use serde_json::{Value, json};

use super::apply::{DryRun, WRITE, dry_run, write_query};
use super::change::{STRATEGIC, usage};
use crate::builder::{self, Found};
use crate::command::command;
use crate::error::{Error, Result};
use crate::flags::{Args, Flag, text};
use crate::printers::{OUTPUT, done};
use crate::session::Session;

const FLAGS: &[Flag] = &[text("selector", "", "Selector (label query) to filter on, supports '=', '==', '!=', 'in', 'notin'.").short('l')];

command!(CORDON, "cordon", [], "NODE [options]", "Mark node as unschedulable", [FLAGS, WRITE, OUTPUT], cordon);
command!(UNCORDON, "uncordon", [], "NODE [options]", "Mark node as schedulable", [FLAGS, WRITE, OUTPUT], uncordon);

/// The nodes named, or selected.
pub async fn nodes(session: &Session, args: &Args) -> Result<Vec<Result<Found>>> {
    let command = args.command.name;
    let words: Vec<String> = match (&args.positional[..], args.given("selector")) {
        ([], None) => return Err(usage(args, format!("USAGE: {command} NODE [flags]"))),
        ([], Some(_)) => vec!["nodes".to_owned()],
        (_, Some(_)) => return Err(usage(args, "error: cannot specify both a node name and a --selector option")),
        (names, None) => names.iter().map(|name| if name.contains('/') { name.clone() } else { format!("nodes/{name}") }).collect(),
    };
    builder::resolve(session, args, &words).await
}

/// Marks one node, and says so.
pub async fn mark(session: &Session, args: &Args, found: &Found, unschedulable: bool) -> Result<()> {
    let verb = if unschedulable { "cordoned" } else { "uncordoned" };
    if found.object.pointer("/spec/unschedulable").and_then(Value::as_bool).unwrap_or(false) == unschedulable {
        return done(args, &found.object, &found.label(), &format!("already {verb}"));
    }
    let value = if unschedulable { Value::Bool(true) } else { Value::Null };
    if dry_run(args)? != DryRun::Client {
        let path = write_query(found.path(), args, "kubectl-cordon")?;
        session.patch(&path, STRATEGIC, &json!({"spec": {"unschedulable": value}})).await.map_err(|error| Error::Message(format!("unable to {} node {:?}: {error}", &verb[..verb.len() - 2], found.name)))?;
    }
    done(args, &found.object, &found.label(), verb)
}

async fn each(session: &Session, args: &Args, unschedulable: bool) -> Result<()> {
    let mut errors = Vec::new();
    for found in nodes(session, args).await? {
        let outcome = async { mark(session, args, &found?, unschedulable).await };
        if let Err(error) = outcome.await {
            errors.push(error);
        }
    }
    builder::gather(errors)
}

async fn cordon(session: &Session, args: &Args) -> Result<()> {
    each(session, args, true).await
}

async fn uncordon(session: &Session, args: &Args) -> Result<()> {
    each(session, args, false).await
}
