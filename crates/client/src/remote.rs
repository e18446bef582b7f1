//! The API's operations over HTTP: [`HttpTransport`].

use std::sync::Arc;

use api::{Object, Reason, Status};
use bytes::{Buf, Bytes, BytesMut};
use futures_util::stream;
use http::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::http::{HttpClient, HttpError, Response};
use crate::transport::{
    Body, BoxFuture, DeleteOptions, EventStream, ListOptions, ObjectList, PatchKind, Propagation, Target, Transport, WatchEvent, WatchOptions, WriteOptions,
};

/// A line of a watch may not be longer: an object is at most 1.5 MiB.
const MAX_EVENT_BYTES: usize = 16 << 20;

#[derive(Clone)]
pub struct HttpTransport {
    http: HttpClient,
}

impl HttpTransport {
    pub fn new(http: HttpClient) -> Self {
        Self { http }
    }

    pub fn http(&self) -> &HttpClient {
        &self.http
    }

    async fn object(&self, method: Method, path: String, content_type: &str, body: Bytes) -> Result<Arc<Object>, Status> {
        let headers: &[(&str, &str)] = if body.is_empty() { &[("accept", "application/json")] } else { &[("accept", "application/json"), ("content-type", content_type)] };
        let response = self.http.request(method, &path, headers, body).await.map_err(unreachable)?;
        let bytes = success(response).await?;
        Object::decode(bytes).map(Arc::new).map_err(Status::internal)
    }
}

fn unreachable(error: HttpError) -> Status {
    Status::unavailable(error.to_string())
}

/// The body of a success; what else was answered, as a Status.
pub async fn success(response: Response) -> Result<Bytes, Status> {
    let code = response.status;
    let bytes = response.bytes().await.map_err(unreachable)?;
    if (200..300).contains(&code) { Ok(bytes) } else { Err(status_of(code, &bytes)) }
}

/// The server's own Status, or one made from a code and a text, as client-go does.
pub fn status_of(code: u16, body: &[u8]) -> Status {
    if let Ok(status) = serde_json::from_slice::<Status>(body) {
        if !status.message.is_empty() || status.reason != Reason::Unknown {
            return status;
        }
    }
    let text = String::from_utf8_lossy(body).trim().to_owned();
    let (reason, message) = match code {
        400 => (Reason::BadRequest, text),
        401 => (Reason::Unauthorized, "the server has asked for the client to provide credentials".to_owned()),
        403 => (Reason::Forbidden, if text.is_empty() { "unknown".to_owned() } else { text }),
        404 => (Reason::NotFound, "the server could not find the requested resource".to_owned()),
        405 => (Reason::MethodNotAllowed, "the server does not allow this method on the requested resource".to_owned()),
        409 => (Reason::Conflict, "the server reported a conflict".to_owned()),
        429 => (Reason::TooManyRequests, "the server has received too many requests and has asked us to try again later".to_owned()),
        503 => (Reason::ServiceUnavailable, "the server is currently unable to handle the request".to_owned()),
        504 => (Reason::Timeout, "the server was unable to return a response in the time allotted, but may still be processing the request".to_owned()),
        500.. => (Reason::InternalError, format!("an error on the server (\"{}\") has prevented the request from succeeding", if text.is_empty() { "unknown" } else { &text })),
        _ => (Reason::Unknown, format!("the server responded with the status code {code} but did not return more information")),
    };
    Status::failure(code, reason, message)
}

struct Query(String);

impl Query {
    fn new(path: String) -> Self {
        Self(path)
    }

    fn add(mut self, key: &str, value: &str) -> Self {
        if !value.is_empty() {
            self.0.push(if self.0.contains('?') { '&' } else { '?' });
            self.0.push_str(key);
            self.0.push('=');
            self.0.extend(utf8_percent_encode(value, NON_ALPHANUMERIC));
        }
        self
    }

