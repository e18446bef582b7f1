//! Kubernetes' authorizer: builders that end in a question to whoever decides. Who decides is the caller's, through `Authorizer`.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::{Row, mismatch};
use crate::error::EvalError;
use crate::types::Opaque;
use crate::value::{Evaluated, Value};

/// Who answers; upstream's `authorizer.Authorizer`. Must not block for long: it is called in the midst of an evaluation.
pub trait Authorizer: Send + Sync {
    fn authorize(&self, request: &AuthorizationRequest) -> AuthorizationResult;
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuthorizationRequest {
    pub user: String,
    pub groups: Vec<String>,
    pub uid: String,
    pub extra: BTreeMap<String, Vec<String>>,
    pub verb: String,
    /// Of a request for something that is no resource; the fields below are empty then.
    pub path: Option<String>,
    pub api_group: String,
    pub api_version: String,
    pub resource: String,
    pub subresource: String,
    pub namespace: String,
    pub name: String,
    pub field_selector: Option<String>,
    pub label_selector: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuthorizationResult {
    pub allowed: bool,
    pub reason: String,
    pub error: Option<String>,
}

/// A question in the making, or its answer.
pub struct Check {
    authorizer: Arc<dyn Authorizer>,
    state: State,
    request: AuthorizationRequest,
}

#[derive(Debug, Clone)]
enum State {
    Authorizer,
    Path,
    Group,
    Resource,
    Decided(AuthorizationResult),
}

impl fmt::Debug for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Check").field("state", &self.state).field("request", &self.request).finish_non_exhaustive()
    }
}

impl Check {
    pub fn kind(&self) -> Opaque {
        match self.state {
            State::Authorizer => Opaque::Authorizer,
            State::Path => Opaque::PathCheck,
            State::Group => Opaque::GroupCheck,
            State::Resource => Opaque::ResourceCheck,
            State::Decided(_) => Opaque::Decision,
        }
    }

    fn with(&self, state: State, change: impl FnOnce(&mut AuthorizationRequest)) -> Value<'static> {
        let mut request = self.request.clone();
        change(&mut request);
        Value::Authorization(Arc::new(Check { authorizer: self.authorizer.clone(), state, request }))
    }
}

/// Who is asked about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UserInfo {
    pub name: String,
    pub uid: String,
    pub groups: Vec<String>,
    pub extra: BTreeMap<String, Vec<String>>,
}

/// The resource that `authorizer.requestResource` begins with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResourceAttributes {
    pub group: String,
    pub resource: String,
    pub subresource: String,
    pub namespace: String,
    pub name: String,
}

impl Value<'_> {
    /// The variable `authorizer`.
    pub fn authorizer(authorizer: Arc<dyn Authorizer>, user: UserInfo) -> Value<'static> {
        let UserInfo { name, uid, groups, extra } = user;
        let request = AuthorizationRequest { user: name, uid, groups, extra, ..Default::default() };
        Value::Authorization(Arc::new(Check { authorizer, state: State::Authorizer, request }))
    }

    /// The variable `authorizer.requestResource`.
    pub fn resource_check(authorizer: Arc<dyn Authorizer>, user: UserInfo, attributes: ResourceAttributes) -> Value<'static> {
        let Value::Authorization(check) = Value::authorizer(authorizer, user) else { return Value::Null };
        check.with(State::Resource, |request| {
            request.api_version = ANY_VERSION.to_owned();
            request.api_group = attributes.group;
            request.resource = attributes.resource;
            request.subresource = attributes.subresource;
            request.namespace = attributes.namespace;
            request.name = attributes.name;
        })
    }
}

const ANY_VERSION: &str = "*";

