//! A watch as a chunked response: one JSON line an event, or one frame of protobuf.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use ::api::columns::{self, IncludeObject};
use ::api::protobuf::{self, ProtobufError};
use ::api::{Object, Status};
use bytes::{Bytes, BytesMut};
use futures_util::stream;
use http::Response;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::answer::Answer;
use super::negotiate::{Media, Shape, Wanted};
use crate::api::Api;
use crate::encode;
use crate::watch::{Change, Watching};

/// Upstream's default life of a watch lies between half an hour and an hour.
const DEFAULT_TIMEOUT_SECONDS: u64 = 30 * 60;
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(60);
/// Events that are there already are sent together, up to this size.
const MAX_FRAME_BYTES: usize = 64 * 1024;

struct Stream {
    api: Arc<Api>,
    watching: Watching,
    wanted: Wanted,
    include: IncludeObject,
    until: Instant,
    first_row: bool,
    ended: bool,
}

pub fn watch(api: Arc<Api>, watching: Watching, wanted: Wanted, include: IncludeObject, timeout_seconds: Option<u64>) -> Answer {
    let life = Duration::from_secs(timeout_seconds.filter(|seconds| *seconds > 0).unwrap_or(DEFAULT_TIMEOUT_SECONDS));
    let state = Stream { api, watching, wanted, include, until: Instant::now() + life, first_row: true, ended: false };
    let frames = stream::unfold(state, |mut state| async move { state.frame().await.map(|bytes| (Ok::<_, Infallible>(Frame::data(bytes)), state)) });
    let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
    let kind = if wanted.media == Media::Protobuf { "application/vnd.kubernetes.protobuf;stream=watch" } else { "application/json" };
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

impl Stream {
    /// The next bytes: waits for one change, then takes what else is there.
    async fn frame(&mut self) -> Option<Bytes> {
        if self.ended {
            return None;
        }
        let mut frame = BytesMut::new();
        loop {
            let bookmark_at = Instant::now() + BOOKMARK_INTERVAL;
            let change = tokio::select! {
                biased;
                change = self.watching.next() => change?,
                () = tokio::time::sleep_until(self.until) => return None,
                () = tokio::time::sleep_until(bookmark_at), if self.watching.wants_bookmarks() => match self.watching.bookmark() {
                    Some(bookmark) => bookmark,
                    None => continue,
                },
            };
            self.push(&mut frame, change);
            break;
        }
        while frame.len() < MAX_FRAME_BYTES && !self.ended {
            match self.watching.try_next() {
                Some(change) => self.push(&mut frame, change),
                None => break,
            }
        }
        Some(frame.freeze())
    }

    fn push(&mut self, frame: &mut BytesMut, change: Change) {
        let line = match change {
            Change::Added(object) => self.object("ADDED", &object),
            Change::Modified(object) => self.object("MODIFIED", &object),
            Change::Deleted(object) => self.object("DELETED", &object),
            Change::Bookmark { revision, initial_end } => self.bookmark(revision, initial_end),
            Change::Failed(status) => self.failed(&status),
        };
        frame.extend_from_slice(&line);
    }

    /// The last event: an error ends a watch.
    fn failed(&mut self, status: &Status) -> Bytes {
        self.ended = true;
        self.event("ERROR", &serde_json::to_vec(status).unwrap_or_default())
    }

    /// An event of any object's JSON.
    fn event(&mut self, kind: &str, json: &[u8]) -> Bytes {
        match self.wanted.media {
            Media::Protobuf => self.framed(kind, protobuf::encode(json)),
            _ => encode::event(kind, json),
        }
    }

    /// What cannot be written ends the stream; a status always can.
    fn framed(&mut self, kind: &str, enveloped: Result<Bytes, ProtobufError>) -> Bytes {
        match enveloped {
            Ok(bytes) => protobuf::event_frame(kind, &bytes),
            Err(_) if kind == "ERROR" => Bytes::new(),
            Err(error) => self.failed(&Status::internal(error)),
        }
    }

    fn object(&mut self, kind: &str, object: &Arc<Object>) -> Bytes {
        let shaped = match (self.wanted.shape, self.wanted.media) {
            (Shape::Table, _) => object.value().map(|value| self.table(&value, object.resource_version())),
            (Shape::Metadata, Media::Protobuf) => {
                let enveloped = self.wanted.metadata_bytes(object.bytes());
                return self.framed(kind, enveloped);
            }
            (Shape::Metadata, _) => object.value().map(|value| self.wanted.partial(&value)),
            (_, Media::Protobuf) => {
                let enveloped = self.api.encoded.protobuf(self.watching.row(), object);
                return self.framed(kind, enveloped);
            }
            _ => return encode::event(kind, object.bytes()),
        };
        match shaped {
            Ok(value) => self.event(kind, value.to_string().as_bytes()),
            Err(error) => self.failed(&Status::internal(error)),
        }
    }

    /// One row; the columns are told with the first one only.
    fn table(&mut self, value: &Value, revision: u64) -> Value {
        let mut table = columns::table(self.watching.row(), [value], self.api.clock().now(), self.include);
        table["apiVersion"] = self.wanted.meta_version().into();
        table["metadata"]["resourceVersion"] = revision.to_string().into();
        if !std::mem::take(&mut self.first_row) {
            table["columnDefinitions"] = Value::Null;
        }
        table
    }

    fn bookmark(&mut self, revision: u64, initial_end: bool) -> Bytes {
        let row = self.watching.row();
        let mut object = json!({"kind": row.kind, "apiVersion": row.api_version(), "metadata": {"resourceVersion": revision.to_string(), "creationTimestamp": null}});
        if initial_end {
            object["metadata"]["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let shaped = match self.wanted.shape {
            Shape::Table => self.table(&object, revision),
            Shape::Metadata => self.wanted.partial(&object),
            _ => object,
        };
        self.event("BOOKMARK", shaped.to_string().as_bytes())
    }
}
