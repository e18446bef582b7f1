//! The classic dialect: kubectl as the workshop of 2018 types it, for who asks for it with `KUBECTL_DIALECT=classic`.
//!
//! `run` makes what `--generator`, `--schedule`, `--restart` and `--replicas` ask for, a Deployment when nothing does, as kubectl did until 1.17 (KEP-1441); its
//! objects carry `run=NAME` beside the labels given, so that the lesson's selectors select. `get --export` gives an object without what its cluster added, as
//! until 1.17. Each says on stderr that its time is over, in upstream's words of then. Everything else is as it is today.

use serde_json::{Value, json};

use super::apply::{DryRun, WRITE, dry_run, write_query};
use super::{get, run};
use crate::builder::FILES;
use crate::command::{Command, command};
use crate::error::{Result, fail};
use crate::flags::{Args, Flag, switch, text};
use crate::output;
use crate::printers::{self, OUTPUT};
use crate::session::Session;

pub const VARIABLE: &str = "KUBECTL_DIALECT";

/// `classic`, or a version that spoke it.
fn is_classic(dialect: &str) -> bool {
    let minor = |version: &str| version.trim_start_matches('v').strip_prefix("1.")?.split('.').next()?.parse::<u32>().ok();
    dialect == "classic" || minor(dialect).is_some_and(|minor| minor < 18)
}

/// The command as the dialect of the environment has it.
pub fn spoken(command: &'static Command) -> &'static Command {
    translated(command, &std::env::var(VARIABLE).unwrap_or_default())
}

fn translated(command: &'static Command, dialect: &str) -> &'static Command {
    match command.name {
        "run" if is_classic(dialect) => &RUN,
        "get" if is_classic(dialect) => &GET,
        _ => command,
    }
}

const RUN_FLAGS: &[Flag] = &[
    text("generator", "", "The name of the API generator to use."),
    text("replicas", "1", "Number of replicas to create for this container.").short('r'),
    text("schedule", "", "A schedule in the Cron format the job should be run with."),
];
const GET_FLAGS: &[Flag] = &[switch("export", "If true, use 'export' for the resources.  Exported resources are stripped of cluster-specific information.")];

command!(RUN, "run", [], "NAME --image=image [--env=\"key=value\"] [--port=port] [--replicas=replicas] [--dry-run=bool] [--overrides=inline-json] [--command] -- [COMMAND] [args...] [options]", "Create and run a particular image, possibly replicated.", [RUN_FLAGS, run::FLAGS, WRITE, OUTPUT], classic_run);
command!(GET, "get", [], "[(-o|--output=)json|yaml|name|...] (TYPE[.VERSION][.GROUP] [NAME | -l label] | TYPE[.VERSION][.GROUP]/NAME ...) [flags] [options]", "Display one or many resources", [GET_FLAGS, get::FLAGS, FILES, OUTPUT], classic_get);

async fn classic_get(session: &Session, args: &Args) -> Result<()> {
    if args.on("export") {
        output::complain("Flag --export has been deprecated, This flag is deprecated and will be removed in future.");
    }
    get::run(session, args).await
}

/// What an object was before it was in a cluster.
pub fn export(object: &mut Value) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        for field in ["namespace", "creationTimestamp", "resourceVersion", "uid", "managedFields", "selfLink", "generation"] {
            metadata.remove(field);
        }
        if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
            annotations.remove("deployment.kubernetes.io/revision");
            if annotations.is_empty() {
                metadata.remove("annotations");
            }
        }
    }
    if let Some(object) = object.as_object_mut() {
        object.remove("status");
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Makes {
    Pod,
    Deployment,
    Job,
    CronJob,
}

impl Makes {
    fn of(generator: &str, schedule: &str, restart: &str) -> Result<Self> {
        Ok(match generator.split('/').next().unwrap_or("") {
            "run-pod" => Self::Pod,
            "deployment" => Self::Deployment,
            "job" => Self::Job,
            "cronjob" => Self::CronJob,
            "" if !schedule.is_empty() => Self::CronJob,
            "" if restart == "Never" => Self::Pod,
            "" if restart == "OnFailure" => Self::Job,
            "" => Self::Deployment,
            _ => return fail(format!("generator {generator:?} not found")),
        })
    }

    /// Where it is created, the generator as upstream names it, and the label of what was made.
    fn names(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Pod => ("/api/v1", "run-pod/v1", "pods"),
            Self::Deployment => ("/apis/apps/v1", "deployment/apps.v1", "deployments"),
            Self::Job => ("/apis/batch/v1", "job/v1", "jobs"),
            Self::CronJob => ("/apis/batch/v1", "cronjob/v1", "cronjobs"),
        }
    }
}

/// The workload around the pod that today's `run` would make.
fn workload(makes: Makes, name: &str, mut pod: Value, replicas: i64, schedule: &str) -> Value {
    pod["metadata"]["labels"]["run"] = name.into();
    let labels = pod["metadata"]["labels"].take();
    let mut template = json!({"metadata": {"labels": labels}, "spec": pod["spec"].take()});
    let batch = |template: Value| json!({"template": template});
    match makes {
        Makes::Pod => Value::Null,
        Makes::Deployment => {
            template["spec"]["restartPolicy"] = "Always".into();
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "labels": labels}, "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "strategy": {}, "template": template}, "status": {}})
        }
        Makes::Job => json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name, "labels": labels}, "spec": batch(template), "status": {}}),
        Makes::CronJob => json!({"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": name, "labels": labels}, "spec": {"schedule": schedule, "concurrencyPolicy": "Allow", "jobTemplate": {"metadata": {}, "spec": batch(template)}}, "status": {}}),
    }
}

