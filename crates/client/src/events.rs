//! Records events (`v1 Event`) about objects, as `k8s.io/client-go/tools/record`.
//!
//! Promises: recording never waits and never fails the caller; the same event again raises the count of the first; many like events about one object are
//! combined (`(combined from similar events): …`); one object cannot flood the server. Events about different objects are written at the same time, those about
//! one object in order. What does not fit the buffer is dropped; how many were is logged, now and then.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::hash::Hash;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use api::Clock;
use api::k8s::api::core::v1::ObjectReference;
use api::world::rfc3339;
use futures_util::FutureExt;
use futures_util::future::join_all;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::transport::{Body, PatchKind, Target, WriteOptions};
use crate::typed::Client;

/// Events waiting to be written, at most (upstream's broadcaster: 1000).
pub const BUFFER: usize = 1000;
/// Different events remembered for counting, at most (upstream: 4096).
pub const REMEMBERED: usize = 4096;
/// This many different messages of one kind about one object within `SIMILAR_SECONDS` are combined from then on.
pub const SIMILAR_LIMIT: usize = 10;
pub const SIMILAR_SECONDS: i64 = 600;
/// Events about one object: at once, and then one every so many seconds.
pub const BURST: f64 = 25.0;
pub const REFILL_SECONDS: f64 = 300.0;
/// Events taken out of the buffer and written together, at most.
const WIDTH: usize = 64;
/// Between two log lines about dropped events.
const TELL_SECONDS: i64 = 60;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventType {
    Normal,
    Warning,
}

impl EventType {
    pub fn as_str(self) -> &'static str {
        match self {
            EventType::Normal => "Normal",
            EventType::Warning => "Warning",
        }
    }
}

struct Recorded {
    about: ObjectReference,
    kind: EventType,
    reason: String,
    message: String,
    at: jiff::Timestamp,
}

/// See the module head. Cheap to clone.
#[derive(Clone)]
pub struct Recorder {
    sender: mpsc::Sender<Recorded>,
    clock: Arc<dyn Clock>,
    dropped: Arc<Dropped>,
}

#[derive(Default)]
struct Dropped {
    count: AtomicU64,
    /// The second of the next log line.
    tell_from: AtomicI64,
}

impl Dropped {
    /// How many there are to tell of, when it is time.
    fn note(&self, now: i64) -> Option<u64> {
        self.count.fetch_add(1, Ordering::Relaxed);
        let from = self.tell_from.load(Ordering::Relaxed);
        let mine = now >= from && self.tell_from.compare_exchange(from, now + TELL_SECONDS, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        mine.then(|| self.count.swap(0, Ordering::Relaxed))
    }
}

impl Recorder {
    /// `component` as upstream names it (`kubelet`, `default-scheduler`, `deployment-controller`), `host` the node's name or empty.
    /// Spawns the task that writes; it ends when the last clone is dropped.
    pub fn start(client: &Client, component: &str, host: &str, clock: Arc<dyn Clock>) -> Self {
        let (sender, receiver) = mpsc::channel(BUFFER);
        let writer =
            Writer { client: client.named(component), component: component.to_owned(), host: host.to_owned(), memory: Mutex::default(), unique: Mutex::new(0) };
        tokio::spawn(writer.run(receiver));
        Self { sender, clock, dropped: Arc::default() }
    }

    pub fn normal(&self, about: &ObjectReference, reason: &str, message: impl Into<String>) {
        self.record(about, EventType::Normal, reason, message);
    }

    pub fn warning(&self, about: &ObjectReference, reason: &str, message: impl Into<String>) {
        self.record(about, EventType::Warning, reason, message);
    }