    fn write(self, options: &WriteOptions) -> String {
        self.add("dryRun", if options.dry_run { "All" } else { "" })
            .add("fieldManager", &options.field_manager)
            .add("fieldValidation", &options.field_validation)
            .add("force", if options.force { "true" } else { "" })
            .0
    }

    fn list(self, options: &ListOptions) -> Self {
        self.add("labelSelector", &options.label_selector)
            .add("fieldSelector", &options.field_selector)
            .add("limit", &if options.limit == 0 { String::new() } else { options.limit.to_string() })
            .add("continue", &options.continue_token)
            .add("resourceVersion", &options.resource_version)
            .add("resourceVersionMatch", &options.resource_version_match)
    }
}

fn encode(body: Body) -> (Bytes, &'static str) {
    match body {
        Body::Json(bytes) => (bytes, "application/json"),
        Body::Yaml(bytes) => (bytes, "application/yaml"),
        Body::Value(value) => (value.to_string().into(), "application/json"),
    }
}

/// `metav1.DeleteOptions`.
pub fn delete_body(options: &DeleteOptions) -> Value {
    let mut body = json!({"apiVersion": "v1", "kind": "DeleteOptions"});
    if let Some(seconds) = options.grace_period_seconds {
        body["gracePeriodSeconds"] = seconds.into();
    }
    if let Some(propagation) = options.propagation {
        body["propagationPolicy"] = match propagation {
            Propagation::Orphan => "Orphan",
            Propagation::Background => "Background",
            Propagation::Foreground => "Foreground",
        }
        .into();
    }
    let mut preconditions = serde_json::Map::new();
    preconditions.extend(options.preconditions.uid.as_ref().map(|uid| ("uid".to_owned(), Value::from(uid.as_str()))));
    preconditions.extend(options.preconditions.resource_version.as_ref().map(|version| ("resourceVersion".to_owned(), Value::from(version.as_str()))));
    if !preconditions.is_empty() {
        body["preconditions"] = preconditions.into();
    }
    if options.dry_run {
        body["dryRun"] = json!(["All"]);
    }
    body
}

#[derive(Deserialize)]
struct RawList<'a> {
    #[serde(default)]
    kind: String,
    #[serde(default, rename = "apiVersion")]
    api_version: String,
    #[serde(default)]
    metadata: ListMeta,
    #[serde(borrow)]
    items: Option<Vec<&'a RawValue>>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct ListMeta {
    resource_version: String,
    #[serde(rename = "continue")]
    continue_token: String,
    remaining_item_count: Option<u64>,
}

/// Items of a list do not name their kind when a stock API server sends them: it is put back.
fn item(raw: &RawValue, api_version: &str, kind: &str) -> Result<Arc<Object>, Status> {
    let text = raw.get();
    #[derive(Deserialize)]
    struct Named {
        kind: Option<String>,
    }
    let named = serde_json::from_str::<Named>(text).map_err(Status::internal)?;
    let bytes = match named.kind {
        Some(_) => Bytes::copy_from_slice(text.as_bytes()),
        None => {
            let mut value: Value = serde_json::from_str(text).map_err(Status::internal)?;
            value["apiVersion"] = api_version.into();
            value["kind"] = kind.into();
            value.to_string().into()
        }
    };
    Object::decode(bytes).map(Arc::new).map_err(Status::internal)
}

#[derive(Deserialize)]
struct RawEvent<'a> {
    #[serde(rename = "type")]
    kind: String,
    #[serde(borrow)]
    object: &'a RawValue,
}

