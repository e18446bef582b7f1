//! Kubernetes' lists library, and cel-go's at version 3.

use std::cmp::Ordering;

use super::{Row, mismatch};
use crate::containers::List;
use crate::equality::{compare, equal, position};
use crate::error::EvalError;
use crate::macros::SORT_BY_KEYS;
use crate::program::plus;
use crate::value::{Evaluated, Value};

macro_rules! templated {
    ($function:literal, $prefix:literal, $suffix:literal, $result:literal, $body:expr, [$(($name:literal, $id:literal)),*]) => {
        [$(($function, concat!($prefix, $id, $suffix), concat!("list(", $name, ").() -> ", $result), $body as super::Body)),*]
    };
}

const SUMS: [Row; 4] = [
    ("sum", "list_int_sum_int", "list(int).() -> int", |args| sum(args, Value::Int(0))),
    ("sum", "list_uint_sum_uint", "list(uint).() -> uint", |args| sum(args, Value::Uint(0))),
    ("sum", "list_double_sum_double", "list(double).() -> double", |args| sum(args, Value::Double(0.0))),
    ("sum", "list_duration_sum_duration", "list(duration).() -> duration", |args| sum(args, Value::Duration(0))),
];

const SORTED: [Row; 8] = templated!(
    "isSorted",
    "list_",
    "_is_sorted_bool",
    "bool",
    is_sorted,
    [
        ("int", "int"),
        ("uint", "uint"),
        ("double", "double"),
        ("bool", "bool"),
        ("duration", "duration"),
        ("timestamp", "timestamp"),
        ("string", "string"),
        ("bytes", "bytes")
    ]
);

macro_rules! ordered {
    ($(($name:literal, $id:literal)),*) => {
        &[$(
            ("min", concat!("list_", $id, "_min_", $id), concat!("list(", $name, ").() -> ", $name), |args| extreme(args, "min", Ordering::Less)),
            ("max", concat!("list_", $id, "_max_", $id), concat!("list(", $name, ").() -> ", $name), |args| extreme(args, "max", Ordering::Greater)),
            ("sort", concat!("list_", $id, "_sort"), concat!("list(", $name, ").() -> list(", $name, ")"), sort),
            (SORT_BY_KEYS, concat!("list_", $id, "_sortByAssociatedKeys"), concat!("list(A).(list(", $name, ")) -> list(A)"), sort_by_keys),
        )*
        SUMS[0], SUMS[1], SUMS[2], SUMS[3],
        SORTED[0], SORTED[1], SORTED[2], SORTED[3], SORTED[4], SORTED[5], SORTED[6], SORTED[7],
        ("indexOf", "list_a_index_of_int", "list(A).(A) -> int", index_of),
        ("lastIndexOf", "list_a_last_index_of_int", "list(A).(A) -> int", last_index_of),
        ("slice", "list_slice", "list(A).(int, int) -> list(A)", slice),
        ("flatten", "list_flatten", "list(list(A)).() -> list(A)", flatten),
        ("flatten", "list_flatten_int", "list(dyn).(int) -> list(dyn)", flatten),
        ("lists.range", "lists_range", "(int) -> list(int)", range),
        ("reverse", "list_reverse", "list(A).() -> list(A)", reverse),
        ("distinct", "list_distinct", "list(A).() -> list(A)", distinct),
        ]
    };
}

pub const TABLE: &[Row] = ordered![
    ("int", "int"),
    ("uint", "uint"),
    ("double", "double"),
    ("bool", "bool"),
    ("duration", "duration"),
    ("timestamp", "timestamp"),
    ("string", "string"),
    ("bytes", "bytes")
];

/// More elements than an expression could pay for.
const RANGE_LIMIT: i64 = 1_000_000;

fn list_of<'v, 'a>(args: &'v [Value<'a>]) -> Result<&'v List<'a>, EvalError> {
    match args.first() {
        Some(Value::List(list)) => Ok(list),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn sum<'a>(args: &[Value<'a>], zero: Value<'a>) -> Evaluated<'a> {
    let mut total = zero;
    for (index, item) in list_of(args)?.iter().enumerate() {
        let item = item?;
        // The first decides, should the list be of mixed or unknown type.
        total = if index == 0 && std::mem::discriminant(&total) != std::mem::discriminant(&item) { item } else { plus(&total, &item)? };
    }
    Ok(total)
}

fn is_sorted<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    let mut before: Option<Value<'a>> = None;
    for item in list_of(args)?.iter() {
        let item = item?;
        if let Some(before) = &before
            && compare(before, &item)? == Ordering::Greater
        {
            return Ok(Value::Bool(false));
        }
        before = Some(item);
    }
    Ok(Value::Bool(true))
}

