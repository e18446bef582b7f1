//! The classic dialect: kubectl as it was until 1.17, for lessons that were written for it. Opt-in: `KUBECTL_DIALECT=classic`, or a version of that time (`1.9`).
//!
//! Promises: without it nothing differs from upstream's kubectl of today; with it `run` makes Deployments, Jobs and CronJobs, and `--replicas`, `--schedule`, `--generator`,
//! `--export` and `version --short` are known again, each with one line on stderr that says it is of the past. Nothing else differs.

use serde_json::{Value, json};

use crate::error::{Error, Result, fail};
use crate::flags::{Args, Flag, switch, text};
use crate::output;

const VARIABLE: &str = "KUBECTL_DIALECT";
/// The first kubectl 1.N whose `run` makes Pods only.
const FIRST_MODERN: u32 = 18;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Dialect {
    #[default]
    Modern,
    Classic,
}

const RUN: &[Flag] = &[
    text("generator", "", "The name of the API generator to use."),
    text("replicas", "1", "Number of replicas to create for this container. Default is 1.").short('r'),
    text("schedule", "", "A schedule in the Cron format the job should be run with."),
];
const GET: &[Flag] = &[switch("export", "If true, use 'export' for the resources.  Exported resources are stripped of cluster-specific information.")];
const VERSION: &[Flag] = &[switch("short", "If true, print just the version number.")];

impl Dialect {
    pub fn chosen() -> Result<Self> {
        Self::named(&std::env::var(VARIABLE).unwrap_or_default())
    }

    fn named(name: &str) -> Result<Self> {
        match name {
            "" | "modern" => return Ok(Self::Modern),
            "classic" => return Ok(Self::Classic),
            _ => {}
        }
        let minor = name.trim_start_matches('v').strip_prefix("1.").and_then(|rest| rest.split('.').next()?.parse::<u32>().ok());
        match minor {
            Some(minor) if minor < FIRST_MODERN => Ok(Self::Classic),
            Some(_) => Ok(Self::Modern),
            None => Err(Error::Message(format!("{VARIABLE}={name}: no such dialect")).hint("it is modern, classic, or a version such as 1.9")),
        }
    }

    /// What a command understands beyond today's flags.
    pub fn flags(self, path: &str) -> &'static [Flag] {
        match (self, path) {
            (Self::Classic, "kubectl run") => RUN,
            (Self::Classic, "kubectl get") => GET,
            (Self::Classic, "kubectl version") => VERSION,
            _ => &[],
        }
    }
}

/// What `run` makes other than a Pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workload {
    Deployment,
    Job,
    CronJob,
}

impl Workload {
    /// `None`: a Pod. As upstream's `run` chose by `--generator`, `--schedule` and `--restart`.
    pub fn of(args: &Args) -> Result<Option<Self>> {
        if args.dialect != Dialect::Classic {
            return Ok(None);
        }
        let made = match (args.text("generator").split('/').next().unwrap_or(""), args.text("restart")) {
            ("", _) if args.given("schedule").is_some() => Some(Self::CronJob),
            ("", "Always") => Some(Self::Deployment),
            ("", "OnFailure") => Some(Self::Job),
            ("", _) | ("run-pod", _) => None,
            ("deployment", _) => Some(Self::Deployment),
            ("job", _) => Some(Self::Job),
            ("cronjob", _) => Some(Self::CronJob),
            _ => return fail(format!("generator {:?} not found", args.text("generator"))),
        };
        let replicas = args.int("replicas")?;
        if replicas < 0 {
            return fail(format!("--replicas must not be negative, got {replicas}"));
        }
        if replicas != 1 && made != Some(Self::Deployment) {
            return fail(format!("--restart={} requires that --replicas=1, found {replicas}", args.text("restart")));
        }
        if made == Some(Self::CronJob) && args.given("schedule").is_none() {
            return fail("--schedule is required for a cronjob");
        }
        Ok(made)
    }

    /// The API's path, the plural, what it is called to people, and the schema.
    pub fn names(self) -> (&'static str, &'static str, &'static str, &'static str) {
        match self {
            Self::Deployment => ("/apis/apps/v1", "deployments", "deployment.apps", "io.k8s.api.apps.v1.Deployment"),
            Self::Job => ("/apis/batch/v1", "jobs", "job.batch", "io.k8s.api.batch.v1.Job"),
            Self::CronJob => ("/apis/batch/v1", "cronjobs", "cronjob.batch", "io.k8s.api.batch.v1.CronJob"),
        }
    }

    /// The object around the pod that today's `run` would have made.
    pub fn around(self, pod: &Value, args: &Args) -> Result<Value> {
        let (metadata, labels, mut spec) = (&pod["metadata"], &pod["metadata"]["labels"], pod["spec"].clone());
        // A Job's pod may not always restart; that was only the flag's default.
        let restart = if self == Self::Deployment { "Always" } else if args.text("restart") == "Never" { "Never" } else { "OnFailure" };
        spec["restartPolicy"] = restart.into();
        let template = json!({"metadata": {"labels": labels}, "spec": spec});
        Ok(match self {
            Self::Deployment => json!({
                "apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata,
                "spec": {"replicas": args.int("replicas")?, "selector": {"matchLabels": labels}, "strategy": {}, "template": template}, "status": {}
            }),
            Self::Job => json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": {"template": template}, "status": {}}),
            Self::CronJob => json!({
                "apiVersion": "batch/v1", "kind": "CronJob", "metadata": metadata,
                "spec": {"schedule": args.text("schedule"), "concurrencyPolicy": "Allow", "jobTemplate": {"metadata": {}, "spec": {"template": template}}}, "status": {}
            }),
        })
    }

