//! `kubectl logs`: of a pod, of the best pod behind `deploy/web`, or of all that a selector finds; once or as they are written.
//!
//! Mirrors k8s.io/kubectl/pkg/cmd/logs and polymorphichelpers/logsforobject.go.

use bytes::BytesMut;
use futures_util::future::join_all;
use http::Method;
use serde_json::Value;

use super::change::usage;
use super::pods::{self, Preference, array, containers, text as at};
use crate::builder;
use crate::command::command;
use crate::error::{Error, Result, fail};
use crate::flags::{Args, Flag, switch, text};
use crate::output;
use crate::session::{Query, Session};

const FLAGS: &[Flag] = &[
    switch("all-containers", "Get all containers' logs in the pod(s)."),
    switch("all-pods", "Get logs from all pod(s). Sets prefix to true."),
    text("container", "", "Print the logs of this container").short('c'),
    switch("follow", "Specify if the logs should be streamed.").short('f'),
    switch("ignore-errors", "If watching / following pod logs, allow for any errors that occur to be non-fatal"),
    switch("insecure-skip-tls-verify-backend", "Skip verifying the identity of the kubelet that logs are requested from."),
    text("limit-bytes", "0", "Maximum bytes of logs to return. Defaults to no limit."),
    text("max-log-requests", "5", "Specify maximum number of concurrent logs to follow when using by a selector. Defaults to 5."),
    text("pod-running-timeout", "20s", "The length of time (like 5s, 2m, or 3h, higher than zero) to wait until at least one pod is running"),
    switch("prefix", "Prefix each log line with the log source (pod name and container name)"),
    switch("previous", "If true, print the logs for the previous instance of the container in a pod if it exists.").short('p'),
    text("selector", "", "Selector (label query) to filter on, supports '=', '==', '!=', 'in', 'notin'.").short('l'),
    text("since", "0s", "Only return logs newer than a relative duration like 5s, 2m, or 3h. Defaults to all logs. Only one of since-time / since may be used."),
    text("since-time", "", "Only return logs after a specific date (RFC3339). Defaults to all logs. Only one of since-time / since may be used."),
    text("tail", "-1", "Lines of recent log file to display. Defaults to -1 with no selector, showing all log lines otherwise 10, if a selector is provided."),
    switch("timestamps", "Include timestamps on each line in the log output"),
];

command!(LOGS, "logs", ["log"], "[-f] [-p] (POD | TYPE/NAME) [-c CONTAINER] [options]", "Print the logs for a container in a pod", [FLAGS], run);

const EXPECTED: &str = "expected 'logs [-f] [-p] (POD | TYPE/NAME) [-c CONTAINER]'.\nPOD or TYPE/NAME is a required argument for the logs command";
/// With a selector, this many lines of each pod.
const SELECTOR_TAIL: i64 = 10;

/// One container's log.
struct Source {
    pod: String,
    container: String,
    path: String,
}

pub async fn run(session: &Session, args: &Args) -> Result<()> {
    let selector = args.given("selector");
    let mut container = args.text("container").to_owned();
    match (&args.positional[..], selector) {
        ([], None) => return Err(usage(args, EXPECTED)),
        ([], Some(_)) => {}
        (_, Some(_)) => return Err(usage(args, "only a selector (-l) or a POD name is allowed")),
        ([_], None) => {}
        ([_, second], None) => {
            if args.changed("container") {
                return Err(usage(args, "only one of -c or an inline [CONTAINER] arg is allowed"));
            }
            container = second.clone();
        }
        _ => return Err(usage(args, EXPECTED)),
    }
    let tail = if selector.is_some() && !args.changed("tail") { SELECTOR_TAIL } else { args.int("tail")? };
    if tail < -1 {
        return fail("--tail must be greater than or equal to -1");
    }
    let since = args.duration("since")?;
    if since < 0.0 {
        return fail("--since must be greater than 0");
    }
    if since > 0.0 && args.given("since-time").is_some() {
        return Err(usage(args, "at most one of `sinceTime` or `sinceSeconds` may be specified"));
    }
    if let Some(time) = args.given("since-time")
        && let Err(error) = time.parse::<jiff::Timestamp>()
    {
        return fail(format!("parsing time {time:?}: {error}"));
    }
    if args.int("limit-bytes")? < 0 {
        return fail("--limit-bytes must be greater than 0");
    }
    if args.on("all-containers") && !container.is_empty() {
        return fail(format!("--all-containers=true should not be specified with container name {container}"));
    }
    let mut sources = Vec::new();
    for pod in find(session, args).await? {
        for container in wanted(args, &pod, &container)? {
            sources.push(source(args, &pod, container, tail, since)?);
        }
    }
    if sources.is_empty() {
        output::complain(format!("No resources found in {} namespace.", session.namespace()?));
        return Ok(());
    }
    if args.on("follow") && sources.len() > 1 {
        let most = args.int("max-log-requests")?;
        if sources.len() as i64 > most {
            return fail(format!(
                "you are attempting to follow {} log streams, but maximum allowed concurrency is {most}, use --max-log-requests to increase the limit",
                sources.len()
            ));
        }
        let outcomes = join_all(sources.iter().map(|source| show(session, args, source)));
        return outcomes.await.into_iter().collect();
    }
    for source in &sources {
        show(session, args, source).await?;
    }
    Ok(())
}

