//! `kubectl run`: one pod; in the classic dialect a Deployment, Job or CronJob of it.

use serde_json::{Value, json};

use super::apply::{DryRun, WRITE, dry_run, write_query};
use super::{attach, change, create};
use crate::builder::Found;
use crate::classic::{Dialect, Workload};
use crate::command::command;
use crate::error::{Error, Result, fail};
use crate::flags::{Args, Flag, list, switch, text};
use crate::output;
use crate::printers::{self, OUTPUT, Printer};
use crate::session::{Query, Session};

const FLAGS: &[Flag] = &[
    list("annotations", "Annotations to apply to the pod."),
    text("cascade", "background", "Must be \"background\", \"orphan\", or \"foreground\"."),
    switch("force", "If true, immediately remove resources from API and bypass graceful deletion."),
    text("timeout", "0s", "The length of time to wait before giving up on a delete."),
    switch("wait", "If true, wait for resources to be gone before returning."),
    switch("attach", "If true, wait for the Pod to start running, and then attach to the Pod as if 'kubectl attach ...' were called."),
    switch("command", "If true and extra arguments are present, use them as the 'command' field in the container, rather than the 'args' field which is the default."),
    list("env", "Environment variables to set in the container."),
    switch("expose", "If true, create a ClusterIP service associated with the pod.  Requires `--port`."),
    text("grace-period", "-1", "Period of time in seconds given to the resource to terminate gracefully."),
    text("image", "", "The image for the container to run."),
    text("image-pull-policy", "", "The image pull policy for the container."),
    text("labels", "", "Comma separated labels to apply to the pod.").short('l'),
    switch("leave-stdin-open", "If the pod is started in interactive mode or with stdin, leave stdin open after the first attach completes."),
    text("overrides", "", "An inline JSON override for the generated object."),
    text("override-type", "merge", "The method used to override the generated object: json, merge, or strategic."),
    text("pod-running-timeout", "1m0s", "The length of time to wait until at least one pod is running"),
    text("port", "", "The port that this container exposes."),
    switch("privileged", "If true, run the container in privileged mode."),
    switch("quiet", "If true, suppress prompt messages.").short('q'),
    text("restart", "Always", "The restart policy for this Pod.  Legal values [Always, OnFailure, Never]."),
    switch("rm", "If true, delete the pod after it exits."),
    switch("stdin", "Keep stdin open on the container in the pod, even if nothing is attached.").short('i'),
    switch("tty", "Allocate a TTY for the container in the pod.").short('t'),
];
command!(RUN, "run", [], "NAME --image=image [--env=\"key=value\"] [--port=port] [--dry-run=server|client] [--overrides=inline-json] [--command] -- [COMMAND] [args...] [options]", "Run a particular image on the cluster", [FLAGS, attach::DETACH, WRITE, crate::builder::FILES, OUTPUT], run);

fn object(args: &Args, name: &str, words: &[String]) -> Result<Value> {
    let mut container = json!({"name": name, "image": args.text("image"), "resources": {}});
    if !words.is_empty() {
        container[if args.on("command") { "command" } else { "args" }] = words.into();
    }
    let mut env = Vec::new();
    for pair in args.list("env") {
        match pair.split_once('=') {
            Some((key, value)) if !key.is_empty() => env.push(json!({"name": key, "value": value})),
            _ => return fail(format!("invalid env: {pair}")),
        }
    }
    if !env.is_empty() {
        container["env"] = env.into();
    }
    if let Some(port) = args.given("port") {
        let Ok(port) = port.parse::<u16>() else { return fail(format!("strconv.Atoi: parsing {port:?}: invalid syntax")) };
        container["ports"] = json!([{"containerPort": port}]);
    }
    if let Some(policy) = args.given("image-pull-policy") {
        container["imagePullPolicy"] = policy.into();
    }
    if args.on("privileged") {
        container["securityContext"] = json!({"privileged": true});
    }
    if args.on("stdin") {
        container["stdin"] = true.into();
        if !args.on("leave-stdin-open") {
            container["stdinOnce"] = true.into();
        }
    }
    if args.on("tty") {
        container["tty"] = true.into();
    }
    let mut labels = json!({"run": name});
    if let Some(text) = args.given("labels") {
        // Until 1.17 these came on top; lessons select by run= beside labels of their own.
        if args.dialect == Dialect::Modern {
            labels = json!({});
        }
        for part in text.split(',') {
            match part.split_once('=') {
                Some((key, value)) => labels[key] = value.into(),
                None => return fail(format!("unexpected label spec: {part}")),
            }
        }
    }
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": {"containers": [container], "dnsPolicy": "ClusterFirst", "restartPolicy": args.text("restart")}, "status": {}});
    for pair in args.slice("annotations") {
        let (key, value) = pair.split_once('=').unwrap_or((&pair, ""));
        pod["metadata"]["annotations"][key] = value.into();
    }
    Ok(pod)
}

