//! A watch as a chunked response: one JSON line an event, one frame of protobuf, or one item of a CBOR sequence.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use ::api::columns::{self, IncludeObject};
use ::api::protobuf::{self, ProtobufError};
use ::api::{Object, Status, cbor};
use bytes::{Bytes, BytesMut};
use http::Response;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http_body::{Body, Frame};
use basics::metrics::Series;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use store::Place;
use tokio::time::Instant;

use super::alike;
use super::answer::Answer;
use super::negotiate::{Media, Shape, Wanted};
use super::sent_events::Sent;
use super::streams;
use crate::api::Api;
use crate::encode;
use crate::encoded;
use crate::ticker::Ticker;
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
    counted: Option<Arc<Series<Sent>>>,
    until: Instant,
    /// The next bookmark, or the end.
    ticker: Ticker,
    first_row: bool,
    /// The server ends, and this one knows when it is to.
    told: bool,
    ended: bool,
}

pub fn watch(api: Arc<Api>, watching: Watching, wanted: Wanted, include: IncludeObject, timeout_seconds: Option<u64>) -> Answer {
    let life = Duration::from_secs(timeout_seconds.filter(|seconds| *seconds > 0).unwrap_or(DEFAULT_TIMEOUT_SECONDS));
    let now = Instant::now();
    let until = now.checked_add(life).unwrap_or(now + Duration::from_secs(DEFAULT_TIMEOUT_SECONDS));
    let counted = api.requests.events.of(watching.row());
    let mut stream = Stream { api, watching, wanted, include, counted, until, ticker: Ticker::at(until), first_row: true, told: false, ended: false };
    stream.wind(now);
    let mut response = Response::new(stream.boxed_unsync());
    let kind = match wanted.media {
        Media::Protobuf => "application/vnd.kubernetes.protobuf;stream=watch",
        Media::Cbor => cbor::SEQUENCE_TYPE,
        Media::Json | Media::Yaml => "application/json",
    };
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

impl Body for Stream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        streams::lasts();
        let bytes = self.poll_bytes(cx);
        if bytes.is_pending() {
            streams::waits();
        }
        bytes.map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }
}

impl Stream {
    /// The next bytes: one change, and what else is there.
    fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if !self.told
            && let Some(end) = self.api.lifecycle.end_of_watch(Instant::now)
        {
            self.told = true;
            self.until = self.until.min(end);
            self.ticker.set(self.until);
        }
        if self.ended {
            return Poll::Ready(None);
        }
        let mut line = match self.another() {
            Some(line) => line,
            None => match ready!(self.poll_change(cx)) {
                Some(change) => self.line(change),
                None => {
                    self.ended = true;
                    return Poll::Ready(None);
                }
            },
        };
        let mut frame = BytesMut::new();
        loop {
            if let Some(counted) = &self.counted {
                counted.note(line.len());
            }
            let more = if frame.len() < MAX_FRAME_BYTES { self.another() } else { None };
            match more {
                // The only one is sent as it is.
                None if frame.is_empty() => return Poll::Ready(Some(line)),
                None => {
                    frame.extend_from_slice(&line);
                    return Poll::Ready(Some(frame.freeze()));
                }
                Some(next) => {
                    if frame.is_empty() {
                        frame.reserve(2 * (line.len() + next.len()));
                    }
                    frame.extend_from_slice(&line);
                    line = next;
                }
            }
        }
    }

    /// Waits for a change, or for a bookmark's time.
    fn poll_change(&mut self, cx: &mut Context<'_>) -> Poll<Option<Change>> {
        loop {
            // Most often those of a connection who see the same wait together.
            let together = self.place().is_some_and(|place| streams::listens(place.run, || self.watching.bell()));
            let next = if together { self.watching.poll_heard() } else { self.watching.poll_next(cx) };
            if let Poll::Ready(change) = next {
                return Poll::Ready(change);
            }
            ready!(self.ticker.poll_due(cx));
            let now = Instant::now();
            if now >= self.until {
                return Poll::Ready(None);
            }
            self.wind(now);
            if let Some(bookmark) = self.watching.bookmark() {
                return Poll::Ready(Some(bookmark));
            }
        }
    }

    /// Bookmarks come each minute, as upstream's, whatever else does.
    fn wind(&mut self, now: Instant) {
        let due = if self.watching.wants_bookmarks() { self.until.min(now + BOOKMARK_INTERVAL) } else { self.until };
        self.ticker.set(due);
    }

    /// What is there already. Most often another client has been sent the same by this thread.
    fn another(&mut self) -> Option<Bytes> {
        while !self.ended {
            let alike = self.place();
            if alike.is_some_and(|place| !place.there) {
                return None;
            }
            let Some((revision, line)) = alike.and_then(|place| alike::sent(place, self.watching.row(), self.wanted.media)) else {
                let change = self.watching.try_next()?;
                return Some(self.line(change));
            };
            self.watching.pass(revision);
            if self.watching.is_news(revision) {
                return Some(line);
            }
        }
        None
    }

    /// Where it is among those that are sent the same.
    fn place(&self) -> Option<Place> {
        self.watching.place().filter(|_| self.wanted.shape == Shape::Whole && !self.ended)
    }

    fn line(&mut self, change: Change) -> Bytes {
        let (kind, object) = match change {
            Change::Added(object) => ("ADDED", object),
            Change::Modified(object) => ("MODIFIED", object),
            Change::Deleted(object) => ("DELETED", object),
            Change::Bookmark { revision, initial_end } => return self.bookmark(revision, initial_end),
            Change::Failed(status) => return self.failed(&status),
        };
        let line = self.object(kind, &object);
        let revision = object.resource_version();
        if self.watching.is_news(revision)
            && let Some(place) = self.place()
        {
            alike::keep(place, self.watching.row(), self.wanted.media, revision, &line);
        }
        line
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
            Media::Cbor => match cbor::encode_json(json) {
                Ok(bytes) => cbor::event(kind, &bytes).into(),
                Err(_) if kind == "ERROR" => Bytes::new(),
                Err(error) => self.failed(&Status::internal(error)),
            },
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

    fn object(&mut self, kind: &'static str, object: &Arc<Object>) -> Bytes {
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
            (_, Media::Cbor) => return self.event(kind, object.bytes()),
            _ => return encoded::event(kind, object),
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
