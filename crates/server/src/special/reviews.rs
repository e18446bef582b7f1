//! Reviews and requests: kinds that are answered, not stored. TokenReview, the access reviews, SelfSubjectReview, TokenRequest.
//!
//! https://kubernetes.io/docs/reference/access-authn-authz/

use std::collections::BTreeMap;
use std::sync::Arc;

use ::api::{Object, Resource, Status};
use bytes::Bytes;
use serde_json::{Value, json};

use crate::api::{Api, Context};
use crate::authentication::{User, user_info};
use crate::authorization::Attributes;
use crate::registry::text;

/// Upstream's limits of a requested token's life.
const MIN_TOKEN_SECONDS: i64 = 600;
const MAX_TOKEN_SECONDS: i64 = 1 << 32;
const DEFAULT_TOKEN_SECONDS: i64 = 3600;

fn answer(value: &Value) -> Arc<Object> {
    let mut out = Vec::new();
    crate::encode::write(&mut out, value);
    Arc::new(Object::new(Bytes::from(out), 0))
}

/// Whether POSTs of this row are answered here.
pub fn is_review(row: &Resource) -> bool {
    matches!(&*row.group, "authentication.k8s.io" | "authorization.k8s.io")
}

impl Api {
    pub fn review(&self, row: &Resource, namespace: Option<&str>, mut value: Value, cx: &Context) -> Result<Arc<Object>, Status> {
        let now = self.now();
        crate::registry::metadata(&mut value).entry("creationTimestamp").or_insert(Value::Null);
        let status = match &*row.plural {
            "selfsubjectreviews" => {
                crate::registry::metadata(&mut value).insert("creationTimestamp".into(), now.into());
                json!({"userInfo": user_info(&cx.user)})
            }
            "tokenreviews" => self.token_review(&value),
            "selfsubjectaccessreviews" => self.access(&cx.user.clone(), value.get("spec").unwrap_or(&Value::Null), row, &value)?,
            "subjectaccessreviews" | "localsubjectaccessreviews" => {
                let spec = value.get("spec").cloned().unwrap_or_default();
                if row.plural == "localsubjectaccessreviews" && text(&spec, "/resourceAttributes/namespace") != namespace.unwrap_or("") {
                    return Err(Status::bad_request(format!("spec.resourceAttributes.namespace must match namespace: {}", namespace.unwrap_or(""))));
                }
                let groups = spec.get("groups").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
                let user = User { name: text(&spec, "/user").to_owned(), uid: text(&spec, "/uid").to_owned(), groups, extra: BTreeMap::new() };
                self.access(&user, &spec, row, &value)?
            }
            "selfsubjectrulesreviews" => {
                let (resources, paths) = self.authorizer.rules(&*self.store, &cx.user, text(&value, "/spec/namespace"));
                json!({"resourceRules": resources, "nonResourceRules": paths, "incomplete": false})
            }
            _ => return Err(Status::no_route()),
        };
        value["status"] = status;
        Ok(answer(&value))
    }

    fn token_review(&self, value: &Value) -> Value {
        let audiences: Vec<String> = value.pointer("/spec/audiences").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
        match self.token_user(text(value, "/spec/token"), Some(&audiences)) {
            Ok(user) => {
                let audiences = if audiences.is_empty() { vec![self.config.service_account_issuer.clone()] } else { audiences };
                json!({"authenticated": true, "user": user_info(&user), "audiences": audiences})
            }
            Err(why) => json!({"user": {}, "error": format!("[invalid bearer token, {why}]")}),
        }
    }

    fn access(&self, user: &User, spec: &Value, row: &Resource, value: &Value) -> Result<Value, Status> {
        let (resource, path) = (spec.get("resourceAttributes"), spec.get("nonResourceAttributes"));
        let asked = match (resource, path) {
            (Some(resource), None) => Attributes {
                verb: text(resource, "/verb").into(),
                group: text(resource, "/group").into(),
                resource: text(resource, "/resource").into(),
                subresource: text(resource, "/subresource").into(),
                namespace: text(resource, "/namespace").into(),
                name: text(resource, "/name").into(),
                path: String::new(),
            },
            (None, Some(path)) => Attributes { verb: text(path, "/verb").into(), path: text(path, "/path").into(), ..Attributes::default() },
            _ => {
                let cause = ::api::Cause {
                    reason: "FieldValueInvalid".into(),
                    message: "Invalid value: null: exactly one of nonResourceAttributes or resourceAttributes must be specified".into(),
                    field: "spec.resourceAttributes".into(),
                };
                return Err(Status::invalid(&row.group, &row.kind, text(value, "/metadata/name"), vec![cause]));
            }
        };
        let allowed = self.authorizer.allows(&*self.store, user, &asked);
        Ok(if allowed { json!({"allowed": true}) } else { json!({"allowed": false}) })
    }

