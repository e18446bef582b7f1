//! Holds a JSON value against a type, as upstream's decoder and encoder together do (sigs.k8s.io/json into a Go struct and back).
//!
//! Wrong types are refused in Go's words. Unknown fields are taken out and reported. Nulls and zeros that Go would not encode are dropped, structs and plain values it always encodes
//! are added; quantities and times get their canonical form.

use std::fmt;

use serde_json::{Map, Number, Value};

use super::{Field, FieldType, TypeInfo, of, time};
use crate::go::json_word;
use crate::quantity::Quantity;

/// A field the type does not have: `spec.containers[0].foo`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownField {
    pub path: String,
}

impl fmt::Display for UnknownField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unknown field {:?}", self.path)
    }
}

/// A value of the wrong type. `message` is what upstream answers 400 with; `cause` is its second half, the decoder's own words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct TypeMismatch {
    pub message: String,
    pub cause: String,
}

/// As upstream, more unknown fields than this are not listed.
const MOST_UNKNOWN: usize = 100;

/// `type_name` is the OpenAPI name; `kind` and `version` are for the message only. A type that is not in the table (a CRD's) passes as it is.
pub fn check(type_name: &str, kind: &str, version: &str, value: &mut Value) -> Result<Vec<UnknownField>, TypeMismatch> {
    let Some(ty) = of(type_name) else { return Ok(Vec::new()) };
    let mut walk = Walk { unknown: Vec::new() };
    let checked = match value {
        Value::Object(map) => walk.object(ty, map, None),
        other => Err(format!("json: cannot unmarshal {} into Go value of type {}", json_word(other), ty.go_name())),
    };
    match checked {
        Ok(()) => Ok(walk.unknown),
        Err(cause) => Err(TypeMismatch { message: format!("{kind} in version {version:?} cannot be handled as a {kind}: {cause}"), cause }),
    }
}

/// The way from the root, linked through the stack; written out only when there is something to say.
struct Step<'a> {
    outer: Option<&'a Step<'a>>,
    place: Place<'a>,
}

enum Place<'a> {
    /// A field of a struct.
    Field(&'a str, &'static TypeInfo),
    /// A key of a map: part of the strict path, not of Go's field path.
    Key(&'a str),
    Index(usize),
}

impl Step<'_> {
    /// `spec.template.spec.containers.image`: without indices and map keys, as Go has it.
    fn go_path(&self, path: &mut String) {
        if let Some(outer) = self.outer {
            outer.go_path(path);
        }
        if let Place::Field(name, owner) = self.place {
            if !path.is_empty() {
                path.push('.');
            }
            if let Some(embedded) = embedded(owner.short_name(), name) {
                path.push_str(embedded);
                path.push('.');
            }
            path.push_str(name);
        }
    }

    /// `spec.template.spec.containers[0].image`
    fn strict_path(&self, path: &mut String) {
        if let Some(outer) = self.outer {
            outer.strict_path(path);
        }
        match self.place {
            Place::Field(name, _) | Place::Key(name) => {
                if !path.is_empty() {
                    path.push('.');
                }
                path.push_str(name);
            }
            Place::Index(index) => path.push_str(&format!("[{index}]")),
        }
    }
}

/// The struct that Go finds a field in when it is not the one that holds it: since Go 1.24 its name stands in the path.
fn embedded(owner: &str, field: &str) -> Option<&'static str> {
    const OF_VOLUMES: [&str; 9] =
        ["capacity", "accessModes", "claimRef", "persistentVolumeReclaimPolicy", "storageClassName", "mountOptions", "volumeMode", "nodeAffinity", "volumeAttributesClassName"];
    match (owner, field) {
        ("Probe", "exec" | "httpGet" | "tcpSocket" | "grpc") => Some("ProbeHandler"),
        ("Volume", name) if name != "name" => Some("VolumeSource"),
        ("EphemeralContainer", name) if name != "targetContainerName" => Some("EphemeralContainerCommon"),
        ("PersistentVolumeSpec", name) if !OF_VOLUMES.contains(&name) => Some("PersistentVolumeSource"),
        ("ConfigMapKeySelector" | "SecretKeySelector" | "ConfigMapEnvSource" | "SecretEnvSource" | "ConfigMapVolumeSource" | "ConfigMapProjection" | "SecretProjection", "name") => Some("LocalObjectReference"),
        ("IngressRule", "http") => Some("IngressRuleValue"),
        ("RuleWithOperations", "apiGroups" | "apiVersions" | "resources" | "scope") => Some("Rule"),
        ("NamedRuleWithOperations", "operations") => Some("RuleWithOperations"),
        ("NamedRuleWithOperations", "apiGroups" | "apiVersions" | "resources" | "scope") => Some("RuleWithOperations.Rule"),
        ("DeviceClaimConfiguration" | "DeviceClassConfiguration" | "DeviceAllocationConfiguration", "opaque") => Some("DeviceConfiguration"),
        _ => None,
    }
}

/// Where a value sits, for Go's words: the struct, and the path to it.
#[derive(Clone, Copy)]
struct Seat<'a> {
    ty: &'static TypeInfo,
    field: &'static Field,
    step: &'a Step<'a>,
}

