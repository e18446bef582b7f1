//! WATCH: the store's events as one collection's, filtered by selectors.
//!
//! An object that starts to match is ADDED, one that ceases to match is DELETED, as upstream's cacher does it (cacher.go `sendWatchCacheEvent`).

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use ::api::{Object, Resource, Status};
use client::{BoxFuture, ListOptions, WatchOptions};
use store::{Bell, Compacted, EventKind, Place, Watch, WatchItem};

use crate::api::Api;
use crate::custom::conversion;
use crate::flow_control::Watched;
use crate::outbound::Outbound;
use crate::reads::{Selection, parse_version};
use crate::special::convert;

#[derive(Debug, Clone)]
pub enum Change {
    Added(Arc<Object>),
    Modified(Arc<Object>),
    Deleted(Arc<Object>),
    Bookmark { revision: u64, initial_end: bool },
    /// The stream ends with this error.
    Failed(Status),
}

/// An event's object and what was there before, on their way to be shown.
struct Pending {
    kind: EventKind,
    shown: BoxFuture<'static, Result<Vec<Arc<Object>>, Status>>,
}

/// One client's watch.
pub struct Watching {
    row: Arc<Resource>,
    selection: Selection,
    /// None when the stream was over before it began.
    source: Option<Box<dyn Watch>>,
    initial: VecDeque<Change>,
    /// Objects up to this revision were part of the initial state.
    from: u64,
    bookmarks: bool,
    ended: bool,
    /// An event of a custom kind whose webhook is being asked.
    pending: Option<Pending>,
    outbound: Arc<Outbound>,
    /// Counted, for who writes.
    _watched: Watched,
}

impl Api {
    pub async fn watch(&self, row: Arc<Resource>, namespace: Option<&str>, name: Option<&str>, options: &WatchOptions) -> Result<Watching, Status> {
        let mut fields = options.field_selector.clone();
        if let Some(name) = name {
            let only = format!("metadata.name={name}");
            fields = if fields.is_empty() { only } else { format!("{fields},{only}") };
        }
        let selection = Selection::parse(&row, &options.label_selector, &fields)?;
        let prefix = row.key_prefix(namespace);
        let version = parse_version(&options.resource_version)?;
        let mut initial = VecDeque::new();
        let from = match version {
            // From now on, or from wherever it suits.
            None | Some(0) if options.send_initial_events == Some(false) => self.store.revision(),
            // Of one that has not come yet, as upstream: the stream begins, and says nothing before that.
            Some(version) if version > 0 && options.send_initial_events != Some(true) => version,
            _ => {
                if let Some(version) = version {
                    self.reached(version).await?;
                }
                let listed = self.list(&row, namespace, &ListOptions { label_selector: options.label_selector.clone(), field_selector: fields, ..ListOptions::default() }).await?;
                initial.extend(listed.items.into_iter().map(Change::Added));
                // Also when it was not asked for: upstream's default for a watch that names no version.
                if options.allow_bookmarks {
                    initial.push_back(Change::Bookmark { revision: listed.revision, initial_end: true });
                }
                listed.revision
            }
        };
        let watched = self.flow_control.watchers.register(&row.prefix, namespace);
        let source = match self.store.watch(&prefix, from.min(self.store.revision())) {
            Ok(source) => Some(source),
            Err(compacted) => {
                // As upstream's cacher: what is wrong with the revision is told in the stream, not in its place.
                initial.push_back(Change::Failed(too_old(compacted)));
                None
            }
        };
        Ok(Watching { row, selection, ended: source.is_none(), source, initial, from, bookmarks: options.allow_bookmarks, pending: None, outbound: self.outbound.clone(), _watched: watched })
    }
}

fn too_old(compacted: Compacted) -> Status {
    Status::expired(format!("too old resource version: {} ({})", compacted.asked, compacted.oldest))
}

impl Watching {
    pub fn row(&self) -> &Arc<Resource> {
        &self.row
    }

    pub fn wants_bookmarks(&self) -> bool {
        self.bookmarks
    }

    /// A bookmark for now: everything up to its revision has been handed out.
    pub fn bookmark(&self) -> Option<Change> {
        let revision = self.source.as_ref().map_or(0, |source| source.delivered()).max(self.from);
        (self.bookmarks && self.initial.is_empty()).then_some(Change::Bookmark { revision, initial_end: false })
    }

    /// Where this watch is among all that see the same, while it does: no selector tells them apart, and nothing of a custom kind has to be converted.
    pub fn place(&self) -> Option<Place> {
        let alike = self.row.custom.is_none() && self.selection.is_everything() && self.initial.is_empty() && !self.ended;
        self.source.as_ref().filter(|_| alike).map(|source| source.place())
    }

    /// In place of `try_next`, by who knows what comes.
    pub fn pass(&mut self, revision: u64) {
        if let Some(source) = &mut self.source {
            source.pass(revision);
        }
    }

    /// For all who are in that run, see [`store::Watch::bell`].
    pub fn bell(&mut self) -> Option<Bell> {
        let source = self.source.as_mut()?;
        source.hush();
        Some(source.bell())
    }

