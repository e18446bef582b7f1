//! What an expression works on and gives. JSON is wrapped, not copied: a list or an object is a reference to where it stands, with its
//! declaration if there is one, and becomes values piece by piece as an expression reaches into it.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::Arc;

use serde_json::Value as Json;

use crate::containers::{List, Map, Object};
use crate::decl::{DeclType, Shape};
use crate::error::EvalError;
use crate::library::authorizer::Check;
use crate::library::format::NamedFormat;
use crate::library::ip::{Address, Cidr};
use crate::library::semver::Semver;
use crate::library::url::Url;
use crate::time;
use crate::types::{Opaque, Type};

pub type Evaluated<'a> = Result<Value<'a>, EvalError>;

#[derive(Clone, Debug)]
pub enum Value<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(Text<'a>),
    Bytes(Arc<[u8]>),
    /// Nanoseconds.
    Duration(i64),
    Timestamp(time::Moment),
    List(List<'a>),
    Map(Map<'a>),
    Object(Object<'a>),
    Optional(Option<Arc<Value<'a>>>),
    Type(Arc<Type>),
    Quantity(Arc<api::quantity::Quantity>),
    Url(Arc<Url>),
    Ip(Address),
    Cidr(Cidr),
    Semver(Arc<Semver>),
    Format(&'static NamedFormat),
    Authorization(Arc<Check>),
    /// Data that does not fit its declaration: an error for whoever uses it.
    Invalid(Arc<str>),
}

/// A string, of JSON or made.
#[derive(Clone, Debug)]
pub enum Text<'a> {
    Borrowed(&'a str),
    Shared(Arc<str>),
}

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            Text::Borrowed(text) => text,
            Text::Shared(text) => text,
        }
    }
}

impl From<String> for Value<'_> {
    fn from(text: String) -> Self {
        Value::String(Text::Shared(text.into()))
    }
}

impl<'a> Value<'a> {
    // ---- making ------------------------------------------------------------------------------------------------

    pub fn string(text: impl Into<String>) -> Self {
        text.into().into()
    }

    pub fn optional(value: Option<Value<'a>>) -> Self {
        Value::Optional(value.map(Arc::new))
    }

    pub fn list(values: Vec<Value<'a>>) -> Self {
        Value::List(List::Owned(Arc::new(values)))
    }

    /// An untyped view.
    pub fn json(value: &'a Json) -> Self {
        match value {
            Json::Null => Value::Null,
            Json::Bool(value) => Value::Bool(*value),
            Json::Number(number) => number_value(number),
            Json::String(text) => Value::String(Text::Borrowed(text)),
            Json::Array(items) => Value::List(List::Json { items, decl: None }),
            Json::Object(map) => Value::Map(Map::Json { map, value: None }),
        }
    }

    /// A view by declaration. Data that does not fit is an error when it is used.
    pub fn typed(value: &'a Json, decl: &'a DeclType) -> Self {
        Self::try_typed(value, decl).unwrap_or_else(|error| Value::Invalid(error.to_string().into()))
    }

    pub(crate) fn try_typed(value: &'a Json, decl: &'a DeclType) -> Evaluated<'a> {
        if let Shape::Optional(inner) = decl.shape() {
            return Ok(Value::optional(if value.is_null() { None } else { Some(Self::try_typed(value, inner)?) }));
        }
        if value.is_null() && !matches!(decl.ty(), Type::Dyn | Type::Null) {
            return if decl.is_nullable() { Ok(Value::Null) } else { invalid("invalid data, got null for schema with nullable=false") };
        }
        match (decl.shape(), decl.ty(), value) {
            (Shape::IntOrString, _, Json::Null) if decl.is_nullable() => Ok(Value::Null),
            (Shape::IntOrString, _, Json::String(text)) => Ok(Value::String(Text::Borrowed(text))),
            (Shape::IntOrString, _, Json::Number(number)) if number.is_i64() => Ok(number_value(number)),
            (Shape::IntOrString, ..) => invalid("invalid data, expected XIntOrString value to be either a string or integer"),
            (Shape::List { .. }, _, Json::Array(items)) => Ok(Value::List(List::Json { items, decl: Some(decl) })),
            (Shape::List { .. }, ..) => invalid("invalid data, expected an array for the provided schema with type=array"),
            (Shape::Map { value, .. }, _, Json::Object(map)) => Ok(Value::Map(Map::Json { map, value: Some(value) })),
            (Shape::Object(object), _, Json::Object(map)) => Ok(Value::Object(Object::Json { map, object })),
            (Shape::Map { .. } | Shape::Object(_), ..) => invalid("invalid data, expected a map for the provided schema with type=object"),
            (Shape::Date, _, Json::String(text)) => time::parse_date(text).map(Value::Timestamp),
            (_, Type::Bool, Json::Bool(value)) => Ok(Value::Bool(*value)),
            (_, Type::Bool, _) => invalid("invalid data, expected bool"),
            (_, Type::Int, Json::Number(number)) => number.as_i64().or_else(|| whole(number)).map(Value::Int).ok_or_else(not_an_int),
            (_, Type::Int, _) => Err(not_an_int()),
            (_, Type::Uint, Json::Number(number)) => number.as_u64().map(Value::Uint).ok_or_else(not_an_int),
            (_, Type::Double, Json::Number(number)) => number.as_f64().map(Value::Double).ok_or_else(not_an_int),
            (_, Type::Double, _) => invalid("invalid data, expected float"),
            (_, Type::String, Json::String(text)) => Ok(Value::String(Text::Borrowed(text))),
            (_, Type::Timestamp, Json::String(text)) => time::parse_openapi_datetime(text).map(Value::Timestamp),
            (_, Type::Duration, Json::String(text)) => time::parse_openapi_duration(text).map(Value::Duration),
            (_, Type::Bytes, Json::String(text)) => decode_base64(text).map(|bytes| Value::Bytes(bytes.into())),
            (_, Type::Dyn, _) => Ok(Value::json(value)),
            (_, ty, _) => invalid(&format!("invalid data, expected {}", ty.describe())),
        }
    }

    /// An owned copy.
    pub fn from_json(value: Json) -> Value<'static> {
        match value {
            Json::Null => Value::Null,
            Json::Bool(value) => Value::Bool(value),
            Json::Number(number) => number_value(&number),
            Json::String(text) => text.into(),
            Json::Array(items) => Value::list(items.into_iter().map(Value::from_json).collect()),
            Json::Object(map) => {
                let entries = map.into_iter().map(|(key, value)| (Key::String(Text::Shared(key.into())), Value::from_json(value)));
                Value::Map(Map::Owned(Arc::new(entries.collect())))
            }
        }
    }

    // ---- reading -----------------------------------------------------------------------------------------------

    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Value::Bool(value) => Some(*value),
            _ => None,
        }
    }

    pub fn as_int(&self) -> Option<i64> {
        match self {
            Value::Int(value) => Some(*value),
            _ => None,
        }
    }

    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    pub fn is_null(&self) -> bool {
        matches!(self, Value::Null)
    }

    /// Its type, without parameters.
    pub fn type_of(&self) -> Type {
        match self {
            Value::Null => Type::Null,
            Value::Bool(_) => Type::Bool,
            Value::Int(_) => Type::Int,
            Value::Uint(_) => Type::Uint,
            Value::Double(_) => Type::Double,
            Value::String(_) => Type::String,
            Value::Bytes(_) => Type::Bytes,
            Value::Duration(_) => Type::Duration,
            Value::Timestamp(_) => Type::Timestamp,
            Value::List(_) => Type::list(Type::Dyn),
            Value::Map(_) => Type::map(Type::Dyn, Type::Dyn),
            Value::Object(object) => object.type_of(),
            Value::Optional(_) => Type::optional(Type::Dyn),
            Value::Type(_) => Type::Type(None),
            Value::Quantity(_) => Type::QUANTITY,
            Value::Url(_) => Type::URL,
            Value::Ip(_) => Type::IP,
            Value::Cidr(_) => Type::CIDR,
            Value::Semver(_) => Type::SEMVER,
            Value::Format(_) => Type::FORMAT,
            Value::Authorization(check) => Type::Opaque(check.kind()),
            Value::Invalid(_) => Type::Error,
        }
    }

    /// Could an overload's parameter of this type take it?
    pub(crate) fn fits(&self, ty: &Type) -> bool {
        match (ty, self) {
            (Type::Dyn | Type::Param(_), _) => true,
            (Type::Bool, Value::Bool(_))
            | (Type::Int, Value::Int(_))
            | (Type::Uint, Value::Uint(_))
            | (Type::Double, Value::Double(_))
            | (Type::String, Value::String(_))
            | (Type::Bytes, Value::Bytes(_))
            | (Type::Timestamp, Value::Timestamp(_))
            | (Type::Duration, Value::Duration(_))
            | (Type::Null, Value::Null)
            | (Type::List(_), Value::List(_))
            | (Type::Map(..), Value::Map(_) | Value::Object(_))
            | (Type::Optional(_), Value::Optional(_))
            | (Type::Type(_), Value::Type(_)) => true,
            (Type::Opaque(opaque), _) => matches!(self.type_of(), Type::Opaque(ours) if ours == *opaque),
            _ => false,
        }
    }

    /// What `size()` gives, and what costs are computed from; `None` for what has no size.
    pub(crate) fn size(&self) -> Option<u64> {
        Some(match self {
            Value::String(text) => characters(text),
            Value::Bytes(bytes) => bytes.len() as u64,
            Value::List(list) => list.len() as u64,
            Value::Map(map) => map.len() as u64,
            Value::Object(object) => object.len() as u64,
            Value::Optional(Some(inner)) => return inner.size(),
            _ => return None,
        })
    }

    /// The zero of its type: what `optional.ofNonZeroValue` takes for nothing.
    pub(crate) fn is_zero(&self) -> bool {
        match self {
            Value::Null => true,
            Value::Bool(value) => !value,
            Value::Int(value) => *value == 0,
            Value::Uint(value) => *value == 0,
            Value::Double(value) => *value == 0.0,
            Value::Duration(value) => *value == 0,
            Value::Timestamp(value) => value.at == time::zero(),
            Value::String(_) | Value::Bytes(_) | Value::List(_) | Value::Map(_) | Value::Object(_) => self.size() == Some(0),
            Value::Optional(inner) => inner.as_ref().is_none_or(|inner| inner.is_zero()),
            _ => false,
        }
    }

    /// As JSON. Types, networks and checks have none.
    pub fn to_json(&self) -> Result<Json, EvalError> {
        Ok(match self {
            Value::Null => Json::Null,
            Value::Bool(value) => Json::Bool(*value),
            Value::Int(value) => Json::from(*value),
            Value::Uint(value) => Json::from(*value),
            Value::Double(value) => {
                serde_json::Number::from_f64(*value).map(Json::Number).ok_or_else(|| EvalError::failed("no JSON for this number"))?
            }
            Value::String(text) => Json::String(text.to_string()),
            Value::Bytes(bytes) => Json::String(encode_base64(bytes)),
            Value::Duration(nanoseconds) => Json::String(time::duration_to_json(*nanoseconds)),
            Value::Timestamp(timestamp) => Json::String(time::format_timestamp(*timestamp)),
            Value::List(list) => Json::Array((0..list.len()).map(|index| list.get(index)?.to_json()).collect::<Result<_, _>>()?),
            Value::Map(map) => map.to_json()?,
            Value::Object(object) => object.to_json()?,
            Value::Optional(Some(inner)) => inner.to_json()?,
            Value::Optional(None) => Json::Null,
            Value::Quantity(quantity) => Json::String(quantity.to_string()),
            _ => return Err(EvalError::failed(format!("type conversion error from '{}' to 'google.protobuf.Value'", self.type_of()))),
        })
    }

    /// Errors of data become errors of the evaluation here.
    pub(crate) fn usable(&self) -> Evaluated<'a> {
        match self {
            Value::Invalid(message) => Err(EvalError::failed(message.to_string())),
            value => Ok(value.clone()),
        }
    }

    pub(crate) fn opaque(&self) -> Option<Opaque> {
        match self.type_of() {
            Type::Opaque(opaque) => Some(opaque),
            _ => None,
        }
    }
}

