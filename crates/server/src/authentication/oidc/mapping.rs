//! From the claims of a verified token to a user, and whether claims and user are as the configuration wants them.

use std::collections::BTreeMap;

use cel::{Activation, Budget, Program, Value as Cel};
use serde_json::{Value, json};

use super::config::{ClaimRule, IssuerConfig, Mapping};
use crate::expressions_measured;
use crate::authentication::User;

fn evaluate(program: &Program, variable: &str, value: &Value) -> Result<Value, String> {
    let activation = Activation::new().bind(variable, Cel::json(value));
    let mut budget = Budget::new(cel::limits::RUNTIME_COST_BUDGET_MATCH_CONDITIONS);
    expressions_measured::evaluated(|| program.evaluate(&activation, &mut budget)).and_then(|value| value.to_json()).map_err(|error| error.to_string())
}

/// A text as a claim; anything else is told as Go tells it.
fn string(claims: &Value, name: &str) -> Result<String, String> {
    match claims.get(name) {
        None => Err("claim not present".to_owned()),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(other) => {
            let kind = match other {
                Value::Number(_) => "number",
                Value::Bool(_) => "bool",
                Value::Array(_) => "array",
                _ => "object",
            };
            Err(format!("json: cannot unmarshal {kind} into Go value of type string"))
        }
    }
}

/// A text is a list of one; none is none.
fn strings(value: &Value) -> Result<Vec<String>, String> {
    match value {
        Value::Null => Ok(Vec::new()),
        Value::String(text) if text.is_empty() => Ok(Vec::new()),
        Value::String(text) => Ok(vec![text.clone()]),
        Value::Array(list) => list.iter().map(|item| item.as_str().map(str::to_owned).ok_or_else(|| "expression must return a string or a list of strings".to_owned())).collect::<Result<Vec<_>, _>>().map(|list| list.into_iter().filter(|text| !text.is_empty()).collect()),
        _ => Err("expression must return a string or a list of strings".to_owned()),
    }
}

fn username(mapping: &Mapping, claims: &Value) -> Result<String, String> {
    match mapping {
        Mapping::Expression(program) => match evaluate(program, "claims", claims).map_err(|why| format!("oidc: error evaluating username claim expression: {why}"))? {
            Value::String(name) if name.is_empty() => Err("oidc: empty username via CEL expression is not allowed".to_owned()),
            Value::String(name) => Ok(name),
            _ => Err("oidc: error evaluating username claim expression: username claim expression must return a string".to_owned()),
        },
        Mapping::Claim { name, prefix } => {
            let found = string(claims, name).map_err(|why| format!("oidc: parse username claims {name:?}: {why}"))?;
            if name == "email" {
                match claims.get("email_verified") {
                    None | Some(Value::Bool(true)) => {}
                    Some(Value::Bool(false)) => return Err("oidc: email not verified".to_owned()),
                    Some(_) => return Err("oidc: parse 'email_verified' claim: json: cannot unmarshal string into Go value of type bool".to_owned()),
                }
            }
            Ok(format!("{prefix}{found}"))
        }
    }
}

fn groups(mapping: Option<&Mapping>, claims: &Value) -> Result<Vec<String>, String> {
    match mapping {
        None => Ok(Vec::new()),
        Some(Mapping::Claim { name, prefix }) => {
            let Some(value) = claims.get(name) else { return Ok(Vec::new()) };
            let found = strings(value).map_err(|_| format!("oidc: parse groups claim {name:?}: json: cannot unmarshal into Go value of type string"))?;
            Ok(found.into_iter().map(|group| format!("{prefix}{group}")).collect())
        }
        Some(Mapping::Expression(program)) => evaluate(program, "claims", claims).and_then(|value| strings(&value)).map_err(|why| format!("oidc: error evaluating group claim expression: {why}")),
    }
}

fn uid(mapping: Option<&Mapping>, claims: &Value) -> Result<String, String> {
    match mapping {
        None => Ok(String::new()),
        Some(Mapping::Claim { name, .. }) => string(claims, name).map_err(|why| format!("oidc: parse uid claim {name:?}: {why}")),
        Some(Mapping::Expression(program)) => match evaluate(program, "claims", claims) {
            Ok(Value::String(uid)) => Ok(uid),
            Ok(_) => Err("oidc: error evaluating uid claim expression: uid claim expression must return a string".to_owned()),
            Err(why) => Err(format!("oidc: error evaluating uid claim expression: {why}")),
        },
    }
}

