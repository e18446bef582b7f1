//! Reviews: kinds that are answered, not stored. TokenReview, the access reviews, SelfSubjectReview.
//!
//! https://kubernetes.io/docs/reference/access-authn-authz/

use std::collections::BTreeMap;
use std::sync::Arc;

use ::api::selector::{FieldSelector, FieldTerm};
use ::api::{Object, Resource, Status};
use bytes::Bytes;
use serde_json::{Value, json};

use crate::api::{Api, Context};
use crate::authentication::{User, service_accounts, user_info};
use crate::authorization::Attributes;
use crate::registry::text;

pub(super) fn answer(value: &Value) -> Arc<Object> {
    let mut out = Vec::new();
    crate::encode::write(&mut out, value);
    Arc::new(Object::new(Bytes::from(out), 0))
}

fn extra(spec: &Value) -> BTreeMap<String, Vec<String>> {
    let texts = |value: &Value| value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
    spec.get("extra").and_then(Value::as_object).into_iter().flatten().map(|(key, values)| (key.to_lowercase(), texts(values))).collect()
}

/// The terms of a `fieldSelector` that authorizers understand, raw or taken apart.
fn requirements(resource: &Value) -> Vec<FieldTerm> {
    let selector = resource.get("fieldSelector");
    if let Some(raw) = selector.and_then(|selector| selector.get("rawSelector")).and_then(Value::as_str) {
        return FieldSelector::parse(raw).map(|parsed| parsed.terms().to_vec()).unwrap_or_default();
    }
    let listed = selector.and_then(|selector| selector.get("requirements")).and_then(Value::as_array).into_iter().flatten();
    listed
        .filter_map(|requirement| {
            let negated = match text(requirement, "/operator") {
                "In" => false,
                "NotIn" => true,
                _ => return None,
            };
            let [value] = requirement.get("values")?.as_array()?.as_slice() else { return None };
            Some(FieldTerm { field: text(requirement, "/key").to_owned(), value: value.as_str()?.to_owned(), negated })
        })
        .collect()
}

/// Whether POSTs of this row are answered here.
pub fn is_review(row: &Resource) -> bool {
    matches!(&*row.group, "authentication.k8s.io" | "authorization.k8s.io")
}

impl Api {
    pub async fn review(&self, row: &Resource, namespace: Option<&str>, mut value: Value, cx: &Context) -> Result<Arc<Object>, Status> {
        let now = self.now();
        crate::registry::metadata(&mut value).entry("creationTimestamp").or_insert(Value::Null);
        let status = match &*row.plural {
            "selfsubjectreviews" => {
                crate::registry::metadata(&mut value).insert("creationTimestamp".into(), now.into());
                json!({"userInfo": user_info(&cx.user)})
            }
            "tokenreviews" => self.token_review(&value).await?,
            "selfsubjectaccessreviews" => {
                self.well_formed(row, &value, false)?;
                self.access(&cx.user.clone(), value.get("spec").unwrap_or(&Value::Null)).await?
            }
            "subjectaccessreviews" | "localsubjectaccessreviews" => {
                let spec = value.get("spec").cloned().unwrap_or_default();
                if row.plural == "localsubjectaccessreviews" && text(&spec, "/resourceAttributes/namespace") != namespace.unwrap_or("") {
                    return Err(Status::bad_request(format!("spec.resourceAttributes.namespace must match namespace: {}", namespace.unwrap_or(""))));
                }
                let groups = spec.get("groups").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
                let anybody = text(&spec, "/user").is_empty() && spec.get("groups").and_then(Value::as_array).is_none_or(Vec::is_empty);
                self.well_formed(row, &value, anybody)?;
                let user = User { name: text(&spec, "/user").to_owned(), uid: text(&spec, "/uid").to_owned(), groups, extra: extra(&spec) };
                self.access(&user, &spec).await?
            }
            "selfsubjectrulesreviews" => {
                let namespace = text(&value, "/spec/namespace");
                if namespace.is_empty() {
                    return Err(Status::bad_request("no namespace on request"));
                }
                let (resources, paths, incomplete) = self.authorizer.rules(&*self.store, &cx.user, namespace);
                let mut status = json!({"resourceRules": resources, "nonResourceRules": paths, "incomplete": incomplete.is_some()});
                if let Some(why) = incomplete {
                    status["evaluationError"] = why.into();
                }
                status
            }
            _ => return Err(Status::no_route()),
        };
        value["status"] = status;
        Ok(answer(&value))
    }