/// Applies `--overrides` to what was made.
fn overridden(mut object: Value, args: &Args, schema: &str) -> Result<Value> {
    let Some(text) = args.given("overrides") else { return Ok(object) };
    let overrides = crate::yaml::parse(text).map_err(Error::Message)?;
    match args.text("override-type") {
        "strategic" => patch::strategic(&mut object, &overrides, api::schema::of(schema)).map_err(|error| Error::Message(error.to_string()))?,
        "json" => patch::json(&mut object, &overrides).map_err(|error| Error::Message(error.to_string()))?,
        _ => patch::merge(&mut object, &overrides),
    }
    Ok(object)
}

/// The classic dialect's `run`: the pod inside of a Deployment, Job or CronJob.
async fn run_workload(session: &Session, args: &Args, name: &str, workload: Workload, pod: &Value) -> Result<()> {
    workload.deprecated();
    let (root, plural, label, schema) = workload.names();
    let object = overridden(workload.around(pod, args)?, args, schema)?;
    create::submit(session, args, root, plural, true, label, object).await?;
    if args.on("expose") && dry_run(args)? != DryRun::Client {
        expose(session, args, &session.namespace()?, name, &pod["metadata"]["labels"]).await?;
    }
    Ok(())
}

async fn expose(session: &Session, args: &Args, namespace: &str, name: &str, selector: &Value) -> Result<()> {
    let Some(port) = args.given("port").and_then(|port| port.parse::<u16>().ok()) else { return fail("--port must be set when exposing a service") };
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": {"ports": [{"port": port, "protocol": "TCP", "targetPort": port}], "selector": selector}});
    let service = session.post(&write_query(format!("/api/v1/namespaces/{namespace}/services"), args, "kubectl-run")?, &service).await?;
    printers::done(args, &service, &format!("service/{name}"), "created")
}

