//! explain: pure text of a kind's fields from its OpenAPI v3 document; entry: `explain::text(document, gvk, path, recursive) -> Result<String, String>`.
//!
//! Mirrors k8s.io/kubectl/pkg/explain/v2 (templates/plaintext.tmpl).