pub const TABLE: &[Row] = &[
    ("path", "authorizer_path", "authorizer.(string) -> path", |args| {
        build(args, |check, path| {
            if path.trim().is_empty() {
                return Err(EvalError::failed("path must not be empty"));
            }
            Ok(check.with(State::Path, |request| request.path = Some(path.to_owned())))
        })
    }),
    ("group", "authorizer_group", "authorizer.(string) -> group", |args| {
        build(args, |check, group| Ok(check.with(State::Group, |request| request.api_group = group.to_owned())))
    }),
    ("serviceAccount", "authorizer_serviceaccount", "authorizer.(string, string) -> authorizer", service_account),
    ("resource", "groupcheck_resource", "group.(string) -> resource", |args| {
        build(args, |check, resource| {
            if resource.trim().is_empty() {
                return Err(EvalError::failed("resource must not be empty"));
            }
            Ok(check.with(State::Resource, |request| {
                request.resource = resource.to_owned();
                request.api_version = ANY_VERSION.to_owned();
            }))
        })
    }),
    ("subresource", "resourcecheck_subresource", "resource.(string) -> resource", |args| {
        build(args, |check, text| Ok(check.with(State::Resource, |request| request.subresource = text.to_owned())))
    }),
    ("namespace", "resourcecheck_namespace", "resource.(string) -> resource", |args| {
        build(args, |check, text| Ok(check.with(State::Resource, |request| request.namespace = text.to_owned())))
    }),
    ("name", "resourcecheck_name", "resource.(string) -> resource", |args| {
        build(args, |check, text| Ok(check.with(State::Resource, |request| request.name = text.to_owned())))
    }),
    ("fieldSelector", "authorizer_fieldselector", "resource.(string) -> resource", |args| {
        build(args, |check, text| Ok(check.with(State::Resource, |request| request.field_selector = some(text))))
    }),
    ("labelSelector", "authorizer_labelselector", "resource.(string) -> resource", |args| {
        build(args, |check, text| Ok(check.with(State::Resource, |request| request.label_selector = some(text))))
    }),
    ("check", "pathcheck_check", "path.(string) -> decision", ask),
    ("check", "resourcecheck_check", "resource.(string) -> decision", ask),
    ("allowed", "decision_allowed", "decision.() -> bool", |args| decided(args, |result| Value::Bool(result.allowed))),
    ("reason", "decision_reason", "decision.() -> string", |args| decided(args, |result| Value::string(result.reason.as_str()))),
    ("errored", "decision_errored", "decision.() -> bool", |args| decided(args, |result| Value::Bool(result.error.is_some()))),
    ("error", "decision_error", "decision.() -> string", |args| decided(args, |result| Value::string(result.error.clone().unwrap_or_default()))),
];

fn some(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

fn build<'a>(args: &[Value<'a>], step: fn(&Check, &str) -> Evaluated<'static>) -> Evaluated<'a> {
    match args {
        [Value::Authorization(check), Value::String(text)] => step(check, text),
        _ => mismatch(),
    }
}

fn service_account<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    let [Value::Authorization(check), Value::String(namespace), Value::String(name)] = args else { return mismatch() };
    if !api::names::dns_subdomain(name).is_empty() {
        return Err(EvalError::failed("Invalid service account name"));
    }
    if !api::names::dns_label(namespace).is_empty() {
        return Err(EvalError::failed("Invalid service account namespace"));
    }
    Ok(check.with(State::Authorizer, |request| {
        *request = AuthorizationRequest {
            user: format!("system:serviceaccount:{}:{}", &**namespace, &**name),
            groups: vec!["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{}", &**namespace)],
            ..Default::default()
        };
    }))
}

fn ask<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    build(args, |check, verb| {
        let mut request = check.request.clone();
        request.verb = verb.to_owned();
        let result = check.authorizer.authorize(&request);
        Ok(check.with(State::Decided(result), |asked| *asked = request))
    })
}

fn decided<'a>(args: &[Value<'a>], read: fn(&AuthorizationResult) -> Value<'static>) -> Evaluated<'a> {
    match args {
        [Value::Authorization(check)] => match &check.state {
            State::Decided(result) => Ok(read(result)),
            _ => mismatch(),
        },
        _ => mismatch(),
    }
}
