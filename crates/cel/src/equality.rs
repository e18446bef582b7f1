//! When two values are the same, which is less, and what lists added give. Numbers compare across types; other types are never equal.

use std::cmp::Ordering;
use std::sync::Arc;

use serde_json::Value as Json;

use crate::containers::{List, Map, Object};
use crate::decl::ListKind;
use crate::error::EvalError;
use crate::types::Fields;
use crate::value::{Evaluated, Value};

/// Data that does not fit its declaration is an error, not a difference.
pub fn equal<'a>(one: &Value<'a>, other: &Value<'a>) -> Result<bool, EvalError> {
    use Value as V;
    Ok(match (one, other) {
        (V::Invalid(message), _) | (_, V::Invalid(message)) => return Err(EvalError::failed(message.to_string())),
        (V::Null, V::Null) => true,
        (V::Bool(one), V::Bool(other)) => one == other,
        (V::Int(one), V::Int(other)) => one == other,
        (V::Uint(one), V::Uint(other)) => one == other,
        (V::Double(one), V::Double(other)) => one == other,
        (V::Int(_) | V::Uint(_) | V::Double(_), V::Int(_) | V::Uint(_) | V::Double(_)) => compare_numbers(one, other) == Some(Ordering::Equal),
        (V::String(one), V::String(other)) => **one == **other,
        (V::Bytes(one), V::Bytes(other)) => one == other,
        (V::Duration(one), V::Duration(other)) => one == other,
        (V::Timestamp(one), V::Timestamp(other)) => one == other,
        (V::List(one), V::List(other)) => equal_lists(one, other)?,
        (V::Map(one), V::Map(other)) => equal_maps(one, other)?,
        (V::Object(one), V::Object(other)) => equal_objects(one, other)?,
        (V::Object(object), V::Map(map)) | (V::Map(map), V::Object(object)) => equal_object_and_map(object, map)?,
        (V::Optional(one), V::Optional(other)) => match (one, other) {
            (None, None) => true,
            (Some(one), Some(other)) => equal(one, other)?,
            _ => false,
        },
        (V::Type(one), V::Type(other)) => one.runtime_name() == other.runtime_name(),
        (V::Quantity(one), V::Quantity(other)) => one.cmp(other) == Ordering::Equal,
        (V::Url(one), V::Url(other)) => one == other,
        (V::Ip(one), V::Ip(other)) => one == other,
        (V::Cidr(one), V::Cidr(other)) => one == other,
        (V::Semver(one), V::Semver(other)) => one.cmp(other) == Ordering::Equal,
        (V::Format(one), V::Format(other)) => std::ptr::eq(*one, *other),
        (V::Authorization(one), V::Authorization(other)) => Arc::ptr_eq(one, other),
        _ => false,
    })
}

/// `None`: one of them is not a number, or not-a-number.
pub fn compare_numbers(one: &Value<'_>, other: &Value<'_>) -> Option<Ordering> {
    use Value as V;
    match (one, other) {
        (V::Double(one), V::Double(other)) => one.partial_cmp(other),
        (V::Double(one), _) => compare_double(*one, integer(other)?),
        (_, V::Double(other)) => compare_double(*other, integer(one)?).map(Ordering::reverse),
        _ => Some(integer(one)?.cmp(&integer(other)?)),
    }
}

fn integer(value: &Value<'_>) -> Option<i128> {
    match value {
        Value::Int(value) => Some(i128::from(*value)),
        Value::Uint(value) => Some(i128::from(*value)),
        _ => None,
    }
}

fn compare_double(double: f64, integer: i128) -> Option<Ordering> {
    if double.is_nan() {
        return None;
    }
    // Beyond what 64 bits hold the sign decides.
    if double >= 2f64.powi(64) {
        return Some(Ordering::Greater);
    }
    if double < -(2f64.powi(63)) {
        return Some(Ordering::Less);
    }
    let whole = double.trunc();
    Some((whole as i128).cmp(&integer).then_with(|| double.partial_cmp(&whole).unwrap_or(Ordering::Equal)))
}

pub fn compare(one: &Value<'_>, other: &Value<'_>) -> Result<Ordering, EvalError> {
    use Value as V;
    Ok(match (one, other) {
        (V::Int(one), V::Int(other)) => one.cmp(other),
        (V::Int(_) | V::Uint(_) | V::Double(_), V::Int(_) | V::Uint(_) | V::Double(_)) => {
            compare_numbers(one, other).ok_or_else(|| EvalError::failed("NaN values cannot be ordered"))?
        }
        (V::Bool(one), V::Bool(other)) => one.cmp(other),
        (V::String(one), V::String(other)) => one.as_bytes().cmp(other.as_bytes()),
        (V::Bytes(one), V::Bytes(other)) => one.cmp(other),
        (V::Duration(one), V::Duration(other)) => one.cmp(other),
        (V::Timestamp(one), V::Timestamp(other)) => one.cmp(other),
        _ => return Err(EvalError::no_such_overload()),
    })
}

