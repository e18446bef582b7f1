//! OpenAPI v2 (`/openapi/v2`, as JSON and as the protobuf that kubectl insists on) and v3 (`/openapi/v3` and a document per group version).
//!
//! Derived from rows and schema facts; descriptions come from the `k8s-openapi` dependency at build time. Good for `kubectl explain`, client-side validation, client-side apply (patch keys)
//! and the discovery of query parameters (`fieldValidation`, `dryRun`). Documents are built on demand and meant to be dropped: nothing is kept here.
//! Mirrors kube-openapi's builders and upstream's `api/openapi-spec`.

mod descriptions;
mod paths;
mod proto;
mod schemas;

use std::sync::LazyLock;

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::resource::Resource;
pub use proto::protobuf as v2_protobuf;
use schemas::Schemas;

/// What clients ask for, and are answered with, to get v2 as protobuf.
pub const PROTOBUF_CONTENT_TYPE: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

const TITLE: &str = "Kubernetes";
const VERSION: &str = "v1.36.0";

/// A kind from a CustomResourceDefinition: its row, and its `openAPIV3Schema`.
#[derive(Clone, Copy)]
pub struct Custom<'a> {
    pub row: &'a Resource,
    pub schema: &'a Value,
}

/// Which dialect a document is in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Style {
    V2,
    V3,
}

/// `/openapi/v3`: where each group version's document is. The hash changes when the document does.
pub fn v3_index<'a>(rows: impl IntoIterator<Item = &'a Resource>, custom: &[Custom<'_>]) -> Value {
    let mut digests: std::collections::BTreeMap<String, Sha256> = std::collections::BTreeMap::new();
    let mut add = |row: &Resource, schema: Option<&Value>| {
        let digest = digests.entry(path(&row.group, &row.version)).or_insert_with(|| Sha256::new_with_prefix(*FACTS_DIGEST));
        digest.update(format!("{row:?}"));
        if let Some(schema) = schema {
            digest.update(schema.to_string());
        }
    };
    rows.into_iter().for_each(|row| add(row, None));
    custom.iter().for_each(|custom| add(custom.row, Some(custom.schema)));
    let paths: Map<String, Value> = digests
        .into_iter()
        .map(|(path, digest)| {
            let hash: String = digest.finalize().iter().map(|byte| format!("{byte:02X}")).collect();
            let url = format!("/openapi/v3/{path}?hash={hash}");
            (path, json!({"serverRelativeURL": url}))
        })
        .collect();
    json!({"paths": paths})
}

static FACTS_DIGEST: LazyLock<[u8; 32]> = LazyLock::new(|| {
    let mut digest = Sha256::new_with_prefix(include_str!("schema/schema.txt"));
    digest.update(env!("CARGO_PKG_VERSION"));
    digest.finalize().into()
});

/// `api/v1`, `apis/apps/v1`
fn path(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

/// `/openapi/v3/api/v1`, `/openapi/v3/apis/<group>/<version>`
pub fn v3_group<'a>(rows: impl IntoIterator<Item = &'a Resource>, custom: &[Custom<'_>], group: &str, version: &str) -> Option<Value> {
    let here = |row: &Resource| row.group == group && row.version == version;
    let rows: Vec<&Resource> = rows.into_iter().filter(|row| here(row)).collect();
    let custom: Vec<Custom<'_>> = custom.iter().filter(|custom| here(custom.row)).copied().collect();
    if rows.is_empty() && custom.is_empty() {
        return None;
    }
    let (paths, schemas) = document(&rows, &custom, Style::V3);
    Some(json!({"openapi": "3.0.0", "info": {"title": TITLE, "version": VERSION}, "paths": paths, "components": {"schemas": schemas}}))
}

/// `/openapi/v2`
pub fn v2<'a>(rows: impl IntoIterator<Item = &'a Resource>, custom: &[Custom<'_>]) -> Value {
    let rows: Vec<&Resource> = rows.into_iter().collect();
    let (paths, definitions) = document(&rows, custom, Style::V2);
    json!({"swagger": "2.0", "info": {"title": TITLE, "version": VERSION}, "paths": paths, "definitions": definitions})
}

fn document(rows: &[&Resource], custom: &[Custom<'_>], style: Style) -> (Map<String, Value>, Map<String, Value>) {
    let descriptions = descriptions::Descriptions::load();
    let mut schemas = Schemas::new(style, &descriptions);
    let mut paths = Map::new();
    for row in rows {
        schemas.add_row(row);
        paths::add(&mut paths, row, &row.schema, style);
    }
    for custom in custom {
        let name = schemas::custom_name(custom.row);
        schemas.add_custom(custom, &name);
        paths::add(&mut paths, custom.row, &name, style);
    }
    (paths, schemas.finish())
}

#[cfg(test)]
mod tests;
