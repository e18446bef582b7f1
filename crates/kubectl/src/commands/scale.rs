//! `kubectl scale`: a new size for workloads.
//!
//! Mirrors k8s.io/kubectl/pkg/cmd/scale.

use serde_json::json;

use super::apply::{DryRun, WRITE, dry_run};
use super::{change, pods, watching};
use crate::builder::{self, FILES, Found, SELECT};
use crate::command::command;
use crate::error::{Error, Result, fail};
use crate::flags::{Args, Flag, text};
use crate::printers::{OUTPUT, done};
use crate::session::{Query, Session};

const FLAGS: &[Flag] = &[
    text("current-replicas", "-1", "Precondition for current size. Requires that the current size of the resource match this value in order to scale. -1 (default) for no condition."),
    text("replicas", "", "The new desired number of replicas. Required."),
    text("resource-version", "", "Precondition for resource version. Requires that the current resource version match this value in order to scale."),
    text("timeout", "0s", "The length of time to wait before giving up on a scale operation, zero means don't wait."),
];

command!(
    SCALE, "scale", [], "[--resource-version=version] [--current-replicas=count] --replicas=COUNT (-f FILENAME | TYPE NAME) [options]",
    "Set a new size for a deployment, replica set, or replication controller", [FLAGS, WRITE, FILES, SELECT, OUTPUT], run
);

pub async fn run(session: &Session, args: &Args) -> Result<()> {
    if !args.changed("replicas") {
        return fail("required flag(s) \"replicas\" not set");
    }
    let replicas = args.int("replicas")?;
    if replicas < 0 {
        return fail("The --replicas=COUNT flag is required, and COUNT must be greater than or equal to 0");
    }
    let (mut found, mut errors) = (Vec::new(), Vec::new());
    for one in builder::resolve(session, args, &args.positional).await? {
        match one {
            Ok(one) => found.push(one),
            Err(error) => errors.push(error),
        }
    }
    if found.is_empty() {
        let causes: Vec<String> = errors.iter().map(ToString::to_string).collect();
        let error = Error::Message(format!("no objects passed to scale {}", causes.join(", ")).trim_end().to_owned());
        return Err(match (errors.first().is_some_and(Error::is_not_found), args.positional.first()) {
            (true, Some(word)) => hinted(session, error, word).await,
            _ => error,
        });
    }
    if args.given("resource-version").is_some() && found.len() > 1 {
        return fail("cannot use --resource-version with multiple resources");
    }
    for one in &found {
        scale(session, args, one, replicas).await?;
    }
    builder::gather(errors)
}

async fn hinted(session: &Session, error: Error, word: &str) -> Error {
    let name = word.rsplit('/').next().unwrap_or(word);
    match pods::hinted(session, error, word, "scale").await {
        Error::Hinted { error, .. } => error.hint(format!("kubectl run makes a single Pod since 1.18, and a Pod cannot be scaled; try: kubectl create deployment {name} --image=IMAGE")),
        other => other,
    }
}

async fn scale(session: &Session, args: &Args, found: &Found, replicas: i64) -> Result<()> {
    let current = args.int("current-replicas")?;
    let mut object = found.object.clone();
    if found.object.pointer("/spec/replicas").is_none() && !found.resource.subresources.iter().any(|name| name == "scale") {
        return fail(format!("the server could not find the requested resource: {} has no scale", found.resource.qualified()));
    }
    if current >= 0 {
        let now = found.object.pointer("/spec/replicas").and_then(|count| count.as_i64()).unwrap_or(0);
        if now != current {
            return fail(format!("Expected replicas to be {current}, was {now}"));
        }
    }
    if let Some(version) = args.given("resource-version")
        && pods::text(&found.object, "/metadata/resourceVersion") != version
    {
        return fail(format!("Expected resource version to be {version}, was {}", pods::text(&found.object, "/metadata/resourceVersion")));
    }
    if dry_run(args)? != DryRun::Client {
        let path = Query::of(found.sub("scale")).with("dryRun", if dry_run(args)? == DryRun::Server { "All" } else { "" }).with("fieldManager", "kubectl");
        let answer = session.patch(&path.end(), change::MERGE, &json!({"spec": {"replicas": replicas}})).await?;
        object["metadata"]["resourceVersion"] = answer["metadata"]["resourceVersion"].clone();
    }
    object["spec"]["replicas"] = replicas.into();
    let timeout = args.duration("timeout")?;
    if timeout != 0.0 && dry_run(args)? == DryRun::None {
        synced(session, found, replicas, timeout).await?;
    }
    done(args, &object, &found.label(), "scaled")
}

/// Until as many replicas exist as are wanted.
async fn synced(session: &Session, found: &Found, replicas: i64, timeout: f64) -> Result<()> {
    let query = Query::of(found.resource.collection(found.namespace.as_deref())).with("fieldSelector", &format!("metadata.name={}", found.name));
    let wait = async {
        let mut watch = watching::open(session, query).await?;
        while let Some((_, object)) = watch.next().await? {
            let number = |pointer: &str| object.pointer(pointer).and_then(|count| count.as_i64()).unwrap_or(0);
            if number("/status/observedGeneration") >= number("/metadata/generation") && number("/status/replicas") == replicas {
                return Ok(());
            }
        }
        fail(format!("timed out waiting for {:?} to be synced", found.name))
    };
    match tokio::time::timeout(std::time::Duration::from_secs_f64(timeout.max(0.0)), wait).await {
        Ok(outcome) => outcome,
        Err(_) => fail(format!("timed out waiting for {:?} to be synced", found.name)),
    }
}
