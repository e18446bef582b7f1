//! Requests on resources: body in, registry, answer out.

use std::sync::Arc;

use ::api::columns::{self, IncludeObject};
use ::api::protobuf::ListHead;
use ::api::{Object, Reason, Resource, Status, Verb};
use client::PatchKind;
use http::Method;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::answer::{self, Answer};
use super::negotiate::{Asked, Endpoint, Media, Shape, Wanted};
use super::{options, proxy, render, stream};
use crate::admission;
use crate::api::{Api, Context, FieldValidation};
use crate::audit::Record;
use crate::authentication::User;
use crate::decode::{self, Format, MAX_BODY_BYTES};
use crate::custom;
use crate::encode;
use crate::local::{delete_options, part, status_object};
use crate::path::{Query, ResourcePath};
use crate::reads::Listed;
use crate::registry::{Deleted, unfit};
use crate::special::{self, reviews, scale};

/// Subresources that are streams to the node's agent, not objects.
const STREAMED: [&str; 5] = ["log", "exec", "attach", "portforward", "proxy"];

pub async fn handle(api: Arc<Api>, user: Arc<User>, target: ResourcePath, query: Query, parts: Parts, asked: &Asked, body: &mut Option<Incoming>) -> Result<Answer, Status> {
    let rows = api.serving.rows();
    let found = rows.find(&target.group, &target.version, &target.plural).or_else(|| custom::look_up(&api, &target.group, &target.version, &target.plural));
    let Some(row) = found else {
        return if rows.serves(&target.group, &target.version) { Err(Status::no_route()) } else { Ok(answer::no_page()) };
    };
    // A namespace's own path names it twice; every other cluster-wide kind has none.
    let namespace = if row.namespaced() { target.namespace.clone() } else { None };
    if !routed(&row, &target) {
        return Err(Status::no_route());
    }
    if let Some(name) = &target.name {
        valid_segment(name)?;
    }
    if let Some(subresource) = &target.subresource {
        if STREAMED.contains(&subresource.as_str()) {
            let warnings = admission::connect(&api, &row, &target, &query, &user).await?;
            let mut answer = proxy::handle(api, &user, target, query, parts, body).await?;
            answer::warn(&mut answer, warnings);
            return Ok(answer);
        }
        if row.subresource(subresource).is_none() {
            return Err(Status::no_route());
        }
    }
    let mut cx = Context { record: parts.extensions.get::<Arc<Record>>().cloned(), ..Context::of(user) };
    options::write(&mut cx, &query, &parts)?;
    if let Some(text) = special::deprecation(&row) {
        cx.warn(text);
    }
    let header = |name| parts.headers.get(name).and_then(|value| value.to_str().ok());
    let endpoint = match () {
        () if row.schema.is_empty() && target.subresource.as_deref() != Some("scale") => Endpoint::Custom,
        () if reviews::is_review(&row) => Endpoint::Transient,
        () => Endpoint::BuiltIn,
    };
    if row.custom.is_none() {
        asked.route(parts.method == Method::GET && target.name.is_none())?;
    }
    let watch = target.watch || (query.flag("watch") && target.subresource.is_none());
    let reads = matches!(parts.method, Method::GET | Method::HEAD);
    let wanted = if watch && reads { asked.stream(endpoint)? } else { asked.wanted(endpoint)? };
    let call = Call { api, row, namespace, target, query, wanted };
    let outcome = call.dispatch(&parts.method, header(CONTENT_TYPE), body, &cx).await;
    let mut response = outcome.unwrap_or_else(|status| answer::refusal(&status, asked));
    answer::warn(&mut response, cx.take_warnings());
    Ok(response)
}

/// Whether such a path exists at all: one object of a namespaced kind lies in a namespace, one of the others does not.
fn routed(row: &Resource, target: &ResourcePath) -> bool {
    if row.namespaced() { target.namespace.is_some() || target.name.is_none() } else { target.namespace.is_none() || (row.group.is_empty() && row.plural == "namespaces") }
}

fn is_bindings(row: &Resource) -> bool {
    row.group.is_empty() && row.plural == "bindings"
}

