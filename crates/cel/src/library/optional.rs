//! Optional values. `or` and `orValue` evaluate their argument only if they need it: the evaluator does them.

use super::{Row, mismatch};
use crate::error::EvalError;
use crate::value::{Evaluated, Value};

pub const TABLE: &[Row] = &[
    ("optional.of", "optional_of", "(A) -> optional(A)", |args| Ok(Value::optional(Some(args[0].clone())))),
    ("optional.ofNonZeroValue", "optional_ofNonZeroValue", "(A) -> optional(A)", |args| {
        Ok(Value::optional((!args[0].is_zero()).then(|| args[0].clone())))
    }),
    ("optional.none", "optional_none", "() -> optional(A)", |_| Ok(Value::Optional(None))),
    ("value", "optional_value", "optional(A).() -> A", |args| match &args[0] {
        Value::Optional(Some(inner)) => Ok((**inner).clone()),
        Value::Optional(None) => Err(EvalError::failed("optional.none() dereference")),
        _ => mismatch(),
    }),
    ("hasValue", "optional_hasValue", "optional(A).() -> bool", |args| match &args[0] {
        Value::Optional(inner) => Ok(Value::Bool(inner.is_some())),
        _ => mismatch(),
    }),
    ("first", "list_first", "list(A).() -> optional(A)", |args| end(args, |_| 0)),
    ("last", "list_last", "list(A).() -> optional(A)", |args| end(args, |length| length - 1)),
    ("optional.unwrap", "optional_unwrap", "(list(optional(A))) -> list(A)", unwrap),
    ("unwrapOpt", "optional_unwrapOpt", "list(optional(A)).() -> list(A)", unwrap),
];

fn end<'a>(args: &[Value<'a>], which: fn(usize) -> usize) -> Evaluated<'a> {
    match &args[0] {
        Value::List(list) if list.is_empty() => Ok(Value::Optional(None)),
        Value::List(list) => Ok(Value::optional(Some(list.get(which(list.len()))?))),
        _ => mismatch(),
    }
}

fn unwrap<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    let Value::List(list) = &args[0] else { return mismatch() };
    let mut out = Vec::new();
    for item in list.iter() {
        match item? {
            Value::Optional(Some(inner)) => out.push((*inner).clone()),
            Value::Optional(None) => {}
            _ => return Err(EvalError::failed("value is not optional")),
        }
    }
    Ok(Value::list(out))
}
