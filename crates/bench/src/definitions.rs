//! CustomResourceDefinitions: each is made and its first object created at once, as an operator's installer does; what all of them cost in memory.
//!
//! The latency is from the definition's POST to its first object's 201, Established condition and all.

use std::time::Instant;

use client::{DeleteOptions, Target};
use http::Method;
use serde_json::{Value, json};

use crate::BenchError;
use crate::cluster::{Cluster, send, target};
use crate::measure::{Figure, Idle, Stopwatch};
use crate::process;

const GROUP: &str = "bench.coracle.example";
const EXTENSIONS: &str = "apiextensions.k8s.io";

fn plural(number: usize) -> String {
    format!("things{number}")
}

fn definition(number: usize) -> Value {
    let fields: serde_json::Map<String, Value> = (0..20).map(|field| (format!("field{field}"), json!({"type": "string", "maxLength": 64, "description": "One of a score of fields."}))).collect();
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": format!("{}.{GROUP}", plural(number))},
        "spec": {"group": GROUP, "scope": "Namespaced", "names": {"plural": plural(number), "kind": format!("Thing{number}")}, "versions": [{"name": "v1", "served": true, "storage": true,
            "subresources": {"status": {}}, "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object", "properties": fields}, "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}}}]}
    })
}

fn established(object: &api::Object) -> bool {
    object.value().is_ok_and(|value| value["status"]["conditions"].as_array().is_some_and(|all| all.iter().any(|one| one["type"] == "Established" && one["status"] == "True")))
}

pub async fn run(cluster: &Cluster, count: usize) -> Result<Figure, BenchError> {
    let definitions = |name: Option<&str>| target(EXTENSIONS, "customresourcedefinitions", None, name);
    let before = process::pss_kib(&cluster.pids);
    let watch = Stopwatch::start(&cluster.pids);
    let (mut latencies, mut failed) = (Vec::with_capacity(count), 0);
    for number in 0..count {
        let start = Instant::now();
        cluster.create(&definitions(None), definition(number)).await?;
        let name = format!("{}.{GROUP}", plural(number));
        cluster.until(&definitions(None), &format!("metadata.name={name}"), |object, _| established(object)).await?;
        let path = Target { group: GROUP.into(), version: "v1".into(), plural: plural(number), namespace: Some(cluster.namespace.clone()), ..Target::default() }.path();
        let object = json!({"apiVersion": format!("{GROUP}/v1"), "kind": format!("Thing{number}"), "metadata": {"name": "first"}, "spec": {"field0": "x"}});
        failed += usize::from(!send(&cluster.clients[0], Method::POST, &path, "application/json", object.to_string().into()).await);
        latencies.push(start.elapsed());
    }
    let mut figure = watch.figure("definition and first object", &cluster.name, count, failed, latencies);
    if !cluster.pids.is_empty() {
        // What they cost beyond what was there before.
        figure.idle = Some(Idle { pss_mib: process::pss_kib(&cluster.pids).saturating_sub(before) as f64 / 1024.0, cpu_percent: 0.0 });
    }
    for number in 0..count {
        cluster.delete(&definitions(Some(&format!("{}.{GROUP}", plural(number)))), &DeleteOptions::default()).await?;
    }
    Ok(figure)
}