/// path.IsValidPathSegmentName, as it is told of a name in a URL.
fn valid_segment(name: &str) -> Result<(), Status> {
    let why = match name {
        "." | ".." => format!("may not be '{name}'"),
        _ if name.contains('%') => "may not contain '%'".to_owned(),
        _ => return Ok(()),
    };
    Err(Status::bad_request(format!("Name parameter invalid: {name:?}: {why}")))
}

struct Call {
    api: Arc<Api>,
    row: Arc<Resource>,
    namespace: Option<String>,
    target: ResourcePath,
    query: Query,
    wanted: Wanted,
}

/// The whole body, which counts as read from now on.
async fn read(body: &mut Option<Incoming>) -> Result<bytes::Bytes, Status> {
    let Some(body) = body.take() else { return Ok(bytes::Bytes::new()) };
    let collected = Limited::new(body, MAX_BODY_BYTES).collect().await.map_err(|error| {
        if error.downcast_ref::<http_body_util::LengthLimitError>().is_some() {
            Status::too_large(format!("Request entity too large: limit is {MAX_BODY_BYTES}"))
        } else {
            Status::bad_request(format!("cannot read the request's body: {error}"))
        }
    })?;
    Ok(collected.to_bytes())
}

/// What came is noted, for a request that is audited.
fn sent(cx: &Context, object: &Value) {
    if let Some(record) = &cx.record {
        record.request(object);
    }
}

impl Call {
    fn name(&self) -> Option<&str> {
        self.target.name.as_deref()
    }

    /// What goes in.
    fn kind(&self) -> &str {
        self.target.subresource.as_deref().and_then(|name| self.row.subresource(name)).map_or(&*self.row.kind, |subresource| &*subresource.kind)
    }

    fn namespace(&self) -> Option<&str> {
        self.namespace.as_deref()
    }

    fn allow(&self, verb: Verb) -> Result<(), Status> {
        if self.row.custom.is_some() && !self.row.allows(verb) {
            // While its definition goes, what is there may still be changed: finalizers have to come off.
            if verb != Verb::Create {
                return Ok(());
            }
            let mut status = Status::method_not_supported(&self.row.group, &self.row.plural, verb.as_str());
            status.message = format!("{} not allowed while custom resource definition is terminating", verb.as_str());
            return Err(status);
        }
        let allowed = match &self.target.subresource {
            Some(name) => self.row.subresource(name).is_some_and(|subresource| subresource.verbs.contains(&verb)),
            None => self.row.allows(verb),
        };
        if allowed || self.row.custom.is_some() {
            return Ok(());
        }
        // A path at which nothing is served does not exist.
        let served = [Verb::Get, Verb::Update, Verb::Patch, Verb::Delete].into_iter().any(|verb| self.row.allows(verb));
        Err(if self.name().is_some() && self.target.subresource.is_none() && !served { Status::no_route() } else { answer::method_not_allowed() })
    }

    async fn dispatch(&self, method: &Method, content_type: Option<&str>, body: &mut Option<Incoming>, cx: &Context) -> Result<Answer, Status> {
        // A collection across all namespaces is only read.
        let across = self.row.namespaced() && self.namespace.is_none();
        match (method, self.name()) {
            (&Method::GET | &Method::HEAD, None) if self.target.watch || self.query.flag("watch") => self.watch().await,
            (&Method::GET | &Method::HEAD, Some(_)) if (self.target.watch || self.query.flag("watch")) && self.target.subresource.is_none() => self.watch().await,
            (&Method::GET | &Method::HEAD, None) => self.list().await,
            (&Method::GET | &Method::HEAD, Some(name)) => {
                self.allow(Verb::Get)?;
                // A state that is no older than the one asked for: the newest is, once it has come so far.
                if let Some(version) = crate::reads::parse_version(self.query.get("resourceVersion").unwrap_or(""))? {
                    self.api.reached(version).await?;
                }
                let object = self.api.get_any(&self.row, self.namespace(), name, self.target.subresource.as_deref()).await?;
                self.show(200, &object)
            }
            _ if across => Err(answer::method_not_allowed()),
            (&Method::POST, Some(_)) if self.target.subresource.is_none() => Err(answer::method_not_allowed()),
            (&Method::POST, _) => {
                self.allow(Verb::Create)?;
                let bytes = read(body).await?;
                self.post(content_type, &bytes, cx).await
            }
            (&Method::PUT, Some(name)) => {
                self.allow(Verb::Update)?;
                let bytes = read(body).await?;
                self.put(name, content_type, &bytes, cx).await
            }
            (&Method::PATCH, Some(name)) => {
                self.allow(Verb::Patch)?;
                let bytes = read(body).await?;
                self.patch(name, content_type, &bytes, cx).await
            }
            (&Method::DELETE, name) if self.target.subresource.is_none() => {
                self.allow(if name.is_some() { Verb::Delete } else { Verb::DeleteCollection })?;
                let bytes = read(body).await?;
                self.delete(name, content_type, &bytes, cx).await
            }
            _ => Err(answer::method_not_allowed()),
        }
    }

