//! Values of a schema: mostly right, so that what is wrong with them gets deep.

use serde_json::{Map, Value, json};

use crate::json;
use crate::random::Random;

/// Deeper levels have only what is required.
const DEEP: usize = 7;
const DEEPEST: usize = 12;

pub struct Schemas<'a>(pub &'a Map<String, Value>);

/// Names as people choose them, and some as they should not.
pub const NAMES: &[&str] = &["a", "b", "web", "x-1", "default", "fuzz", "kubernetes", "node1"];

impl Schemas<'_> {
    fn resolved<'a>(&'a self, schema: &'a Value) -> &'a Value {
        let reference = schema["$ref"].as_str().or_else(|| schema.pointer("/allOf/0/$ref").and_then(Value::as_str));
        reference.and_then(|reference| self.0.get(reference.rsplit('/').next()?)).unwrap_or(schema)
    }

    pub fn value(&self, schema: &Value, random: &mut Random) -> Value {
        self.at(schema, "", 0, random)
    }

    fn at(&self, schema: &Value, name: &str, depth: usize, random: &mut Random) -> Value {
        if random.once_in(150) {
            return json::any(random);
        }
        let schema = self.resolved(schema);
        if let Some(value) = schema["enum"].as_array().and_then(|values| random.pick(values)) {
            return value.clone();
        }
        match schema["type"].as_str() {
            Some("object") => self.object(schema, depth, random),
            Some("array") => {
                let most = if depth > DEEP { 1 } else { 3 };
                Value::Array((0..random.below(most)).map(|_| self.at(&schema["items"], name, depth + 1, random)).collect())
            }
            Some("string") => Value::String(text(schema["format"].as_str().unwrap_or_default(), name, random)),
            Some("integer") => json!(*random.pick(&[0i64, 1, 2, 3, 80, 443, 30_000, 65_535, 65_536, -1, i64::from(i32::MAX), i64::MAX]).unwrap_or(&0)),
            Some("number") => json!(*random.pick(&[0.0, 1.0, 0.5, -1.0, 1e9]).unwrap_or(&0.0)),
            Some("boolean") => Value::Bool(random.once_in(2)),
            // int-or-string, quantities, raw extensions.
            _ if schema["oneOf"].is_array() || schema["format"] == "int-or-string" => {
                if random.once_in(2) {
                    json!(random.below(100))
                } else {
                    json!(random.word(&["25%", "http", "100m", "1Gi", "0", "101%", "", "-1", "1.5"]))
                }
            }
            _ => json::any(random),
        }
    }

    fn object(&self, schema: &Value, depth: usize, random: &mut Random) -> Value {
        let mut map = Map::new();
        let required: Vec<&str> = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let properties = schema["properties"].as_object();
        let many = properties.map_or(0, Map::len);
        for (name, property) in properties.into_iter().flatten() {
            let must = required.contains(&name.as_str());
            // Large types get a few fields each time, others in turn.
            let odds = if depth == 0 { 2 } else { (many / 3).max(2) + depth };
            if depth < DEEPEST && ((must && !random.once_in(40)) || (depth < DEEP && random.once_in(odds)) || matches!(name.as_str(), "spec" | "metadata" | "rules" | "template")) {
                map.insert(name.clone(), self.at(property, name, depth + 1, random));
            }
        }
        if let Some(additional) = schema.get("additionalProperties").filter(|additional| additional.is_object()) {
            for _ in 0..random.below(3) {
                let name = random.word(&["a", "b/c", "app", "k8s.io/x", "cpu", "memory", "example.com/gpu", "x_y", "-", ""]);
                map.insert(name.to_owned(), self.at(additional, name, depth + 1, random));
            }
        }
        Value::Object(map)
    }
}

fn text(format: &str, name: &str, random: &mut Random) -> String {
    let words: &[&str] = match (format, name) {
        ("date-time", _) => &["2026-01-01T00:00:00Z", "1970-01-01T00:00:00.000000Z", "9999-12-31T23:59:59Z"],
        ("byte", _) => &["", "AAAA", "LS0tLS1CRUdJTg==", "e30="],
        (_, "name" | "generateName" | "serviceAccountName" | "nodeName" | "claimName") => NAMES,
        (_, "namespace") => &["fuzz", "default", "", "other"],
        (_, "image") => &["alpine", "a:b", "@", "localhost:5000/x@sha256:00"],
        (_, "operator") => &["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt", "Equal"],
        (_, "protocol") => &["TCP", "UDP", "SCTP", "X"],
        (_, "expression" | "rule" | "messageExpression" | "valueExpression") => &["true", "object.metadata.name == 'a'", "self.n > 1", "'a' + 'b'", "variables.x", "(", "request.userInfo.username", "[1].all(x, x > 0)"],
        (_, "path" | "mountPath" | "subPath") => &["/", "/a/b", "..", "a", "/etc/../x", ""],
        (_, "ip" | "clusterIP" | "podIP" | "hostIP" | "cidr" | "podCIDR") => &["10.96.0.77", "None", "", "::1", "10.0.0.0/8", "300.1.1.1"],
        (_, "type") => &["ClusterIP", "NodePort", "LoadBalancer", "ExternalName", "RollingUpdate", "Recreate", "Opaque", "kubernetes.io/tls", "Resource", "Pods", "Utilization", "RuntimeDefault"],
        (_, "kind") => &["Pod", "Deployment", "Node", "ServiceAccount", "User", "Group", "Role", "ClusterRole", "ConfigMap"],
        (_, "apiGroup" | "apiVersion") => &["v1", "apps/v1", "rbac.authorization.k8s.io", "", "a/b/c"],
        (_, "schedule") => &["* * * * *", "@hourly", "61 * * * *", "*/5 1-3 * jan mon"],
        (_, "resourceVersion" | "uid") => &["", "1", "0", "x", "99999999999"],
        (_, "conditionType" | "status") => &["True", "False", "Unknown", "Ready"],
        _ => &["", "a", "Always", "A-b.c", "x y", "100m", "true", "0", "é", "fuzz", "*", "a/b"],
    };
    if random.once_in(60) {
        return match json::any(random) {
            Value::String(text) => text,
            other => other.to_string(),
        };
    }
    random.word(words).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_fit_their_schema_mostly() {
        let schemas: Value = json!({"P": {"type": "object", "required": ["a"], "properties": {"a": {"type": "string", "enum": ["x"]}, "p": {"allOf": [{"$ref": "#/components/schemas/P"}]}}}});
        let schemas = schemas.as_object().expect("an object");
        let mut random = Random::new(1);
        let values: Vec<Value> = (0..200).map(|_| Schemas(schemas).value(&json!({"$ref": "#/components/schemas/P"}), &mut random)).collect();
        assert!(values.iter().filter(|value| value["a"] == "x").count() > 150);
        assert!(values.iter().any(|value| value["p"]["a"] == "x"));
    }
}