    /// As `poll_next`, of one that has a place and hears of what comes by a bell.
    pub fn poll_heard(&mut self) -> Poll<Option<Change>> {
        match self.try_next() {
            None if !self.ended && self.source.as_ref().is_some_and(|source| !source.is_closed()) => Poll::Pending,
            change => Poll::Ready(change),
        }
    }

    /// Not part of the initial state, nor older.
    pub fn is_news(&self, revision: u64) -> bool {
        revision > self.from
    }

    /// What is there already, without waiting.
    pub fn try_next(&mut self) -> Option<Change> {
        loop {
            if let Some(change) = self.initial.pop_front() {
                return Some(change);
            }
            if self.ended || self.pending.is_some() {
                return None;
            }
            let item = self.source.as_mut()?.try_next()?;
            if let Some(change) = self.take(item) {
                return Some(change);
            }
        }
    }

    /// The next change; `None` when the stream has ended.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Change>> {
        loop {
            if let Some(change) = self.initial.pop_front() {
                return Poll::Ready(Some(change));
            }
            if self.ended {
                return Poll::Ready(None);
            }
            if let Some(pending) = &mut self.pending {
                let (shown, kind) = (ready!(pending.shown.as_mut().poll(cx)), pending.kind);
                self.pending = None;
                let change = match shown.map(Vec::into_iter) {
                    Ok(mut shown) => shown.next().and_then(|object| self.judge(kind, object, shown.next())),
                    Err(status) => Some(self.failed(status)),
                };
                match change {
                    Some(change) => return Poll::Ready(Some(change)),
                    None => continue,
                }
            }
            let Some(source) = &mut self.source else { return Poll::Ready(None) };
            let Some(item) = ready!(source.poll_next(cx)) else { return Poll::Ready(None) };
            if let Some(change) = self.take(item) {
                return Poll::Ready(Some(change));
            }
        }
    }

    fn failed(&mut self, status: Status) -> Change {
        self.ended = true;
        Change::Failed(status)
    }

    /// An item of the store as a change, if it is one for this client. One that needs a webhook is set aside.
    fn take(&mut self, item: WatchItem) -> Option<Change> {
        let event = match item {
            WatchItem::Event(event) if !self.is_news(event.object.resource_version()) => return None,
            WatchItem::Event(event) => event,
            WatchItem::Progress(revision) => return (self.bookmarks && revision >= self.from).then_some(Change::Bookmark { revision, initial_end: false }),
            WatchItem::Expired(compacted) => return Some(self.failed(too_old(compacted))),
        };
        // One that is far behind reads an archive; what it decodes is its own.
        let (object, before) = (event.object.readable(), event.previous.as_ref().map(Object::readable));
        if self.row.custom.is_none() {
            return self.judge(event.kind, object, before);
        }
        let shown = |object: Arc<Object>| convert::shown_at_once(&self.row, object);
        let both = before.is_some();
        let previous = match before.map(|before| if self.selection.is_everything() { Ok(Some(before)) } else { shown(before) }).transpose() {
            Ok(previous) => previous.flatten(),
            Err(status) => return Some(self.failed(status)),
        };
        match shown(object) {
            Ok(Some(object)) if previous.is_some() == both => self.judge(event.kind, object, previous),
            Ok(_) => {
                let (outbound, row) = (self.outbound.clone(), self.row.clone());
                let objects: Vec<Arc<Object>> = std::iter::once(&event.object).chain(&event.previous).map(Object::readable).collect();
                let shown = Box::pin(async move {
                    let Some(custom) = &row.custom else { return Ok(objects) };
                    conversion::shown(&outbound, &row, custom, objects).await
                });
                self.pending = Some(Pending { kind: event.kind, shown });
                None
            }
            Err(status) => Some(self.failed(status)),
        }
    }

    /// Whether and how the client sees the event. Custom objects come as they are shown, others as they are stored.
    fn judge(&mut self, kind: EventKind, object: Arc<Object>, previous: Option<Arc<Object>>) -> Option<Change> {
        let matched = |object: &Object| self.selection.is_everything() || self.selection.matches(&self.row, object);
        let show = |object: Arc<Object>| if self.row.custom.is_some() { Ok(object) } else { convert::from_storage(&self.row, object) };
        let change = match kind {
            EventKind::Created => matched(&object).then(|| show(object).map(Change::Added)),
            EventKind::Updated => {
                let before = previous.as_deref().is_some_and(matched);
                match (before, matched(&object)) {
                    (true, true) => Some(show(object).map(Change::Modified)),
                    (false, true) => Some(show(object).map(Change::Added)),
                    (true, false) => Some(show(object).map(Change::Deleted)),
                    (false, false) => None,
                }
            }
            EventKind::Deleted => matched(previous.as_deref().unwrap_or(&object)).then(|| show(object).map(Change::Deleted)),
        };
        change.map(|change| change.unwrap_or_else(|status| self.failed(status)))
    }
}