    /// Decodes for the row; subresources with types of their own are decoded where they are handled.
    async fn post(&self, content_type: Option<&str>, bytes: &[u8], cx: &Context) -> Result<Answer, Status> {
        let format = Format::of(content_type, self.api.config.cbor)?;
        let object = if self.name().is_none() && !reviews::is_review(&self.row) && !is_bindings(&self.row) {
            let value = decode::object(&self.row, bytes, format, cx)?;
            sent(cx, &value);
            self.api.create(&self.row, self.namespace(), value, cx).await?
        } else {
            let value = decode::body(self.kind(), bytes, format)?;
            sent(cx, &value);
            self.api.post(&self.row, self.namespace(), self.name(), self.target.subresource.as_deref(), value, cx).await?
        };
        if matches!(self.target.subresource.as_deref(), Some("binding")) || is_bindings(&self.row) {
            return Ok(self.wanted.status(&Status::success().with_code(201)));
        }
        self.show(201, &object)
    }

    async fn put(&self, name: &str, content_type: Option<&str>, bytes: &[u8], cx: &Context) -> Result<Answer, Status> {
        let format = Format::of(content_type, self.api.config.cbor)?;
        let existed = self.api.store.get(&self.row.key(self.namespace(), name)).is_some();
        let object = if self.target.subresource.as_deref() == Some("scale") {
            let value = decode::body(self.kind(), bytes, format)?;
            sent(cx, &value);
            let duplicates = if format == Format::Json && cx.field_validation != FieldValidation::Ignore { ::api::schema::duplicate_fields(bytes) } else { Vec::new() };
            let value = scale::decoded(value, &duplicates, cx)?;
            self.api.put(&self.row, self.namespace(), name, Some("scale"), value, cx).await?
        } else {
            let value = decode::object(&self.row, bytes, format, cx)?;
            sent(cx, &value);
            self.api.update(&self.row, self.namespace(), name, part(self.target.subresource.as_deref())?, value, cx).await?
        };
        self.show(if existed { 200 } else { 201 }, &object)
    }

