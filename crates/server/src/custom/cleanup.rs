//! A deleted definition takes its instances along; it goes when the last of them has gone.
//!
//! Mirrors pkg/controller/finalizer/crd_finalizer.go. Instances are deleted as by a client, finalizers hold them, and their end is awaited, not polled for.

use std::collections::HashSet;
use std::sync::Arc;

use ::api::kinds::custom_resource_definition::{CLEANUP_FINALIZER, set_condition};
use ::api::{Resource, Status};
use client::{DeleteOptions, ListOptions};
use parking_lot::Mutex;
use serde_json::Value;
use store::WatchItem;

use super::{PREFIX, context, definitions};
use crate::api::Api;
use crate::registry::Part;

/// How many changes of the instances' fate are waited for before the definition is looked at anew.
const MAX_ROUNDS: usize = 1000;

/// Cleans up after a definition in the background, unless that is going on already.
pub fn start(api: &Arc<Api>, cleaning: &Arc<Mutex<HashSet<String>>>, name: String) {
    if !cleaning.lock().insert(name.clone()) {
        return;
    }
    let api = api.clone();
    // Were it to panic, the next one may begin all the same.
    let going = Going { cleaning: cleaning.clone(), name };
    tokio::spawn(async move {
        if let Err(error) = clean(&api, &going.name).await
            && !error.is_not_found()
        {
            tracing::warn!(%error, definition = going.name, "cannot delete the instances of a CustomResourceDefinition");
        }
    });
}

struct Going {
    cleaning: Arc<Mutex<HashSet<String>>>,
    name: String,
}

impl Drop for Going {
    fn drop(&mut self) {
        self.cleaning.lock().remove(&self.name);
    }
}

fn has_finalizer(definition: &Value) -> bool {
    definition.pointer("/metadata/finalizers").and_then(Value::as_array).is_some_and(|list| list.iter().any(|name| name == CLEANUP_FINALIZER))
}

async fn tell(api: &Api, row: &Resource, name: &str, status: &str, reason: &str, message: &str, done: bool) -> Result<(), Status> {
    let now = api.now();
    api.change(row, None, name, Part::Status, &context(), |old| {
        let mut new = old.clone();
        set_condition(&mut new, "Terminating", status, reason, message, &now);
        if let Some(metadata) = new["metadata"].as_object_mut() {
            metadata.remove("resourceVersion");
            if done && let Some(list) = metadata.get_mut("finalizers").and_then(Value::as_array_mut) {
                list.retain(|name| name != CLEANUP_FINALIZER);
            }
        }
        Ok(new)
    })
    .await
    .map(drop)
}

async fn clean(api: &Arc<Api>, name: &str) -> Result<(), Status> {
    let Some(row) = definitions(api) else { return Ok(()) };
    let Some(object) = api.store.get(&format!("{PREFIX}{name}")) else { return Ok(()) };
    let definition = object.value().map_err(Status::internal)?;
    if !has_finalizer(&definition) {
        return Ok(());
    }
    tell(api, &row, name, "True", "InstanceDeletionInProgress", "CustomResource deletion is in progress", false).await?;
    if !::api::custom::has_condition(&definition, "Established") {
        return tell(api, &row, name, "False", "NeverEstablished", "resource was never established", true).await;
    }
    if let Some(kind) = ::api::custom::storage_row(&object, &definition)
        && let Err(error) = instances(api, &kind).await
    {
        let message = format!("could not issue all deletes: {}", error.message);
        tell(api, &row, name, "True", "InstanceDeletionFailed", &message, false).await?;
        return Err(error);
    }
    tell(api, &row, name, "False", "InstanceDeletionCompleted", "removed all instances", true).await
}

/// Deletes all there are and waits for the last one's end.
async fn instances(api: &Api, kind: &Resource) -> Result<(), Status> {
    let cx = context();
    for _ in 0..MAX_ROUNDS {
        let revision = api.store.revision();
        api.delete_collection(kind, None, &DeleteOptions::default(), &ListOptions::default(), &cx).await?;
        if api.store.count(&kind.prefix) == 0 {
            return Ok(());
        }
        let Ok(mut events) = api.store.watch(&kind.prefix, revision) else { continue };
        while api.store.count(&kind.prefix) > 0 {
            match events.next().await {
                Some(WatchItem::Event(_) | WatchItem::Progress(_)) => {}
                Some(WatchItem::Expired(_)) => break,
                None => return Err(Status::unavailable("the store has closed")),
            }
        }
    }
    Err(Status::unavailable("the instances do not come to an end"))
}