async fn run(session: &Session, args: &Args) -> Result<()> {
    let Some((name, words)) = args.positional.split_first() else { return fail("NAME is required for run\nSee 'kubectl run -h' for help and examples") };
    if args.given("image").is_none() {
        return fail("required flag(s) \"image\" not set");
    }
    if !matches!(args.text("restart"), "Always" | "OnFailure" | "Never") {
        return fail(format!("invalid restart policy: {}\nSee 'kubectl run -h' for help and examples", args.text("restart")));
    }
    if args.on("tty") && !args.on("stdin") {
        return fail("-i/--stdin is required for containers with -t/--tty=true");
    }
    let attach = if args.changed("attach") { args.on("attach") } else { args.on("stdin") || args.on("tty") };
    if args.on("rm") && !attach {
        return fail("--rm should only be used for attached containers");
    }
    let pod = object(args, name, words)?;
    // Who attaches means one process, so one pod.
    if let Some(workload) = Workload::of(args)?.filter(|_| !attach) {
        return run_workload(session, args, name, workload, &pod).await;
    }
    let mut pod = overridden(pod, args, "io.k8s.api.core.v1.Pod")?;
    let dry = dry_run(args)?;
    if let Some(namespace) = session.explicit_namespace() {
        pod["metadata"]["namespace"] = namespace.into();
    }
    if dry == DryRun::Client {
        return printers::done(args, &pod, &format!("pod/{name}"), "created");
    }
    let namespace = session.namespace()?;
    pod["metadata"]["namespace"] = namespace.clone().into();
    let pod = session.post(&write_query(format!("/api/v1/namespaces/{namespace}/pods"), args, "kubectl-run")?, &pod).await?;
    if args.on("expose") {
        expose(session, args, &namespace, name, &pod["metadata"]["labels"]).await?;
    }
    if !attach {
        let shown = printers::done(args, &pod, &format!("pod/{name}"), "created");
        return shown;
    }
    if Printer::of(args)?.is_some() {
        printers::done(args, &pod, &format!("pod/{name}"), "created")?;
    }
    let outcome = interact(session, args, &namespace, name).await;
    if args.on("rm") {
        let resource = session.resource("pods").await?;
        let target = Found { resource, namespace: Some(namespace.clone()), name: name.clone(), object: Value::Null, source: String::new() };
        let mut options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"});
        if args.int("grace-period")? >= 0 {
            options["gracePeriodSeconds"] = args.int("grace-period")?.into();
        }
        match session.delete(&target.path(), &options).await {
            Ok(_) if !args.on("quiet") => output::line(format!("pod \"{name}\" deleted from {namespace} namespace")),
            Ok(_) => {}
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
    }
    outcome
}

fn phase(pod: Option<&Value>) -> String {
    pod.and_then(|pod| pod.pointer("/status/phase")).and_then(Value::as_str).unwrap_or("").to_owned()
}

/// Attaches to the running pod, or shows the log of one that has already ended; then its exit code.
async fn interact(session: &Session, args: &Args, namespace: &str, name: &str) -> Result<()> {
    let resource = session.resource("pods").await?;
    let mut last = Value::Null;
    let started = change::until(session, &resource, Some(namespace), name, |pod| {
        let Some(pod) = pod else { return fail(format!("pods {name:?} not found")) };
        last = pod.clone();
        let running = pod.pointer("/status/containerStatuses/0/state/running").is_some();
        Ok(running || matches!(phase(Some(pod)).as_str(), "Succeeded" | "Failed"))
    });
    match tokio::time::timeout(std::time::Duration::from_secs_f64(args.duration("pod-running-timeout")?.max(1.0)), started).await {
        Ok(outcome) => outcome?,
        Err(_) => return fail("timed out waiting for the condition"),
    }
    let log = Query::of(format!("/api/v1/namespaces/{namespace}/pods/{name}/log")).with("container", name).end();
    if phase(Some(&last)) == "Running" {
        let (stdin, tty, quiet) = (args.on("stdin"), args.on("tty"), args.on("quiet"));
        if tty {
            attach::to(session, &last, name, stdin, true, quiet, args.text("detach-keys")).await?;
        } else {
            // What the process wrote before we were attached is in its log: that is followed, so that nothing is lost; the attachment only feeds its input.
            let follow = Query::of(log.clone()).with("follow", "true").end();
            attach::announce(quiet);
            let feed = async {
                if stdin {
                    // One that came too late for a short process is no failure: log and exit code tell all.
                    let _ = feed(session, namespace, name).await;
                }
            };
            let (shown, ()) = tokio::join!(show_log(session, &follow), feed);
            shown?;
        }
    } else {
        show_log(session, &log).await?;
    }
    if args.text("restart") == "Always" {
        return Ok(());
    }
    let mut code = 0;
    change::until(session, &resource, Some(namespace), name, |pod| {
        code = pod.and_then(|pod| pod.pointer("/status/containerStatuses/0/state/terminated/exitCode")).and_then(Value::as_i64).unwrap_or(0);
        Ok(pod.is_none() || matches!(phase(pod).as_str(), "Succeeded" | "Failed"))
    })
    .await?;
    if code == 0 {
        return Ok(());
    }
    output::complain(format!("pod {namespace}/{name} terminated (Error)"));
    Err(Error::Silent((code & 0xff) as u8))
}

async fn show_log(session: &Session, path: &str) -> Result<()> {
    let mut response = session.open(http::Method::GET, path, &[], Vec::new()).await?;
    while let Some(chunk) = response.chunk().await {
        output::write(&chunk.map_err(|error| Error::Message(error.to_string()))?);
    }
    Ok(())
}

/// Our stdin to the process; its output comes another way.
async fn feed(session: &Session, namespace: &str, name: &str) -> Result<()> {
    let path = Query::of(format!("/api/v1/namespaces/{namespace}/pods/{name}/attach")).with("container", name).with("stdin", "true").with("stdout", "true").end();
    let streams = super::streams::Streams { stdin: Some(tokio::io::stdin()), stdout: std::io::sink(), stderr: std::io::sink(), tty: false };
    super::streams::run(session, &path, streams).await
}
