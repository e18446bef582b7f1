//! The API in the same process: the client's transport without bytes in between.
//!
//! Everything passes the same registry as a request over HTTP; objects are shared instead of sent (decision 10 of the design).

use std::sync::Arc;
use std::task::{Poll, ready};

use ::api::{Object, Resource, Status};
use client::{Body, BoxFuture, DeleteOptions, EventStream, ListOptions, ObjectList, PatchKind, Target, Transport, WatchEvent, WatchOptions, WriteOptions};
use futures_util::stream;
use serde_json::Value;
use tokio::time::Instant;

use crate::admission::{self, Asked, Operation};
use crate::api::{Api, Context, FieldValidation};
use crate::audit::{Completed, Record, Stage};
use crate::authentication::{AUTHENTICATED, User};
use crate::authorization::node::{NODE_PREFIX, NODES_GROUP};
use crate::authorization::{self, Attributes};
use crate::decode::{self, Format};
use crate::registry::{Deleted, Part};
use crate::special::{reviews, scale};
use crate::ticker::Ticker;
use crate::watch::{Change, Watching};

/// Bookmarks tell a quiet watcher how far it is; they go out this often, as upstream's.
const BOOKMARK_SECONDS: u64 = 60;

/// A component's way to the API.
#[derive(Clone)]
pub struct Local {
    api: Arc<Api>,
    user: Arc<User>,
    /// Each request is authorized, as those that come over HTTP.
    restricted: bool,
}

impl Local {
    /// `component` is who asks: `system:kube-scheduler`.
    pub fn new(api: Arc<Api>, component: &str) -> Self {
        Self { api, user: Arc::new(User::component(component)), restricted: false }
    }

    /// As somebody who may do only what authorizers allow.
    pub fn restricted(api: Arc<Api>, user: User) -> Self {
        Self { api, user: Arc::new(user), restricted: true }
    }

    /// The agent of a node: `system:node:<name>` in `system:nodes`.
    pub fn node(api: Arc<Api>, name: &str) -> Self {
        Self::restricted(api, User { name: format!("{NODE_PREFIX}{name}"), groups: vec![NODES_GROUP.into(), AUTHENTICATED.into()], ..User::default() })
    }

    /// Whether the request is allowed; `fields` is its field selector.
    async fn authorize(&self, verb: &str, target: &Target, fields: &str) -> Result<(), Status> {
        if !self.restricted {
            return Ok(());
        }
        authorization::require(&self.api, &self.user, &Attributes::of(verb, target, fields)).await
    }

    fn row(&self, target: &Target) -> Result<Arc<Resource>, Status> {
        let found = self.api.serving.rows().find(&target.group, &target.version, &target.plural);
        found.or_else(|| crate::custom::look_up(&self.api, &target.group, &target.version, &target.plural)).ok_or_else(Status::no_route)
    }

    /// How a component's request stands in the audit log, if it does.
    fn record(&self, verb: &str, target: &Target) -> Option<Arc<Record>> {
        let audit = self.api.config.audit.as_ref()?;
        let asked = Attributes::of(verb, target, "");
        let headers = http::HeaderMap::new();
        let record = audit.begin(&self.api.request_ids.of(&headers), &target.path(), &asked, &target.version, &self.user, None, &headers)?;
        record.stage(Stage::RequestReceived);
        Some(record)
    }

    fn context(&self, options: &WriteOptions, record: &Option<Arc<Record>>) -> Context {
        let mut cx = Context { record: record.clone(), ..Context::of(self.user.clone()) };
        cx.dry_run = options.dry_run;
        cx.field_manager = options.field_manager.clone();
        cx.force = options.force;
        cx.field_validation = match options.field_validation.as_str() {
            "Strict" => FieldValidation::Strict,
            "Ignore" => FieldValidation::Ignore,
            _ => FieldValidation::Warn,
        };
        cx
    }
}

/// Writes down how a component's request went.
async fn audited<T>(record: Option<Arc<Record>>, code: u16, object: fn(&T) -> Option<&Arc<Object>>, doing: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    let outcome = doing.await;
    let Some(record) = record else { return outcome };
    match &outcome {
        Ok(done) => record.answered(code, object(done).filter(|_| record.wants_response()).map(|object| &object.bytes()[..])),
        Err(status) => record.refused(status),
    }
    record.stage(Stage::ResponseComplete);
    outcome
}

