//! describe: pure text of an object and what belongs to it; entry: `describe::text(group, kind, &Value, &Related, now) -> String`,
//! and `describe::command(&fetch, group, kind, &Value, show_events, now)`, the thin shell that fetches what `wanted` names.
//!
//! Mirrors k8s.io/kubectl/pkg/describe.
