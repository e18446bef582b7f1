//! The clients: each does one thing after the other to a few ConfigMaps they all share, and has every answer written down.
//!
//! Whoever gets no answer reads until there is one before they write again, so that a fault leaves at most one open write a client.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use api::{Object, Status};
use client::{Body, DeleteOptions, ListOptions, PatchKind, Preconditions, Target, Transport, WriteOptions};
use serde_json::{Value as Json, json};

use crate::history::{Answer, Ask, Listing, Value, Version};
use crate::record::Recorder;

/// Between two tries to reach a server that does not answer.
const RETRY: Duration = Duration::from_millis(50);
/// After so many tries the server is taken for gone.
const MOST_RETRIES: usize = 2400;
/// Requests of a client about an object before they all move on to fresh ones, about: what was left open is then out of the way.
const REQUESTS_PER_OBJECT: usize = 20;

pub struct Load {
    pub namespace: String,
    /// ConfigMaps written at the same time.
    pub objects: usize,
    /// Of each client.
    pub requests: usize,
    /// Chance: the next number from below a limit.
    pub below: Box<dyn Fn(u64) -> u64 + Send + Sync>,
}

struct One<'a> {
    number: usize,
    transport: &'a dyn Transport,
    load: &'a Load,
    recorder: &'a Recorder,
    /// The version last seen of each object.
    seen: HashMap<String, Version>,
    written: usize,
}

/// All requests of one client. Fails only when the server stays away.
pub async fn run(number: usize, transport: &dyn Transport, load: &Load, recorder: &Recorder) -> Result<(), Status> {
    let mut one = One { number, transport, load, recorder, seen: HashMap::new(), written: 0 };
    for step in 0..load.requests {
        let round = step / (REQUESTS_PER_OBJECT * load.objects.max(1)).max(1);
        let key = format!("r{round}-{}", (load.below)(load.objects.max(1) as u64));
        one.request(&key).await?;
    }
    Ok(())
}

/// An object's data and version.
fn parsed(object: &Object) -> Option<(Version, Value)> {
    let json: Json = serde_json::from_slice(object.bytes()).ok()?;
    let fields = json["data"].as_object().cloned().unwrap_or_default();
    let fields: BTreeMap<String, String> = fields.into_iter().map(|(name, text)| (name, text.as_str().unwrap_or_default().to_owned())).collect();
    Some((json.pointer("/metadata/resourceVersion")?.as_str()?.parse().ok()?, Arc::new(fields)))
}

impl One<'_> {
    fn target(&self, name: Option<&str>) -> Target {
        Target { version: "v1".into(), plural: "configmaps".into(), namespace: Some(self.load.namespace.clone()), name: name.map(str::to_owned), ..Target::default() }
    }

    fn body(&self, key: &str, value: &Value, expect: Option<Version>) -> Body {
        let mut body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": key, "namespace": self.load.namespace}, "data": **value});
        if let Some(version) = expect {
            body["metadata"]["resourceVersion"] = version.to_string().into();
        }
        Body::Value(body)
    }

    /// Something that no other write says.
    fn text(&mut self) -> String {
        self.written += 1;
        format!("c{}-{}", self.number, self.written)
    }

    fn whole(&mut self) -> Value {
        Arc::new(BTreeMap::from([("w".to_owned(), self.text())]))
    }

    async fn request(&mut self, key: &str) -> Result<(), Status> {
        let seen = self.seen.get(key).copied();
        let ask = match (self.load.below)(100) {
            0..28 => Ask::Get,
            28..34 => return self.list().await,
            34..52 => Ask::Create(self.whole()),
            52..72 => Ask::Replace { value: self.whole(), expect: seen },
            72..76 => Ask::Replace { value: self.whole(), expect: None },
            76..86 => Ask::Merge { field: format!("f{}", self.number), text: self.text(), expect: None },
            86..90 => Ask::Merge { field: format!("f{}", self.number), text: self.text(), expect: seen },
            90..97 => Ask::Delete { expect: None },
            _ => Ask::Delete { expect: seen },
        };
        if self.ask(key, ask).await { Ok(()) } else { self.recover(key).await }
    }

    /// Reads until there is an answer.
    async fn recover(&mut self, key: &str) -> Result<(), Status> {
        for _ in 0..MOST_RETRIES {
            tokio::time::sleep(RETRY).await;
            if self.ask(key, Ask::Get).await {
                return Ok(());
            }
        }
        Err(Status::unavailable(format!("no answer to {MOST_RETRIES} requests in a row")))
    }

    /// One request, written down; false without an answer.
    async fn ask(&mut self, key: &str, ask: Ask) -> bool {
        let call = self.recorder.call();
        let (options, target) = (WriteOptions::default(), self.target(Some(key)));
        let answered = match &ask {
            Ask::Create(value) => self.transport.create(&self.target(None), self.body(key, value, None), &options).await,
            Ask::Get => self.transport.get(&target).await,
            Ask::Replace { value, expect } => self.transport.update(&target, self.body(key, value, *expect), &options).await,
            Ask::Merge { field, text, expect } => {
                let mut patch = json!({"data": {field: text}});
                if let Some(version) = expect {
                    patch["metadata"] = json!({"resourceVersion": version.to_string()});
                }
                self.transport.patch(&target, PatchKind::Merge, Body::Value(patch), &options).await
            }
            Ask::Delete { expect } => {
                let preconditions = Preconditions { uid: None, resource_version: expect.map(|version| version.to_string()) };
                self.transport.delete(&target, &DeleteOptions { preconditions, ..DeleteOptions::default() }).await
            }
        };
        let answer = match answered {
            Ok(_) if matches!(ask, Ask::Delete { .. }) => Answer::Deleted,
            Ok(object) => match parsed(&object) {
                Some((version, value)) => Answer::Object { version, value },
                None => {
                    self.recorder.strange(format!("{key}: {ask:?} was answered with {:?}", object.bytes()));
                    Answer::Unknown
                }
            },
            Err(status) => match status.code {
                // Refused before anything was done: it has no part in the history.
                429 => return true,
                404 if !matches!(ask, Ask::Create(_)) => Answer::NotFound,
                409 if status.is_already_exists() => Answer::AlreadyExists,
                409 => Answer::Conflict,
                500.. => Answer::Unknown,
                code => {
                    self.recorder.strange(format!("{key}: {ask:?} was answered with {code}: {status}"));
                    Answer::Unknown
                }
            },
        };
        match &answer {
            Answer::Object { version, .. } => drop(self.seen.insert(key.to_owned(), *version)),
            // Now and then one is expected that is no longer there.
            Answer::Deleted | Answer::NotFound if (self.load.below)(2) == 0 => drop(self.seen.remove(key)),
            _ => {}
        }
        let known = answer != Answer::Unknown;
        self.recorder.end(self.number, key, ask, call, answer);
        known
    }

    async fn list(&mut self) -> Result<(), Status> {
        let call = self.recorder.call();
        let Ok(list) = self.transport.list(&self.target(None), &ListOptions::default()).await else { return self.recover("r0-0").await };
        let items = list.items.iter().filter_map(|object| Some((object.meta().name.clone(), parsed(object)?))).collect();
        match list.resource_version.parse() {
            Ok(revision) => self.recorder.listed(Listing { client: self.number, revision, items, call, end: call }),
            Err(_) => self.recorder.strange(format!("a list came with the resourceVersion {:?}", list.resource_version)),
        }
        Ok(())
    }
}
