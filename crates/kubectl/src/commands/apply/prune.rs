//! `kubectl apply --prune`: what was applied before and is no longer in the files goes; by labels, or as the members of an apply set.
//!
//! Mirrors prune.go, applyset.go and applyset_pruner.go of k8s.io/kubectl/pkg/cmd/apply.

use std::collections::BTreeSet;

use base64::Engine;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::{DryRun, LAST_APPLIED, dry_run};
use crate::builder::{Found, Wanted};
use crate::error::{Error, Result, fail};
use crate::flags::Args;
use crate::printers;
use crate::resources::Resource;
use crate::session::{Query, Session, VERSION};

/// What is pruned unless the command line says otherwise: group, version, kind.
const USUAL: &[(&str, &str, &str)] = &[
    ("", "v1", "ConfigMap"), ("", "v1", "Endpoints"), ("", "v1", "PersistentVolumeClaim"), ("", "v1", "Pod"), ("", "v1", "ReplicationController"), ("", "v1", "Secret"), ("", "v1", "Service"), ("batch", "v1", "Job"),
    ("batch", "v1", "CronJob"), ("networking.k8s.io", "v1", "Ingress"), ("apps", "v1", "DaemonSet"), ("apps", "v1", "Deployment"), ("apps", "v1", "ReplicaSet"), ("apps", "v1", "StatefulSet"),
    ("", "v1", "Namespace"), ("", "v1", "PersistentVolume"),
];
const TOOLING: &str = "applyset.kubernetes.io/tooling";
const NAMESPACES: &str = "applyset.kubernetes.io/additional-namespaces";
const KINDS: &str = "applyset.kubernetes.io/contains-group-kinds";
const OLD_RESOURCES: &str = "applyset.kubernetes.io/contains-group-resources";
const ID: &str = "applyset.kubernetes.io/id";
const PART_OF: &str = "applyset.kubernetes.io/part-of";
const PARENT_TYPE: &str = "applyset.kubernetes.io/is-parent-type";
const MANAGER: &str = "kubectl-applyset";
const TOOL: &str = "kubectl";

/// What was applied: by its uid it is known again.
#[derive(Default)]
pub struct Applied {
    pub uids: BTreeSet<String>,
    pub namespaces: BTreeSet<String>,
}

impl Applied {
    pub fn note(&mut self, object: &Value) {
        let text = |key: &str| object.pointer(&format!("/metadata/{key}")).and_then(Value::as_str).unwrap_or("").to_owned();
        self.uids.insert(text("uid"));
        if !text("namespace").is_empty() {
            self.namespaces.insert(text("namespace"));
        }
    }
}

/// What of the command line cannot be.
pub fn check(args: &Args) -> Result<()> {
    let set = args.given("applyset").is_some();
    if set && std::env::var("KUBECTL_APPLYSET").is_ok_and(|value| value == "true") {
        if !args.on("prune") {
            return fail("--applyset requires --prune");
        }
    } else if set {
        return Err(args.wrong("unknown flag: --applyset"));
    }
    if !args.on("prune") {
        return Ok(());
    }
    if args.on("force") {
        return fail("--force cannot be used with --prune");
    }
    if set {
        for (given, flag) in [(args.on("all"), "all"), (args.given("selector").is_some(), "selector"), (args.changed("prune-allowlist"), "prune-allowlist")] {
            if given {
                return fail(format!("--{flag} is incompatible with --applyset"));
            }
        }
        return Ok(());
    }
    if !args.on("all") && args.given("selector").is_none() {
        return fail("all resources selected for prune without explicitly passing --all. To prune all resources, pass the --all flag. If you did not mean to prune all resources, specify a label selector");
    }
    if args.on("server-side") {
        return fail("--prune is in alpha and doesn't currently work on objects created by server-side apply");
    }
    Ok(())
}

