//! The authorizers of an AuthorizationConfiguration, in its order (`--authorization-config`).
//!
//! Mirrors apiserver/pkg/apis/apiserver (AuthorizationConfiguration) and its validation. https://kubernetes.io/docs/reference/access-authn-authz/authorization/

use std::sync::Arc;
use std::time::Duration;

use cel::{DeclType, Env, Program};
use jiff::SignedDuration;
use serde_json::Value;

use super::AuthorizationMode;
use super::webhook::{AuthorizationWebhook, WebhookConfig};
use crate::expressions_measured;
use crate::decode::{self, Format};
use crate::outbound::Hook;
use crate::references::list;
use crate::registry::text;

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum AuthorizationConfigError {
    #[error("cannot read the configuration: {0}")]
    Syntax(String),
    #[error("{field}: {why}")]
    Invalid { field: String, why: String },
}

const VERSIONS: [&str; 3] = ["apiserver.config.k8s.io/v1", "apiserver.config.k8s.io/v1beta1", "apiserver.config.k8s.io/v1alpha1"];
/// The longest that an answer may be waited for.
const TIMEOUT_MAX: Duration = Duration::from_secs(30);
/// Of webhooks that are named by flags.
pub const AUTHORIZED_TTL: SignedDuration = SignedDuration::from_mins(5);
pub const UNAUTHORIZED_TTL: SignedDuration = SignedDuration::from_secs(30);

fn invalid(field: impl Into<String>, why: impl Into<String>) -> AuthorizationConfigError {
    AuthorizationConfigError::Invalid { field: field.into(), why: why.into() }
}

/// `5m30s`, as Go reads it.
fn duration(text: &str) -> Option<SignedDuration> {
    let mut total = SignedDuration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let number = rest.find(|character: char| !character.is_ascii_digit() && character != '.')?;
        let unit = rest[number..].find(|character: char| character.is_ascii_digit()).map_or(rest.len(), |end| number + end);
        let value: f64 = rest[..number].parse().ok()?;
        let seconds = match &rest[number..unit] {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 0.001,
            _ => return None,
        };
        total = total.checked_add(SignedDuration::try_from_secs_f64(value * seconds).ok()?)?;
        rest = &rest[unit..];
    }
    (!text.is_empty()).then_some(total)
}

/// The type of `request`: the spec of a SubjectAccessReview.
fn environment() -> Env {
    let string = DeclType::string;
    let strings = || DeclType::list(DeclType::string(), None);
    let requirement = || DeclType::object("kubernetes.SelectorRequirement", [("key", string()), ("operator", string()), ("values", strings())]);
    let selector = || DeclType::object("kubernetes.SelectorAttributes", [("rawSelector", string()), ("requirements", DeclType::list(requirement(), None))]);
    let resource = DeclType::object(
        "kubernetes.ResourceAttributes",
        [("namespace", string()), ("verb", string()), ("group", string()), ("version", string()), ("resource", string()), ("subresource", string()), ("name", string()), ("fieldSelector", selector()), ("labelSelector", selector())],
    );
    let path = DeclType::object("kubernetes.NonResourceAttributes", [("path", string()), ("verb", string())]);
    let spec = DeclType::object(
        "kubernetes.SubjectAccessReviewSpec",
        [("resourceAttributes", resource), ("nonResourceAttributes", path), ("user", string()), ("groups", strings()), ("extra", DeclType::map(string(), strings(), None)), ("uid", string())],
    );
    Env::new().variable("request", spec)
}

fn condition(env: &Env, expression: &str, field: &str) -> Result<Program, AuthorizationConfigError> {
    let failed = |why: String| invalid(field, format!("Invalid value: {expression:?}: {why}"));
    let program = expressions_measured::compiled(|| env.compile(expression)).map_err(|errors| failed(format!("compilation failed: {errors}")))?;
    let output = program.output_type().to_string();
    if output == "bool" { Ok(program) } else { Err(failed(format!("must evaluate to bool but got {output}"))) }
}

