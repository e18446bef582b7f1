//! CEL at admission: the variables expressions may use, their compilation, and their evaluation for one request.
//!
//! Mirrors k8s.io/apiserver/pkg/admission/plugin/cel: `object`, `oldObject`, `request`, `namespaceObject`, `params`, `variables.…`, `authorizer` and
//! `authorizer.requestResource`, with upstream's words for what goes wrong.

use std::sync::{Arc, LazyLock};

use cel::{Activation, AuthorizationRequest, AuthorizationResult, Budget, DeclType, Env, EvalError, Program, ResourceAttributes, Type, UserInfo, Value as Cel};
use serde_json::Value;
use store::Store;

use super::asked::Asked;
use crate::expressions_measured;
use crate::api::Api;
use crate::authentication::User;
use crate::authorization::{Attributes, Authorizer};

static REQUEST: LazyLock<DeclType> = LazyLock::new(cel::kubernetes::request_type);
static NAMESPACE: LazyLock<DeclType> = LazyLock::new(cel::kubernetes::namespace_type);

/// What an expression has at hand beyond the objects.
#[derive(Clone, Copy)]
pub struct Has {
    pub params: bool,
    pub authorizer: bool,
}

pub fn environment(has: Has) -> Env {
    typed_environment(has, DeclType::dyn_(), DeclType::dyn_())
}

/// With the type of the objects and the parameters known.
pub fn typed_environment(has: Has, object: DeclType, params: DeclType) -> Env {
    let mut env = Env::new().variable("object", object.clone()).variable("oldObject", object).variable("request", REQUEST.clone()).variable("namespaceObject", NAMESPACE.clone());
    if has.params {
        env.add_variable("params", params);
    }
    if has.authorizer {
        env.add_variable("authorizer", DeclType::of(Type::AUTHORIZER));
        env.add_variable("authorizer.requestResource", DeclType::of(Type::RESOURCE_CHECK));
    }
    env
}

/// An expression that may not have compiled: then it fails whenever it is evaluated.
pub struct Expression {
    pub text: String,
    pub program: Result<Program, String>,
}

impl Expression {
    pub fn compile(env: &Env, text: &str, wanted: &[&str]) -> Self {
        Self { text: text.to_owned(), program: compile(env, text, wanted) }
    }

    /// Its value, or why there is none.
    pub fn evaluate<'a>(&'a self, activation: &Activation<'a>, budget: &mut Budget) -> Result<Cel<'a>, Failure> {
        let program = self.program.as_ref().map_err(|why| Failure::Expression(format!("compilation error: {why}")))?;
        expressions_measured::evaluated(|| program.evaluate(activation, budget)).map_err(|error| match error {
            EvalError::OutOfBudget => Failure::OutOfBudget,
            other => Failure::Expression(format!("expression '{}' resulted in error: {other}", self.text)),
        })
    }
}

/// Of any of the types `wanted`, as CEL prints them; any at all when none is named.
pub fn compile(env: &Env, text: &str, wanted: &[&str]) -> Result<Program, String> {
    let program = expressions_measured::compiled(|| env.compile(text)).map_err(|errors| errors.detail())?;
    let output = program.output_type().to_string();
    if wanted.is_empty() || wanted.contains(&&*output) {
        return Ok(program);
    }
    match wanted {
        [one] => Err(format!("must evaluate to {one} but got {output}")),
        many => Err(format!("must evaluate to one of [{}] but got {output}", many.join(" "))),
    }
}

/// Why an expression has no value.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("{0}")]
    Expression(String),
    #[error("validation failed due to running out of cost budget, no further validation rules will be run")]
    OutOfBudget,
}

/// One request as expressions see it.
pub struct Input<'a> {
    pub request: &'a Value,
    pub object: Option<&'a Value>,
    pub old: Option<&'a Value>,
    pub params: Option<&'a Value>,
    pub namespace: Option<&'a Value>,
    pub authorizer: Option<Cel<'static>>,
    pub request_resource: Option<Cel<'static>>,
}