/// The kinds that are pruned.
pub async fn kinds(session: &Session, args: &Args) -> Result<Vec<Resource>> {
    let mapper = session.mapper().await?;
    let named = args.slice("prune-allowlist");
    let mut found = Vec::new();
    let mut add = |group: &str, version: &str, kind: &str, strict: bool| -> Result<()> {
        let api_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
        match mapper.of_kind(&api_version, kind) {
            Some(resource) => found.push(resource.clone()),
            None if strict => return fail(format!("no matches for kind {kind:?} in version {api_version:?}")),
            None => {}
        }
        Ok(())
    };
    for name in &named {
        let [group, version, kind] = name.split('/').collect::<Vec<_>>()[..] else { return fail(format!("invalid GroupVersionKind format: {name}, please follow <group/version/kind>")) };
        add(if group == "core" { "" } else { group }, version, kind, true)?;
    }
    if named.is_empty() {
        USUAL.iter().try_for_each(|(group, version, kind)| add(group, version, kind, false))?;
    }
    Ok(found)
}

/// Deletes what carries the annotation and the labels, but was not applied.
pub async fn by_labels(session: &Session, args: &Args, kinds: Vec<Resource>, applied: &Applied) -> Result<()> {
    let (namespaced, others): (Vec<_>, Vec<_>) = kinds.into_iter().partition(|resource| resource.namespaced);
    let mut places: Vec<(Resource, Option<String>)> = Vec::new();
    for namespace in &applied.namespaces {
        places.extend(namespaced.iter().map(|resource| (resource.clone(), Some(namespace.clone()))));
    }
    places.extend(others.into_iter().map(|resource| (resource, None)));
    for (resource, namespace) in places {
        for object in listed(session, &resource, namespace.as_deref(), args.text("selector")).await? {
            if object.pointer("/metadata/annotations").is_some_and(|annotations| annotations.get(LAST_APPLIED).is_some()) {
                remove(session, args, &resource, object, applied).await?;
            }
        }
    }
    Ok(())
}

async fn listed(session: &Session, resource: &Resource, namespace: Option<&str>, selector: &str) -> Result<Vec<Value>> {
    let list = session.get(&Query::of(resource.collection(namespace)).with("labelSelector", selector).end()).await?;
    let items = list.get("items").and_then(Value::as_array).cloned().unwrap_or_default();
    Ok(items
        .into_iter()
        .map(|mut item| {
            item["apiVersion"] = resource.api_version().into();
            item["kind"] = resource.kind.clone().into();
            item
        })
        .collect())
}

async fn remove(session: &Session, args: &Args, resource: &Resource, object: Value, applied: &Applied) -> Result<()> {
    let found = Found::of(resource, object, "");
    if found.object.pointer("/metadata/uid").and_then(Value::as_str).is_some_and(|uid| applied.uids.contains(uid)) {
        return Ok(());
    }
    let dry = dry_run(args)?;
    if dry != DryRun::Client {
        let policy = match args.text("cascade") {
            "orphan" | "false" => "Orphan",
            "foreground" => "Foreground",
            _ => "Background",
        };
        let mut options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": policy});
        if args.int("grace-period")? >= 0 {
            options["gracePeriodSeconds"] = args.int("grace-period")?.into();
        }
        if dry == DryRun::Server {
            options["dryRun"] = json!(["All"]);
        }
        session.delete(&found.path(), &options).await?;
    }
    printers::done(args, &found.object, &found.label(), "pruned")
}

/// An object that remembers what was applied with it.
pub struct ApplySet {
    resource: Resource,
    name: String,
    namespace: Option<String>,
    /// Kinds as `Deployment.apps`.
    before: BTreeSet<String>,
    before_in: BTreeSet<String>,
    now: BTreeSet<String>,
    now_in: BTreeSet<String>,
}

/// `Deployment.apps`
fn group_kind(resource: &Resource) -> String {
    if resource.group.is_empty() { resource.kind.clone() } else { format!("{}.{}", resource.kind, resource.group) }
}

fn joined(texts: &BTreeSet<String>) -> String {
    texts.iter().cloned().collect::<Vec<_>>().join(",")
}

