//! Lists, maps and objects: views of JSON or made by an expression. Upstream: `valuesunstructured.go` (null fields are absent fields,
//! names are escaped, set and map lists compare and add in their own way).

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value as Json;

use crate::decl::{DeclType, ListKind, Shape};
use crate::equality::{add_lists, equal};
use crate::error::EvalError;
use crate::escape::escape;
use crate::types::{Fields, JSON_PATCH, ObjectType, Type};
use crate::value::{Entries, Evaluated, Key, Text, Value};

type JsonMap = serde_json::Map<String, Json>;

#[derive(Clone, Debug)]
pub enum List<'a> {
    Json {
        items: &'a [Json],
        decl: Option<&'a DeclType>,
    },
    Owned(Arc<Vec<Value<'a>>>),
    /// Of two declared lists added: still a set, or a map.
    Sum {
        items: Arc<Vec<Value<'a>>>,
        decl: &'a DeclType,
    },
}

impl<'a> List<'a> {
    pub fn len(&self) -> usize {
        match self {
            List::Json { items, .. } => items.len(),
            List::Owned(items) | List::Sum { items, .. } => items.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The element's declaration, of a declared list.
    fn element(decl: Option<&'a DeclType>) -> Option<&'a DeclType> {
        match decl?.shape() {
            Shape::List { element, .. } => Some(element),
            _ => None,
        }
    }

    pub fn get(&self, index: usize) -> Evaluated<'a> {
        match self {
            List::Json { items, decl } => {
                let item = items.get(index).ok_or_else(|| EvalError::failed(format!("index out of bounds: {index}")))?;
                match Self::element(*decl) {
                    Some(element) => Value::try_typed(item, element),
                    None => Ok(Value::json(item)),
                }
            }
            List::Owned(items) | List::Sum { items, .. } => {
                items.get(index).cloned().ok_or_else(|| EvalError::failed(format!("index out of bounds: {index}")))
            }
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = Evaluated<'a>> + '_ {
        (0..self.len()).map(|index| self.get(index))
    }

    pub(crate) fn values(&self) -> Result<Vec<Value<'a>>, EvalError> {
        self.iter().collect()
    }

    pub(crate) fn kind(&self) -> &ListKind {
        match self {
            List::Json { decl: Some(decl), .. } | List::Sum { decl, .. } => match decl.shape() {
                Shape::List { kind, .. } => kind,
                _ => &ListKind::Atomic,
            },
            _ => &ListKind::Atomic,
        }
    }

    pub fn contains(&self, wanted: &Value<'a>) -> Result<bool, EvalError> {
        for item in self.iter() {
            if equal(&item?, wanted)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    pub fn plus(&self, other: &List<'a>) -> Evaluated<'a> {
        add_lists(self, other)
    }
}

#[derive(Clone, Debug)]
pub enum Map<'a> {
    Json { map: &'a JsonMap, value: Option<&'a DeclType> },
    Owned(Arc<Entries<'a>>),
}

impl<'a> Map<'a> {
    pub fn len(&self) -> usize {
        match self {
            Map::Json { map, .. } => map.len(),
            Map::Owned(entries) => entries.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn json_value(value: &'a Json, decl: Option<&'a DeclType>) -> Evaluated<'a> {
        match decl {
            Some(decl) => Value::try_typed(value, decl),
            None => Ok(Value::json(value)),
        }
    }

    pub fn field(&self, name: &str) -> Option<Evaluated<'a>> {
        match self {
            Map::Json { map, value } => map.get(name).map(|found| Self::json_value(found, *value)),
            Map::Owned(entries) => {
                // The key lives as long as this call only; the order does not care.
                let key = Key::String(Text::Shared(name.into()));
                entries.get(&key).cloned().map(Ok)
            }
        }
    }

    pub fn get(&self, key: &Value<'a>) -> Option<Evaluated<'a>> {
        match self {
            Map::Json { .. } => self.field(key.as_str()?),
            Map::Owned(entries) => entries.get(&Key::new(key)?).cloned().map(Ok),
        }
    }

    pub fn keys(&self) -> Vec<Value<'a>> {
        match self {
            Map::Json { map, .. } => map.keys().map(|key| Value::String(Text::Borrowed(key))).collect(),
            Map::Owned(entries) => entries.keys().map(Key::value).collect(),
        }
    }

    pub fn to_json(&self) -> Result<Json, EvalError> {
        let mut out = JsonMap::new();
        for key in self.keys() {
            let Some(value) = self.get(&key) else { continue };
            let name = match &key {
                Value::String(text) => text.to_string(),
                Value::Bool(value) => value.to_string(),
                Value::Int(value) => value.to_string(),
                Value::Uint(value) => value.to_string(),
                _ => continue,
            };
            out.insert(name, value?.to_json()?);
        }
        Ok(Json::Object(out))
    }
}

/// `Object.spec{…}` may stand only in the field `spec` of an `Object`, and in lists and maps there.
fn check_names(value: &Value<'_>, path: &str) -> Result<(), EvalError> {
    match value {
        Value::Object(Object::Built(built)) if built.name != JSON_PATCH => {
            if built.name != path {
                let message =
                    format!("unexpected type name {:?}, expected {path:?}, which matches field name path from root Object type", built.name);
                return Err(EvalError::failed(message));
            }
            built.fields.iter().try_for_each(|(name, value)| check_names(value, &format!("{path}.{name}")))
        }
        Value::List(List::Owned(items)) => items.iter().try_for_each(|item| check_names(item, path)),
        Value::Map(Map::Owned(entries)) => entries.values().try_for_each(|value| check_names(value, path)),
        Value::Optional(Some(inner)) => check_names(inner, path),
        _ => Ok(()),
    }
}

#[derive(Clone, Debug)]
pub enum Object<'a> {
    Json {
        map: &'a JsonMap,
        object: &'a ObjectType,
    },
    /// `Object{…}`, `JSONPatch{…}`.
    Built(Arc<Built<'a>>),
}

#[derive(Debug)]
pub struct Built<'a> {
    pub name: String,
    pub fields: BTreeMap<String, Value<'a>>,
}

impl<'a> Object<'a> {
    pub fn len(&self) -> usize {
        match self {
            Object::Json { map, .. } => map.len(),
            Object::Built(built) => built.fields.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Upstream's objects of a schema are maps at run time.
    pub fn type_of(&self) -> Type {
        match self {
            Object::Json { .. } => Type::map(Type::Dyn, Type::Dyn),
            Object::Built(built) => Type::Object(Arc::new(ObjectType::open(&built.name))),
        }
    }

    /// By the name CEL sees. A field that is null is not there.
    pub fn field(&self, name: &str) -> Option<Evaluated<'a>> {
        match self {
            Object::Json { map, object } => {
                let field = object.field(name)?;
                let value = map.get(&field.json_name).filter(|value| !value.is_null())?;
                Some(Value::try_typed(value, &field.decl))
            }
            Object::Built(built) => built.fields.get(name).cloned().map(Ok),
        }
    }

    /// The declared fields that are there, by the names CEL sees.
    pub fn keys(&self) -> Vec<Value<'a>> {
        match self {
            Object::Json { map, object } => match &object.fields {
                Fields::Declared(fields) => map
                    .keys()
                    .filter_map(|key| {
                        let escaped = escape(key)?;
                        fields.contains_key(&escaped).then(|| if escaped == *key { Value::String(Text::Borrowed(key)) } else { escaped.into() })
                    })
                    .collect(),
                Fields::Open => Vec::new(),
            },
            Object::Built(built) => built.fields.keys().map(|key| Value::string(key.as_str())).collect(),
        }
    }

    pub fn to_json(&self) -> Result<Json, EvalError> {
        match self {
            Object::Json { map, .. } => Ok(Json::Object((*map).clone())),
            Object::Built(built) => {
                let mut out = JsonMap::new();
                check_names(&Value::Object(self.clone()), &built.name)?;
                for (name, value) in &built.fields {
                    if let Value::Optional(None) = value {
                        continue;
                    }
                    let json_name =
                        if built.name == JSON_PATCH { name.clone() } else { crate::escape::unescape(name).unwrap_or_else(|| name.clone()) };
                    out.insert(json_name, value.to_json()?);
                }
                Ok(Json::Object(out))
            }
        }
    }
}
