//! What admission is asked about: one operation on one resource, by one user.
//!
//! Mirrors k8s.io/apiserver/pkg/admission `Attributes`, and the `request` that webhooks and expressions are shown.

use ::api::Resource;
use serde_json::{Value, json};

use crate::api::{Context, FieldValidation};
use crate::authentication::user_info;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    Create,
    Update,
    Delete,
    Connect,
}

impl Operation {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "CREATE",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
        }
    }
}

pub struct Asked<'a> {
    pub operation: Operation,
    pub row: &'a Resource,
    /// Empty for the resource itself.
    pub subresource: &'a str,
    /// Of a namespace itself: its own name.
    pub namespace: String,
    /// Empty while it is yet to be generated.
    pub name: String,
    /// `CreateOptions`, `UpdateOptions`, `DeleteOptions`; null for CONNECT.
    pub options: Value,
    pub cx: &'a Context,
}

pub fn is_namespaces(row: &Resource) -> bool {
    row.group.is_empty() && row.plural == "namespaces"
}

impl<'a> Asked<'a> {
    pub fn new(operation: Operation, row: &'a Resource, subresource: &'a str, namespace: Option<&str>, name: &str, cx: &'a Context) -> Self {
        let namespace = match namespace {
            Some(namespace) if row.namespaced() => namespace,
            _ if is_namespaces(row) => name,
            _ => "",
        };
        let options = match operation {
            Operation::Create => options("CreateOptions", cx),
            Operation::Update => options("UpdateOptions", cx),
            Operation::Delete => options("DeleteOptions", cx),
            Operation::Connect => Value::Null,
        };
        Self { operation, row, subresource, namespace: namespace.to_owned(), name: name.to_owned(), options, cx }
    }

    /// Group, version and kind of the object in a row's form: the row's, or its subresource's own.
    pub fn kind(&self, row: &Resource) -> (String, String, String) {
        match row.subresource(self.subresource).filter(|sub| !sub.kind.is_empty() && sub.kind != row.kind) {
            Some(sub) if sub.version.is_empty() => (row.group.to_string(), row.version.to_string(), sub.kind.to_string()),
            Some(sub) => (sub.group.to_string(), sub.version.to_string(), sub.kind.to_string()),
            None => (row.group.to_string(), row.version.to_string(), row.kind.to_string()),
        }
    }

    /// Whether the object is of a kind of the subresource's own (a Scale, an Eviction), the same in all versions of the row.
    pub fn is_foreign(&self) -> bool {
        self.row.subresource(self.subresource).is_some_and(|sub| !sub.kind.is_empty() && sub.kind != self.row.kind)
    }

    /// `AdmissionRequest` without uid and objects, as a rule for `target` has matched it.
    pub fn request(&self, target: &Resource) -> Value {
        let kind = |row: &Resource| {
            let (group, version, kind) = self.kind(row);
            json!({"group": group, "version": version, "kind": kind})
        };
        let resource = |row: &Resource| json!({"group": row.group, "version": row.version, "resource": row.plural});
        let mut request = json!({
            "kind": kind(target),
            "resource": resource(target),
            "requestKind": kind(self.row),
            "requestResource": resource(self.row),
            "operation": self.operation.as_str(),
            "userInfo": user_info(&self.cx.user),
            "dryRun": self.cx.dry_run,
            "options": self.options,
        });
        for (name, value) in [("subResource", self.subresource), ("requestSubResource", self.subresource), ("name", &*self.name), ("namespace", &*self.namespace)] {
            if !value.is_empty() {
                request[name] = value.into();
            }
        }
        request
    }
}

fn options(kind: &str, cx: &Context) -> Value {
    let mut options = json!({"kind": kind, "apiVersion": "meta.k8s.io/v1"});
    if cx.dry_run {
        options["dryRun"] = json!(["All"]);
    }
    if kind == "DeleteOptions" {
        return options;
    }
    if !cx.field_manager.is_empty() {
        options["fieldManager"] = cx.field_manager.as_str().into();
    }
    match cx.field_validation {
        FieldValidation::Strict => options["fieldValidation"] = "Strict".into(),
        FieldValidation::Ignore => options["fieldValidation"] = "Ignore".into(),
        FieldValidation::Warn => {}
    }
    options
}

/// DeleteOptions as they were given.
pub fn delete_options(given: &client::DeleteOptions, cx: &Context) -> Value {
    let mut shown = options("DeleteOptions", cx);
    if let Some(seconds) = given.grace_period_seconds {
        shown["gracePeriodSeconds"] = seconds.into();
    }
    if let Some(propagation) = given.propagation {
        shown["propagationPolicy"] = format!("{propagation:?}").into();
    }
    for (name, value) in [("uid", &given.preconditions.uid), ("resourceVersion", &given.preconditions.resource_version)] {
        if let Some(value) = value {
            shown["preconditions"][name] = value.as_str().into();
        }
    }
    shown
}