fn extreme<'a>(args: &[Value<'a>], name: &str, wanted: Ordering) -> Evaluated<'a> {
    let mut best: Option<Value<'a>> = None;
    for item in list_of(args)?.iter() {
        let item = item?;
        let better = match &best {
            Some(best) => compare(&item, best)? == wanted,
            None => true,
        };
        if better {
            best = Some(item);
        }
    }
    best.ok_or_else(|| EvalError::failed(format!("{name} called on empty list")))
}

fn index_of<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    for (index, item) in list_of(args)?.iter().enumerate() {
        if equal(&item?, &args[1])? {
            return Ok(Value::Int(index as i64));
        }
    }
    Ok(Value::Int(-1))
}

fn last_index_of<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    let list = list_of(args)?;
    for index in (0..list.len()).rev() {
        if equal(&list.get(index)?, &args[1])? {
            return Ok(Value::Int(index as i64));
        }
    }
    Ok(Value::Int(-1))
}

fn slice<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    let [Value::List(list), Value::Int(start), Value::Int(end)] = args else { return mismatch() };
    let problem = if *start < 0 || *end < 0 {
        "negative indexes not supported".to_owned()
    } else if start > end {
        "start index must be less than or equal to end index".to_owned()
    } else if *end as usize > list.len() {
        format!("list is length {}", list.len())
    } else {
        return Ok(Value::list((*start as usize..*end as usize).map(|index| list.get(index)).collect::<Result<_, _>>()?));
    };
    Err(EvalError::failed(format!("cannot slice({start}, {end}), {problem}")))
}

fn flatten<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    let depth = args.get(1).and_then(Value::as_int).unwrap_or(1);
    if depth < 0 {
        return Err(EvalError::failed("level must be non-negative"));
    }
    let mut out = Vec::new();
    flatten_into(list_of(args)?, depth, &mut out)?;
    Ok(Value::list(out))
}

fn flatten_into<'a>(list: &List<'a>, depth: i64, out: &mut Vec<Value<'a>>) -> Result<(), EvalError> {
    for item in list.iter() {
        match item? {
            Value::List(inner) if depth > 0 => flatten_into(&inner, depth - 1, out)?,
            item => out.push(item),
        }
    }
    Ok(())
}

fn range<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    match args {
        [Value::Int(count)] if *count > RANGE_LIMIT => Err(EvalError::CallLimit),
        [Value::Int(count)] => Ok(Value::list((0..*count).map(Value::Int).collect())),
        _ => mismatch(),
    }
}

fn reverse<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    let mut values = list_of(args)?.values()?;
    values.reverse();
    Ok(Value::list(values))
}

fn distinct<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    let mut out: Vec<Value<'a>> = Vec::new();
    for item in list_of(args)?.iter() {
        let item = item?;
        if position(&out, &item)?.is_none() {
            out.push(item);
        }
    }
    Ok(Value::list(out))
}

fn sort<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    sort_by(list_of(args)?, list_of(args)?)
}

fn sort_by_keys<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    match args {
        [Value::List(list), Value::List(keys)] => sort_by(list, keys),
        _ => mismatch(),
    }
}

fn sort_by<'a>(list: &List<'a>, keys: &List<'a>) -> Evaluated<'a> {
    if list.len() != keys.len() {
        return Err(EvalError::failed(format!(
            "@sortByAssociatedKeys() expected a list of the same size as the associated keys list, but got {} and {} elements respectively",
            list.len(),
            keys.len()
        )));
    }
    let mut pairs: Vec<(Value<'a>, Value<'a>)> =
        keys.iter().zip(list.iter()).map(|(key, item)| Ok((key?, item?))).collect::<Result<_, EvalError>>()?;
    let Some((first, _)) = pairs.first() else { return Ok(Value::List(list.clone())) };
    let kind = std::mem::discriminant(first);
    if compare(first, first).is_err() {
        return Err(EvalError::failed("list elements must be comparable"));
    }
    for (key, _) in &pairs {
        if std::mem::discriminant(key) != kind {
            return Err(EvalError::failed("list elements must have the same type"));
        }
        // Not-a-number has no place in an order.
        compare(key, key)?;
    }
    pairs.sort_by(|(one, _), (other, _)| compare(one, other).unwrap_or(Ordering::Equal));
    Ok(Value::list(pairs.into_iter().map(|(_, item)| item).collect()))
}