fn invalid<'a>(message: &str) -> Evaluated<'a> {
    Err(EvalError::failed(message))
}

fn not_an_int() -> EvalError {
    EvalError::failed("invalid data, expected int")
}

/// `1.0` is a whole number too.
fn whole(number: &serde_json::Number) -> Option<i64> {
    let value = number.as_f64()?;
    (value.fract() == 0.0 && value.abs() < 9_007_199_254_740_992.0).then_some(value as i64)
}

fn number_value<'a>(number: &serde_json::Number) -> Value<'a> {
    match number.as_i64() {
        Some(value) => Value::Int(value),
        None => Value::Double(number.as_f64().unwrap_or(f64::NAN)),
    }
}

/// In code points, as CEL counts.
pub(crate) fn characters(text: &str) -> u64 {
    if text.is_ascii() { text.len() as u64 } else { text.chars().count() as u64 }
}

fn decode_base64(text: &str) -> Result<Vec<u8>, EvalError> {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD
        .decode(text)
        .map_err(|error| EvalError::failed(format!("Invalid byte formatted string {text}: {error}")))
}

fn encode_base64(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// What may be a key of a map. Ints and uints of the same number are the same key.
#[derive(Clone, Debug)]
pub enum Key<'a> {
    Bool(bool),
    Int(i64),
    Uint(u64),
    String(Text<'a>),
}

impl<'a> Key<'a> {
    pub fn new(value: &Value<'a>) -> Option<Key<'a>> {
        Some(match value {
            Value::Bool(value) => Key::Bool(*value),
            Value::Int(value) => Key::Int(*value),
            Value::Uint(value) => Key::Uint(*value),
            Value::Double(value) if value.fract() == 0.0 && value.abs() < 9_007_199_254_740_992.0 => Key::Int(*value as i64),
            Value::String(text) => Key::String(text.clone()),
            _ => return None,
        })
    }

    pub fn value(&self) -> Value<'a> {
        match self {
            Key::Bool(value) => Value::Bool(*value),
            Key::Int(value) => Value::Int(*value),
            Key::Uint(value) => Value::Uint(*value),
            Key::String(text) => Value::String(text.clone()),
        }
    }

    fn rank(&self) -> (u8, i128, &str) {
        match self {
            Key::Bool(value) => (0, i128::from(*value), ""),
            Key::Int(value) => (1, i128::from(*value), ""),
            Key::Uint(value) => (1, i128::from(*value), ""),
            Key::String(text) => (2, 0, text),
        }
    }
}

impl PartialEq for Key<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.rank() == other.rank()
    }
}

impl Eq for Key<'_> {}

impl PartialOrd for Key<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Key<'_> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.rank().cmp(&other.rank())
    }
}

pub type Entries<'a> = BTreeMap<Key<'a>, Value<'a>>;