async fn classic_run(session: &Session, args: &Args) -> Result<()> {
    let makes = Makes::of(args.text("generator"), args.text("schedule"), args.text("restart"))?;
    if makes == Makes::Pod {
        return run::run(session, args).await;
    }
    let Some((name, words)) = args.positional.split_first() else { return fail("NAME is required for run\nSee 'kubectl run -h' for help and examples") };
    if args.given("image").is_none() {
        return fail("--image is required\nSee 'kubectl run -h' for help and examples");
    }
    if args.on("attach") || args.on("stdin") || args.on("tty") {
        return fail("-i, -t and --attach need a single pod here: add --restart=Never");
    }
    if makes == Makes::CronJob && args.text("schedule").is_empty() {
        return fail("--schedule is required for a cronjob");
    }
    let restart = if args.changed("restart") { args.text("restart") } else { "OnFailure" };
    if makes != Makes::Deployment && restart == "Always" {
        return fail(format!("invalid restart policy: {restart}: a job's pods restart OnFailure or Never"));
    }
    let replicas = args.int("replicas")?;
    if replicas < 0 {
        return fail("--replicas must not be negative");
    }
    let (path, generator, plural) = makes.names();
    output::complain(format!("kubectl run --generator={generator} is DEPRECATED and will be removed in a future version. Use kubectl run --generator=run-pod/v1 or kubectl create instead."));
    let mut pod = run::object(args, name, words)?;
    pod["spec"]["restartPolicy"] = restart.into();
    let mut object = workload(makes, name, pod, replicas, args.text("schedule"));
    if let Some(namespace) = session.explicit_namespace() {
        object["metadata"]["namespace"] = namespace.into();
    }
    let group = path.split('/').nth(2).map(|group| format!(".{group}")).unwrap_or_default();
    let label = |plural: &str| format!("{}{group}/{name}", plural.trim_end_matches('s'));
    if dry_run(args)? == DryRun::Client {
        return printers::done(args, &object, &label(plural), "created");
    }
    let namespace = session.namespace()?;
    object["metadata"]["namespace"] = namespace.clone().into();
    let made = session.post(&write_query(format!("{path}/namespaces/{namespace}/{plural}"), args, "kubectl-run")?, &object).await?;
    printers::done(args, &made, &label(plural), "created")?;
    if args.on("expose") {
        let Some(port) = args.given("port").and_then(|port| port.parse::<u16>().ok()) else { return fail("--port must be set when exposing a service") };
        let labels = object.pointer("/metadata/labels").cloned().unwrap_or_default();
        let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": {"ports": [{"port": port, "protocol": "TCP", "targetPort": port}], "selector": labels}});
        let service = session.post(&write_query(format!("/api/v1/namespaces/{namespace}/services"), args, "kubectl-run")?, &service).await?;
        printers::done(args, &service, &format!("service/{name}"), "created")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_speaks_it() {
        for (dialect, classic) in [("classic", true), ("1.9", true), ("v1.17.3", true), ("1.18", false), ("1.36", false), ("", false), ("modern", false)] {
            assert_eq!(is_classic(dialect), classic, "{dialect}");
            assert_eq!(std::ptr::eq(translated(&run::RUN, dialect), &RUN), classic, "{dialect}");
        }
        assert!(std::ptr::eq(translated(&super::super::logs::LOGS, "classic"), &super::super::logs::LOGS));
    }

    #[test]
    fn what_run_makes() {
        for (generator, schedule, restart, makes) in [
            ("", "", "Always", Makes::Deployment),
            ("", "", "OnFailure", Makes::Job),
            ("", "", "Never", Makes::Pod),
            ("", "* * * * *", "Always", Makes::CronJob),
            ("run-pod/v1", "", "Always", Makes::Pod),
            ("deployment/apps.v1beta1", "", "Always", Makes::Deployment),
        ] {
            assert_eq!(Makes::of(generator, schedule, restart).ok(), Some(makes), "{generator} {schedule} {restart}");
        }
        assert!(Makes::of("run/v7", "", "Always").is_err());
        let pod = json!({"metadata": {"name": "rng", "labels": {"app": "rng"}}, "spec": {"containers": [], "restartPolicy": "OnFailure"}});
        let deployment = workload(Makes::Deployment, "rng", pod.clone(), 3, "");
        let labels = json!({"app": "rng", "run": "rng"});
        assert_eq!(deployment["spec"]["selector"]["matchLabels"], labels);
        assert_eq!(deployment["spec"]["template"], json!({"metadata": {"labels": labels}, "spec": {"containers": [], "restartPolicy": "Always"}}));
        assert_eq!(deployment["spec"]["replicas"], 3);
        let cron = workload(Makes::CronJob, "rng", pod, 1, "* * * * *");
        assert_eq!((&cron["spec"]["schedule"], &cron["spec"]["jobTemplate"]["spec"]["template"]["spec"]["restartPolicy"]), (&json!("* * * * *"), &json!("OnFailure")));
    }

    #[test]
    fn an_export_is_the_object_alone() {
        let mut object = json!({"kind": "Deployment", "metadata": {"name": "rng", "namespace": "default", "uid": "x", "resourceVersion": "7", "generation": 1, "creationTimestamp": "t",
            "labels": {"run": "rng"}, "annotations": {"deployment.kubernetes.io/revision": "1"}}, "spec": {"replicas": 1}, "status": {"replicas": 1}});
        export(&mut object);
        assert_eq!(object, json!({"kind": "Deployment", "metadata": {"name": "rng", "labels": {"run": "rng"}}, "spec": {"replicas": 1}}));
    }
}