fn whole(object: &Arc<Object>) -> Option<&Arc<Object>> {
    Some(object)
}

fn sent(record: &Option<Arc<Record>>, value: Value) -> Value {
    if let Some(record) = record {
        record.request(&value);
    }
    value
}

fn value(body: Body) -> Result<Value, Status> {
    match body {
        Body::Value(value) => Ok(value),
        Body::Json(bytes) => decode::parse(&bytes, Format::Json),
        Body::Yaml(bytes) => decode::parse(&bytes, Format::Yaml),
    }
}

fn named(target: &Target) -> Result<&str, Status> {
    target.name.as_deref().ok_or_else(|| Status::bad_request("name must be provided"))
}

/// Which part of an object a subresource's PUT or PATCH changes.
pub(crate) fn part(subresource: Option<&str>) -> Result<Part, Status> {
    Ok(match subresource {
        None => Part::Main,
        Some("status") => Part::Status,
        Some("finalize") => Part::Other("finalize"),
        Some("ephemeralcontainers") => Part::Other("ephemeralcontainers"),
        Some("resize") => Part::Other("resize"),
        Some("approval") => Part::Other("approval"),
        Some(_) => return Err(Status::no_route()),
    })
}

/// What is posted to a subresource with a type of its own, and about that very object: what is not understood asks for nothing less than what was meant.
fn posted(subresource: &str, namespace: &str, name: &str, mut value: Value, cx: &Context) -> Result<Value, Status> {
    let (schema, api_version, kind) = match subresource {
        "binding" => ("io.k8s.api.core.v1.Binding", "v1", "Binding"),
        "token" => ("io.k8s.api.authentication.v1.TokenRequest", "authentication.k8s.io/v1", "TokenRequest"),
        _ => ("io.k8s.api.policy.v1.Eviction", "policy/v1", "Eviction"),
    };
    // Old clients evict by it still, and are let.
    if value["apiVersion"] == "policy/v1beta1" && kind == "Eviction" {
        value["apiVersion"] = api_version.into();
    }
    let value = decode::typed(schema, api_version, kind, value, &[], cx)?;
    // A request for a token has its own words for that.
    if kind != "TokenRequest" {
        let given = |field: &str| crate::registry::text(&value, field).to_owned();
        if !given("/metadata/namespace").is_empty() && given("/metadata/namespace") != namespace {
            return Err(Status::bad_request("the namespace of the provided object does not match the namespace sent on the request"));
        }
        if !name.is_empty() && given("/metadata/name") != name {
            return Err(Status::bad_request(format!("name in URL does not match name in {kind} object")));
        }
    }
    Ok(value)
}