fn event(line: &[u8]) -> Result<WatchEvent, Status> {
    let raw: RawEvent = serde_json::from_slice(line).map_err(Status::internal)?;
    let object = || Object::decode(Bytes::copy_from_slice(raw.object.get().as_bytes())).map(Arc::new).map_err(Status::internal);
    match raw.kind.as_str() {
        "ADDED" => object().map(WatchEvent::Added),
        "MODIFIED" => object().map(WatchEvent::Modified),
        "DELETED" => object().map(WatchEvent::Deleted),
        "BOOKMARK" => {
            let value: Value = serde_json::from_str(raw.object.get()).map_err(Status::internal)?;
            let initial_end = value.pointer("/metadata/annotations/k8s.io~1initial-events-end").is_some_and(|mark| mark == "true");
            Ok(WatchEvent::Bookmark { resource_version: value.pointer("/metadata/resourceVersion").and_then(Value::as_str).unwrap_or("").to_owned(), initial_end })
        }
        _ => Err(serde_json::from_str::<Status>(raw.object.get()).unwrap_or_else(Status::internal)),
    }
}

/// Splits a body into lines, whatever pieces it comes in. A line that comes in one piece is not copied.
pub struct Lines {
    response: Response,
    /// What came last, from the line after the one handed out.
    piece: Bytes,
    /// The beginning of a line whose end is yet to come.
    begun: BytesMut,
    ended: bool,
}

impl Lines {
    pub fn new(response: Response) -> Self {
        Self { response, piece: Bytes::new(), begun: BytesMut::new(), ended: false }
    }

    /// Without its line end; None at the end of the body.
    pub async fn next(&mut self) -> Option<Result<Bytes, HttpError>> {
        loop {
            if let Some(at) = memchr::memchr(b'\n', &self.piece) {
                let mut line = self.piece.split_to(at);
                self.piece.advance(1);
                if !self.begun.is_empty() {
                    self.begun.extend_from_slice(&line);
                    line = self.begun.split().freeze();
                }
                if line.is_empty() {
                    continue;
                }
                return Some(Ok(line));
            }
            self.begun.extend_from_slice(&std::mem::take(&mut self.piece));
            if self.ended {
                let rest = self.begun.split().freeze();
                return (!rest.is_empty()).then_some(Ok(rest));
            }
            if self.begun.len() > MAX_EVENT_BYTES {
                return Some(Err(HttpError::Http("an event of the watch is too long".to_owned())));
            }
            match self.response.chunk().await {
                Some(Ok(chunk)) => self.piece = chunk,
                Some(Err(error)) => return Some(Err(error)),
                None => self.ended = true,
            }
        }
    }
}

impl Transport for HttpTransport {
    fn host(&self) -> String {
        self.http.host()
    }

    fn get<'a>(&'a self, target: &'a Target) -> BoxFuture<'a, Result<Arc<Object>, Status>> {
        Box::pin(self.object(Method::GET, target.path(), "", Bytes::new()))
    }

