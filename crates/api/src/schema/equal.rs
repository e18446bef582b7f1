//! `apiequality.Semantic.DeepEqual` of two values of a type: a list or map without items equals none at all, zero what is not there, but a pointer to
//! nothing is not a pointer to an empty struct.

use serde_json::Value;

use super::{FieldType, TypeInfo};
use crate::quantity::Quantity;
use crate::validation::{is_empty, same};

impl TypeInfo {
    pub fn same(&self, a: Option<&Value>, b: Option<&Value>) -> bool {
        let (Some(x), Some(y)) = (map(a), map(b)) else {
            // One of them has no fields: then the other has none but zeros.
            let Some(some) = map(a).or(map(b)) else { return true };
            return some.iter().all(|(name, value)| self.field_same(name, Some(value), None));
        };
        x.iter().all(|(name, value)| self.field_same(name, Some(value), y.get(name)))
            && y.iter().filter(|(name, _)| !x.contains_key(*name)).all(|(name, value)| self.field_same(name, None, Some(value)))
    }

    fn field_same(&self, name: &str, a: Option<&Value>, b: Option<&Value>) -> bool {
        self.field(name).map_or_else(|| same(a, b), |field| field.ty.same(field.pointer, a, b))
    }
}

fn map(value: Option<&Value>) -> Option<&serde_json::Map<String, Value>> {
    value.and_then(Value::as_object)
}

impl FieldType {
    /// Of two fields, which may both be pointers.
    pub fn same(&self, pointer: bool, a: Option<&Value>, b: Option<&Value>) -> bool {
        let (a, b) = (a.filter(|value| !value.is_null()), b.filter(|value| !value.is_null()));
        if a.is_none() && b.is_none() {
            return true;
        }
        if pointer && (a.is_none() || b.is_none()) {
            return false;
        }
        match self {
            FieldType::Type(reference) => reference.info().same(a, b),
            FieldType::List(_) | FieldType::Map(_) if is_empty(a) || is_empty(b) => is_empty(a) && is_empty(b),
            FieldType::List(item) => match (a, b) {
                (Some(Value::Array(x)), Some(Value::Array(y))) => x.len() == y.len() && x.iter().zip(y).all(|(x, y)| item.same(false, Some(x), Some(y))),
                _ => a == b,
            },
            FieldType::Map(item) => match (map(a), map(b)) {
                (Some(x), Some(y)) => x.len() == y.len() && x.iter().all(|(key, value)| y.get(key).is_some_and(|other| item.same(false, Some(value), Some(other)))),
                _ => a == b,
            },
            FieldType::Quantity => a == b || quantity(a) == quantity(b),
            FieldType::Bool => flag(a) == flag(b),
            FieldType::Int32 | FieldType::Int64 => number(a) == number(b),
            _ => same(a, b),
        }
    }
}

fn quantity(value: Option<&Value>) -> Option<Quantity> {
    value.map_or(Some(Quantity::default()), |value| Quantity::from_json(value).ok())
}

fn flag(value: Option<&Value>) -> bool {
    value.and_then(Value::as_bool).unwrap_or(false)
}

fn number(value: Option<&Value>) -> i64 {
    value.and_then(Value::as_i64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    #[test]
    fn pointers_are_there_or_not() {
        for (ty, a, b, equal) in [
            ("batch.v1.JobSpec", json!({"podFailurePolicy": {}}), json!({}), false),
            ("batch.v1.JobSpec", json!({"managedBy": ""}), json!({}), false),
            ("batch.v1.JobSpec", json!({"template": {"spec": {"containers": []}}}), json!({}), true),
            ("core.v1.PodSpec", json!({"hostNetwork": false, "nodeSelector": {}}), json!({}), true),
            ("core.v1.PodSpec", json!({"hostUsers": false}), json!({}), false),
            ("core.v1.ResourceRequirements", json!({"limits": {"cpu": "1000m"}}), json!({"limits": {"cpu": "1"}}), true),
            ("networking.v1.NetworkPolicyPeer", json!({"podSelector": {}}), json!({}), false),
            ("networking.v1.NetworkPolicyPeer", json!({"podSelector": {"matchLabels": {}}}), json!({"podSelector": {}}), true),
        ] {
            let info = crate::schema::of(&format!("io.k8s.api.{ty}")).unwrap();
            assert_eq!(info.same(Some(&a), Some(&b)), equal, "{a} {b}");
            assert_eq!(info.same(Some(&b), Some(&a)), equal, "{b} {a}");
        }
    }
}
