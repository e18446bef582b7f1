//! Kubernetes' protobuf: JSON objects to the wire and back, by the tags in the schema facts. No generated code, no message trees.
//!
//! The envelope is `k8s\0` and a `runtime.Unknown`; messages are proto2 as gogo-protobuf writes them from Go's types: fields in the order of their tags, maps sorted by key, and
//! whatever is no pointer written even when it is zero. <https://kubernetes.io/docs/reference/using-api/api-concepts/#protobuf-encoding>

mod decode;
mod encode;
pub(crate) mod wire;

pub use decode::{decode, decode_as};
pub use encode::{ListHead, encode, event_frame, list, message};

use crate::schema::{self, TypeInfo};
use crate::table::table;

pub const CONTENT_TYPE: &str = "application/vnd.kubernetes.protobuf";
const MAGIC: &[u8] = b"k8s\0";
/// Messages within messages, at most.
const MAX_DEPTH: usize = 64;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProtobufError {
    #[error("empty data")]
    Empty,
    #[error("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")]
    NoMagic,
    #[error("empty body")]
    EmptyBody,
    #[error("unexpected EOF")]
    Truncated,
    #[error("proto: wrong wireType = {0} for field {1}")]
    WireType(u8, &'static str),
    #[error("no kind {kind:?} is registered for version {api_version:?}")]
    UnknownKind { api_version: String, kind: String },
    #[error("proto: {0}")]
    Invalid(&'static str),
    /// What is to be written is not of its type.
    #[error("cannot be written as protobuf: {0}")]
    Json(String),
}

/// The type behind a kind: a row of the table, or one of the kinds that only subresources, requests and answers speak.
pub fn type_of(group: &str, version: &str, kind: &str) -> Option<&'static TypeInfo> {
    if let Some(row) = table().find_kind(group, version, kind) {
        return schema::of(&row.schema);
    }
    let name = match (group, kind) {
        (_, "DeleteOptions" | "WatchEvent") => format!("{META}{kind}"),
        ("", "Status" | "APIGroup" | "APIGroupList" | "APIResourceList" | "APIVersions") => format!("{META}{kind}"),
        ("meta.k8s.io", "PartialObjectMetadata" | "PartialObjectMetadataList") => format!("{META}{kind}"),
        ("apidiscovery.k8s.io", "APIGroupDiscoveryList") => "io.k8s.api.apidiscovery.v2.APIGroupDiscoveryList".to_owned(),
        ("autoscaling", "Scale") => "io.k8s.api.autoscaling.v1.Scale".to_owned(),
        ("policy", "Eviction") => "io.k8s.api.policy.v1.Eviction".to_owned(),
        ("authentication.k8s.io", "TokenRequest") => "io.k8s.api.authentication.v1.TokenRequest".to_owned(),
        _ => return None,
    };
    schema::of(&name)
}

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.";

fn split_version(api_version: &str) -> (&str, &str) {
    api_version.split_once('/').unwrap_or(("", api_version))
}

/// `JSONSchemaProps`, which the three "schema or something else" types hold.
fn schema_of_schemas() -> Result<&'static TypeInfo, ProtobufError> {
    schema::of("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps").ok_or(ProtobufError::Invalid("no schema of schemas"))
}

#[cfg(test)]
mod tests;