    async fn patch(&self, name: &str, content_type: Option<&str>, bytes: &[u8], cx: &Context) -> Result<Answer, Status> {
        let media = content_type.unwrap_or("").split(';').next().unwrap_or("");
        // Custom kinds have no schema in Go that says how their lists merge.
        let strategic = !self.row.schema.is_empty() || self.target.subresource.as_deref() == Some("scale");
        let kinds = [PatchKind::Json, PatchKind::Merge, PatchKind::Strategic, PatchKind::Apply];
        let mut offered = kinds.into_iter().filter(|kind| *kind != PatchKind::Strategic || strategic);
        let cbor = self.api.config.cbor.then_some(options::APPLY_CBOR);
        let (kind, format) = match offered.clone().find(|kind| kind.content_type() == media) {
            Some(PatchKind::Apply) => (PatchKind::Apply, Format::Yaml),
            Some(kind) => (kind, Format::Json),
            None if cbor == Some(media) => (PatchKind::Apply, Format::Cbor),
            // Built-in kinds are go-restful's, which looks at the type before anyone else does.
            None if self.row.custom.is_none() => return Err(Status::generic(415, Reason::UnsupportedMediaType, "415: Unsupported Media Type")),
            None => return Err(Status::unsupported_media_type(&offered.by_ref().map(PatchKind::content_type).chain(cbor).collect::<Vec<_>>().join(", "))),
        };
        let validation = cx.field_validation;
        let patch = if format == Format::Json { decode::patch(bytes).map_err(|why| unfit::unread(kind, &why, validation))? } else { decode::parse(bytes, format)? };
        let patch = unfit::document(kind, patch, validation)?;
        match format {
            Format::Yaml => decode::applied_once(bytes, cx)?,
            Format::Json if validation != FieldValidation::Ignore => {
                let complaints = unfit::complaints(kind, &patch, bytes);
                if validation == FieldValidation::Strict && !complaints.is_empty() {
                    return Err(unfit::invalid(&String::from_utf8_lossy(bytes), &format!("strict decoding error: {}", complaints.join(", "))));
                }
                complaints.into_iter().for_each(|text| cx.warn(text));
            }
            _ => {}
        }
        if let Some(record) = &cx.record {
            record.request_patch(&patch);
        }
        let existed = kind != PatchKind::Apply || self.api.store.get(&self.row.key(self.namespace(), name)).is_some();
        let object = self.api.patch_any(&self.row, self.namespace(), name, self.target.subresource.as_deref(), kind, patch, cx).await?;
        self.show(if existed { 200 } else { 201 }, &object)
    }

    async fn delete(&self, name: Option<&str>, content_type: Option<&str>, bytes: &[u8], cx: &Context) -> Result<Answer, Status> {
        // A body speaks for itself; without one the query does.
        let given = if bytes.is_empty() {
            let mut given = json!({});
            if let Some(seconds) = options::integer(&self.query, "gracePeriodSeconds")? {
                given["gracePeriodSeconds"] = seconds.into();
            }
            if let Some(policy) = self.query.get("propagationPolicy") {
                given["propagationPolicy"] = policy.into();
            }
            if self.query.get("orphanDependents").is_some() {
                given["orphanDependents"] = self.query.flag("orphanDependents").into();
            }
            given
        } else {
            let given = decode::parse(bytes, Format::of(content_type, self.api.config.cbor)?)?;
            options::is_delete_options(&given)?;
            sent(cx, &given);
            given
        };
        let mut options = delete_options(&given)?;
        if let Some(text) = special::delete_warning(&self.row).filter(|_| options.propagation.is_none()) {
            cx.warn(text);
        }
        options.dry_run |= cx.dry_run;
        let dry = Context { record: cx.record.clone(), ..Context::of(cx.user.clone()).dry(options.dry_run) };
        let Some(name) = name else {
            let deleted = self.api.delete_collection(&self.row, self.namespace(), &options, &options::list(&self.query, None)?, &dry).await;
            dry.take_warnings().into_iter().for_each(|warning| cx.warn(warning));
            let items = deleted?;
            let listed = Listed { items, revision: self.api.store.revision(), continue_token: String::new(), remaining: None };
            return self.show_list(listed);
        };
        let deleted = self.api.delete(&self.row, self.namespace(), name, &options, &dry).await;
        dry.take_warnings().into_iter().for_each(|warning| cx.warn(warning));
        match deleted? {
            Deleted::Going(object) => self.show(200, &object),
            Deleted::Gone(object) if self.row.shows_deleted() => self.show(200, &object),
            Deleted::Gone(object) => {
                let status = Status::deleted(&self.row.group, &self.row.plural, name, &object.meta().uid);
                Ok(self.wanted.json(200, status_object(&status)?.bytes()))
            }
        }
    }

    async fn list(&self) -> Result<Answer, Status> {
        self.allow(Verb::List)?;
        let listed = self.api.list(&self.row, self.namespace(), &options::list(&self.query, self.name())?).await?;
        self.show_list(listed)
    }

    async fn watch(&self) -> Result<Answer, Status> {
        self.allow(Verb::Watch)?;
        let options = options::watch(&self.query)?;
        let watching = self.api.watch(self.row.clone(), self.namespace(), self.name(), &options).await?;
        Ok(stream::watch(self.api.clone(), watching, self.wanted, include(&self.query), options.timeout_seconds))
    }