impl ApplySet {
    pub async fn of(session: &Session, args: &Args) -> Result<Option<Self>> {
        let Some(text) = args.given("applyset") else { return Ok(None) };
        let (kind, name) = text.split_once('/').unwrap_or(("secrets", text));
        let invalid = |reason: String| Error::Message(format!("invalid parent reference {text:?}: {reason}"));
        if name.is_empty() {
            return Err(invalid("name cannot be blank".into()));
        }
        let resource = session.resource(kind).await.map_err(|error| invalid(error.to_string()))?;
        let namespace = session.explicit_namespace().filter(|_| resource.namespaced);
        if resource.namespaced && namespace.is_none() {
            return fail("namespace is required to use namespace-scoped ApplySet");
        }
        let set = Self { resource, name: name.to_owned(), namespace, before: BTreeSet::new(), before_in: BTreeSet::new(), now: BTreeSet::new(), now_in: BTreeSet::new() };
        if !set.built_in() {
            let permitted = session.get(&Query::of("/apis/apiextensions.k8s.io/v1/customresourcedefinitions").with("labelSelector", PARENT_TYPE).end()).await?;
            let named = set.resource.qualified();
            if !permitted["items"].as_array().into_iter().flatten().any(|item| item["metadata"]["name"] == named) {
                return fail(format!("resource \"{}/{}, Resource={}\" is not permitted as an ApplySet parent", set.resource.group, set.resource.version, set.resource.plural));
            }
        }
        Ok(Some(set))
    }

    fn built_in(&self) -> bool {
        self.resource.group.is_empty() && matches!(self.resource.plural.as_str(), "secrets" | "configmaps")
    }

    fn id(&self) -> String {
        let text = format!("{}.{}.{}.{}", self.name, self.namespace.as_deref().unwrap_or(""), self.resource.kind, self.resource.group);
        format!("applyset-{}-v1", base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(Sha256::digest(text.as_bytes())))
    }

    /// As it is named in what goes wrong.
    fn label(&self) -> String {
        format!("{}.{}/{}", self.resource.plural, self.resource.group, self.name)
    }

    pub fn mark(&self, document: &mut Value) -> Result<()> {
        let labels = &mut document["metadata"]["labels"];
        if labels.get(PART_OF).is_some() {
            return fail(format!("ApplySet label {PART_OF:?} already set in input data"));
        }
        if !labels.is_object() {
            *labels = Value::Object(Map::new());
        }
        labels[PART_OF] = self.id().into();
        Ok(())
    }

    /// Reads the parent and tells it of what comes, so that nothing is lost if this ends halfway.
    pub async fn begin(&mut self, session: &Session, args: &Args, wanted: &[Wanted]) -> Result<()> {
        let path = self.resource.object(self.namespace.as_deref(), &self.name);
        match session.get(&path).await {
            Ok(parent) => self.read(session, &parent).await?,
            Err(error) if error.is_not_found() && self.built_in() => {}
            Err(error) if error.is_not_found() => return fail("custom resource ApplySet parents cannot be created automatically"),
            Err(error) => return fail(format!("failed to fetch ApplySet parent object {:?}: {error}", self.label())),
        }
        for one in wanted {
            self.now.insert(group_kind(&one.resource));
            self.now_in.extend(one.namespace.clone());
        }
        let kinds = self.before.union(&self.now).cloned().collect();
        let namespaces = self.before_in.union(&self.now_in).cloned().collect();
        self.write(session, args, &kinds, &namespaces).await
    }

