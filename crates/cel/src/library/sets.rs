//! cel-go's sets: lists taken as sets.

use super::{Row, mismatch};
use crate::containers::List;
use crate::error::EvalError;
use crate::value::{Evaluated, Value};

pub const TABLE: &[Row] = &[
    ("sets.contains", "list_sets_contains_list", "(list(A), list(A)) -> bool", |args| two(args, contains)),
    ("sets.equivalent", "list_sets_equivalent_list", "(list(A), list(A)) -> bool", |args| {
        two(args, |one, other| Ok(contains(one, other)? && contains(other, one)?))
    }),
    ("sets.intersects", "list_sets_intersects_list", "(list(A), list(A)) -> bool", |args| two(args, intersects)),
];

type Test = for<'a> fn(&List<'a>, &List<'a>) -> Result<bool, EvalError>;

fn two<'a>(args: &[Value<'a>], test: Test) -> Evaluated<'a> {
    match args {
        [Value::List(one), Value::List(other)] => Ok(Value::Bool(test(one, other)?)),
        _ => mismatch(),
    }
}

fn contains<'a>(list: &List<'a>, part: &List<'a>) -> Result<bool, EvalError> {
    for item in part.iter() {
        if !list.contains(&item?)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn intersects<'a>(one: &List<'a>, other: &List<'a>) -> Result<bool, EvalError> {
    for item in one.iter() {
        if other.contains(&item?)? {
            return Ok(true);
        }
    }
    Ok(false)
}
