//! What can be asked, as the server's OpenAPI v3 says it.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use client::HttpClient;
use http::Method;
use serde_json::{Map, Value};

pub struct Operation {
    pub method: Method,
    /// `/api/v1/namespaces/{namespace}/pods/{name}`
    pub path: String,
    /// Names and types of query parameters.
    pub query: Vec<(String, String)>,
    /// The schema of the body, by reference.
    pub body: Option<Value>,
    pub group: String,
    pub version: String,
    pub kind: String,
    /// Of `Operations::schemas`.
    pub document: usize,
}

#[derive(Default)]
pub struct Operations {
    pub all: Vec<Operation>,
    /// `components.schemas` of each document.
    pub schemas: Vec<Map<String, Value>>,
}

async fn get(client: &HttpClient, path: &str) -> Result<Value> {
    let response = client.request(Method::GET, path, &[("accept", "application/json")], "").await?;
    let code = response.status;
    let body = response.bytes().await?;
    anyhow::ensure!(code == 200, "{path}: {code}");
    serde_json::from_slice(&body).with_context(|| path.to_owned())
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

impl Operations {
    pub async fn load(client: &HttpClient) -> Result<Self> {
        let mut operations = Self::default();
        let index = get(client, "/openapi/v3").await?;
        for (_, entry) in index["paths"].as_object().into_iter().flatten() {
            let document = get(client, text(entry, "/serverRelativeURL")).await?;
            operations.read(&document);
        }
        Ok(operations)
    }

    fn read(&mut self, document: &Value) {
        let number = self.schemas.len();
        self.schemas.push(document.pointer("/components/schemas").and_then(Value::as_object).cloned().unwrap_or_default());
        for (path, item) in document["paths"].as_object().into_iter().flatten() {
            let shared = item["parameters"].as_array();
            for (verb, operation) in item.as_object().into_iter().flatten() {
                let Ok(method) = Method::from_bytes(verb.to_uppercase().as_bytes()) else { continue };
                if !matches!(method, Method::GET | Method::PUT | Method::POST | Method::DELETE | Method::PATCH | Method::HEAD | Method::OPTIONS) {
                    continue;
                }
                let own = operation["parameters"].as_array();
                let query: BTreeMap<String, String> = shared
                    .into_iter()
                    .chain(own)
                    .flatten()
                    .filter(|parameter| parameter["in"] == "query")
                    .map(|parameter| (text(parameter, "/name").to_owned(), text(parameter, "/schema/type").to_owned()))
                    .collect();
                let body = operation.pointer("/requestBody/content").and_then(Value::as_object).and_then(|content| content.values().next()).map(|content| content["schema"].clone());
                let of_kind = &operation["x-kubernetes-group-version-kind"];
                self.all.push(Operation {
                    method,
                    path: path.clone(),
                    query: query.into_iter().collect(),
                    body,
                    group: text(of_kind, "/group").to_owned(),
                    version: text(of_kind, "/version").to_owned(),
                    kind: text(of_kind, "/kind").to_owned(),
                    document: number,
                });
            }
        }
    }

    pub fn len(&self) -> usize {
        self.all.len()
    }

    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// The body that creates or replaces an object of that kind, for patches.
    pub fn schema_of(&self, operation: &Operation) -> Option<&Value> {
        let same = |other: &&Operation| other.kind == operation.kind && other.group == operation.group && other.version == operation.version && matches!(other.method, Method::PUT | Method::POST);
        self.all.iter().filter(same).find_map(|other| other.body.as_ref())
    }
}