/// The pods that are meant.
async fn find(session: &Session, args: &Args) -> Result<Vec<Value>> {
    let namespace = session.namespace()?;
    if let Some(selector) = args.given("selector") {
        return listed(session, &namespace, selector).await;
    }
    let Some(word) = args.positional.first() else { return Ok(Vec::new()) };
    let found = match builder::one(session, word, "pods").await {
        Err(error) if error.is_not_found() => {
            let told = Error::Message(format!("error from server (NotFound): {error} in namespace {namespace:?}"));
            return Err(pods::hinted(session, told, word, "logs").await);
        }
        other => other?,
    };
    if found.resource.kind == "Pod" {
        return Ok(vec![found.object]);
    }
    let selector = pods::selector_of(&found).map_err(|error| Error::Message(format!("cannot get the logs from *v1.{}: {error}", found.resource.kind)))?;
    if args.on("all-pods") {
        return listed(session, &namespace, &selector).await;
    }
    let (pod, count) = pods::first(session, &namespace, &selector, args.duration("pod-running-timeout")?, Preference::Logging).await?;
    if count > 1 {
        output::complain(format!("Found {count} pods, using pod/{}", at(&pod, "/metadata/name")));
    }
    Ok(vec![pod])
}

async fn listed(session: &Session, namespace: &str, selector: &str) -> Result<Vec<Value>> {
    let list = session.get(&Query::of(format!("/api/v1/namespaces/{namespace}/pods")).with("labelSelector", selector).end()).await?;
    Ok(array(&list, "/items").cloned().collect())
}

fn wanted(args: &Args, pod: &Value, container: &str) -> Result<Vec<String>> {
    if !args.on("all-containers") {
        return Ok(vec![pods::container(pod, container, false)?]);
    }
    let of = |list: &'static str| containers(pod).filter(move |(kind, _)| *kind == list).map(|(_, name)| name.to_owned());
    Ok(of("initContainers").chain(of("containers")).chain(of("ephemeralContainers")).collect())
}

fn source(args: &Args, pod: &Value, container: String, tail: i64, since: f64) -> Result<Source> {
    let found = |text: &str| at(pod, text).to_owned();
    let (name, namespace) = (found("/metadata/name"), found("/metadata/namespace"));
    let flag = |name: &str| if args.on(name) { "true" } else { "" };
    let limit = args.int("limit-bytes")?;
    let path = Query::of(format!("/api/v1/namespaces/{namespace}/pods/{name}/log"))
        .with("container", &container)
        .with("follow", flag("follow"))
        .with("previous", flag("previous"))
        .with("timestamps", flag("timestamps"))
        .with("insecureSkipTLSVerifyBackend", flag("insecure-skip-tls-verify-backend"))
        .with("sinceTime", args.text("since-time"))
        .with("sinceSeconds", &if since > 0.0 { format!("{}", since.round().max(1.0) as i64) } else { String::new() })
        .with("tailLines", &if tail >= 0 { tail.to_string() } else { String::new() })
        .with("limitBytes", &if limit > 0 { limit.to_string() } else { String::new() })
        .end();
    Ok(Source { pod: name, container, path })
}

async fn show(session: &Session, args: &Args, source: &Source) -> Result<()> {
    match copy(session, args, source).await {
        Err(error) if args.on("ignore-errors") => {
            output::write(error.told().as_bytes());
            Ok(())
        }
        other => other,
    }
}

/// Line by line, so that several logs do not mix within one.
async fn copy(session: &Session, args: &Args, source: &Source) -> Result<()> {
    let prefix = if args.on("prefix") || args.on("all-pods") { format!("[pod/{}/{}] ", source.pod, source.container) } else { String::new() };
    let mut response = session.open(Method::GET, &source.path, &[], Vec::new()).await?;
    let mut buffer = BytesMut::new();
    while let Some(chunk) = response.chunk().await {
        let chunk = chunk.map_err(|error| Error::Message(error.to_string()))?;
        buffer.extend_from_slice(&chunk);
        let Some(end) = buffer.iter().rposition(|byte| *byte == b'\n') else { continue };
        let whole = buffer.split_to(end + 1);
        write(&prefix, &whole);
    }
    if !buffer.is_empty() {
        write(&prefix, &buffer);
    }
    Ok(())
}

fn write(prefix: &str, lines: &[u8]) {
    if prefix.is_empty() {
        return output::write(lines);
    }
    let mut out = Vec::with_capacity(lines.len() + prefix.len());
    for line in lines.split_inclusive(|byte| *byte == b'\n') {
        out.extend_from_slice(prefix.as_bytes());
        out.extend_from_slice(line);
    }
    output::write(&out);
}
