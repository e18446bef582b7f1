//! PATCH: JSON patch, merge patch, strategic merge patch and server-side apply onto the stored object.

use std::sync::Arc;

use ::api::{Cause, Object, Reason, Resource, Status, schema};
use ::patch::apply::Writer;
use client::PatchKind;
use serde_json::Value;

use super::versions::KindVersions;
use super::{Part, facts, metadata, text, written};
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
            let mut new = old.clone();
            apply_patch(row, kind, &mut new, &patch)?;
            let wanted = decode::shape(row, new, &[], cx)?;
            self.check_name(row, namespace, name, &wanted)?;
            let given = text(&wanted, "/metadata/resourceVersion").to_owned();
            if given == text(old, "/metadata/resourceVersion") && patch.pointer("/metadata/resourceVersion").is_none() {
                // The patch does not speak of the version, so it pins none.
                let mut wanted = wanted;
                metadata(&mut wanted).remove("resourceVersion");
                return Ok(wanted);
            }
            Ok(wanted)
        })
        .await
    }

    /// Server-side apply: what the manager does not mention any more and owns alone is removed.
    async fn apply(&self, row: &Resource, namespace: Option<&str>, name: &str, part: Part, mut config: Value, cx: &Context) -> Result<Arc<Object>, Status> {
        if cx.field_manager.is_empty() {
            let cause = Cause { reason: "FieldValueRequired".into(), message: "Required value: is required for apply patch".into(), field: "fieldManager".into() };
            return Err(Status::invalid("meta.k8s.io", "PatchOptions", "", vec![cause]));
        }
        // Only a copy is held against the type: filling in what is left out would make the manager own it.
        declared(row, name, namespace, &config)?;
        let given = text(&config, "/metadata/name").to_owned();
        if !given.is_empty() && given != name {
            return Err(Status::bad_request(format!("the name of the object ({given}) does not match the name on the URL ({name})")));
        }
        metadata(&mut config).insert("name".into(), name.into());
        if let (true, Some(namespace)) = (row.namespaced(), namespace) {
            metadata(&mut config).insert("namespace".into(), namespace.into());
        }
        let (now, api_version) = (self.now(), row.api_version());
        let (subresource, reset) = written(row, part);
        let versions = KindVersions(row);
        let writer = Writer { manager: &cx.field_manager, api_version: &api_version, subresource, now: &now, reset, versions: versions.any() };
        let merge = |live: Option<&Value>| -> Result<Value, Status> {
            let merged = ::patch::apply::apply(live, &config, facts(row), &writer, cx.force).map_err(|error| error.status())?;
            decode::shape(row, merged, &[], cx)
        };
        let cx = Context { applied: true, ..Context::like(cx) };
        if self.store.get(&row.key(namespace, name)).is_none() {
            self.fresh().await?;
        }
        if self.store.get(&row.key(namespace, name)).is_none() && part == Part::Main {
            let mut fresh = merge(None)?;
            metadata(&mut fresh).remove("resourceVersion");
            match self.create(row, namespace, fresh, &cx).await {
                Err(status) if status.is_already_exists() => {}
                done => return done,
            }
        }
        self.change(row, namespace, name, part, &cx, |old| {
            let mut new = merge(Some(old))?;
            if config.pointer("/metadata/resourceVersion").is_none() {
                metadata(&mut new).remove("resourceVersion");
            }
            Ok(new)
        })
        .await
    }
}

/// What is applied must be all in the schema, whatever `fieldValidation` says: nobody could own the rest.
fn declared(row: &Resource, name: &str, namespace: Option<&str>, config: &Value) -> Result<(), Status> {
    let probe = Context { field_validation: FieldValidation::Warn, ..Context::default() };
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
    let what = format!("{}/{name}; {}, Kind={}", namespace.unwrap_or_default(), row.api_version(), row.kind);
    Err(Status::failure(500, Reason::Unknown, format!("failed to create typed patch object ({what}): {errors}")))
}

fn apply_patch(row: &Resource, kind: PatchKind, document: &mut Value, patch: &Value) -> Result<(), Status> {
    match kind {
        PatchKind::Json => ::patch::json(document, patch),
        PatchKind::Merge if !patch.is_object() => return Err(Status::bad_request("json: cannot unmarshal array into Go value of type map[string]interface {}")),
        PatchKind::Merge => {
            ::patch::merge(document, patch);
            Ok(())
        }
        PatchKind::Strategic | PatchKind::Apply => ::patch::strategic(document, patch, schema::of(&row.schema)),
    }
    .map_err(|error| error.status())
}
