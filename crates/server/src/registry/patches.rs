//! PATCH: JSON patch, merge patch, strategic merge patch and server-side apply onto the stored object.

use std::sync::Arc;

use ::api::{Cause, Object, Reason, Resource, Status, schema};
use ::patch::apply::Writer;
use client::PatchKind;
use serde_json::Value;

use super::versions::{Forms, KindVersions};
use super::{Part, facts, metadata, owners_once, text, unfit, written};
use crate::api::{Api, Context, FieldValidation};
use crate::decode;

impl Api {
    /// `patch` was parsed, nothing more is known of it.
    pub async fn patch(&self, row: &Resource, namespace: Option<&str>, name: &str, part: Part, kind: PatchKind, patch: Value, cx: &Context) -> Result<Arc<Object>, Status> {
        if kind == PatchKind::Apply {
            return self.apply(row, namespace, name, part, patch, cx).await;
        }
        if kind == PatchKind::Strategic && row.schema.is_empty() {
            return Err(Status::unsupported_media_type("application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml"));
        }
        self.change(row, namespace, name, part, cx, |old| {
            let patched = || -> Result<Value, Status> {
                let mut new = old.clone();
                apply_patch(row, kind, &mut new, &patch)?;
                Ok(new)
            };
            let mut wanted = decode::shape(row, patched()?, &[], cx).map_err(|refused| unfit::patched(&row.kind, &row.schema, kind, &patch, &patched().unwrap_or_default(), refused))?;
            self.check_name(row, namespace, name, &wanted)?;
            owners_once(&mut wanted, cx, " after mutating admission happens");
            let given = text(&wanted, "/metadata/resourceVersion").to_owned();
            if given == text(old, "/metadata/resourceVersion") && patch.pointer("/metadata/resourceVersion").is_none() {
                // The patch does not speak of the version, so it pins none.
                metadata(&mut wanted).remove("resourceVersion");
                return Ok(wanted);
            }
            Ok(wanted)
        })
        .await
    }

    /// Server-side apply: what the manager does not mention any more and owns alone is removed.
    async fn apply(&self, row: &Resource, namespace: Option<&str>, name: &str, part: Part, config: Value, cx: &Context) -> Result<Arc<Object>, Status> {
        if cx.field_manager.is_empty() {
            let cause = Cause { reason: "FieldValueRequired".into(), message: "Required value: is required for apply patch".into(), field: "fieldManager".into() };
            return Err(Status::invalid("meta.k8s.io", "PatchOptions", "", vec![cause]));
        }
        if text(&config, "/apiVersion") != row.api_version() || text(&config, "/kind") != row.kind {
            return Err(Status::bad_request(format!("invalid object type: {}", ::patch::apply::go_kind(&config))));
        }
        if row.custom.is_some() {
            declared(row, &config)?;
        }
        if self.store.get(&row.key(namespace, name)).is_none() {
            self.fresh().await?;
        }
        let absent = self.store.get(&row.key(namespace, name)).is_none();
        let uid = text(&config, "/metadata/uid");
        if absent && !uid.is_empty() {
            return Err(Status::conflict(&row.group, &row.plural, name, &format!("uid mismatch: the provided object specified uid {uid}, and no existing object was found")));
        }
        let (now, api_version) = (self.now(), row.api_version());
        let (subresource, reset) = written(row, part);
        let forms = Forms::default();
        let versions = KindVersions(row, &forms);
        let writer = Writer { manager: &cx.field_manager, api_version: &api_version, subresource, now: &now, reset, versions: versions.any() };
        let merge = |live: Option<&Value>| -> Result<Value, Status> {
            let merged = ::patch::apply::apply(live, &config, facts(row), &writer, cx.force).map_err(|error| error.status())?;
            let made = decode::shape(row, merged, &[], cx).map_err(|refused| if row.custom.is_some() { refused } else { unfit::applied(&config, &row.kind, refused) })?;
            self.check_name(row, namespace, name, &made)?;
            Ok(made)
        };
        let inner = Context { applied: true, ..Context::like(cx) };
        let doing = async {
            if absent && part == Part::Main {
                let mut fresh = merge(None)?;
                metadata(&mut fresh).remove("resourceVersion");
                match self.create(row, namespace, fresh, &inner).await {
                    Err(status) if status.is_already_exists() => {}
                    done => return done,
                }
            }
            self.change_asking(row, namespace, name, part, &inner, &forms, |old| {
                let mut new = merge(Some(old))?;
                if config.pointer("/metadata/resourceVersion").is_none() {
                    metadata(&mut new).remove("resourceVersion");
                }
                Ok(new)
            })
            .await
        };
        let done = doing.await;
        inner.take_warnings().into_iter().for_each(|warning| cx.warn(warning));
        done
    }
}

/// What is applied to a custom kind must be all in the schema, whatever `fieldValidation` says: nobody could own the rest.
fn declared(row: &Resource, config: &Value) -> Result<(), Status> {
    let probe = Context { field_validation: FieldValidation::Warn, ..Context::default() };
    // Only a copy is held against the type: filling in what is left out would make the manager own it.
    decode::shape(row, config.clone(), &[], &probe)?;
    let unknown: Vec<String> = probe
        .take_warnings()
        .iter()
        .filter_map(|text| text.strip_prefix("unknown field "))
        .map(|path| format!(".{}: field not declared in schema", path.trim_matches('"')))
        .collect();
    let errors = match unknown.as_slice() {
        [] => return Ok(()),
        [one] => one.clone(),
        more => format!("errors:\n  {}", more.join("\n  ")),
    };
    Err(Status::failure(500, Reason::Unknown, format!("failed to create typed patch object ({}): {errors}", ::patch::apply::named(config))))
}

fn apply_patch(row: &Resource, kind: PatchKind, document: &mut Value, patch: &Value) -> Result<(), Status> {
    match kind {
        PatchKind::Json => ::patch::json(document, patch),
        PatchKind::Merge => {
            ::patch::merge(document, patch);
            Ok(())
        }
        PatchKind::Strategic | PatchKind::Apply => {
            for given in ["apiVersion", "kind"].iter().filter_map(|key| patch.get(key)).filter(|given| !given.is_string() && !given.is_null()) {
                return Err(unfit::patched(&row.kind, &row.schema, kind, patch, document, Status::bad_request(unfit::no_text(given))));
            }
            let named = ["apiVersion", "kind"].map(|key| document[key].clone());
            ::patch::strategic(document, patch, schema::of(&row.schema)).map(|()| {
                // Upstream converts into the type it knows it to be; nobody looks at these.
                ["apiVersion", "kind"].into_iter().zip(named).for_each(|(key, value)| document[key] = value);
            })
        }
    }
    .map_err(|error| error.status())
}
