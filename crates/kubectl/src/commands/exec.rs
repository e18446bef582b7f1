//! `kubectl exec`: a command in a container that runs.
//!
//! Mirrors k8s.io/kubectl/pkg/cmd/exec.

use serde_json::Value;

use super::change::usage;
use super::pods::{self, text as at};
use super::streams;
use crate::builder::{self, FILES};
use crate::command::command;
use crate::error::{Result, fail};
use crate::flags::Args;
use crate::session::{Query, Session};

command!(EXEC, "exec", [], "(POD | TYPE/NAME) [-c CONTAINER] [flags] -- COMMAND [args...] [options]", "Execute a command in a container", [streams::FLAGS, FILES], run);

pub async fn run(session: &Session, args: &Args) -> Result<()> {
    let (before, command) = args.split();
    let files = builder::has_files(args);
    if before.is_empty() && !files {
        return fail("pod, type/name or --filename must be specified");
    }
    if args.dash.is_none() && before.len() > usize::from(!files) {
        return Err(usage(args, "exec [POD] [COMMAND] is not supported anymore. Use exec [POD] -- [COMMAND] instead"));
    }
    if command.is_empty() {
        return fail("you must specify at least one command for the container");
    }
    let found = match files {
        true => builder::resolve(session, args, before).await?.into_iter().next().unwrap_or_else(|| fail("no objects passed to exec"))?,
        false => pods::one(session, &before[0], "exec").await?,
    };
    let pod = pods::attachable(session, &found, args.duration("pod-running-timeout")?).await?;
    let phase = at(&pod, "/status/phase");
    if phase == "Succeeded" || phase == "Failed" {
        return fail(format!("cannot exec into a container in a completed pod; current phase is {phase}"));
    }
    let container = pods::container_or(&pod, args.text("container"), args.on("quiet"))?;
    let tty = streams::terminal(args.on("stdin"), args.on("tty"));
    streams::run(session, &path(&pod, &container, command, args.on("stdin"), tty), streams::own(args.on("stdin"), tty)).await
}

/// Where the command is started.
pub fn path(pod: &Value, container: &str, command: &[String], stdin: bool, tty: bool) -> String {
    let query = Query::of(format!("/api/v1/namespaces/{}/pods/{}/exec", at(pod, "/metadata/namespace"), at(pod, "/metadata/name")));
    let mut query = query.with("container", container).with("stdin", if stdin { "true" } else { "" }).with("stdout", "true");
    query = if tty { query.with("tty", "true") } else { query.with("stderr", "true") };
    command.iter().fold(query.end(), |path, word| match word.as_str() {
        // Leaving out an empty word would move those after it.
        "" => format!("{path}&command="),
        word => Query::of(path).with("command", word).end(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_word_is_sent() {
        let pod = json!({"metadata": {"name": "p", "namespace": "n"}});
        let words = ["sh", "", "a b"].map(str::to_owned);
        assert_eq!(path(&pod, "c", &words, true, false), "/api/v1/namespaces/n/pods/p/exec?container=c&stdin=true&stdout=true&stderr=true&command=sh&command=&command=a%20b");
    }
}