    pub fn record(&self, about: &ObjectReference, kind: EventType, reason: &str, message: impl Into<String>) {
        let recorded = Recorded { about: about.clone(), kind, reason: reason.to_owned(), message: message.into(), at: self.clock.now() };
        let now = recorded.at.as_second();
        if let Err(error) = self.sender.try_send(recorded)
            && let Some(count) = self.dropped.note(now)
        {
            tracing::warn!(reason, count, %error, "events dropped");
        }
    }
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct SimilarKey {
    uid: String,
    name: String,
    field_path: Option<String>,
    kind: EventType,
    reason: String,
}

#[derive(Default)]
struct Similar {
    messages: BTreeSet<String>,
    last: i64,
}

/// The event to write, decided from what was written before.
struct Decision {
    message: String,
    /// The event that is to be counted up, if there is one.
    known: Option<(String, u64)>,
    key: (SimilarKey, String),
}

/// What was recorded lately; forgets the oldest beyond `REMEMBERED`.
#[derive(Default)]
struct Memory {
    similar: Bounded<SimilarKey, Similar>,
    /// Name and count of the event that says this.
    written: Bounded<(SimilarKey, String), (String, u64)>,
    /// Tokens left and the second they were counted.
    tokens: Bounded<String, (f64, f64)>,
}

impl Memory {
    /// None when the object has had too many events.
    fn decide(&mut self, recorded: &Recorded) -> Option<Decision> {
        let about = &recorded.about;
        let now = recorded.at.as_second();
        let object =
            format!("{}/{}/{}", about.kind.as_deref().unwrap_or(""), about.namespace.as_deref().unwrap_or(""), about.name.as_deref().unwrap_or(""));
        let (tokens, at) = self.tokens.entry(object, || (BURST, now as f64));
        *tokens = (*tokens + (now as f64 - *at).max(0.0) / REFILL_SECONDS).min(BURST);
        *at = now as f64;
        if *tokens < 1.0 {
            return None;
        }
        *tokens -= 1.0;

        let key = SimilarKey {
            uid: about.uid.clone().unwrap_or_default(),
            name: about.name.clone().unwrap_or_default(),
            field_path: about.field_path.clone(),
            kind: recorded.kind,
            reason: recorded.reason.clone(),
        };
        let similar = self.similar.entry(key.clone(), Similar::default);
        if now - similar.last > SIMILAR_SECONDS {
            similar.messages.clear();
        }
        similar.last = now;
        similar.messages.insert(recorded.message.clone());
        let combined = similar.messages.len() >= SIMILAR_LIMIT;
        if combined {
            // One message stands for them all from here on; the set must not grow with their number.
            let newest = similar.messages.iter().filter(|text| **text != recorded.message).take(SIMILAR_LIMIT - 1).cloned().collect::<BTreeSet<_>>();
            similar.messages = newest;
            similar.messages.insert(recorded.message.clone());
        }
        let (message, identity) = if combined {
            (format!("(combined from similar events): {}", recorded.message), String::new())
        } else {
            (recorded.message.clone(), recorded.message.clone())
        };
        let key = (key, identity);
        let known = self.written.get(&key).cloned();
        Some(Decision { message, known, key })
    }
}

/// A map that forgets what was put in first.
struct Bounded<K, V> {
    map: HashMap<K, V>,
    order: VecDeque<K>,
}

impl<K, V> Default for Bounded<K, V> {
    fn default() -> Self {
        Self { map: HashMap::new(), order: VecDeque::new() }
    }
}

impl<K: Clone + Eq + Hash, V> Bounded<K, V> {
    fn get(&self, key: &K) -> Option<&V> {
        self.map.get(key)
    }

    fn entry(&mut self, key: K, fresh: impl FnOnce() -> V) -> &mut V {
        if !self.map.contains_key(&key) {
            if self.map.len() >= REMEMBERED
                && let Some(oldest) = self.order.pop_front()
            {
                self.map.remove(&oldest);
            }
            self.order.push_back(key.clone());
        }
        self.map.entry(key).or_insert_with(fresh)
    }

    fn set(&mut self, key: K, value: V) {
        if let Some(known) = self.map.get_mut(&key) {
            *known = value;
        } else {
            self.entry(key, || value);
        }
    }
}

struct Writer {
    client: Client,
    component: String,
    host: String,
    memory: Mutex<Memory>,
    unique: Mutex<i128>,
}

impl Writer {
    async fn run(self, mut receiver: mpsc::Receiver<Recorded>) {
        let mut taken = Vec::with_capacity(WIDTH);
        while receiver.recv_many(&mut taken, WIDTH).await > 0 {
            // What one event became decides about the next one of its object.
            let mut objects: BTreeMap<(Option<String>, Option<String>, Option<String>), Vec<Recorded>> = BTreeMap::new();
            for recorded in taken.drain(..) {
                let about = &recorded.about;
                objects.entry((about.kind.clone(), about.namespace.clone(), about.name.clone())).or_default().push(recorded);
            }
            join_all(objects.into_values().map(async |events| {
                for recorded in events {
                    let decision = self.memory.lock().decide(&recorded);
                    match decision {
                        // A panic costs one event.
                        Some(decision) => drop(AssertUnwindSafe(self.write(recorded, decision)).catch_unwind().await),
                        None => tracing::debug!(reason = recorded.reason, "event dropped: too many about this object"),
                    }
                }
            }))
            .await;
        }
    }

