//! OpenAPI v2 (`/openapi/v2`, as JSON and as the protobuf that kubectl insists on) and v3 (`/openapi/v3` and a document per group version).
//!
//! Derived from rows and schema facts; descriptions come from the `k8s-openapi` dependency at build time. Good for `kubectl explain`, client-side validation, client-side apply (patch keys)
//! and the discovery of query parameters (`fieldValidation`, `dryRun`). Documents are built on demand and meant to be dropped: nothing is kept here.
//! Mirrors kube-openapi's builders and upstream's `api/openapi-spec`.

mod around;
mod custom;
mod descriptions;
mod further;
mod parameters;
mod paths;
mod proto;
mod schemas;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::resource::Resource;
pub use proto::protobuf as v2_protobuf;
use schemas::Schemas;

/// What clients ask for, and are answered with, to get v2 as protobuf.
pub const PROTOBUF_CONTENT_TYPE: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

const TITLE: &str = "Kubernetes";
/// As upstream says it: without the patch level.
const VERSION: &str = "1.36";
/// Another one when the same facts are laid out in another way: clients keep a document for as long as its hash is the same.
const LAYOUT: &str = "2";

/// Which dialect a document is in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Style {
    V2,
    V3,
}

/// `/openapi/v3`: where each group version's document is. The hash changes when the document does.
pub fn v3_index<'a>(rows: impl IntoIterator<Item = &'a Resource>) -> Value {
    let paths: Map<String, Value> = digests(rows).into_iter().map(|(path, digest)| (path.clone(), json!({"serverRelativeURL": v3_url(&path, &hash(digest))}))).collect();
    json!({"paths": paths})
}

/// Where a document is while it is the one of that hash.
pub fn v3_url(path: &str, hash: &str) -> String {
    format!("/openapi/v3/{path}?hash={hash}")
}

/// The hash of one document of the index: `apis/apps/v1`.
pub fn v3_hash<'a>(rows: impl IntoIterator<Item = &'a Resource>, path: &str) -> Option<String> {
    digests(rows).remove(path).map(hash)
}

fn hash(digest: Sha256) -> String {
    digest.finalize().iter().map(|byte| format!("{byte:02X}")).collect()
}

fn digests<'a>(rows: impl IntoIterator<Item = &'a Resource>) -> BTreeMap<String, Sha256> {
    let rows: Vec<&Resource> = rows.into_iter().collect();
    let mut digests: BTreeMap<String, Sha256> = BTreeMap::new();
    for row in &rows {
        let digest = digests.entry(path(&row.group, &row.version)).or_insert_with(|| Sha256::new_with_prefix(*FACTS_DIGEST));
        // A custom kind's row prints its definition's identity and generation.
        digest.update(format!("{row:?}"));
    }
    let around = around(&rows).into_iter().map(|page| (page.path.trim_matches('/').to_owned(), Sha256::new_with_prefix(*FACTS_DIGEST)));
    for (path, digest) in around {
        digests.entry(path).or_insert(digest);
    }
    digests
}

static FACTS_DIGEST: LazyLock<[u8; 32]> = LazyLock::new(|| {
    let mut digest = Sha256::new_with_prefix(include_str!("schema/schema.txt"));
    digest.update(env!("CARGO_PKG_VERSION"));
    digest.update(LAYOUT);
    digest.finalize().into()
});

/// `api/v1`, `apis/apps/v1`
fn path(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

/// `/openapi/v3/api/v1`, `/openapi/v3/apis/<group>/<version>`
pub fn v3_group<'a>(rows: impl IntoIterator<Item = &'a Resource>, group: &str, version: &str) -> Option<Value> {
    let rows: Vec<&Resource> = rows.into_iter().filter(|row| row.group == group && row.version == version).collect();
    if rows.is_empty() {
        return None;
    }
    let pages = around(&rows);
    let here = format!("/{}/", path(group, version));
    Some(v3(document(&rows, pages.iter().filter(|page| page.path == here), Style::V3)))
}

fn v3((paths, schemas): (Map<String, Value>, Map<String, Value>)) -> Value {
    let mut components = json!({"securitySchemes": security()});
    if !schemas.is_empty() {
        components["schemas"] = Value::Object(schemas);
    }
    json!({"openapi": "3.0.0", "info": {"title": TITLE, "version": VERSION}, "paths": paths, "components": components})
}

/// How a client says who it is.
fn security() -> Value {
    json!({"BearerToken": {"description": "Bearer Token authentication", "type": "apiKey", "name": "authorization", "in": "header"}})
}

/// `/openapi/v2`
pub fn v2<'a>(rows: impl IntoIterator<Item = &'a Resource>) -> Value {
    let rows: Vec<&Resource> = rows.into_iter().collect();
    let (paths, definitions) = document(&rows, &around(&rows), Style::V2);
    json!({"swagger": "2.0", "info": {"title": TITLE, "version": VERSION}, "paths": paths, "definitions": definitions,
        "securityDefinitions": security(), "security": [{"BearerToken": []}]})
}

/// Documents beside the groups' own, of discovery and the like: `apis/apps`, `version`. By their paths in `/openapi/v3`.
pub fn v3_around<'a>(rows: impl IntoIterator<Item = &'a Resource>, path: &str) -> Option<Value> {
    let rows: Vec<&Resource> = rows.into_iter().collect();
    let pages = around(&rows);
    let page = pages.iter().find(|page| page.path.trim_matches('/') == path)?;
    Some(v3(document(&[], [page], Style::V3)))
}

/// What is served beside the objects of built-in kinds.
fn around(rows: &[&Resource]) -> Vec<around::Page> {
    let versions: BTreeSet<(&str, &str)> = rows.iter().filter(|row| row.custom.is_none()).map(|row| (&*row.group, &*row.version)).collect();
    let groups: BTreeSet<&str> = versions.iter().map(|(group, _)| *group).collect();
    around::all(groups, versions)
}

fn document<'a>(rows: &[&Resource], pages: impl IntoIterator<Item = &'a around::Page>, style: Style) -> (Map<String, Value>, Map<String, Value>) {
    let descriptions = descriptions::Descriptions::load();
    let mut schemas = Schemas::new(style, &descriptions);
    let mut paths = Map::new();
    for page in pages {
        page.add(&mut paths, style);
        schemas.want(page.answer);
    }
    for row in rows {
        match &row.custom {
            None => {
                schemas.add_row(row);
                paths::add(&mut paths, row, &row.schema, style);
            }
            Some(custom) => {
                let name = schemas::custom_name(row);
                schemas.add_custom(row, custom, &name);
                paths::add(&mut paths, row, &name, style);
            }
        }
    }
    (paths, schemas.finish())
}

#[cfg(test)]
mod tests;
