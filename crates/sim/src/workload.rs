//! What users do to the cluster, drawn from the seed, and the model of what they were promised.
//!
//! A user tries until there is a clear answer, so after each step the model knows what the cluster has acknowledged. Names are never used twice.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use api::Status;
use client::{Body, Client, DeleteOptions, Propagation, Target, WriteOptions};
use node::hollow::RUNS_FOR;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::random::Random;

const MOST_REPLICAS: u64 = 8;
/// Objects of one kind at the same time, at most.
const MOST_OBJECTS: usize = 4;
const MOST_NAMESPACES: usize = 3;
const PAUSE: Duration = Duration::from_millis(500);

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    Deployment { replicas: i32, version: u32 },
    DaemonSet { version: u32 },
    Job { completions: i32 },
    Service,
}

/// Everything that was acknowledged, by kind, namespace and name.
#[derive(Debug, Default)]
pub struct Model {
    pub objects: BTreeMap<(&'static str, String, String), Wanted>,
    pub namespaces: BTreeSet<String>,
    pub gone: BTreeSet<String>,
    /// What was done, for the report.
    pub steps: Vec<String>,
    /// An answer that cannot be, given what was acknowledged before.
    pub contradictions: Vec<String>,
}

pub fn image(version: u32) -> String {
    format!("app:{version}")
}

fn kind_target(kind: &str, namespace: &str, name: &str) -> Target {
    let (group, plural) = match kind {
        "Deployment" => ("apps", "deployments"),
        "DaemonSet" => ("apps", "daemonsets"),
        "Job" => ("batch", "jobs"),
        "Service" => ("", "services"),
        _ => ("", "pods"),
    };
    Target { group: group.into(), version: "v1".into(), plural: plural.into(), namespace: Some(namespace.into()), name: Some(name.into()), subresource: None }
}

fn namespace_target(name: Option<&str>) -> Target {
    Target { version: "v1".into(), plural: "namespaces".into(), name: name.map(str::to_owned), ..Target::default() }
}

/// Worth another try: the server did not say no.
fn unclear(status: &Status) -> bool {
    status.code >= 500 || status.code == 429
}

pub struct User {
    client: Client,
    random: Random,
    pub model: Model,
    /// Also take pods away by hand.
    pub deletes_pods: bool,
    counter: u32,
    start: Instant,
}

impl User {
    pub fn new(client: Client, random: Random, deletes_pods: bool) -> Self {
        let model = Model { namespaces: BTreeSet::from(["default".to_owned()]), ..Model::default() };
        Self { client, random, model, deletes_pods, counter: 0, start: Instant::now() }
    }

    fn fresh(&mut self, base: &str) -> String {
        self.counter += 1;
        format!("{base}-{}", self.counter)
    }

    fn some_namespace(&self) -> String {
        let all: Vec<&String> = self.model.namespaces.iter().collect();
        self.random.pick(&all).map_or_else(|| "default".to_owned(), |name| (*name).clone())
    }

    fn some(&self, kind: &str) -> Option<(&'static str, String, String)> {
        let all: Vec<_> = self.model.objects.keys().filter(|(other, ..)| *other == kind).collect();
        self.random.pick(&all).map(|key| (*key).clone())
    }

    fn count(&self, kind: &str) -> usize {
        self.model.objects.keys().filter(|(other, ..)| *other == kind).count()
    }

    /// One thing that a user does.
    pub async fn step(&mut self) {
        match self.random.below(100) {
            0..20 if self.count("Deployment") < MOST_OBJECTS => self.create_deployment().await,
            20..35 => self.scale().await,
            35..55 => self.update_deployment().await,
            55..62 => self.delete("Deployment").await,
            62..68 if self.count("Service") < MOST_OBJECTS => self.create_service().await,
            68..70 => self.delete("Service").await,
            70..75 if self.count("DaemonSet") < 2 => self.create_daemon_set().await,
            75..79 => self.update_daemon_set().await,
            79..81 => self.delete("DaemonSet").await,
            81..86 if self.count("Job") < MOST_OBJECTS => self.create_job().await,
            86..88 => self.delete("Job").await,
            88..92 if self.model.namespaces.len() < MOST_NAMESPACES => self.create_namespace().await,
            92..95 => self.delete_namespace().await,
            _ if self.deletes_pods => self.delete_pod().await,
            _ => self.scale().await,
        }
    }

