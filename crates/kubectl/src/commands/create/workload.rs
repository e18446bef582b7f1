//! `create deployment`, `job`, `cronjob`.

use serde_json::{Value, json};

use super::super::apply::WRITE;
use super::{labels, submit};
use crate::command::command;
use crate::error::{Result, fail};
use crate::flags::{Args, Flag, list, text};
use crate::printers::OUTPUT;
use crate::session::Session;

command!(DEPLOYMENT, "deployment", ["deploy"], "NAME --image=image -- [COMMAND] [args...] [options]", "Create a deployment with the specified name", [DEPLOYMENT_FLAGS, WRITE, OUTPUT], deployment);
const DEPLOYMENT_FLAGS: &[Flag] = &[
    list("image", "Image names to run. A deployment can have multiple images set for multiple containers."),
    text("port", "-1", "The containerPort that this deployment exposes."),
    text("replicas", "1", "Number of replicas to create. Default is 1.").short('r'),
];
command!(JOB, "job", [], "NAME --image=image [--from=cronjob/name] -- [COMMAND] [args...] [options]", "Create a job with the specified name", [JOB_FLAGS, WRITE, OUTPUT], job);
const JOB_FLAGS: &[Flag] = &[text("from", "", "The name of the resource to create a Job from (only cronjob is supported)."), text("image", "", "Image name to run.")];
command!(CRONJOB, "cronjob", ["cj"], "NAME --image=image --schedule='0/5 * * * ?' -- [COMMAND] [args...] [flags] [options]", "Create a cron job with the specified name", [CRONJOB_FLAGS, WRITE, OUTPUT], cronjob);
const CRONJOB_FLAGS: &[Flag] = &[text("image", "", "Image name to run."), text("schedule", "", "A schedule in the Cron format the job should be run with."), text("restart", "OnFailure", "job's restart policy.")];

/// The image's base name: what a container made from it is called.
fn container_name(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or(image);
    let name = last.split(['@', ':']).next().unwrap_or(last);
    name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c.to_ascii_lowercase() } else { '-' }).collect()
}

fn container(name: &str, image: &str, command: &[String]) -> Value {
    let mut container = json!({"name": name, "image": image, "resources": {}});
    if !command.is_empty() {
        container["command"] = command.into();
    }
    container
}

pub fn deployment_object(name: &str, images: &[String], command: &[String], replicas: i64, port: i64) -> Value {
    let mut containers: Vec<Value> = images.iter().map(|image| container(&container_name(image), image, command)).collect();
    if port >= 0 {
        if let Some(first) = containers.first_mut() {
            first["ports"] = json!([{"containerPort": port}]);
        }
    }
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "labels": labels(name)},
        "spec": {"replicas": replicas, "selector": {"matchLabels": labels(name)}, "strategy": {}, "template": {"metadata": {"labels": labels(name)}, "spec": {"containers": containers}}},
        "status": {}
    })
}

async fn deployment(session: &Session, args: &Args) -> Result<()> {
    let images = args.slice("image");
    if images.is_empty() {
        return fail("required flag(s) \"image\" not set");
    }
    let name = args.name()?;
    let command = args.split().1;
    if images.len() > 1 && !command.is_empty() {
        return fail("cannot specify multiple --image options and command");
    }
    if args.int("replicas")? < 0 {
        return fail(format!("replicas should be a non-negative value, got {}", args.text("replicas")));
    }
    let object = deployment_object(name, &images, command, args.int("replicas")?, args.int("port")?);
    submit(session, args, "/apis/apps/v1", "deployments", true, "deployment.apps", object).await
}

fn template(name: &str, image: &str, command: &[String], restart: &str) -> Value {
    json!({"metadata": {}, "spec": {"containers": [container(name, image, command)], "restartPolicy": restart}})
}

async fn job(session: &Session, args: &Args) -> Result<()> {
    let name = args.name()?;
    let command = args.split().1;
    let object = match (args.given("image"), args.given("from")) {
        (Some(image), None) => json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": {"template": template(name, image, command, "Never")}, "status": {}}),
        (None, Some(from)) => {
            if !command.is_empty() {
                return fail("cannot specify --from and command");
            }
            let Some(("cronjob" | "cronjobs" | "cj" | "cronjob.batch" | "cronjobs.batch", cron)) = from.split_once('/') else {
                return fail(format!("from must be an existing cronjob, got {from:?}"));
            };
            let cron = session.get(&format!("/apis/batch/v1/namespaces/{}/cronjobs/{cron}", session.namespace()?)).await?;
            let mut metadata = json!({
                "name": name,
                "annotations": {"cronjob.kubernetes.io/instantiate": "manual"},
                "ownerReferences": [{"apiVersion": "batch/v1", "kind": "CronJob", "name": cron["metadata"]["name"], "uid": cron["metadata"]["uid"], "controller": true}]
            });
            if let Some(annotations) = cron.pointer("/spec/jobTemplate/metadata/annotations").and_then(Value::as_object) {
                annotations.iter().for_each(|(key, value)| metadata["annotations"][key] = value.clone());
            }
            if let Some(labels) = cron.pointer("/spec/jobTemplate/metadata/labels") {
                metadata["labels"] = labels.clone();
            }
            json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": cron["spec"]["jobTemplate"]["spec"], "status": {}})
        }
        _ => return fail("either --image or --from must be specified"),
    };
    submit(session, args, "/apis/batch/v1", "jobs", true, "job.batch", object).await
}

async fn cronjob(session: &Session, args: &Args) -> Result<()> {
    let missing: Vec<String> = ["image", "schedule"].into_iter().filter(|flag| args.given(flag).is_none()).map(|flag| format!("{flag:?}")).collect();
    if !missing.is_empty() {
        return fail(format!("required flag(s) {} not set", missing.join(", ")));
    }
    let name = args.name()?;
    let object = json!({
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": name},
        "spec": {"schedule": args.text("schedule"), "jobTemplate": {"metadata": {"name": name}, "spec": {"template": template(name, args.text("image"), args.split().1, args.text("restart"))}}},
        "status": {}
    });
    submit(session, args, "/apis/batch/v1", "cronjobs", true, "cronjob.batch", object).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workshops_manifest() {
        let text = crate::yaml::emit(&deployment_object("rng", &["me/rng".to_owned()], &[], 1, -1));
        assert_eq!(
            text,
            "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  labels:\n    app: rng\n  name: rng\nspec:\n  replicas: 1\n  selector:\n    matchLabels:\n      app: rng\n  strategy: {}\n  template:\n    metadata:\n      labels:\n        app: rng\n    spec:\n      containers:\n      - image: me/rng\n        name: rng\n        resources: {}\nstatus: {}\n"
        );
        assert_eq!(container_name("localhost:5000/a/web_x:v1@sha256:00"), "web-x");
    }
}
