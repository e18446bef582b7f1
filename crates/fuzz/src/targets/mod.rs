//! Every decoder, with inputs to start from and the words of its language.

mod documents;
mod languages;
mod patches;
mod wire;

use crate::engine::Target;

pub const ALL: &[Target] = &[
    documents::JSON,
    documents::YAML,
    documents::CBOR,
    documents::PROTOBUF,
    documents::SCHEMA,
    documents::KUBECONFIG,
    patches::JSON_PATCH,
    patches::MERGE_PATCH,
    patches::STRATEGIC_PATCH,
    patches::APPLY,
    languages::LABEL_SELECTOR,
    languages::FIELD_SELECTOR,
    languages::CEL,
    languages::JSONPATH,
    languages::QUANTITY,
    languages::DOCKERFILE,
    languages::REFERENCE,
    languages::REGEXP,
    wire::SPDY,
];

fn texts(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}