    fn list<'a>(&'a self, target: &'a Target, options: &'a ListOptions) -> BoxFuture<'a, Result<ObjectList, Status>> {
        Box::pin(async move {
            let path = Query::new(target.path()).list(options).0;
            let response = self.http.request(Method::GET, &path, &[("accept", "application/json")], Bytes::new()).await.map_err(unreachable)?;
            let bytes = success(response).await?;
            let list: RawList = serde_json::from_slice(&bytes).map_err(Status::internal)?;
            let kind = list.kind.strip_suffix("List").unwrap_or(&list.kind);
            let items = list.items.unwrap_or_default().into_iter().map(|raw| item(raw, &list.api_version, kind)).collect::<Result<_, _>>()?;
            Ok(ObjectList { items, resource_version: list.metadata.resource_version, continue_token: list.metadata.continue_token, remaining: list.metadata.remaining_item_count })
        })
    }

    fn watch<'a>(&'a self, target: &'a Target, options: &'a WatchOptions) -> BoxFuture<'a, Result<EventStream, Status>> {
        Box::pin(async move {
            let path = Query::new(target.path())
                .add("watch", "true")
                .add("labelSelector", &options.label_selector)
                .add("fieldSelector", &options.field_selector)
                .add("resourceVersion", &options.resource_version)
                .add("allowWatchBookmarks", if options.allow_bookmarks { "true" } else { "" })
                .add("sendInitialEvents", options.send_initial_events.map_or("", |asked| if asked { "true" } else { "false" }))
                .add("resourceVersionMatch", if options.send_initial_events.is_some() { "NotOlderThan" } else { "" })
                .add("timeoutSeconds", &options.timeout_seconds.map(|seconds| seconds.to_string()).unwrap_or_default())
                .0;
            let response = self.http.request(Method::GET, &path, &[("accept", "application/json")], Bytes::new()).await.map_err(unreachable)?;
            if response.status >= 300 {
                return Err(success(response).await.err().unwrap_or_default());
            }
            let events = stream::unfold(Lines::new(response), |mut lines| async move {
                match lines.next().await? {
                    Ok(line) => Some((event(&line), lines)),
                    Err(error) => Some((Err(unreachable(error)), lines)),
                }
            });
            Ok(Box::pin(events) as EventStream)
        })
    }

    fn create<'a>(&'a self, target: &'a Target, body: Body, options: &'a WriteOptions) -> BoxFuture<'a, Result<Arc<Object>, Status>> {
        let (body, content_type) = encode(body);
        Box::pin(self.object(Method::POST, Query::new(target.path()).write(options), content_type, body))
    }

    fn update<'a>(&'a self, target: &'a Target, body: Body, options: &'a WriteOptions) -> BoxFuture<'a, Result<Arc<Object>, Status>> {
        let (body, content_type) = encode(body);
        Box::pin(self.object(Method::PUT, Query::new(target.path()).write(options), content_type, body))
    }

    fn patch<'a>(&'a self, target: &'a Target, kind: PatchKind, body: Body, options: &'a WriteOptions) -> BoxFuture<'a, Result<Arc<Object>, Status>> {
        let (body, _) = encode(body);
        Box::pin(self.object(Method::PATCH, Query::new(target.path()).write(options), kind.content_type(), body))
    }

    fn delete<'a>(&'a self, target: &'a Target, options: &'a DeleteOptions) -> BoxFuture<'a, Result<Arc<Object>, Status>> {
        Box::pin(self.object(Method::DELETE, target.path(), "application/json", delete_body(options).to_string().into()))
    }

    fn delete_collection<'a>(&'a self, target: &'a Target, options: &'a DeleteOptions, list: &'a ListOptions) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(async move {
            let path = Query::new(target.path()).list(list).0;
            let body = delete_body(options).to_string();
            let response = self.http.request(Method::DELETE, &path, &[("accept", "application/json"), ("content-type", "application/json")], body).await.map_err(unreachable)?;
            success(response).await.map(drop)
        })
    }

    fn returns(&self) -> Option<watch::Receiver<u64>> {
        Some(self.http.returns())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_escaped() {
        let list = ListOptions { label_selector: "app in (a,b)".into(), limit: 500, ..ListOptions::default() };
        assert_eq!(Query::new("/api/v1/pods".into()).list(&list).0, "/api/v1/pods?labelSelector=app%20in%20%28a%2Cb%29&limit=500");
    }

    #[test]
    fn an_answer_that_is_no_status_becomes_one() {
        assert_eq!(status_of(404, b"404 page not found").message, "the server could not find the requested resource");
        assert_eq!(status_of(409, br#"{"kind":"Status","message":"m","reason":"Conflict"}"#).message, "m");
        assert_eq!(status_of(500, b"boom").message, "an error on the server (\"boom\") has prevented the request from succeeding");
    }

    #[test]
    fn events_are_read() {
        assert!(matches!(event(br#"{"type":"ADDED","object":{"kind":"Pod","metadata":{"name":"a","resourceVersion":"7"}}}"#).unwrap(), WatchEvent::Added(object) if object.resource_version() == 7));
        assert!(matches!(event(br#"{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"9","annotations":{"k8s.io/initial-events-end":"true"}}}}"#).unwrap(), WatchEvent::Bookmark { initial_end: true, .. }));
        assert!(event(br#"{"type":"ERROR","object":{"kind":"Status","code":410,"reason":"Expired","message":"too old"}}"#).unwrap_err().is_expired());
    }
}