    async fn read(&mut self, session: &Session, parent: &Value) -> Result<()> {
        let label = self.label();
        let text = |map: &str, key: &str| parent.pointer(&format!("/metadata/{map}")).and_then(|map| map.get(key)).and_then(Value::as_str).map(str::to_owned);
        let Some(tooling) = text("annotations", TOOLING) else { return fail(format!("ApplySet parent object {label:?} already exists and is missing required annotation {TOOLING:?}")) };
        let tool = tooling.rsplit_once('/').map_or(tooling.as_str(), |(tool, _)| tool);
        if tool != TOOL {
            return fail(format!("ApplySet parent object {label:?} already exists and is managed by tooling {tool:?} instead of {TOOL:?}"));
        }
        match text("labels", ID) {
            None => return fail(format!("ApplySet parent object {label:?} exists and does not have required label {ID}")),
            Some(id) if id != self.id() => return fail(format!("ApplySet parent object {label:?} exists and has incorrect value for label {ID:?} (got: {id}, want: {})", self.id())),
            Some(_) => {}
        }
        let words = |text: String| text.split(',').filter(|word| !word.is_empty()).map(str::to_owned).collect::<Vec<_>>();
        match (text("annotations", KINDS), text("annotations", OLD_RESOURCES).filter(|text| !text.is_empty())) {
            (Some(kinds), _) => self.before = words(kinds).into_iter().collect(),
            (None, Some(resources)) => {
                for resource in words(resources) {
                    self.before.insert(group_kind(&session.resource(&resource).await?));
                }
            }
            (None, None) => return fail(format!("parsing ApplySet annotation on {label:?}: kubectl requires the {KINDS:?} annotation to be set on all ApplySet parent objects")),
        }
        self.before_in = words(text("annotations", NAMESPACES).unwrap_or_default()).into_iter().chain(self.namespace.clone()).collect();
        Ok(())
    }

    async fn write(&self, session: &Session, args: &Args, kinds: &BTreeSet<String>, namespaces: &BTreeSet<String>) -> Result<()> {
        let dry = dry_run(args)?;
        if dry == DryRun::Client {
            return Ok(());
        }
        let mut others = namespaces.clone();
        if let Some(own) = &self.namespace {
            others.remove(own);
        }
        let mut parent = json!({
            "apiVersion": self.resource.api_version(), "kind": self.resource.kind,
            "metadata": {"name": self.name, "annotations": {TOOLING: format!("{TOOL}/{VERSION}"), KINDS: joined(kinds), NAMESPACES: joined(&others)}, "labels": {ID: self.id()}},
        });
        if let Some(namespace) = &self.namespace {
            parent["metadata"]["namespace"] = namespace.clone().into();
        }
        let path = |force: &str| {
            let object = self.resource.object(self.namespace.as_deref(), &self.name);
            Query::of(object).with("dryRun", if dry == DryRun::Server { "All" } else { "" }).with("fieldManager", MANAGER).with("force", force).end()
        };
        let kind = "application/apply-patch+yaml";
        let sent = match session.patch(&path("false"), kind, &parent).await {
            Err(error) if error.status().is_some_and(api::Status::is_conflict) => session.patch(&path("true"), kind, &parent).await,
            other => other,
        };
        sent.map(|_| ()).map_err(|error| Error::Message(format!("failed to update ApplySet: {error}")))
    }

    /// Deletes the members that were not applied, and lets the parent forget them.
    pub async fn prune(&self, session: &Session, args: &Args, applied: &Applied) -> Result<()> {
        let mapper = session.mapper().await?;
        let member = format!("{PART_OF}={}", self.id());
        for kind in &self.before {
            let Some(resource) = mapper.resources.iter().find(|resource| resource.preferred && group_kind(resource) == *kind) else {
                return fail(format!("could not find mapping for kind in {KINDS:?} annotation: no matches for kind {kind:?}"));
            };
            let places: Vec<Option<&str>> = if resource.namespaced { self.before_in.iter().map(|namespace| Some(namespace.as_str())).collect() } else { vec![None] };
            for namespace in places {
                for object in listed(session, resource, namespace, &member).await? {
                    remove(session, args, resource, object, applied).await?;
                }
            }
        }
        self.write(session, args, &self.now, &self.now_in).await.map_err(|error| Error::Message(format!("apply and prune succeeded, but ApplySet update failed: {error}")))
    }
}