    fn target(namespace: &str, name: Option<String>) -> Target {
        Target { version: "v1".into(), plural: "events".into(), namespace: Some(namespace.to_owned()), name, ..Target::default() }
    }

    async fn write(&self, recorded: Recorded, decision: Decision) {
        let namespace = recorded.about.namespace.clone().filter(|namespace| !namespace.is_empty()).unwrap_or_else(|| "default".to_owned());
        let options = WriteOptions { field_manager: self.component.clone(), ..WriteOptions::default() };
        let transport = self.client.transport().clone();
        if let Some((name, count)) = decision.known {
            let patch = json!({"count": count + 1, "message": decision.message, "lastTimestamp": rfc3339(recorded.at)});
            match transport.patch(&Self::target(&namespace, Some(name.clone())), PatchKind::Merge, Body::Value(patch), &options).await {
                Ok(_) => return self.memory.lock().written.set(decision.key, (name, count + 1)),
                // Expired meanwhile: a new one.
                Err(status) if status.is_not_found() => {}
                Err(status) => return tracing::debug!(error = %status, "event not counted"),
            }
        }
        // Upstream's name: the object's, and the time in nanoseconds. Virtual time stands still, so equal times are told apart.
        let nanoseconds = {
            let mut unique = self.unique.lock();
            *unique = recorded.at.as_nanosecond().max(*unique + 1);
            *unique
        };
        let name = format!("{}.{nanoseconds:x}", recorded.about.name.as_deref().unwrap_or("unknown"));
        let event = self.event(&recorded, &decision.message, &namespace, &name);
        match transport.create(&Self::target(&namespace, None), Body::Value(event), &options).await {
            Ok(_) => self.memory.lock().written.set(decision.key, (name, 1)),
            Err(status) => tracing::debug!(error = %status, reason = recorded.reason, "event not written"),
        }
    }

    fn event(&self, recorded: &Recorded, message: &str, namespace: &str, name: &str) -> Value {
        let at = rfc3339(recorded.at);
        let mut source = json!({"component": self.component});
        if !self.host.is_empty() {
            source["host"] = json!(self.host);
        }
        json!({
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": namespace},
            "involvedObject": recorded.about,
            "reason": recorded.reason,
            "message": message,
            "source": source,
            "firstTimestamp": at,
            "lastTimestamp": at,
            "count": 1,
            "type": recorded.kind.as_str(),
            "eventTime": null,
            "reportingComponent": self.component,
            "reportingInstance": self.host,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded(message: &str, second: i64) -> Recorded {
        Recorded {
            about: ObjectReference { kind: Some("Pod".into()), name: Some("a".into()), uid: Some("1".into()), ..Default::default() },
            kind: EventType::Normal,
            reason: "Pulled".into(),
            message: message.into(),
            at: jiff::Timestamp::from_second(second).unwrap(),
        }
    }

    #[test]
    fn the_same_again_is_counted() {
        let mut memory = Memory::default();
        let first = memory.decide(&recorded("x", 1)).unwrap();
        assert!(first.known.is_none());
        memory.written.set(first.key, ("a.1".into(), 1));
        assert_eq!(memory.decide(&recorded("x", 2)).unwrap().known, Some(("a.1".to_owned(), 1)));
        assert!(memory.decide(&recorded("y", 2)).unwrap().known.is_none());
    }

    #[test]
    fn dropped_ones_are_told_now_and_then() {
        let dropped = Dropped::default();
        assert_eq!(dropped.note(1000), Some(1));
        assert!((0..50).all(|_| dropped.note(1001).is_none()));
        assert_eq!(dropped.note(1000 + TELL_SECONDS), Some(51));
    }

    #[test]
    fn many_like_ones_are_combined_and_a_flood_is_cut() {
        let mut memory = Memory::default();
        let messages: Vec<Option<String>> =
            (0..30).map(|n| memory.decide(&recorded(&format!("m{n:02}"), 1)).map(|decision| decision.message)).collect();
        assert_eq!(messages[8].as_deref(), Some("m08"));
        assert_eq!(messages[9].as_deref(), Some("(combined from similar events): m09"));
        assert_eq!(messages[24].as_deref(), Some("(combined from similar events): m24"));
        assert_eq!(messages[25], None);
        assert!(memory.decide(&recorded("later", 302)).is_some());
    }
}
