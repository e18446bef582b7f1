//! Custom objects from one version of their kind to another: between what is stored and what is served.
//!
//! As upstream reads them: an object gets the defaults of the version it is stored in, is converted (by name only, or by the definition's webhook), and is pruned to the
//! version it is shown in. What was written under the present definition in the version asked for passes as it is.

use std::sync::Arc;

use ::api::custom::{Conversion, Custom};
use ::api::structural::{defaults, prune};
use ::api::{Object, Resource, Status};
use bytes::Bytes;
use serde_json::Value;

use super::{text, webhook};
use crate::outbound::Outbound;

/// An object on its way to be shown.
pub enum Shown {
    Ready(Arc<Object>),
    /// The webhook has to be asked: the object with its own version's defaults.
    Ask(Value),
}

fn version(api_version: &str) -> &str {
    api_version.rsplit('/').next().unwrap_or(api_version)
}

/// Whether the stored bytes are what this row shows.
fn as_it_is(row: &Resource, custom: &Custom, object: &Object) -> bool {
    // What is at rest begins with its version.
    let head = format!("{{\"apiVersion\":\"{}\"", row.api_version());
    object.resource_version() > custom.settled && object.bytes().starts_with(head.as_bytes())
}

fn encoded(value: &Value, revision: u64) -> Arc<Object> {
    let mut out = Vec::new();
    crate::encode::write(&mut out, value);
    Arc::new(Object::new(Bytes::from(out), revision))
}

/// As much as can be done without asking anyone.
pub fn begin(row: &Resource, custom: &Custom, object: Arc<Object>) -> Result<Shown, Status> {
    if as_it_is(row, custom, &object) {
        return Ok(Shown::Ready(object));
    }
    let mut value = object.value().map_err(Status::internal)?;
    let stored = text(&value, "/apiVersion").to_owned();
    if let Some(facts) = custom.facts_of(version(&stored)) {
        prune::resource(&mut value, &facts.schema);
        defaults::apply(&mut value, &facts.schema);
    }
    if stored != row.api_version() && custom.conversion == Conversion::Webhook {
        return Ok(Shown::Ask(value));
    }
    Ok(Shown::Ready(finish(row, custom, value, object.resource_version())))
}

/// The last step: the version's name and shape.
fn finish(row: &Resource, custom: &Custom, mut value: Value, revision: u64) -> Arc<Object> {
    value["apiVersion"] = row.api_version().into();
    prune::resource(&mut value, custom.schema());
    encoded(&value, revision)
}

/// Objects as the row shows them; those that need the webhook go there together.
pub async fn shown(outbound: &Outbound, row: &Resource, custom: &Custom, objects: Vec<Arc<Object>>) -> Result<Vec<Arc<Object>>, Status> {
    let mut done: Vec<Option<Arc<Object>>> = Vec::with_capacity(objects.len());
    let mut asked = Vec::new();
    let mut places = Vec::new();
    for object in objects {
        let revision = object.resource_version();
        match begin(row, custom, object)? {
            Shown::Ready(object) => done.push(Some(object)),
            Shown::Ask(value) => {
                places.push((done.len(), revision));
                done.push(None);
                asked.push(value);
            }
        }
    }
    let answered = if asked.is_empty() { Vec::new() } else { ask(outbound, custom, &row.api_version(), asked).await? };
    for ((place, revision), value) in places.into_iter().zip(answered) {
        done[place] = Some(finish(row, custom, value, revision));
    }
    Ok(done.into_iter().flatten().collect())
}

/// A value of the row's version as it is to be stored.
pub async fn for_storage(outbound: &Outbound, row: &Resource, custom: &Custom, value: Value) -> Result<Value, Status> {
    if row.storage_version == row.version {
        return Ok(value);
    }
    let target = format!("{}/{}", row.group, row.storage_version);
    let mut stored = match custom.conversion {
        Conversion::None => value,
        Conversion::Webhook => ask(outbound, custom, &target, vec![value]).await?.pop().ok_or_else(|| Status::internal("the conversion webhook answered nothing"))?,
    };
    stored["apiVersion"] = target.into();
    if let Some(facts) = custom.facts_of(&row.storage_version) {
        prune::resource(&mut stored, &facts.schema);
    }
    Ok(stored)
}

/// A value of another version of the kind in the row's version.
pub async fn between(outbound: &Outbound, row: &Resource, custom: &Custom, value: Value) -> Result<Value, Status> {
    let mut shown = match custom.conversion {
        Conversion::None => value,
        Conversion::Webhook => ask(outbound, custom, &row.api_version(), vec![value]).await?.pop().ok_or_else(|| Status::internal("the conversion webhook answered nothing"))?,
    };
    shown["apiVersion"] = row.api_version().into();
    prune::resource(&mut shown, custom.schema());
    Ok(shown)
}

/// Asks the definition's webhook: ConversionReview v1 (or v1beta1, if that is all it takes).
pub async fn ask(outbound: &Outbound, custom: &Custom, target: &str, objects: Vec<Value>) -> Result<Vec<Value>, Status> {
    webhook::convert(outbound, custom, target, objects).await
}