impl Api {
    /// POST to a collection or a subresource, of a parsed value. `None`: the answer is a bare success.
    pub(crate) async fn post(&self, row: &Resource, namespace: Option<&str>, name: Option<&str>, subresource: Option<&str>, value: Value, cx: &Context) -> Result<Arc<Object>, Status> {
        let namespace_or_default = namespace.unwrap_or("default");
        match (name, subresource) {
            (None, None) if reviews::is_review(row) => {
                let mut value = decode::shape(row, value, &[], cx)?;
                admission::admit(self, &Asked::new(Operation::Create, row, "", namespace, "", cx), &mut value, None).await?;
                self.review(row, namespace, value, cx).await
            }
            (None, None) if row.group.is_empty() && row.plural == "bindings" => {
                let pods = self.serving.rows().find("", "v1", "pods").ok_or_else(Status::no_route)?;
                let mut value = posted("binding", namespace_or_default, "", value, cx)?;
                let pod = crate::registry::text(&value, "/metadata/name").to_owned();
                admission::admit(self, &Asked::new(Operation::Create, row, "", namespace, &pod, cx), &mut value, None).await?;
                self.bind(&pods, namespace_or_default, &pod, &value, cx).await
            }
            (None, None) => {
                let value = decode::shape(row, value, &[], cx)?;
                self.create(row, namespace, value, cx).await
            }
            (Some(name), Some(subresource @ ("binding" | "token" | "eviction"))) => {
                let mut value = posted(subresource, namespace_or_default, name, value, cx)?;
                let asked = Asked::new(Operation::Create, row, subresource, namespace, name, cx);
                admission::restrict_node(self, &asked, Some(&value), None)?;
                if admission::asks(self, row, cx) {
                    let (group, version, kind) = asked.kind(row);
                    value["kind"] = kind.into();
                    value["apiVersion"] = if group.is_empty() { version.into() } else { format!("{group}/{version}").into() };
                    admission::admit(self, &asked, &mut value, None).await?;
                }
                match subresource {
                    "binding" => return self.bind(row, namespace_or_default, name, &value, cx).await,
                    "token" => return self.request_token(namespace_or_default, name, value, cx),
                    _ => {}
                }
                let given = value.get("deleteOptions").filter(|given| given.is_object());
                if let Some(mode) = given.and_then(|given| other_dry_run(given, cx.dry_run)) {
                    return Err(Status::failure(500, ::api::Reason::Unknown, mode));
                }
                // Upstream looks for the pod first, and then at how it is to go.
                self.stored(row, namespace, name)?;
                let options = given.map(delete_options).transpose()?.unwrap_or_default();
                let status = self.evict(row, namespace_or_default, name, &options, cx).await?;
                status_object(&status)
            }
            _ => Err(Status::method_not_supported(&row.group, &row.plural, "create")),
        }
    }

    pub(crate) async fn put(&self, row: &Resource, namespace: Option<&str>, name: &str, subresource: Option<&str>, value: Value, cx: &Context) -> Result<Arc<Object>, Status> {
        if subresource == Some("scale") {
            let value = scale::decoded(value, &[], cx)?;
            self.check_name(row, namespace, name, &value)?;
            return self.rescale(row, namespace, name, cx, None, |_| Ok(value.clone())).await;
        }
        let part = part(subresource)?;
        let value = decode::shape(row, value, &[], cx)?;
        self.update(row, namespace, name, part, value, cx).await
    }

    pub(crate) async fn patch_any(&self, row: &Resource, namespace: Option<&str>, name: &str, subresource: Option<&str>, kind: PatchKind, patch: Value, cx: &Context) -> Result<Arc<Object>, Status> {
        if subresource == Some("scale") {
            if kind == PatchKind::Apply {
                return self.apply_scale(row, namespace, name, &patch, cx).await;
            }
            return self
                .rescale(row, namespace, name, cx, None, |present| {
                    let mut wanted = present.clone();
                    match kind {
                        PatchKind::Json => patch::json(&mut wanted, &patch).map_err(|error| error.status())?,
                        _ => patch::merge(&mut wanted, &patch),
                    }
                    let made = scale::patched(kind, &patch, wanted, cx)?;
                    self.check_name(row, namespace, name, &made)?;
                    Ok(made)
                })
                .await;
        }
        self.patch(row, namespace, name, part(subresource)?, kind, patch, cx).await
    }

    pub(crate) async fn get_any(&self, row: &Resource, namespace: Option<&str>, name: &str, subresource: Option<&str>) -> Result<Arc<Object>, Status> {
        let object = self.get(row, namespace, name).await?;
        match subresource {
            Some("scale") => scale::view(row, &object),
            _ => Ok(object),
        }
    }
}

/// What is said when an eviction's options are of another mind than the request itself (`propagateDryRun`).
fn other_dry_run(options: &Value, asked: bool) -> Option<String> {
    let given: Vec<&str> = options.get("dryRun").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    let differs = asked && !given.is_empty() && given != ["All"];
    differs.then(|| format!("Non-matching dry-run options in request and content: [All] and [{}]", given.join(" ")))
}

pub(crate) fn status_object(status: &Status) -> Result<Arc<Object>, Status> {
    let mut out = Vec::new();
    crate::encode::write(&mut out, status);
    Ok(Arc::new(Object::new(out.into(), 0)))
}

