//! Admission policies and their bindings, compiled: what ValidatingAdmissionPolicy and MutatingAdmissionPolicy have in common.
//!
//! Mirrors k8s.io/apiserver/pkg/admission/plugin/policy/generic: which policies are for a request, and with which parameters.

use ::api::selector::LabelSelector;
use ::api::{Scope, Status};
use cel::{DeclType, Env};
use serde_json::Value;

use super::asked::{Asked, is_namespaces};
use super::expressions::{Conditions, Expression, Has, environment};
use super::rules::Selection;
use crate::api::Api;
use crate::registry::text;
use crate::special::convert;

pub struct Policy<B> {
    pub name: String,
    pub selection: Selection,
    pub lenient: bool,
    pub conditions: Conditions,
    /// Under their qualified names.
    pub variables: Vec<(String, Expression)>,
    pub bindings: Vec<Binding>,
    param_kind: Option<(String, String)>,
    pub body: B,
}

pub struct Binding {
    pub name: String,
    selection: Option<Selection>,
    param_ref: Option<Value>,
    /// Deny, Warn, Audit.
    pub actions: Vec<String>,
}

fn array<'a>(value: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    value.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
}

impl Binding {
    fn of(binding: &Value) -> Self {
        Self {
            name: text(binding, "/metadata/name").to_owned(),
            selection: binding.pointer("/spec/matchResources").filter(|resources| resources.is_object()).map(Selection::of_policy),
            param_ref: binding.pointer("/spec/paramRef").filter(|reference| reference.is_object()).cloned(),
            actions: array(binding, "/spec/validationActions").filter_map(Value::as_str).map(str::to_owned).collect(),
        }
    }

    pub fn matches(&self, api: &Api, asked: &Asked<'_>, object: Option<&Value>, old: Option<&Value>) -> Result<bool, Status> {
        match &self.selection {
            None => Ok(true),
            Some(selection) => Ok(selection.target(api, asked, object, old)?.is_some()),
        }
    }
}

/// The names `variables.x` of a policy's variables, with the environment in which later expressions may use them.
pub fn with_variables(mut env: Env, policy: &Value) -> (Env, Vec<(String, Expression)>) {
    let mut variables = Vec::new();
    for variable in array(policy, "/spec/variables") {
        if variables.is_empty() {
            // Where there are none, their name means nothing.
            env.declare_set("variables");
        }
        let expression = Expression::compile(&env, text(variable, "/expression"), &[]);
        let name = format!("variables.{}", text(variable, "/name"));
        let decl = expression.program.as_ref().map_or_else(|_| DeclType::dyn_(), |program| DeclType::of(program.output_type().clone()));
        env.add_variable(&name, decl);
        variables.push((name, expression));
    }
    (env, variables)
}

impl<B> Policy<B> {
    /// `body` compiles the rest, given environments with variables: one with the authorizer, one without.
    pub fn of(policy: &Value, bindings: &[Value], body: impl FnOnce(&Value, &Env, &Env) -> B, widen: impl Fn(Env) -> Env) -> Option<Self> {
        let name = text(policy, "/metadata/name");
        let bindings: Vec<Binding> = bindings.iter().filter(|binding| text(binding, "/spec/policyName") == name).map(Binding::of).collect();
        if bindings.is_empty() {
            return None;
        }
        let param_kind = policy.pointer("/spec/paramKind").filter(|kind| kind.is_object()).map(|kind| (text(kind, "/apiVersion").to_owned(), text(kind, "/kind").to_owned()));
        let params = param_kind.is_some();
        let lenient = text(policy, "/spec/failurePolicy") == "Ignore";
        let all = Has { params, authorizer: true };
        let (env, variables) = with_variables(widen(environment(all)), policy);
        let (plain, _) = with_variables(widen(environment(Has { params, authorizer: false })), policy);
        Some(Self {
            name: name.to_owned(),
            selection: Selection::of_policy(policy.pointer("/spec/matchConstraints").unwrap_or(&Value::Null)),
            lenient,
            conditions: Conditions::of(policy.pointer("/spec/matchConditions"), all, lenient),
            variables,
            bindings,
            param_kind,
            body: body(policy, &env, &plain),
        })
    }

    /// The parameters of a binding that is about this request; nothing when it is not.
    pub async fn bound(&self, api: &Api, asked: &Asked<'_>, binding: &Binding, object: Option<&Value>, old: Option<&Value>) -> Result<Option<Vec<Option<Value>>>, String> {
        match binding.matches(api, asked, object, old) {
            Ok(false) => Ok(None),
            Ok(true) => self.params(api, asked, binding).await.map(Some),
            Err(status) => Err(status.message),
        }
    }

    /// The parameters to judge with; one of none when there are none to be had.
    async fn params(&self, api: &Api, asked: &Asked<'_>, binding: &Binding) -> Result<Vec<Option<Value>>, String> {
        let (Some((api_version, kind)), Some(reference)) = (&self.param_kind, &binding.param_ref) else { return Ok(vec![None]) };
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let rows = api.serving.rows();
        let row = rows.all().iter().find(|row| row.group == group && row.version == version && row.kind == *kind);
        let row = row.ok_or_else(|| format!("failed to find resource referenced by paramKind: '{api_version}, Kind={kind}'"))?;
        let given = text(reference, "/namespace");
        let namespace = match row.scope {
            Scope::Cluster if !given.is_empty() => return Err("paramRef.namespace must not be provided for a cluster-scoped `paramKind`".into()),
            Scope::Cluster => None,
            Scope::Namespaced if !given.is_empty() => Some(given),
            Scope::Namespaced if asked.namespace.is_empty() => return Err("cannot use namespaced paramRef in policy binding that matches cluster-scoped resources".into()),
            Scope::Namespaced => Some(&*asked.namespace),
        };
        let mut found = Vec::new();
        let name = text(reference, "/name");
        if !name.is_empty() {
            found.extend(api.store.get(&row.key(namespace, name)));
        } else if let Some(selector) = reference.get("selector") {
            let selector = LabelSelector::from_json(selector)?;
            let page = api.store.list(&row.key_prefix(namespace), None, None, 0).map_err(|error| error.to_string())?;
            found.extend(page.items.into_iter().map(|(_, object)| object).filter(|object| selector.matches(&object.meta().labels)));
        } else {
            return Err("one of name or selector must be provided".into());
        }
        if found.is_empty() && text(reference, "/parameterNotFoundAction") == "Deny" {
            return Err("no params found for policy binding with `Deny` parameterNotFoundAction".into());
        }
        let mut params = Vec::with_capacity(found.len());
        for object in found {
            let shown = convert::shown(&api.outbound, row, object).await.map_err(|status| status.message)?;
            params.push(Some(shown.value().map_err(|error| error.to_string())?));
        }
        Ok(params)
    }
}

/// `namespaceObject`: none for what lies in no namespace, and for namespaces themselves.
pub fn namespace_object(api: &Api, asked: &Asked<'_>) -> Result<Option<Value>, Status> {
    if asked.namespace.is_empty() || is_namespaces(asked.row) {
        return Ok(None);
    }
    let found = api.store.get(&format!("/registry/namespaces/{}", asked.namespace)).ok_or_else(|| Status::not_found("", "namespaces", &asked.namespace))?;
    found.value().map(Some).map_err(Status::internal)
}
