//! The same objects in the versions that serve them: what `matchPolicy: Equivalent` is about.
//!
//! Admission judges an object in one form: built-in kinds as they are stored, custom kinds in the version that was asked for. Webhooks and expressions are shown it in the
//! form of the row their rule names, and what a webhook makes of it comes back the same way.

use std::sync::Arc;

use ::api::{Resource, Status};
use serde_json::Value;

use super::asked::Asked;
use crate::api::Api;
use crate::custom::conversion;
use crate::special::convert;

/// Other rows that serve the objects of `row`.
pub fn equivalents(api: &Api, row: &Resource) -> Vec<Arc<Resource>> {
    let rows = api.serving.rows();
    let other = |candidate: &&Arc<Resource>| candidate.prefix == row.prefix && (candidate.version != row.version || candidate.group != row.group);
    rows.all().iter().filter(other).cloned().collect()
}

/// The judged object as `target` shows it.
pub async fn shown(api: &Api, asked: &Asked<'_>, target: &Resource, value: &Value) -> Result<Value, Status> {
    let mut value = value.clone();
    if asked.is_foreign() {
        return Ok(value);
    }
    match &target.custom {
        Some(custom) if target.version != asked.row.version => conversion::between(&api.outbound, target, custom, value).await,
        Some(_) => Ok(value),
        None => {
            convert::show(target, &mut value);
            Ok(value)
        }
    }
}

/// The same, where there may be none.
pub async fn of(api: &Api, asked: &Asked<'_>, target: &Resource, value: Option<&Value>) -> Result<Option<Value>, Status> {
    match value {
        Some(value) => shown(api, asked, target, value).await.map(Some),
        None => Ok(None),
    }
}

/// The way back.
pub async fn judged(api: &Api, asked: &Asked<'_>, target: &Resource, mut value: Value) -> Result<Value, Status> {
    if asked.is_foreign() {
        return Ok(value);
    }
    match &asked.row.custom {
        Some(custom) if target.version != asked.row.version => conversion::between(&api.outbound, asked.row, custom, value).await,
        Some(_) => Ok(value),
        None => {
            convert::to_storage(target, &mut value)?;
            Ok(value)
        }
    }
}