fn webhook(entry: &Value, field: &str, connect: &dyn Fn(&str) -> Result<Hook, String>) -> Result<AuthorizationMode, AuthorizationConfigError> {
    let at = |name: &str| format!("{field}.webhook.{name}");
    let value = |name: &str| text(entry, &format!("/webhook/{name}"));
    let required = |name: &str, why: &str| invalid(at(name), format!("Required value{why}"));
    let time = |name: &str, default: Option<&str>| {
        let given = match (value(name), default) {
            ("", None) => return Err(required(name, "")),
            ("", Some(default)) => default,
            (given, _) => given,
        };
        duration(given).filter(|duration| *duration > SignedDuration::ZERO).ok_or_else(|| invalid(at(name), format!("Invalid value: {given:?}: must be > 0s")))
    };
    let timeout = Duration::try_from(time("timeout", None)?).unwrap_or(TIMEOUT_MAX);
    if timeout > TIMEOUT_MAX {
        return Err(invalid(at("timeout"), format!("Invalid value: {:?}: must be <= 30s", value("timeout"))));
    }
    let version = value("subjectAccessReviewVersion");
    if !matches!(version, "v1" | "v1beta1") {
        return Err(if version.is_empty() { required("subjectAccessReviewVersion", "") } else { invalid(at("subjectAccessReviewVersion"), format!("Unsupported value: {version:?}: supported values: \"v1\", \"v1beta1\"")) });
    }
    let fails_closed = match value("failurePolicy") {
        "Deny" => true,
        "NoOpinion" => false,
        "" => return Err(required("failurePolicy", "")),
        other => return Err(invalid(at("failurePolicy"), format!("Unsupported value: {other:?}: supported values: \"NoOpinion\", \"Deny\""))),
    };
    let file = match value("connectionInfo/type") {
        "KubeConfigFile" => value("connectionInfo/kubeConfigFile"),
        "" => return Err(required("connectionInfo.type", "")),
        other => return Err(invalid(at("connectionInfo.type"), format!("Unsupported value: {other:?}: supported values: \"KubeConfigFile\""))),
    };
    if file.is_empty() {
        return Err(required("connectionInfo.kubeConfigFile", ""));
    }
    let env = environment();
    let conditions = list(entry, "/webhook/matchConditions").enumerate().map(|(index, entry)| {
        let expression = text(entry, "/expression");
        condition(&env, expression, &at(&format!("matchConditions[{index}].expression"))).map(|program| (program, expression.to_owned()))
    });
    let conditions: Vec<_> = conditions.collect::<Result<_, _>>()?;
    if !conditions.is_empty() && value("matchConditionSubjectAccessReviewVersion") != "v1" {
        return Err(required("matchConditionSubjectAccessReviewVersion", ": required if matchConditions are specified"));
    }
    let hook = connect(file).map_err(|why| invalid(at("connectionInfo.kubeConfigFile"), format!("Invalid value: {file:?}: {why}")))?;
    Ok(AuthorizationMode::Webhook(Arc::new(AuthorizationWebhook::new(WebhookConfig {
        name: text(entry, "/name").to_owned(),
        hook,
        version: version.to_owned(),
        timeout,
        authorized_ttl: time("authorizedTTL", Some("5m"))?,
        unauthorized_ttl: time("unauthorizedTTL", Some("30s"))?,
        fails_closed,
        conditions,
    }))))
}

