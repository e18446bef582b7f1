//! When two values are the same, which is less, and what lists added give. Numbers compare across types; other types are never equal.

use std::cmp::Ordering;
use std::sync::Arc;

use serde_json::Value as Json;

use crate::containers::{List, Map, Object};
use crate::decl::ListKind;
use crate::error::EvalError;
use crate::types::Fields;
use crate::value::{Evaluated, Value};

pub fn equal<'a>(one: &Value<'a>, other: &Value<'a>) -> bool {
    use Value as V;
    match (one, other) {
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
        (V::List(one), V::List(other)) => equal_lists(one, other),
        (V::Map(one), V::Map(other)) => equal_maps(one, other),
        (V::Object(one), V::Object(other)) => equal_objects(one, other),
        (V::Object(object), V::Map(map)) | (V::Map(map), V::Object(object)) => equal_object_and_map(object, map),
        (V::Optional(one), V::Optional(other)) => match (one, other) {
            (None, None) => true,
            (Some(one), Some(other)) => equal(one, other),
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
    }
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

fn equal_lists<'a>(one: &List<'a>, other: &List<'a>) -> bool {
    if one.len() != other.len() {
        return false;
    }
    if let (List::Json { items: ours, .. }, List::Json { items: theirs, .. }) = (one, other)
        && std::ptr::eq(*ours, *theirs)
    {
        return true;
    }
    let (Ok(ours), Ok(theirs)) = (one.values(), other.values()) else { return false };
    match one.kind() {
        ListKind::Atomic => ours.iter().zip(&theirs).all(|(one, other)| equal(one, other)),
        ListKind::Set => theirs.iter().all(|theirs| ours.iter().any(|ours| equal(ours, theirs))),
        ListKind::Map(keys) => {
            theirs.iter().all(|theirs| ours.iter().find(|ours| same_key(ours, theirs, keys)).is_some_and(|ours| equal(ours, theirs)))
        }
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

fn equal_maps<'a>(one: &Map<'a>, other: &Map<'a>) -> bool {
    one.len() == other.len()
        && one.keys().iter().all(|key| matches!((one.get(key), other.get(key)), (Some(Ok(one)), Some(Ok(other))) if equal(&one, &other)))
}

fn equal_objects<'a>(one: &Object<'a>, other: &Object<'a>) -> bool {
    match (one, other) {
        (Object::Json { map: ours, object }, Object::Json { map: theirs, .. }) => {
            if std::ptr::eq(*ours, *theirs) {
                return true;
            }
            let Fields::Declared(fields) = &object.fields else { return ours == theirs };
            ours.len() == theirs.len()
                && ours.iter().all(|(name, value)| {
                    let known = fields.values().find(|field| field.json_name == *name);
                    match (known, theirs.get(name)) {
                        (_, None) => false,
                        (None, Some(other)) => value == other,
                        (Some(_), Some(other)) if value.is_null() || other.is_null() => value == other,
                        (Some(field), Some(other)) => {
                            matches!((Value::try_typed(value, &field.decl), Value::try_typed(other, &field.decl)), (Ok(one), Ok(other)) if equal(&one, &other))
                        }
                    }
                })
        }
        (Object::Built(one), Object::Built(other)) => {
            one.name == other.name
                && one.fields.len() == other.fields.len()
                && one.fields.iter().all(|(name, value)| other.fields.get(name).is_some_and(|other| equal(value, other)))
        }
        _ => false,
    }
}

fn equal_object_and_map<'a>(object: &Object<'a>, map: &Map<'a>) -> bool {
    let keys = object.keys();
    keys.len() == map.len()
        && keys.iter().all(|key| {
            let name = key.as_str().unwrap_or_default();
            matches!((object.field(name), map.get(key)), (Some(Ok(one)), Some(Ok(other))) if equal(&one, &other))
        })
}

/// `+`: sets unite, map lists merge by key (what is there keeps its place), other lists follow one another.
pub fn add_lists<'a>(one: &List<'a>, other: &List<'a>) -> Evaluated<'a> {
    let mut out = one.values()?;
    for item in other.iter() {
        let item = item?;
        let place = match one.kind() {
            ListKind::Atomic => None,
            ListKind::Set => out.iter().position(|ours| equal(ours, &item)),
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