impl Seat<'_> {
    fn refuse(&self, what: &str, wanted: &FieldType, nested: usize) -> String {
        let mut path = String::new();
        self.step.go_path(&mut path);
        // Go's own name of the field's type, its brackets taken off once for each level below the field.
        let named = self.field.go.and_then(|name| (0..nested).try_fold(name, |name, _| name.strip_prefix("[]")));
        let wanted = named.map_or_else(|| go_type(wanted), str::to_owned);
        format!("json: cannot unmarshal {what} into Go struct field {}.{path} of type {wanted}", self.ty.short_name())
    }
}

fn go_type(ty: &FieldType) -> String {
    match ty {
        FieldType::String => "string".into(),
        FieldType::Bool => "bool".into(),
        FieldType::Int32 => "int32".into(),
        FieldType::Int64 => "int64".into(),
        FieldType::Double => "float64".into(),
        FieldType::Bytes => "[]uint8".into(),
        FieldType::Quantity => "resource.Quantity".into(),
        FieldType::IntOrString => "intstr.IntOrString".into(),
        FieldType::Time => "v1.Time".into(),
        FieldType::MicroTime => "v1.MicroTime".into(),
        FieldType::Any | FieldType::Object => "runtime.RawExtension".into(),
        FieldType::SchemaOrBool => "v1.JSONSchemaPropsOrBool".into(),
        FieldType::SchemaOrArray => "v1.JSONSchemaPropsOrArray".into(),
        FieldType::SchemaOrStrings => "v1.JSONSchemaPropsOrStringArray".into(),
        FieldType::Type(reference) => reference.info().go_name().into(),
        FieldType::List(item) => format!("[]{}", go_type(item)),
        FieldType::Map(value) => format!("map[string]{}", go_type(value)),
    }
}

struct Walk {
    unknown: Vec<UnknownField>,
}

impl Walk {
    fn object(&mut self, ty: &'static TypeInfo, map: &mut Map<String, Value>, outer: Option<&Step<'_>>) -> Result<(), String> {
        let mut failed = None;
        map.retain(|name, value| {
            if failed.is_some() {
                return true;
            }
            let step = Step { outer, place: Place::Field(name, ty) };
            let Some(field) = ty.field(name) else {
                self.report(&step);
                return false;
            };
            if value.is_null() {
                return false;
            }
            if let Err(error) = self.value(&field.ty, value, Seat { ty, field, step: &step }, 0) {
                failed = Some(error);
            }
            field.pointer || field.always || !is_zero(&field.ty, value)
        });
        match failed {
            Some(error) => Err(error),
            None => {
                fill(ty, map);
                Ok(())
            }
        }
    }

    fn report(&mut self, step: &Step<'_>) {
        if self.unknown.len() < MOST_UNKNOWN {
            let mut path = String::new();
            step.strict_path(&mut path);
            self.unknown.push(UnknownField { path });
        }
    }

    /// `nested` counts the lists and maps between the seat's field and this value.
    fn value(&mut self, ty: &FieldType, value: &mut Value, seat: Seat<'_>, nested: usize) -> Result<(), String> {
        match (ty, &mut *value) {
            (FieldType::String, Value::String(_)) | (FieldType::Bool, Value::Bool(_)) | (FieldType::Double, Value::Number(_)) | (FieldType::Any | FieldType::Object, _) => Ok(()),
            (FieldType::Int32, Value::Number(number)) => integer(number, i64::from(i32::MIN), i64::from(i32::MAX)).map_err(|what| seat.refuse(&what, ty, nested)),
            (FieldType::Int64, Value::Number(number)) => integer(number, i64::MIN, i64::MAX).map_err(|what| seat.refuse(&what, ty, nested)),
            (FieldType::Type(reference), Value::Object(map)) => self.object(reference.info(), map, Some(seat.step)),
            (FieldType::List(item), Value::Array(items)) => {
                for (index, element) in items.iter_mut().enumerate() {
                    let step = Step { outer: Some(seat.step), place: Place::Index(index) };
                    self.element(item, element, Seat { step: &step, ..seat }, nested)?;
                }
                Ok(())
            }
            (FieldType::Map(item), Value::Object(map)) => {
                for (key, element) in map.iter_mut() {
                    let step = Step { outer: Some(seat.step), place: Place::Key(key) };
                    self.element(item, element, Seat { step: &step, ..seat }, nested)?;
                }
                Ok(())
            }
            (FieldType::Bytes, Value::String(text)) => base64(text),
            (FieldType::Quantity, _) => quantity(value),
            (FieldType::Time | FieldType::MicroTime, Value::String(text)) => {
                if let Some(canonical) = time::canonical(text, matches!(ty, FieldType::MicroTime))? {
                    *text = canonical;
                }
                Ok(())
            }
            (FieldType::IntOrString, Value::String(_)) => Ok(()),
            (FieldType::IntOrString, Value::Number(number)) => integer(number, i64::from(i32::MIN), i64::from(i32::MAX)).map_err(|what| seat.refuse(&what, &FieldType::Int32, nested)),
            (FieldType::IntOrString, other) => Err(seat.refuse(json_word(other), &FieldType::Int32, nested)),
            (FieldType::Time | FieldType::MicroTime, other) => Err(seat.refuse(json_word(other), &FieldType::String, nested)),
            (FieldType::SchemaOrBool, Value::Bool(_)) => Ok(()),
            (FieldType::SchemaOrBool | FieldType::SchemaOrArray | FieldType::SchemaOrStrings, Value::Object(map)) => self.object(seat.ty, map, Some(seat.step)),
            (FieldType::SchemaOrArray, Value::Array(items)) => {
                for (index, element) in items.iter_mut().enumerate() {
                    let step = Step { outer: Some(seat.step), place: Place::Index(index) };
                    let Value::Object(map) = element else { return Err(bare(json_word(element), "v1.JSONSchemaProps")) };
                    self.object(seat.ty, map, Some(&step))?;
                }
                Ok(())
            }
            (FieldType::SchemaOrStrings, Value::Array(items)) if items.iter().all(Value::is_string) => Ok(()),
            (_, other) => Err(seat.refuse(json_word(other), ty, nested)),
        }
    }