/// `connect` makes a connection of the kubeconfig of that name.
pub fn parse(file: &[u8], connect: &dyn Fn(&str) -> Result<Hook, String>) -> Result<Vec<AuthorizationMode>, AuthorizationConfigError> {
    let config = decode::parse(file, Format::Yaml).map_err(|status| AuthorizationConfigError::Syntax(status.message))?;
    if text(&config, "/kind") != "AuthorizationConfiguration" || !VERSIONS.contains(&text(&config, "/apiVersion")) {
        return Err(AuthorizationConfigError::Syntax(format!("no kind {:?} is registered for version {:?}", text(&config, "/kind"), text(&config, "/apiVersion"))));
    }
    let (mut modes, mut seen) = (Vec::new(), Vec::new());
    for (index, entry) in list(&config, "/authorizers").enumerate() {
        let field = format!("authorizers[{index}]");
        let (kind, name) = (text(entry, "/type"), text(entry, "/name"));
        if name.is_empty() {
            return Err(invalid(format!("{field}.name"), "Required value"));
        }
        if seen.contains(&("name", name)) {
            return Err(invalid(format!("{field}.name"), format!("Duplicate value: {name:?}")));
        }
        if kind != "Webhook" && seen.contains(&("type", kind)) {
            return Err(invalid(format!("{field}.type"), format!("Duplicate value: {kind:?}")));
        }
        seen.extend([("name", name), ("type", kind)]);
        modes.push(match kind {
            "Webhook" => webhook(entry, &field, connect)?,
            "" => return Err(invalid(format!("{field}.type"), "Required value")),
            other => AuthorizationMode::named(other).ok_or_else(|| invalid(format!("{field}.type"), format!("Unsupported value: {other:?}: supported values: \"ABAC\", \"AlwaysAllow\", \"AlwaysDeny\", \"Node\", \"RBAC\", \"Webhook\"")))?,
        });
    }
    if modes.is_empty() {
        return Err(invalid("authorizers", "Required value: at least one authorization mode must be defined"));
    }
    Ok(modes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbound::Credentials;

    const CONFIG: &str = r#"
apiVersion: apiserver.config.k8s.io/v1
kind: AuthorizationConfiguration
authorizers:
- type: Webhook
  name: w
  webhook:
    timeout: 3s
    authorizedTTL: 5m30s
    subjectAccessReviewVersion: v1
    matchConditionSubjectAccessReviewVersion: v1
    failurePolicy: Deny
    connectionInfo: {type: KubeConfigFile, kubeConfigFile: /k}
    matchConditions:
    - expression: has(request.resourceAttributes)
    - expression: request.resourceAttributes.namespace == 'a'
- {type: Node, name: node}
- {type: RBAC, name: rbac}
"#;

    fn read(text: &str) -> Result<usize, String> {
        parse(text.as_bytes(), &|_| Hook::at("https://localhost", Vec::new(), Credentials::default()).map_err(|error| error.to_string())).map(|modes| modes.len()).map_err(|error| error.to_string())
    }

    #[test]
    fn configurations() {
        assert_eq!(read(CONFIG), Ok(3));
        for (from, to, want) in [
            ("timeout: 3s", "timeout: 31s", "authorizers[0].webhook.timeout: Invalid value: \"31s\": must be <= 30s"),
            ("failurePolicy: Deny", "failurePolicy: Maybe", "authorizers[0].webhook.failurePolicy: Unsupported value: \"Maybe\": supported values: \"NoOpinion\", \"Deny\""),
            ("type: Node", "type: RBAC", "authorizers[2].type: Duplicate value: \"RBAC\""),
            ("name: rbac", "name: node", "authorizers[2].name: Duplicate value: \"node\""),
            ("type: RBAC", "type: Oracle", "authorizers[2].type: Unsupported value: \"Oracle\": supported values: \"ABAC\", \"AlwaysAllow\", \"AlwaysDeny\", \"Node\", \"RBAC\", \"Webhook\""),
        ] {
            assert_eq!(read(&CONFIG.replace(from, to)), Err(want.to_owned()));
        }
        assert!(read(&CONFIG.replace("has(request.resourceAttributes)", "request.nothing")).unwrap_err().contains("compilation failed"));
        assert_eq!(duration("5m30s"), Some(SignedDuration::from_secs(330)));
        assert_eq!((duration("5"), duration(""), duration("x")), (None, None, None));
    }
}