impl<'a> Input<'a> {
    pub fn new(api: &Api, asked: &Asked<'_>, request: &'a Value, object: Option<&'a Value>, old: Option<&'a Value>) -> Self {
        let judge = Arc::new(Judge { store: api.store.clone(), authorizer: api.authorizer.clone() });
        let user = || {
            let User { name, uid, groups, extra, .. } = (*asked.cx.user).clone();
            UserInfo { name, uid, groups, extra }
        };
        let attributes = ResourceAttributes {
            group: asked.row.group.to_string(),
            resource: asked.row.plural.to_string(),
            subresource: asked.subresource.to_owned(),
            namespace: asked.namespace.clone(),
            name: asked.name.clone(),
        };
        let check = Cel::resource_check(judge.clone(), user(), attributes);
        Self { request, object, old, params: None, namespace: None, authorizer: Some(Cel::authorizer(judge, user())), request_resource: Some(check) }
    }

    pub fn activation(&self) -> Activation<'a> {
        let json = |value: Option<&'a Value>| value.map_or(Cel::Null, Cel::json);
        let mut activation = Activation::new()
            .bind("object", json(self.object))
            .bind("oldObject", json(self.old))
            .bind("request", Cel::typed(self.request, &REQUEST))
            .bind("params", json(self.params))
            .bind("namespaceObject", self.namespace.map_or(Cel::Null, |namespace| Cel::typed(namespace, &NAMESPACE)));
        if let (Some(authorizer), Some(check)) = (&self.authorizer, &self.request_resource) {
            activation.set("authorizer", authorizer.clone());
            activation.set("authorizer.requestResource", check.clone());
        }
        activation
    }
}

/// `matchConditions`
pub struct Conditions {
    list: Vec<Expression>,
    lenient: bool,
}

/// What conditions make of a request.
pub enum Verdict {
    Wanted,
    Unwanted,
    /// It cannot be told, and the failure policy is Fail.
    Failed(String),
}

impl Conditions {
    pub fn of(value: Option<&Value>, has: Has, lenient: bool) -> Self {
        let list: Vec<&str> = value.and_then(Value::as_array).into_iter().flatten().filter_map(|condition| condition.get("expression")?.as_str()).collect();
        if list.is_empty() {
            return Self { list: Vec::new(), lenient };
        }
        let env = environment(has);
        Self { list: list.into_iter().map(|text| Expression::compile(&env, text, &["bool"])).collect(), lenient }
    }

    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// One that is false decides, whatever became of the others.
    pub fn judge(&self, input: &Input<'_>) -> Verdict {
        if self.list.is_empty() {
            return Verdict::Wanted;
        }
        let activation = input.activation();
        let mut budget = Budget::new(cel::limits::RUNTIME_COST_BUDGET_MATCH_CONDITIONS);
        let mut failures = Vec::new();
        for condition in &self.list {
            match condition.evaluate(&activation, &mut budget) {
                Ok(value) if value.as_bool() == Some(false) => return Verdict::Unwanted,
                Ok(_) => {}
                Err(Failure::OutOfBudget) => {
                    failures = vec![Failure::OutOfBudget.to_string()];
                    break;
                }
                Err(failure) => failures.push(failure.to_string()),
            }
        }
        match failures.as_slice() {
            [] => Verdict::Wanted,
            _ if self.lenient => Verdict::Unwanted,
            [one] => Verdict::Failed(one.clone()),
            many => Verdict::Failed(format!("[{}]", many.join(", "))),
        }
    }
}

/// Answers what expressions ask of the authorizer.
struct Judge {
    store: Arc<dyn Store>,
    authorizer: Arc<Authorizer>,
}

impl cel::Authorizer for Judge {
    fn authorize(&self, request: &AuthorizationRequest) -> AuthorizationResult {
        let user = User { name: request.user.clone(), uid: request.uid.clone(), groups: request.groups.clone(), extra: request.extra.clone() };
        let asked = match &request.path {
            Some(path) => Attributes { verb: request.verb.clone(), path: path.clone(), ..Attributes::default() },
            None => Attributes {
                verb: request.verb.clone(),
                group: request.api_group.clone(),
                resource: request.resource.clone(),
                subresource: request.subresource.clone(),
                namespace: request.namespace.clone(),
                name: request.name.clone(),
                ..Attributes::default()
            },
        };
        let decision = self.authorizer.decide(&*self.store, &user, &asked);
        AuthorizationResult { allowed: decision.allowed, reason: decision.reason, ..AuthorizationResult::default() }
    }
}
