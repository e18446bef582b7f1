//! POST serviceaccounts/token: a token for an account, bound to a pod, a node or a secret if asked.
//!
//! Mirrors pkg/registry/core/serviceaccount/storage/token.go and pkg/serviceaccount/claims.go.

use std::sync::Arc;

use ::api::{Cause, Object, Status};
use serde_json::{Value, json};

use super::reviews::answer;
use crate::api::{Api, Context};
use crate::authentication::{EXTENDED_TOKEN_SECONDS, service_accounts};
use crate::registry::{metadata, text};

/// Upstream's limits of a requested token's life.
const MIN_TOKEN_SECONDS: i64 = 600;
const MAX_TOKEN_SECONDS: i64 = 1 << 32;
const DEFAULT_TOKEN_SECONDS: i64 = 3600;
/// What admission asks for pods that did not ask themselves: such tokens live on for a year, for clients that do not read them again.
const WARN_ONLY_SECONDS: i64 = 3607;

fn invalid(name: &str, field: &str, message: String) -> Status {
    Status::invalid("authentication.k8s.io", "TokenRequest", name, vec![Cause { reason: "FieldValueInvalid".into(), message: format!("Invalid value: {message}"), field: field.into() }])
}

impl Api {
    pub fn request_token(&self, namespace: &str, name: &str, mut request: Value, cx: &Context) -> Result<Arc<Object>, Status> {
        for (field, known, word) in [("name", name, "name"), ("namespace", namespace, "namespace")] {
            let given = text(&request, &format!("/metadata/{field}"));
            if !given.is_empty() && given != known {
                return Err(invalid(name, &format!("metadata.{field}"), format!("{given:?}: must match the service account {word} if specified")));
            }
        }
        let account = self.store.get(&format!("/registry/serviceaccounts/{namespace}/{name}")).ok_or_else(|| Status::not_found("", "serviceaccounts", name))?;
        let given = text(&request, "/metadata/uid");
        if !given.is_empty() && given != account.meta().uid {
            return Err(Status::conflict("authentication.k8s.io", "TokenRequest", name, &format!("the UID in the token request ({given}) does not match the UID of the service account ({})", account.meta().uid)));
        }
        let mut seconds = request.pointer("/spec/expirationSeconds").and_then(Value::as_i64).unwrap_or(DEFAULT_TOKEN_SECONDS);
        if !(MIN_TOKEN_SECONDS..=MAX_TOKEN_SECONDS).contains(&seconds) {
            let why = if seconds < MIN_TOKEN_SECONDS { "may not specify a duration less than 10 minutes" } else { "may not specify a duration larger than 2^32 seconds" };
            return Err(invalid("", "spec.expirationSeconds", format!("{seconds}: {why}")));
        }
        let ours = service_accounts::api_audiences(&self.config);
        let audiences = match request.pointer("/spec/audiences").and_then(Value::as_array) {
            Some(list) if !list.is_empty() => list.clone(),
            _ => ours.iter().map(|audience| audience.as_str().into()).collect(),
        };
        let mut bound = json!({"namespace": namespace, "serviceaccount": {"name": name, "uid": account.meta().uid}});
        if let Some(reference) = request.pointer("/spec/boundObjectRef").filter(|reference| !reference.is_null()) {
            self.bind_token(&mut bound, namespace, name, reference)?;
        }
        let config = &self.config.authentication;
        if let Some(longest) = config.max_token_seconds.filter(|longest| *longest > 0 && seconds > *longest) {
            cx.warn(format!("requested expiration of {seconds} seconds shortened to {longest} seconds"));
            seconds = longest;
        }
        let now = self.clock.now().as_second();
        let mut life = seconds;
        let for_us = audiences.iter().all(|audience| ours.iter().any(|known| audience == known.as_str()));
        if config.extend_tokens && seconds == WARN_ONLY_SECONDS && for_us && bound.get("pod").is_some() {
            bound["warnafter"] = (now + seconds).into();
            life = EXTENDED_TOKEN_SECONDS;
        }
        let claims = json!({
            "aud": audiences,
            "exp": now + life,
            "iat": now,
            "iss": self.config.service_account_issuer,
            "jti": self.uid(),
            "kubernetes.io": bound,
            "nbf": now,
            "sub": format!("system:serviceaccount:{namespace}:{name}"),
        });
        let token = self.config.token_key.sign(&claims).map_err(Status::internal)?;
        cx.annotate("authentication.kubernetes.io/issued-credential-id".into(), &format!("JTI={}", text(&claims, "/jti")));
        let expires = jiff::Timestamp::from_second(now + seconds).map_err(Status::internal)?;
        request["spec"]["audiences"] = claims["aud"].clone();
        request["spec"]["expirationSeconds"] = seconds.into();
        if request["spec"].get("boundObjectRef").is_none() {
            request["spec"]["boundObjectRef"] = Value::Null;
        }
        let meta = metadata(&mut request);
        meta.insert("name".into(), name.into());
        meta.insert("namespace".into(), namespace.into());
        meta.insert("uid".into(), account.meta().uid.as_str().into());
        meta.insert("creationTimestamp".into(), self.now().into());
        request["status"] = json!({"token": token, "expirationTimestamp": ::api::world::rfc3339(expires)});
        Ok(answer(&request))
    }

    fn bind_token(&self, bound: &mut Value, namespace: &str, account: &str, reference: &Value) -> Result<(), Status> {
        let (version, kind, name, uid) = (text(reference, "/apiVersion"), text(reference, "/kind"), text(reference, "/name"), text(reference, "/uid"));
        let (field, key, plural) = match kind {
            "Pod" if !version.contains('/') => ("pod", format!("/registry/pods/{namespace}/{name}"), "pods"),
            "Secret" if !version.contains('/') => ("secret", format!("/registry/secrets/{namespace}/{name}"), "secrets"),
            "Node" if !version.contains('/') => ("node", format!("/registry/minions/{name}"), "nodes"),
            other => {
                let (group, version) = version.split_once('/').unwrap_or(("", version));
                return Err(Status::bad_request(format!("cannot bind token to object of type {group}/{version}, Kind={other}")));
            }
        };
        let object = self.store.get(&key).ok_or_else(|| Status::not_found("", plural, name))?;
        let meta = object.meta();
        if kind == "Pod" {
            let pod = object.value().map_err(Status::internal)?;
            if text(&pod, "/spec/serviceAccountName") != account {
                return Err(Status::bad_request(format!("cannot bind token for serviceaccount {account:?} to pod running with different serviceaccount name.")));
            }
            let node = text(&pod, "/spec/nodeName");
            if !node.is_empty() {
                bound["node"] = json!({"name": node});
                if let Some(found) = self.store.get(&format!("/registry/minions/{node}")) {
                    bound["node"]["uid"] = found.meta().uid.as_str().into();
                }
            }
        }
        if !uid.is_empty() && uid != meta.uid {
            return Err(Status::conflict("", kind, name, &format!("the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated")));
        }
        bound[field] = json!({"name": name, "uid": meta.uid});
        Ok(())
    }
}