fn require(program: &Program, variable: &str, value: &Value, text: &str, message: &str) -> Result<(), String> {
    match evaluate(program, variable, value)? {
        Value::Bool(true) => Ok(()),
        Value::Bool(false) if !message.is_empty() => Err(format!("validation expression '{text}' failed: {message}")),
        Value::Bool(false) => Err(format!("validation expression '{text}' failed")),
        _ => Err("validation expression must return a boolean".to_owned()),
    }
}

pub fn user(config: &IssuerConfig, claims: &Value) -> Result<User, String> {
    let mut user = User { name: username(&config.username, claims)?, groups: groups(config.groups.as_ref(), claims)?, uid: uid(config.uid.as_ref(), claims)?, extra: BTreeMap::new() };
    if let Some(id) = claims.get("jti").and_then(Value::as_str).filter(|id| !id.is_empty()) {
        user.extra.insert("authentication.kubernetes.io/credential-id".into(), vec![format!("JTI={id}")]);
    }
    for (key, program, text) in &config.extra {
        let values = evaluate(program, "claims", claims).and_then(|value| strings(&value)).map_err(|why| format!("oidc: error evaluating extra claim expression: {text}: {why}"))?;
        if !values.is_empty() {
            user.extra.insert(key.clone(), values);
        }
    }
    for rule in &config.claim_rules {
        match rule {
            ClaimRule::Required { claim, value } => {
                if claims.get(claim).is_none() {
                    return Err(format!("oidc: required claim {claim} not present in ID token"));
                }
                let found = string(claims, claim).map_err(|why| format!("oidc: parse claim {claim}: {why}"))?;
                if found != *value {
                    return Err(format!("oidc: required claim {claim} value does not match. Got = {found}, want = {value}"));
                }
            }
            ClaimRule::Expression { program, text, message } => require(program, "claims", claims, text, message).map_err(|why| format!("oidc: error evaluating claim validation expression: {why}"))?,
        }
    }
    if !config.user_rules.is_empty() {
        let shown = json!({"username": user.name, "uid": user.uid, "groups": user.groups, "extra": user.extra});
        for rule in &config.user_rules {
            require(&rule.program, "user", &shown, &rule.text, &rule.message).map_err(|why| format!("oidc: error evaluating user info validation rule: {why}"))?;
        }
    }
    Ok(user)
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;

    const CONFIG: &str = r#"
apiVersion: apiserver.config.k8s.io/v1
kind: AuthenticationConfiguration
jwt:
- issuer:
    url: https://issuer.example
    audiences: [a]
  claimMappings:
    username: {claim: email, prefix: "oidc:"}
    groups: {expression: "claims.roles.filter(r, r != 'none')"}
    uid: {claim: sub}
    extra:
    - {key: example.org/team, valueExpression: claims.team}
  claimValidationRules:
  - {claim: tenant, requiredValue: t1}
  - {expression: "claims.level > 2", message: too low}
  userValidationRules:
  - {expression: "!user.username.startsWith('system:')"}
  - {expression: "user.groups.all(g, !g.startsWith('system:'))", message: groups of the system}
"#;

    #[test]
    fn claims_become_users() {
        let (issuers, _) = parse(CONFIG.as_bytes()).unwrap();
        let good = json!({"email": "jane@example.org", "email_verified": true, "roles": ["dev", "none"], "sub": "7", "team": "x", "tenant": "t1", "level": 3, "jti": "i"});
        let told = user(&issuers[0], &good).unwrap();
        assert_eq!((told.name.as_str(), told.uid.as_str(), told.groups.join(" ")), ("oidc:jane@example.org", "7", "dev".to_owned()));
        assert_eq!(told.extra["example.org/team"], ["x"]);
        assert_eq!(told.extra["authentication.kubernetes.io/credential-id"], ["JTI=i"]);
        for (change, want) in [
            (json!({"email_verified": false}), "oidc: email not verified"),
            (json!({"tenant": "t2"}), "oidc: required claim tenant value does not match. Got = t2, want = t1"),
            (json!({"level": 1}), "oidc: error evaluating claim validation expression: validation expression 'claims.level > 2' failed: too low"),
            (json!({"roles": ["system:masters"]}), "oidc: error evaluating user info validation rule: validation expression 'user.groups.all(g, !g.startsWith('system:'))' failed: groups of the system"),
            (json!({"sub": 7}), "oidc: parse uid claim \"sub\": json: cannot unmarshal number into Go value of type string"),
        ] {
            let mut claims = good.clone();
            for (key, value) in change.as_object().unwrap() {
                claims[key] = value.clone();
            }
            assert_eq!(user(&issuers[0], &claims).unwrap_err(), want);
        }
    }
}