fn equal_lists<'a>(one: &List<'a>, other: &List<'a>) -> Result<bool, EvalError> {
    if one.len() != other.len() {
        return Ok(false);
    }
    if let (List::Json { items: ours, .. }, List::Json { items: theirs, .. }) = (one, other)
        && std::ptr::eq(*ours, *theirs)
    {
        return Ok(true);
    }
    let (ours, theirs) = (one.values()?, other.values()?);
    match one.kind() {
        ListKind::Atomic => all(ours.iter().zip(&theirs), |(one, other)| equal(one, other)),
        ListKind::Set => all(theirs.iter(), |theirs| any(ours.iter(), |ours| equal(ours, theirs))),
        ListKind::Map(keys) => all(theirs.iter(), |theirs| match ours.iter().find(|ours| same_key(ours, theirs, keys)) {
            Some(ours) => equal(ours, theirs),
            None => Ok(false),
        }),
    }
}

fn all<T>(mut items: impl Iterator<Item = T>, mut test: impl FnMut(T) -> Result<bool, EvalError>) -> Result<bool, EvalError> {
    items.try_fold(true, |so_far, item| if so_far { test(item) } else { Ok(false) })
}

fn any<T>(mut items: impl Iterator<Item = T>, mut test: impl FnMut(T) -> Result<bool, EvalError>) -> Result<bool, EvalError> {
    items.try_fold(false, |so_far, item| if so_far { Ok(true) } else { test(item) })
}

fn both<'a>(one: Option<Evaluated<'a>>, other: Option<Evaluated<'a>>) -> Result<bool, EvalError> {
    match (one, other) {
        (Some(one), Some(other)) => equal(&one?, &other?),
        _ => Ok(false),
    }
}

fn key_field(value: &Value<'_>, name: &str) -> Option<Json> {
    match value {
        Value::Object(Object::Json { map, .. }) | Value::Map(Map::Json { map, .. }) => map.get(name).cloned(),
        Value::Map(map) => map.field(name)?.ok()?.to_json().ok(),
        _ => None,
    }
}

fn same_key(one: &Value<'_>, other: &Value<'_>, keys: &[String]) -> bool {
    keys.iter().all(|key| key_field(one, key) == key_field(other, key))
}

fn equal_maps<'a>(one: &Map<'a>, other: &Map<'a>) -> Result<bool, EvalError> {
    if one.len() != other.len() {
        return Ok(false);
    }
    all(one.keys().iter(), |key| both(one.get(key), other.get(key)))
}

fn equal_objects<'a>(one: &Object<'a>, other: &Object<'a>) -> Result<bool, EvalError> {
    match (one, other) {
        (Object::Json { map: ours, object }, Object::Json { map: theirs, .. }) => {
            if std::ptr::eq(*ours, *theirs) {
                return Ok(true);
            }
            let Fields::Declared(fields) = &object.fields else { return Ok(ours == theirs) };
            if ours.len() != theirs.len() {
                return Ok(false);
            }
            all(ours.iter(), |(name, value)| {
                let known = fields.values().find(|field| field.json_name == *name);
                match (known, theirs.get(name)) {
                    (_, None) => Ok(false),
                    (Some(field), Some(other)) if !value.is_null() && !other.is_null() => {
                        both(Some(Value::try_typed(value, &field.decl)), Some(Value::try_typed(other, &field.decl)))
                    }
                    (_, Some(other)) => Ok(value == other),
                }
            })
        }
        (Object::Built(one), Object::Built(other)) => {
            if one.name != other.name || one.fields.len() != other.fields.len() {
                return Ok(false);
            }
            all(one.fields.iter(), |(name, value)| other.fields.get(name).map_or(Ok(false), |other| equal(value, other)))
        }
        _ => Ok(false),
    }
}

fn equal_object_and_map<'a>(object: &Object<'a>, map: &Map<'a>) -> Result<bool, EvalError> {
    let keys = object.keys();
    if keys.len() != map.len() {
        return Ok(false);
    }
    all(keys.iter(), |key| both(object.field(key.as_str().unwrap_or_default()), map.get(key)))
}

/// Where it is among these.
pub fn position<'a>(items: &[Value<'a>], wanted: &Value<'a>) -> Result<Option<usize>, EvalError> {
    for (index, item) in items.iter().enumerate() {
        if equal(item, wanted)? {
            return Ok(Some(index));
        }
    }
    Ok(None)
}

/// `+`: sets unite, map lists merge by key (what is there keeps its place), other lists follow one another.
pub fn add_lists<'a>(one: &List<'a>, other: &List<'a>) -> Evaluated<'a> {
    let mut out = one.values()?;
    for item in other.iter() {
        let item = item?;
        let place = match one.kind() {
            ListKind::Atomic => None,
            ListKind::Set => position(&out, &item)?,
            ListKind::Map(keys) => out.iter().position(|ours| same_key(ours, &item, keys)),
        };
        match place {
            Some(place) => out[place] = item,
            None => out.push(item),
        }
    }
    Ok(match one {
        List::Json { decl: Some(decl), .. } | List::Sum { decl, .. } => Value::List(List::Sum { items: Arc::new(out), decl }),
        _ => Value::list(out),
    })
}