    fn show(&self, code: u16, object: &Arc<Object>) -> Result<Answer, Status> {
        match self.wanted.shape {
            Shape::Table if self.target.subresource.is_none() && object.kind() == self.row.kind => {
                let value = object.value().map_err(Status::internal)?;
                let mut table = columns::table(&self.row, [&value], self.api.clock.now(), include(&self.query));
                table["metadata"]["resourceVersion"] = object.resource_version().to_string().into();
                Ok(self.table(code, table))
            }
            Shape::Table if object.kind() == "Scale" => Ok(self.table(code, scale::table(&object.value().map_err(Status::internal)?, self.api.clock.now()))),
            // A status is never made into anything else.
            Shape::Metadata if object.kind() != "Status" => self.wanted.metadata(code, object),
            Shape::MetadataList if object.kind() != "Status" => Err(not_a("PartialObjectMetadataList", "not a list", &self.row, &self.row.kind)),
            _ => Ok(self.wanted.object(code, &self.row, object)),
        }
    }

    fn table(&self, code: u16, mut table: Value) -> Answer {
        if self.wanted.beta {
            table["apiVersion"] = self.wanted.meta_version().into();
        }
        self.wanted.value(code, &table)
    }

    fn show_list(&self, listed: Listed) -> Result<Answer, Status> {
        let (wanted, row) = (&self.wanted, &self.row);
        let revision = listed.revision.to_string();
        let head = ListHead { api_version: &row.api_version(), kind: &row.list_kind, resource_version: &revision, continue_token: &listed.continue_token, remaining: listed.remaining };
        let values = || listed.items.iter().map(|object| object.value().map_err(Status::internal)).collect::<Result<Vec<Value>, Status>>();
        let mut list = match (wanted.shape, wanted.media) {
            (Shape::Table, _) => columns::table(row, &values()?, self.api.clock.now(), include(&self.query)),
            (Shape::MetadataList, Media::Protobuf) => return Ok(wanted.metadata_list(&head, &listed.items)),
            (Shape::MetadataList, _) => json!({"kind": "PartialObjectMetadataList", "apiVersion": wanted.meta_version(), "metadata": {}, "items": values()?.iter().map(|value| wanted.partial(value)).collect::<Vec<_>>()}),
            (Shape::Metadata, _) => return Err(not_a("PartialObjectMetadata", "a list", row, &row.list_kind)),
            (_, Media::Protobuf) => return Ok(render::encoded(200, encode::protobuf_list(row, &listed.items, &head))),
            _ => {
                let mut list = encode::List::new(row.clone(), listed.items, listed.revision, &listed.continue_token, listed.remaining);
                if wanted.media == Media::Json && !wanted.pretty {
                    return Ok(answer::list(list));
                }
                return Ok(wanted.json(200, &list.piece(list.left())));
            }
        };
        list["metadata"]["resourceVersion"] = revision.into();
        if !listed.continue_token.is_empty() {
            list["metadata"]["continue"] = listed.continue_token.as_str().into();
        }
        if let Some(remaining) = listed.remaining {
            list["metadata"]["remainingItemCount"] = remaining.into();
        }
        Ok(self.table(200, list))
    }
}

/// What is there cannot be shown as what was asked for; Go prints the type of what is there.
fn not_a(asked: &str, is: &str, row: &Resource, kind: &str) -> Status {
    let ty = match row.schema.is_empty() {
        true if is == "a list" => "unstructured.UnstructuredList".to_owned(),
        true => "unstructured.Unstructured".to_owned(),
        false => format!("{}.{kind}", decode::package(&row.group)),
    };
    Status::failure(406, Reason::NotAcceptable, format!("you requested {asked}, but the requested object is {is} (*{ty})"))
}

pub fn include(query: &Query) -> IncludeObject {
    match query.get("includeObject") {
        Some("None") => IncludeObject::None,
        Some("Object") => IncludeObject::Object,
        _ => IncludeObject::Metadata,
    }
}