    /// Upstream's own words of 1.12 to 1.17.
    pub fn deprecated(self) {
        let generator = match self {
            Self::Deployment => "deployment/apps.v1",
            Self::Job => "job/v1",
            Self::CronJob => "cronjob/v1beta1",
        };
        output::complain(format!(
            "kubectl run --generator={generator} is DEPRECATED and will be removed in a future version. Use kubectl run --generator=run-pod/v1 or kubectl create instead."
        ));
    }
}

pub fn deprecated_flag(name: &str) {
    output::complain(format!("Flag --{name} has been deprecated, This flag is deprecated and will be removed in future."));
}

/// `get --export`: the object without what only this cluster can know of it.
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
    let service = object["kind"] == "Service";
    if let Some(fields) = object.as_object_mut() {
        fields.remove("status");
    }
    let Some(spec) = object.get_mut("spec").filter(|_| service).and_then(Value::as_object_mut) else { return };
    // Addresses and ports the cluster gave: another would refuse them.
    if spec.get("clusterIP").is_some_and(|address| address != "None") {
        spec.remove("clusterIP");
        spec.remove("clusterIPs");
    }
    for port in spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten().filter_map(Value::as_object_mut) {
        port.remove("nodePort");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::ROOT;

    fn parse(line: &str, dialect: Dialect) -> Result<Args> {
        Args::parse_in(&ROOT, line.split(' ').map(str::to_owned).collect(), dialect)
    }

    #[test]
    fn names_of_dialects() {
        for (name, want) in [("", Dialect::Modern), ("modern", Dialect::Modern), ("classic", Dialect::Classic), ("1.9", Dialect::Classic), ("v1.17.4", Dialect::Classic), ("1.18", Dialect::Modern)] {
            assert_eq!(Dialect::named(name).unwrap(), want, "{name}");
        }
        for name in ["klassic", "2.0", "1.", "1.x"] {
            assert!(Dialect::named(name).is_err(), "{name}");
        }
    }

    #[test]
    fn what_run_makes() {
        for (line, want) in [
            ("run x --image=a", Ok(Some(Workload::Deployment))),
            ("run x --image=a --replicas=4", Ok(Some(Workload::Deployment))),
            ("run x --image=a --restart=OnFailure", Ok(Some(Workload::Job))),
            ("run x --image=a --restart=Never", Ok(None)),
            ("run x --image=a --schedule=@hourly", Ok(Some(Workload::CronJob))),
            ("run x --image=a --generator=run-pod/v1", Ok(None)),
            ("run x --image=a --generator=run/v2", Err("generator \"run/v2\" not found")),
            ("run x --image=a --generator=cronjob/v1beta1", Err("--schedule is required for a cronjob")),
            ("run x --image=a --restart=Never --replicas=2", Err("--restart=Never requires that --replicas=1, found 2")),
        ] {
            let made = Workload::of(&parse(line, Dialect::Classic).unwrap()).map_err(|error| error.to_string());
            assert_eq!(made.as_ref().map_err(String::as_str), want.as_ref().map_err(|error| *error), "{line}");
        }
        assert_eq!(Workload::of(&parse("run x --image=a", Dialect::Modern).unwrap()).unwrap(), None);
    }

    #[test]
    fn the_pod_is_inside() {
        let args = parse("run x --image=a --replicas=3", Dialect::Classic).unwrap();
        let labels = json!({"run": "x", "app": "y"});
        let pod = json!({"metadata": {"name": "x", "labels": labels}, "spec": {"containers": [], "restartPolicy": "Always"}});
        let deployment = Workload::Deployment.around(&pod, &args).unwrap();
        assert_eq!((&deployment["metadata"], &deployment["spec"]["replicas"], &deployment["spec"]["selector"]["matchLabels"]), (&pod["metadata"], &json!(3), &labels));
        assert_eq!(deployment["spec"]["template"], json!({"metadata": {"labels": labels}, "spec": pod["spec"]}));
        let cron = Workload::CronJob.around(&pod, &args).unwrap();
        assert_eq!(cron.pointer("/spec/jobTemplate/spec/template/spec/restartPolicy"), Some(&json!("OnFailure")));
    }

    #[test]
    fn only_the_classic_dialect_knows_the_old_flags() {
        for line in ["run x --image=a --replicas=2", "get deploy/x -o yaml --export", "version --short"] {
            assert!(parse(line, Dialect::Classic).is_ok(), "{line}");
            assert!(parse(line, Dialect::Modern).is_err_and(|error| error.to_string().starts_with("unknown flag: --")), "{line}");
        }
    }

    #[test]
    fn an_export_can_be_created_again() {
        let mut service = json!({"kind": "Service", "metadata": {"name": "web", "namespace": "default", "uid": "u", "resourceVersion": "7", "creationTimestamp": "t"},
            "spec": {"clusterIP": "10.96.0.5", "clusterIPs": ["10.96.0.5"], "type": "NodePort", "ports": [{"port": 80, "nodePort": 30001}]}, "status": {"loadBalancer": {}}});
        export(&mut service);
        assert_eq!(service, json!({"kind": "Service", "metadata": {"name": "web"}, "spec": {"type": "NodePort", "ports": [{"port": 80}]}}));
        let mut headless = json!({"kind": "Service", "metadata": {"annotations": {"a": "b"}}, "spec": {"clusterIP": "None"}});
        export(&mut headless);
        assert_eq!(headless, json!({"kind": "Service", "metadata": {"annotations": {"a": "b"}}, "spec": {"clusterIP": "None"}}));
    }
}
