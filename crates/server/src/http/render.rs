//! Objects, lists and statuses in the encoding that was negotiated.
//!
//! JSON leaves as it rests; the others are made of it: YAML and CBOR through a value, protobuf straight from the text.

use std::sync::Arc;

use ::api::protobuf::{self, ProtobufError};
use ::api::schema::TypeInfo;
use ::api::{Object, Resource, Status, cbor};
use bytes::Bytes;
use serde_json::Value;

use super::answer::{self, Answer};
use super::negotiate::{Media, Wanted};
use crate::encode;

impl Wanted {
    /// An object that rests as JSON and says what it is.
    pub fn object(&self, code: u16, row: &Resource, object: &Arc<Object>) -> Answer {
        match self.media {
            Media::Json if !self.pretty => answer::bytes(code, answer::JSON, object.bytes().clone()),
            Media::Protobuf => encoded(code, encode::protobuf(row, object.bytes())),
            _ => self.json(code, object.bytes()),
        }
    }

    pub fn value(&self, code: u16, value: &Value) -> Answer {
        self.json(code, value.to_string().as_bytes())
    }

    pub fn status(&self, status: &Status) -> Answer {
        self.json(answer::code_of(status), &serde_json::to_vec(status).unwrap_or_default())
    }

    /// Any object's JSON, in whatever is wanted.
    pub fn json(&self, code: u16, json: &[u8]) -> Answer {
        match self.media {
            Media::Json if self.pretty => answer::bytes(code, answer::JSON, encode::indented(json)),
            Media::Json => answer::bytes(code, answer::JSON, json.to_vec()),
            Media::Protobuf => encoded(code, protobuf::encode(json)),
            Media::Cbor => match cbor::encode_json(json) {
                Ok(bytes) => answer::bytes(code, cbor::CONTENT_TYPE, bytes),
                Err(error) => answer::status(&Status::internal(error)),
            },
            Media::Yaml => match serde_json::from_slice::<Value>(json).map_err(|error| error.to_string()).and_then(|value| serde_saphyr::to_string(&value).map_err(|error| error.to_string())) {
                Ok(text) => answer::bytes(code, answer::YAML, text),
                Err(error) => answer::status(&Status::internal(error)),
            },
        }
    }

    /// `PartialObjectMetadata` of an object: on the wire it is the object without everything else.
    pub fn metadata(&self, code: u16, object: &Arc<Object>) -> Result<Answer, Status> {
        if self.media == Media::Protobuf {
            return Ok(encoded(code, self.metadata_bytes(object.bytes())));
        }
        Ok(self.value(code, &self.partial(&object.value().map_err(Status::internal)?)))
    }

    pub fn metadata_bytes(&self, json: &[u8]) -> Result<Bytes, ProtobufError> {
        protobuf::message(partial_type()?, self.meta_version(), "PartialObjectMetadata", json)
    }

    /// The same of each item.
    pub fn metadata_list(&self, head: &protobuf::ListHead<'_>, items: &[Arc<Object>]) -> Answer {
        let head = protobuf::ListHead { api_version: self.meta_version(), kind: "PartialObjectMetadataList", ..*head };
        encoded(200, partial_type().and_then(|info| protobuf::list(info, &head, items.iter().map(|item| &item.bytes()[..]), 0)))
    }

    /// `meta.k8s.io/v1` for what tables and bare metadata are in.
    pub fn meta_version(&self) -> &'static str {
        if self.beta { "meta.k8s.io/v1beta1" } else { "meta.k8s.io/v1" }
    }

    pub fn partial(&self, value: &Value) -> Value {
        serde_json::json!({"kind": "PartialObjectMetadata", "apiVersion": self.meta_version(), "metadata": value.get("metadata")})
    }
}

fn partial_type() -> Result<&'static TypeInfo, ProtobufError> {
    let (kind, version) = ("PartialObjectMetadata", "v1");
    protobuf::type_of("meta.k8s.io", version, kind).ok_or_else(|| ProtobufError::UnknownKind { api_version: version.to_owned(), kind: kind.to_owned() })
}

/// What could not be written is told in JSON; nothing was sent yet.
pub fn encoded(code: u16, bytes: Result<Bytes, ProtobufError>) -> Answer {
    match bytes {
        Ok(bytes) => answer::bytes(code, protobuf::CONTENT_TYPE, bytes),
        Err(error) => {
            tracing::error!(%error, "an object cannot be written as protobuf");
            answer::status(&Status::internal(error))
        }
    }
}