/// `metav1.DeleteOptions`.
pub(crate) fn delete_options(value: &Value) -> Result<DeleteOptions, Status> {
    let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    let propagation = match (text("/propagationPolicy").as_deref(), value.get("orphanDependents").and_then(Value::as_bool)) {
        (Some(policy), Some(_)) if !policy.is_empty() => {
            let cause = ::api::Cause {
                reason: "FieldValueInvalid".into(),
                message: format!("Invalid value: {policy:?}: orphanDependents and deletionPropagation cannot be both set"),
                field: "propagationPolicy".into(),
            };
            return Err(Status::invalid("meta.k8s.io", "DeleteOptions", "", vec![cause]));
        }
        (Some("Orphan"), _) | (None, Some(true)) => Some(client::Propagation::Orphan),
        (Some("Foreground"), _) => Some(client::Propagation::Foreground),
        (Some("Background"), _) | (None, Some(false)) => Some(client::Propagation::Background),
        (None | Some(""), None) => None,
        (Some(other), _) => {
            let cause = ::api::Cause {
                reason: "FieldValueNotSupported".into(),
                message: format!("Unsupported value: {other:?}: supported values: \"Foreground\", \"Background\", \"Orphan\", \"nil\""),
                field: "propagationPolicy".into(),
            };
            return Err(Status::invalid("meta.k8s.io", "DeleteOptions", "", vec![cause]));
        }
    };
    Ok(DeleteOptions {
        grace_period_seconds: value.get("gracePeriodSeconds").and_then(Value::as_i64),
        propagation,
        preconditions: client::Preconditions { uid: text("/preconditions/uid"), resource_version: text("/preconditions/resourceVersion") },
        dry_run: value.get("dryRun").and_then(Value::as_array).is_some_and(|list| !list.is_empty()),
    })
}

/// A watch as a stream, with a bookmark each minute.
fn events(mut watching: Watching, audited: Option<Completed>) -> EventStream {
    let interval = tokio::time::Duration::from_secs(BOOKMARK_SECONDS);
    let mut ticker = watching.wants_bookmarks().then(|| Ticker::at(Instant::now() + interval));
    let mut held = Some(audited);
    Box::pin(stream::poll_fn(move |cx| {
        if held.is_none() {
            return Poll::Ready(None);
        }
        let change = loop {
            if let Poll::Ready(change) = watching.poll_next(cx) {
                break change;
            }
            let Some(ticker) = &mut ticker else { return Poll::Pending };
            ready!(ticker.poll_due(cx));
            ticker.set(Instant::now() + interval);
            if let Some(bookmark) = watching.bookmark() {
                break Some(bookmark);
            }
        };
        Poll::Ready(Some(match change {
            Some(Change::Added(object)) => Ok(WatchEvent::Added(object)),
            Some(Change::Modified(object)) => Ok(WatchEvent::Modified(object)),
            Some(Change::Deleted(object)) => Ok(WatchEvent::Deleted(object)),
            Some(Change::Bookmark { revision, initial_end }) => Ok(WatchEvent::Bookmark { resource_version: revision.to_string(), initial_end }),
            Some(Change::Failed(status)) => {
                held = None;
                Err(status)
            }
            None => {
                held = None;
                return Poll::Ready(None);
            }
        }))
    }))
}

impl Transport for Local {
    fn host(&self) -> String {
        std::net::SocketAddr::new(self.api.config.advertise_address, self.api.config.secure_port).to_string()
    }

    fn get<'a>(&'a self, target: &'a Target) -> BoxFuture<'a, Result<Arc<Object>, Status>> {
        let reading = async move {
            self.authorize("get", target, "").await?;
            self.api.get_any(&*self.row(target)?, target.namespace.as_deref(), named(target)?, target.subresource.as_deref()).await
        };
        Box::pin(audited(self.record("get", target), 200, whole, reading))
    }