    async fn token_review(&self, value: &Value) -> Result<Value, Status> {
        let token = text(value, "/spec/token");
        if token.is_empty() {
            return Err(Status::bad_request("token is required for TokenReview in authentication"));
        }
        let mut audiences: Vec<String> = value.pointer("/spec/audiences").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
        if audiences.is_empty() {
            audiences = service_accounts::api_audiences(&self.config);
        }
        Ok(match self.authenticate_token(token, &audiences).await {
            Ok(Some(found)) if found.audiences.iter().any(|audience| audiences.contains(audience)) => json!({"authenticated": true, "user": user_info(&found.user), "audiences": found.audiences}),
            Ok(Some(found)) => json!({"user": {}, "error": format!("token audiences {:?} is invalid for the target audiences {audiences:?}", found.audiences)}),
            Ok(None) => json!({"user": {}, "error": "invalid bearer token"}),
            Err(why) => json!({"user": {}, "error": format!("[invalid bearer token, {why}]")}),
        })
    }

    /// What upstream's validation says of access reviews, whose kind it does not know by then. `nobody`: it should name someone and does not.
    fn well_formed(&self, row: &Resource, value: &Value, nobody: bool) -> Result<(), Status> {
        let cause = |field: &str, message: String| ::api::Cause { reason: "FieldValueInvalid".into(), message: format!("Invalid value: {message}"), field: field.into() };
        let given = |name: &str| value.pointer(&format!("/spec/{name}")).is_some_and(|part| !part.is_null());
        let mut causes = Vec::new();
        if given("resourceAttributes") == given("nonResourceAttributes") {
            let field = if given("resourceAttributes") { "spec.nonResourceAttributes" } else { "spec.resourceAttributes" };
            let why = if given("resourceAttributes") { "cannot be specified in combination with resourceAttributes" } else { "exactly one of nonResourceAttributes or resourceAttributes must be specified" };
            let shown = if given("resourceAttributes") { value.pointer("/spec/nonResourceAttributes").cloned().unwrap_or_default().to_string() } else { "null".to_owned() };
            causes.push(cause(field, format!("{shown}: {why}")));
        }
        if nobody {
            causes.push(cause("spec.user", "\"\": at least one of user or group must be specified".into()));
        }
        // A local review's own namespace is where it is asked.
        let meta: serde_json::Map<String, Value> =
            value.get("metadata").and_then(Value::as_object).into_iter().flatten().filter(|(name, value)| !value.is_null() && !matches!(name.as_str(), "managedFields" | "creationTimestamp" | "namespace")).map(|(name, value)| (name.clone(), value.clone())).collect();
        if !meta.is_empty() {
            causes.push(cause("metadata", format!("{}: must be empty", Value::Object(meta))));
        }
        if causes.is_empty() { Ok(()) } else { Err(Status::invalid(&row.group, "", "", causes)) }
    }

    async fn access(&self, user: &User, spec: &Value) -> Result<Value, Status> {
        let (resource, path) = (spec.get("resourceAttributes"), spec.get("nonResourceAttributes"));
        let asked = match (resource, path) {
            (Some(resource), _) => Attributes {
                verb: text(resource, "/verb").into(),
                group: text(resource, "/group").into(),
                resource: text(resource, "/resource").into(),
                subresource: text(resource, "/subresource").into(),
                namespace: text(resource, "/namespace").into(),
                name: text(resource, "/name").into(),
                version: text(resource, "/version").into(),
                fields: requirements(resource),
                path: String::new(),
            },
            (None, path) => {
                let path = path.unwrap_or(&Value::Null);
                Attributes { verb: text(path, "/verb").into(), path: text(path, "/path").into(), ..Attributes::default() }
            }
        };
        let decision = self.authorizer.resolve(&*self.store, user, &asked).await;
        let mut status = json!({"allowed": decision.allowed});
        if decision.denied {
            status["denied"] = true.into();
        }
        if !decision.reason.is_empty() {
            status["reason"] = decision.reason.into();
        }
        Ok(status)
    }
}
