//! Real pods on real nodes: from creation to Running, from deletion to gone, one at a time; and a Deployment of many.

use std::time::{Duration, Instant};

use api::Object;
use api::k8s::api::apps::v1::Deployment;
use api::k8s::api::core::v1::Pod;
use client::{DeleteOptions, Propagation};
use serde_json::{Value, json};

use crate::BenchError;
use crate::cluster::{Cluster, target};
use crate::measure::{Figure, Stopwatch};

fn spec(image: &str) -> Value {
    json!({"terminationGracePeriodSeconds": 0, "containers": [{"name": "app", "image": image, "imagePullPolicy": "IfNotPresent", "command": ["sleep", "3600"]}]})
}

fn running(object: &Object) -> bool {
    object.typed::<Pod>().is_ok_and(|pod| pod.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some("Running")))
}

pub async fn one_at_a_time(cluster: &Cluster, image: &str, count: usize) -> Result<Vec<Figure>, BenchError> {
    let pods = target("", "pods", Some(&cluster.namespace), None);
    let (mut starts, mut ends) = (Vec::new(), Vec::new());
    let (mut starting, mut ending) = (Duration::ZERO, Duration::ZERO);
    let watch = Stopwatch::start(&cluster.pids);
    for number in 0..count {
        let name = format!("one-{number}");
        let fields = format!("metadata.name={name}");
        let start = Instant::now();
        let made = cluster.create(&pods, json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec(image)})).await?;
        let from = made.resource_version().to_string();
        cluster.watch_until(&pods, &fields, &from, |object, _| running(object)).await?;
        starts.push(start.elapsed());
        starting += start.elapsed();
        let start = Instant::now();
        cluster.delete(&target("", "pods", Some(&cluster.namespace), Some(&name)), &DeleteOptions { grace_period_seconds: Some(1), ..DeleteOptions::default() }).await?;
        cluster.watch_until(&pods, &fields, &from, |_, gone| gone).await?;
        ends.push(start.elapsed());
        ending += start.elapsed();
    }
    let both = watch.figure("", &cluster.name, count, 0, ends);
    let rate = |time: Duration| count as f64 / time.as_secs_f64();
    let started = Stopwatch::start(&[]).figure("pod create to Running", &cluster.name, count, 0, starts);
    Ok(vec![
        Figure { seconds: starting.as_secs_f64(), per_second: rate(starting), ..started },
        Figure { what: "pod delete (grace 1 s) to gone".into(), seconds: ending.as_secs_f64(), per_second: rate(ending), ..both },
    ])
}

pub async fn deployment(cluster: &Cluster, image: &str, replicas: i32) -> Result<Vec<Figure>, BenchError> {
    let deployments = target("apps", "deployments", Some(&cluster.namespace), None);
    let object = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "many"}, "spec": {"replicas": replicas,
        "selector": {"matchLabels": {"app": "many"}}, "template": {"metadata": {"labels": {"app": "many"}}, "spec": spec(image)}}});
    let watch = Stopwatch::start(&cluster.pids);
    let from = cluster.create(&deployments, object).await?.resource_version().to_string();
    let available = |object: &Object| object.typed::<Deployment>().ok().and_then(|deployment| deployment.status.as_ref()?.available_replicas);
    cluster.watch_until(&deployments, "metadata.name=many", &from, |object, _| available(object) == Some(replicas)).await?;
    let took = watch.start.elapsed();
    let mut figures = vec![watch.figure(format!("Deployment of {replicas} available"), &cluster.name, replicas as usize, 0, vec![took])];
    let watch = Stopwatch::start(&cluster.pids);
    let name = target("apps", "deployments", Some(&cluster.namespace), Some("many"));
    cluster.delete(&name, &DeleteOptions { propagation: Some(Propagation::Background), ..DeleteOptions::default() }).await?;
    cluster.empty(&target("", "pods", Some(&cluster.namespace), None)).await?;
    let took = watch.start.elapsed();
    figures.push(watch.figure(format!("Deployment of {replicas} deleted"), &cluster.name, replicas as usize, 0, vec![took]));
    Ok(figures)
}
