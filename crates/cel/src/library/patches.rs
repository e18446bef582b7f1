//! For MutatingAdmissionPolicy: keys in JSON patch paths.

use super::{Row, mismatch};
use crate::value::Value;

pub const TABLE: &[Row] = &[("jsonpatch.escapeKey", "string_jsonpatch_escapeKey_string", "(string) -> string", |args| match args {
    [Value::String(key)] => Ok(Value::string(key.replace('~', "~0").replace('/', "~1"))),
    _ => mismatch(),
})];