    fn note(&mut self, step: String) {
        self.model.steps.push(format!("{:9.3} {step}", self.start.elapsed().as_secs_f64()));
    }

    fn contradict(&mut self, what: &str, status: &Status) {
        self.model.contradictions.push(format!("{what}: {} {status}", status.code));
    }

    async fn create(&mut self, target: Target, object: Value) -> bool {
        let collection = Target { name: None, ..target.clone() };
        self.note(format!("create {}", target.path()));
        loop {
            match self.client.transport().create(&collection, Body::Value(object.clone()), &WriteOptions::default()).await {
                Ok(_) => return true,
                // An earlier try whose answer was lost.
                Err(status) if status.is_already_exists() => return true,
                Err(status) if unclear(&status) => tokio::time::sleep(PAUSE).await,
                Err(status) => {
                    self.contradict(&format!("create {}", target.path()), &status);
                    return false;
                }
            }
        }
    }

    /// Reads, changes and writes until it is done.
    async fn change(&mut self, target: &Target, what: &str, change: impl Fn(&mut Value)) {
        self.note(format!("{what} {}", target.path()));
        loop {
            let result = async {
                let mut object = self.client.transport().get(target).await?.value().map_err(Status::internal)?;
                change(&mut object);
                self.client.transport().update(target, Body::Value(object), &WriteOptions::default()).await
            };
            match result.await {
                Ok(_) => return,
                Err(status) if unclear(&status) || status.is_conflict() => tokio::time::sleep(PAUSE).await,
                Err(status) => return self.contradict(&format!("{what} {}", target.path()), &status),
            }
        }
    }

    async fn remove(&mut self, target: &Target, options: &DeleteOptions) {
        self.note(format!("delete {} {:?}", target.path(), options.propagation));
        loop {
            match self.client.transport().delete(target, options).await {
                Err(status) if unclear(&status) || status.is_conflict() => tokio::time::sleep(PAUSE).await,
                Err(status) if !status.is_not_found() => return self.contradict(&format!("delete {}", target.path()), &status),
                _ => return,
            }
        }
    }

    fn template(name: &str, version: u32) -> Value {
        let container = json!({"name": "app", "image": image(version), "resources": {"requests": {"cpu": "10m"}}});
        json!({"metadata": {"labels": {"app": name}}, "spec": {"terminationGracePeriodSeconds": 2, "containers": [container]}})
    }