    fn list<'a>(&'a self, target: &'a Target, options: &'a ListOptions) -> BoxFuture<'a, Result<ObjectList, Status>> {
        let reading = async move {
            self.authorize("list", target, &options.field_selector).await?;
            let listed = self.api.list(&*self.row(target)?, target.namespace.as_deref(), options).await?;
            Ok(ObjectList { items: listed.items, resource_version: listed.revision.to_string(), continue_token: listed.continue_token, remaining: listed.remaining })
        };
        Box::pin(audited(self.record("list", target), 200, |_| None, reading))
    }

    fn watch<'a>(&'a self, target: &'a Target, options: &'a WatchOptions) -> BoxFuture<'a, Result<EventStream, Status>> {
        Box::pin(async move {
            self.authorize("watch", target, &options.field_selector).await?;
            let record = self.record("watch", target);
            let watching = match self.row(target) {
                Ok(row) => self.api.watch(row, target.namespace.as_deref(), target.name.as_deref(), options).await,
                Err(status) => Err(status),
            };
            if let Some(record) = &record {
                match &watching {
                    Ok(_) => record.answered(200, None),
                    Err(status) => record.refused(status),
                }
                record.stage(Stage::ResponseStarted);
            }
            let completed = record.map(Completed);
            Ok(events(watching?, completed))
        })
    }

    fn create<'a>(&'a self, target: &'a Target, body: Body, options: &'a WriteOptions) -> BoxFuture<'a, Result<Arc<Object>, Status>> {
        let record = self.record("create", target);
        let known = record.clone();
        let writing = async move {
            self.authorize("create", target, "").await?;
            let row = self.row(target)?;
            let value = sent(&known, value(body)?);
            self.api.post(&row, target.namespace.as_deref(), target.name.as_deref(), target.subresource.as_deref(), value, &self.context(options, &known)).await
        };
        Box::pin(audited(record, 201, whole, writing))
    }

    fn update<'a>(&'a self, target: &'a Target, body: Body, options: &'a WriteOptions) -> BoxFuture<'a, Result<Arc<Object>, Status>> {
        let record = self.record("update", target);
        let known = record.clone();
        let writing = async move {
            self.authorize("update", target, "").await?;
            let row = self.row(target)?;
            let value = sent(&known, value(body)?);
            self.api.put(&row, target.namespace.as_deref(), named(target)?, target.subresource.as_deref(), value, &self.context(options, &known)).await
        };
        Box::pin(audited(record, 200, whole, writing))
    }

    fn patch<'a>(&'a self, target: &'a Target, kind: PatchKind, body: Body, options: &'a WriteOptions) -> BoxFuture<'a, Result<Arc<Object>, Status>> {
        let record = self.record("patch", target);
        let known = record.clone();
        let writing = async move {
            self.authorize("patch", target, "").await?;
            let row = self.row(target)?;
            let patch = value(body)?;
            if let Some(record) = &known {
                record.request_patch(&patch);
            }
            self.api.patch_any(&row, target.namespace.as_deref(), named(target)?, target.subresource.as_deref(), kind, patch, &self.context(options, &known)).await
        };
        Box::pin(audited(record, 200, whole, writing))
    }

    fn delete<'a>(&'a self, target: &'a Target, options: &'a DeleteOptions) -> BoxFuture<'a, Result<Arc<Object>, Status>> {
        let record = self.record("delete", target);
        let known = record.clone();
        let writing = async move {
            self.authorize("delete", target, "").await?;
            let row = self.row(target)?;
            let cx = Context { record: known, ..Context::of(self.user.clone()).dry(options.dry_run) };
            match self.api.delete(&row, target.namespace.as_deref(), named(target)?, options, &cx).await? {
                Deleted::Gone(object) | Deleted::Going(object) => Ok(object),
            }
        };
        Box::pin(audited(record, 200, whole, writing))
    }

    fn delete_collection<'a>(&'a self, target: &'a Target, options: &'a DeleteOptions, list: &'a ListOptions) -> BoxFuture<'a, Result<(), Status>> {
        let record = self.record("deletecollection", target);
        let known = record.clone();
        let writing = async move {
            self.authorize("deletecollection", target, &list.field_selector).await?;
            let row = self.row(target)?;
            let cx = Context { record: known, ..Context::of(self.user.clone()).dry(options.dry_run) };
            self.api.delete_collection(&row, target.namespace.as_deref(), options, list, &cx).await.map(drop)
        };
        Box::pin(audited(record, 200, |()| None, writing))
    }
}