    /// POST serviceaccounts/token.
    pub fn request_token(&self, namespace: &str, name: &str, mut request: Value) -> Result<Arc<Object>, Status> {
        let account = self.store.get(&format!("/registry/serviceaccounts/{namespace}/{name}")).ok_or_else(|| Status::not_found("", "serviceaccounts", name))?;
        let seconds = request.pointer("/spec/expirationSeconds").and_then(Value::as_i64).unwrap_or(DEFAULT_TOKEN_SECONDS);
        if !(MIN_TOKEN_SECONDS..=MAX_TOKEN_SECONDS).contains(&seconds) {
            let message = if seconds < MIN_TOKEN_SECONDS { "may not specify a duration less than 10 minutes" } else { "may not specify a duration larger than 2^32 seconds" };
            let cause = ::api::Cause { reason: "FieldValueInvalid".into(), message: format!("Invalid value: {seconds}: {message}"), field: "spec.expirationSeconds".into() };
            return Err(Status::invalid("authentication.k8s.io", "TokenRequest", name, vec![cause]));
        }
        let audiences = match request.pointer("/spec/audiences").and_then(Value::as_array) {
            Some(list) if !list.is_empty() => list.clone(),
            _ => vec![self.config.service_account_issuer.as_str().into()],
        };
        let mut bound = json!({"namespace": namespace, "serviceaccount": {"name": name, "uid": account.meta().uid}});
        if let Some(reference) = request.pointer("/spec/boundObjectRef").filter(|reference| !reference.is_null()) {
            self.bind_token(&mut bound, namespace, reference)?;
        }
        let now = self.clock.now().as_second();
        let claims = json!({
            "aud": audiences,
            "exp": now + seconds,
            "iat": now,
            "iss": self.config.service_account_issuer,
            "jti": self.uid(),
            "kubernetes.io": bound,
            "nbf": now,
            "sub": format!("system:serviceaccount:{namespace}:{name}"),
        });
        let token = self.config.token_key.sign(&claims).map_err(Status::internal)?;
        let expires = jiff::Timestamp::from_second(now + seconds).map_err(Status::internal)?;
        request["spec"]["audiences"] = claims["aud"].clone();
        request["spec"]["expirationSeconds"] = seconds.into();
        if request["spec"].get("boundObjectRef").is_none() {
            request["spec"]["boundObjectRef"] = Value::Null;
        }
        let meta = crate::registry::metadata(&mut request);
        meta.insert("name".into(), name.into());
        meta.insert("namespace".into(), namespace.into());
        meta.insert("creationTimestamp".into(), self.now().into());
        request["status"] = json!({"token": token, "expirationTimestamp": ::api::world::rfc3339(expires)});
        Ok(answer(&request))
    }

    fn bind_token(&self, bound: &mut Value, namespace: &str, reference: &Value) -> Result<(), Status> {
        let (kind, name, uid) = (text(reference, "/kind"), text(reference, "/name"), text(reference, "/uid"));
        let (field, key, plural) = match kind {
            "Pod" => ("pod", format!("/registry/pods/{namespace}/{name}"), "pods"),
            "Secret" => ("secret", format!("/registry/secrets/{namespace}/{name}"), "secrets"),
            "Node" => ("node", format!("/registry/minions/{name}"), "nodes"),
            other => return Err(Status::bad_request(format!("cannot bind token for object of type {other}"))),
        };
        let object = self.store.get(&key).ok_or_else(|| Status::not_found("", plural, name))?;
        let meta = object.meta();
        if !uid.is_empty() && uid != meta.uid {
            return Err(Status::conflict("", plural, name, &format!("the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated")));
        }
        bound[field] = json!({"name": name, "uid": meta.uid});
        if kind == "Pod" {
            let pod = object.value().map_err(Status::internal)?;
            let node = text(&pod, "/spec/nodeName");
            if !node.is_empty() {
                let uid = self.store.get(&format!("/registry/minions/{node}")).map(|node| node.meta().uid.clone()).unwrap_or_default();
                bound["node"] = json!({"name": node, "uid": uid});
            }
        }
        Ok(())
    }
}
