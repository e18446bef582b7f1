//! `kubectl autoscale`: a HorizontalPodAutoscaler for a workload.
//!
//! Mirrors k8s.io/kubectl/pkg/cmd/autoscale.

use serde_json::{Value, json};

use super::apply::{DryRun, WRITE, dry_run, write_query};
use crate::builder::{self, FILES};
use crate::command::command;
use crate::error::{Result, fail};
use crate::flags::{Args, Flag, text};
use crate::printers::{OUTPUT, done};
use crate::session::Session;

const FLAGS: &[Flag] = &[
    text("cpu", "", "Target CPU utilization over all the pods. When specified as a percentage (e.g.\"70%\" for 70% of requested CPU) it will target average utilization. When specified as quantity (e.g.\"500m\" for 500 milliCPU) it will target average value."),
    text("cpu-percent", "-1", "The target average CPU utilization (represented as a percent of requested CPU) over all the pods."),
    text("max", "-1", "The upper limit for the number of pods that can be set by the autoscaler. Required."),
    text("memory", "", "Target memory utilization over all the pods."),
    text("min", "-1", "The lower limit for the number of pods that can be set by the autoscaler."),
    text("name", "", "The name for the newly created object. If not specified, the name of the input resource will be used."),
];

command!(
    AUTOSCALE, "autoscale", [], "(-f FILENAME | TYPE NAME | TYPE/NAME) [--min=MINPODS] --max=MAXPODS [--cpu=CPU] [options]",
    "Auto-scale a deployment, replica set, stateful set, or replication controller", [FLAGS, WRITE, FILES, OUTPUT], run
);

/// `70%` is a share of what is requested, `500m` an amount.
fn metric(name: &str, target: &str) -> Value {
    let target = match target.strip_suffix('%').and_then(|share| share.parse::<i64>().ok()) {
        Some(share) => json!({"type": "Utilization", "averageUtilization": share}),
        None => json!({"type": "AverageValue", "averageValue": target}),
    };
    json!({"type": "Resource", "resource": {"name": name, "target": target}})
}

pub async fn run(session: &Session, args: &Args) -> Result<()> {
    if !args.changed("max") {
        return fail("required flag(s) \"max\" not set");
    }
    let (min, max, share) = (args.int("min")?, args.int("max")?, args.int("cpu-percent")?);
    if max < 1 {
        return fail(format!("--max=MAXPODS is required and must be at least 1, max: {max}"));
    }
    if max < min {
        return fail(format!("--max=MAXPODS must be larger or equal to --min=MINPODS, max: {max}, min: {min}"));
    }
    let mut metrics = Vec::new();
    if share >= 0 {
        metrics.push(metric("cpu", &format!("{share}%")));
    }
    metrics.extend(["cpu", "memory"].into_iter().filter_map(|name| args.given(name).map(|target| metric(name, target))));
    let mut errors = Vec::new();
    for found in builder::resolve(session, args, &args.positional).await? {
        let outcome = async {
            let found = found?;
            if !found.resource.subresources.is_empty() && !found.resource.subresources.iter().any(|name| name == "scale") {
                return fail(format!("cannot autoscale a {}: no scale subresource", found.resource.kind));
            }
            let name = args.given("name").unwrap_or(&found.name);
            let mut spec = json!({"scaleTargetRef": {"apiVersion": found.resource.api_version(), "kind": found.resource.kind, "name": found.name}, "maxReplicas": max});
            if min > 0 {
                spec["minReplicas"] = min.into();
            }
            if !metrics.is_empty() {
                spec["metrics"] = metrics.clone().into();
            }
            let mut object = json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": name}, "spec": spec});
            if dry_run(args)? != DryRun::Client {
                let namespace = found.namespace.as_deref().unwrap_or("default");
                let path = write_query(format!("/apis/autoscaling/v2/namespaces/{namespace}/horizontalpodautoscalers"), args, "kubectl-autoscale")?;
                object = session.post(&path, &object).await?;
            }
            done(args, &object, &format!("horizontalpodautoscaler.autoscaling/{name}"), "autoscaled")
        };
        if let Err(error) = outcome.await {
            errors.push(error);
        }
    }
    builder::gather(errors)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets() {
        assert_eq!(metric("cpu", "50%")["resource"]["target"], json!({"type": "Utilization", "averageUtilization": 50}));
        assert_eq!(metric("memory", "1Gi")["resource"]["target"], json!({"type": "AverageValue", "averageValue": "1Gi"}));
    }
}
