//! `kubectl attach`: this terminal joined to a container's main process; `kubectl run -i` uses it too.
//!
//! Mirrors k8s.io/kubectl/pkg/cmd/attach.

use serde_json::Value;

use super::change::usage;
use super::detach;
use super::pods::{self, array, text as at};
use super::streams;
use crate::builder::{self, FILES};
use crate::command::command;
use crate::error::{Result, fail};
use crate::flags::{Args, Flag};
use crate::output;
use crate::session::{Query, Session};

command!(ATTACH, "attach", [], "(POD | TYPE/NAME) -c CONTAINER [options]", "Attach to a running container", [streams::FLAGS, DETACH, FILES], run);

pub const DETACH: &[Flag] = &[crate::flags::text("detach-keys", detach::DEFAULT, "The key sequence for detaching from a container.")];

pub async fn run(session: &Session, args: &Args) -> Result<()> {
    let found = match (&args.positional[..], builder::has_files(args)) {
        ([], false) => return fail("at least 1 argument is required for attach"),
        ([_, _, _, ..], _) => return Err(usage(args, format!("expected POD, TYPE/NAME, or TYPE NAME, (at most 2 arguments) saw {}: {:?}", args.positional.len(), args.positional))),
        ([word], false) => pods::one(session, word, "attach").await?,
        (words, _) => builder::resolve(session, args, words).await?.into_iter().next().unwrap_or_else(|| fail("no objects passed to attach"))?,
    };
    let pod = pods::attachable(session, &found, args.duration("pod-running-timeout")?).await?;
    let phase = at(&pod, "/status/phase");
    if phase == "Succeeded" || phase == "Failed" {
        return fail(format!("cannot attach a container in a completed pod; current phase is {phase}"));
    }
    let asked = args.text("container");
    if !asked.is_empty() && !pods::containers(&pod).any(|(_, container)| container == asked) {
        return fail(format!("container {asked} not found in pod {}", at(&pod, "/metadata/name")));
    }
    let container = pods::container(&pod, asked, args.on("quiet"))?;
    to(session, &pod, &container, args.on("stdin"), args.on("tty"), args.on("quiet"), args.text("detach-keys")).await
}

/// What to expect of an attachment.
pub fn announce(quiet: bool) {
    if !quiet {
        output::complain("All commands and output from this session will be recorded in container logs, including credentials and sensitive information passed through the command prompt.");
        output::complain("If you don't see a command prompt, try pressing enter.");
    }
}

/// Joins this program's streams to `container` of `pod`, until it ends.
pub async fn to(session: &Session, pod: &Value, container: &str, stdin: bool, tty: bool, quiet: bool, detach_keys: &str) -> Result<()> {
    let has_tty = array(pod, "/spec/containers").chain(array(pod, "/spec/ephemeralContainers")).any(|entry| at(entry, "/name") == container && entry["tty"] == true);
    if tty && !has_tty && !quiet {
        output::complain(format!("error: Unable to use a TTY - container {container} did not allocate one"));
    }
    let raw = streams::terminal(stdin, tty && has_tty);
    let keys = if raw { detach::keys(if detach_keys.is_empty() { detach::DEFAULT } else { detach_keys })? } else { Vec::new() };
    announce(quiet);
    let path = Query::of(format!("/api/v1/namespaces/{}/pods/{}/attach", at(pod, "/metadata/namespace"), at(pod, "/metadata/name")))
        .with("container", container)
        .with("stdin", if stdin { "true" } else { "" })
        .with("stdout", "true")
        // A terminal has one stream for both.
        .with("stderr", if has_tty { "" } else { "true" })
        .with("tty", if has_tty { "true" } else { "" })
        .end();
    let streams::Streams { stdin, stdout, stderr, tty } = streams::own(stdin, raw);
    streams::run(session, &path, streams::Streams { stdin: stdin.map(|stdin| detach::Detachable::new(stdin, keys)), stdout, stderr, tty }).await?;
    if raw && !quiet {
        let (name, namespace) = (at(pod, "/metadata/name"), at(pod, "/metadata/namespace"));
        output::line(if array(pod, "/spec/ephemeralContainers").any(|entry| at(entry, "/name") == container) {
            format!("Session ended, the ephemeral container will not be restarted but may be reattached using 'kubectl attach {name} -c {container} -n {namespace} -i -t' if it is still running")
        } else {
            format!("Session ended, resume using 'kubectl attach {name} -c {container} -n {namespace} -i -t' command")
        });
    }
    Ok(())
}