    pub async fn create_deployment(&mut self) {
        let (namespace, name) = (self.some_namespace(), self.fresh("web"));
        let replicas = self.random.below(MOST_REPLICAS + 1) as i32;
        let surge = match self.random.below(3) {
            0 => json!("25%"),
            _ => json!(self.random.between(0, 3)),
        };
        let unavailable = if surge == 0 { json!(self.random.between(1, 3)) } else { json!(self.random.between(0, 2)) };
        let spec = json!({"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": Self::template(&name, 1),
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}});
        let target = kind_target("Deployment", &namespace, &name);
        if self.create(target, json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec})).await {
            self.model.objects.insert(("Deployment", namespace, name), Wanted::Deployment { replicas, version: 1 });
        }
    }

    /// Two that never come up: pods that are refused, and pods that fit nowhere. Not in the model.
    pub async fn create_hopeless(&mut self) {
        for (base, field, value) in [("refused", "serviceAccountName", json!("missing")), ("huge", "nodeSelector", json!({"no": "such"}))] {
            let name = self.fresh(base);
            let mut template = Self::template(&name, 1);
            template["spec"][field] = value;
            let spec = json!({"replicas": 2, "selector": {"matchLabels": {"app": name}}, "template": template});
            self.create(kind_target("Deployment", "default", &name), json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec})).await;
        }
    }

    async fn scale(&mut self) {
        let Some(key) = self.some("Deployment") else { return };
        let wanted = self.random.below(MOST_REPLICAS + 1) as i32;
        self.change(&kind_target(key.0, &key.1, &key.2), &format!("scale to {wanted}"), |object| object["spec"]["replicas"] = wanted.into()).await;
        if let Some(Wanted::Deployment { replicas, .. }) = self.model.objects.get_mut(&key) {
            *replicas = wanted;
        }
    }

    /// To a new version, or back to one it had.
    async fn update_deployment(&mut self) {
        let Some(key) = self.some("Deployment") else { return };
        let Some(Wanted::Deployment { version: present, .. }) = self.model.objects.get(&key) else { return };
        let wanted = self.random.between(1, u64::from(*present) + 1) as u32;
        self.change(&kind_target(key.0, &key.1, &key.2), &format!("set version {wanted} of"), |object| object["spec"]["template"]["spec"]["containers"][0]["image"] = image(wanted).into()).await;
        if let Some(Wanted::Deployment { version, .. }) = self.model.objects.get_mut(&key) {
            *version = wanted;
        }
    }

    async fn create_service(&mut self) {
        let Some((_, namespace, app)) = self.some("Deployment") else { return };
        let name = self.fresh("svc");
        let spec = json!({"selector": {"app": app}, "ports": [{"port": 80, "targetPort": 8080}]});
        if self.create(kind_target("Service", &namespace, &name), json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec})).await {
            self.model.objects.insert(("Service", namespace, name), Wanted::Service);
        }
    }

    async fn create_daemon_set(&mut self) {
        let (namespace, name) = (self.some_namespace(), self.fresh("agent"));
        let spec = json!({"selector": {"matchLabels": {"app": name}}, "template": Self::template(&name, 1)});
        if self.create(kind_target("DaemonSet", &namespace, &name), json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": name}, "spec": spec})).await {
            self.model.objects.insert(("DaemonSet", namespace, name), Wanted::DaemonSet { version: 1 });
        }
    }

    async fn update_daemon_set(&mut self) {
        let Some(key) = self.some("DaemonSet") else { return };
        let Some(Wanted::DaemonSet { version: present }) = self.model.objects.get(&key) else { return };
        let wanted = present + 1;
        self.change(&kind_target(key.0, &key.1, &key.2), &format!("set version {wanted} of"), |object| object["spec"]["template"]["spec"]["containers"][0]["image"] = image(wanted).into()).await;
        self.model.objects.insert(key, Wanted::DaemonSet { version: wanted });
    }

    async fn create_job(&mut self) {
        let (namespace, name) = (self.some_namespace(), self.fresh("job"));
        let completions = self.random.between(1, 5) as i32;
        let mut template = Self::template(&name, 1);
        template["spec"]["restartPolicy"] = "Never".into();
        template["metadata"]["annotations"] = json!({RUNS_FOR: self.random.between(1, 20).to_string()});
        // Pods of a node that dies count as failed; here that must not end the Job.
        let spec = json!({"completions": completions, "parallelism": self.random.between(1, 3), "backoffLimit": 1000, "template": template});
        if self.create(kind_target("Job", &namespace, &name), json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": spec})).await {
            self.model.objects.insert(("Job", namespace, name), Wanted::Job { completions });
        }
    }

    async fn delete(&mut self, kind: &'static str) {
        let Some(key) = self.some(kind) else { return };
        let propagation = if self.random.once_in(2) { Propagation::Foreground } else { Propagation::Background };
        self.remove(&kind_target(key.0, &key.1, &key.2), &DeleteOptions { propagation: Some(propagation), ..DeleteOptions::default() }).await;
        self.model.objects.remove(&key);
    }

    async fn create_namespace(&mut self) {
        let name = self.fresh("team");
        if self.create(namespace_target(Some(&name)), json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})).await {
            self.model.namespaces.insert(name);
        }
    }

    async fn delete_namespace(&mut self) {
        let namespace = self.some_namespace();
        if namespace == "default" {
            return;
        }
        self.remove(&namespace_target(Some(&namespace)), &DeleteOptions::default()).await;
        self.model.objects.retain(|(_, other, _), _| *other != namespace);
        self.model.namespaces.remove(&namespace);
        self.model.gone.insert(namespace);
    }

    async fn delete_pod(&mut self) {
        let Ok(list) = self.client.transport().list(&Target { name: None, ..kind_target("Pod", &self.some_namespace(), "") }, &Default::default()).await else { return };
        // Pods of a Job are left alone: what one of them had done is done again, as it should be, but a model would have to count it.
        let pods: Vec<_> = list.items.iter().filter(|pod| !pod.meta().owner_references.iter().any(|owner| owner.kind == "Job")).collect();
        let Some(pod) = self.random.pick(&pods) else { return };
        let target = kind_target("Pod", pod.meta().namespace.as_deref().unwrap_or(""), &pod.meta().name);
        self.remove(&target, &DeleteOptions::default()).await;
    }
}