    fn element(&mut self, ty: &FieldType, value: &mut Value, seat: Seat<'_>, nested: usize) -> Result<(), String> {
        if value.is_null() {
            *value = zero(ty);
            // A zero time is written as null.
            if value.is_null() {
                return Ok(());
            }
        }
        self.value(ty, value, seat, nested + 1)
    }
}

/// Adds what Go would encode although nobody wrote it.
fn fill(ty: &'static TypeInfo, map: &mut Map<String, Value>) {
    for at in &ty.fill {
        let field = &ty.fields[usize::from(*at)];
        if !map.contains_key(field.name) {
            map.insert(field.name.to_owned(), zero(&field.ty));
        }
    }
}

/// See [`TypeInfo::empty`].
pub(super) fn empty(ty: &TypeInfo) -> Value {
    let fields = ty.fields.iter().filter_map(|field| {
        let value = match &field.ty {
            FieldType::Type(reference) if !field.pointer => empty(reference.info()),
            FieldType::List(_) | FieldType::Map(_) if field.always => Value::Null,
            _ if field.always => zero(&field.ty),
            _ => return None,
        };
        Some((field.name.to_owned(), value))
    });
    Value::Object(fields.collect())
}

/// A value of Go's zero, as it is encoded.
fn zero(ty: &FieldType) -> Value {
    match ty {
        FieldType::String | FieldType::Bytes => Value::String(String::new()),
        FieldType::Bool => Value::Bool(false),
        FieldType::Int32 | FieldType::Int64 | FieldType::Double | FieldType::IntOrString => Value::from(0),
        FieldType::Quantity => Value::from("0"),
        FieldType::List(_) => Value::Array(Vec::new()),
        FieldType::Map(_) => Value::Object(Map::new()),
        FieldType::Type(reference) => {
            let mut map = Map::new();
            fill(reference.info(), &mut map);
            Value::Object(map)
        }
        _ => Value::Null,
    }
}

/// What `omitempty` leaves out.
fn is_zero(ty: &FieldType, value: &Value) -> bool {
    match (ty, value) {
        (FieldType::String | FieldType::Bytes, Value::String(text)) => text.is_empty(),
        (FieldType::Bool, Value::Bool(set)) => !set,
        (FieldType::Int32 | FieldType::Int64 | FieldType::Double, Value::Number(number)) => number.as_f64() == Some(0.0),
        (FieldType::List(_), Value::Array(items)) => items.is_empty(),
        (FieldType::Map(_), Value::Object(map)) => map.is_empty(),
        _ => false,
    }
}

fn bare(what: &str, wanted: &str) -> String {
    format!("json: cannot unmarshal {what} into Go value of type {wanted}")
}

/// Err is how Go names the number it cannot take.
fn integer(number: &Number, least: i64, most: i64) -> Result<(), String> {
    match number.as_i64() {
        Some(value) if (least..=most).contains(&value) => Ok(()),
        _ => Err(format!("number {number}")),
    }
}

fn quantity(value: &mut Value) -> Result<(), String> {
    let quantity = Quantity::from_json(value).map_err(|error| error.to_string())?;
    let canonical = quantity.to_string();
    if value.as_str() != Some(&canonical) {
        *value = Value::String(canonical);
    }
    Ok(())
}

/// Standard base64 with padding; line breaks are passed over, as Go does.
fn base64(text: &mut String) -> Result<(), String> {
    if text.contains(['\n', '\r']) {
        text.retain(|c| !matches!(c, '\n' | '\r'));
    }
    let bytes = text.as_bytes();
    let padding = bytes.iter().rev().take(2).take_while(|byte| **byte == b'=').count();
    let body = &bytes[..bytes.len() - padding];
    let wrong = body.iter().position(|byte| !(byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/')));
    match wrong {
        Some(at) => Err(format!("illegal base64 data at input byte {at}")),
        None if !bytes.len().is_multiple_of(4) => Err(format!("illegal base64 data at input byte {}", bytes.len() - bytes.len() % 4)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
