//! `kubectl auth`: who am I, and what may I do?
//!
//! Mirrors k8s.io/kubectl/pkg/cmd/auth (can-i, whoami).

mod reconcile;

use serde_json::{Value, json};

use super::pods::{array, text as at};
use crate::command::{command, family};
use crate::error::{Error, Result, fail};
use crate::flags::{Args, Flag, switch, text};
use crate::output;
use crate::printers::{OUTPUT, Printer};
use crate::session::Session;
use crate::tabwriter::TABLE;

const CAN_I_FLAGS: &[Flag] = &[
    switch("all-namespaces", "If true, check the specified action in all namespaces.").short('A'),
    switch("list", "If true, prints all allowed actions."),
    switch("no-headers", "If true, prints allowed actions without headers"),
    switch("quiet", "If true, suppress output and just return the exit code.").short('q'),
    text("subresource", "", "SubResource such as pod/log or deployment/scale"),
];

command!(CAN_I, "can-i", [], "VERB [TYPE | TYPE/NAME | NONRESOURCEURL] [options]", "Check whether an action is allowed", [CAN_I_FLAGS], can_i);
command!(WHOAMI, "whoami", [], "[options]", "Experimental: Check self subject attributes", [OUTPUT], whoami);
family!(AUTH, "auth", "Inspect authorization", [&CAN_I, &reconcile::RECONCILE, &WHOAMI]);

const RESOURCE_VERBS: [&str; 15] = ["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection", "use", "bind", "impersonate", "*", "approve", "sign", "escalate"];
const URL_VERBS: [&str; 8] = ["get", "put", "post", "head", "options", "delete", "patch", "*"];

async fn can_i(session: &Session, args: &Args) -> Result<()> {
    let namespace = if args.on("all-namespaces") { String::new() } else { session.namespace()? };
    if args.on("list") {
        if !args.positional.is_empty() {
            return fail("list option must be specified with no arguments");
        }
        return list(session, args, &namespace).await;
    }
    let attributes = match &args.positional[..] {
        [verb, url] if url.starts_with('/') => {
            if !URL_VERBS.contains(&verb.as_str()) {
                output::complain(format!("Warning: verb '{verb}' is not a known verb\n"));
            }
            json!({"nonResourceAttributes": {"verb": verb, "path": url}})
        }
        [verb, resource] | [verb, resource, _] => resource_attributes(session, args, &namespace, verb, resource, args.positional.get(2)).await?,
        _ => return fail("you must specify two arguments: verb resource or verb resource/resourceName.\nSee 'kubectl auth can-i -h' for help and examples."),
    };
    let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": attributes});
    let answer = session.post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", &review).await?;
    let allowed = answer.pointer("/status/allowed") == Some(&Value::Bool(true));
    if !args.on("quiet") {
        let mut line = if allowed { "yes" } else { "no" }.to_owned();
        for (name, before) in [("reason", " - "), ("evaluationError", " - ")] {
            let text = at(&answer, &format!("/status/{name}"));
            if !text.is_empty() && !allowed {
                line.push_str(before);
                line.push_str(text);
            }
        }
        output::line(line);
    }
    if allowed { Ok(()) } else { Err(Error::Silent(1)) }
}

async fn resource_attributes(session: &Session, args: &Args, namespace: &str, verb: &str, word: &str, third: Option<&String>) -> Result<Value> {
    let (kind, mut name) = word.split_once('/').unwrap_or((word, ""));
    if let Some(third) = third {
        name = third;
    }
    let mut namespace = namespace;
    let mut attributes = json!({"verb": verb});
    if kind == "*" {
        attributes["resource"] = "*".into();
        attributes["group"] = "*".into();
    } else {
        match session.mapper().await?.lookup(kind) {
            Some(resource) => {
                attributes["resource"] = resource.plural.clone().into();
                attributes["group"] = resource.group.clone().into();
                if !resource.namespaced {
                    namespace = "";
                    if !args.on("all-namespaces") && !args.on("quiet") {
                        let group = if resource.group.is_empty() { String::new() } else { format!(" in group '{}'", resource.group) };
                        output::complain(format!("Warning: resource '{}' is not namespace scoped{group}\n", resource.plural));
                    }
                }
            }
            None => {
                let (plural, group) = kind.split_once('.').unwrap_or((kind, ""));
                let group_text = if group.is_empty() { String::new() } else { format!(" in group '{group}'") };
                output::complain(format!("Warning: the server doesn't have a resource type '{plural}'{group_text}\n"));
                attributes["resource"] = plural.into();
                attributes["group"] = group.into();
            }
        }
    }
    if !RESOURCE_VERBS.contains(&verb) {
        output::complain(format!("Warning: verb '{verb}' is not a known verb\n"));
    }
    for (key, value) in [("namespace", namespace), ("name", name), ("subresource", args.text("subresource"))] {
        if !value.is_empty() {
            attributes[key] = value.into();
        }
    }
    Ok(json!({"resourceAttributes": attributes}))
}

/// Rules as rows: each resource with its group, and what may be done.
fn rows(status: &Value) -> Vec<[String; 4]> {
    let bracket = |rule: &Value, key: &str| format!("[{}]", array(rule, &format!("/{key}")).filter_map(Value::as_str).collect::<Vec<_>>().join(" "));
    let mut rows = Vec::new();
    for rule in array(status, "/resourceRules") {
        for resource in array(rule, "/resources").filter_map(Value::as_str) {
            for group in array(rule, "/apiGroups").filter_map(Value::as_str) {
                let (plain, sub) = resource.split_once('/').map_or((resource, String::new()), |(plain, sub)| (plain, format!("/{sub}")));
                let full = if group.is_empty() { format!("{plain}{sub}") } else { format!("{plain}.{group}{sub}") };
                rows.push([full, "[]".to_owned(), bracket(rule, "resourceNames"), bracket(rule, "verbs")]);
            }
        }
    }
    for rule in array(status, "/nonResourceRules") {
        for url in array(rule, "/nonResourceURLs").filter_map(Value::as_str) {
            rows.push([String::new(), format!("[{url}]"), "[]".to_owned(), bracket(rule, "verbs")]);
        }
    }
    rows
}

async fn list(session: &Session, args: &Args, namespace: &str) -> Result<()> {
    let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview", "spec": {"namespace": if namespace.is_empty() { "*" } else { namespace }}});
    let answer = session.post("/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", &review).await?;
    let mut text = if args.on("no-headers") { String::new() } else { "Resources\tNon-Resource URLs\tResource Names\tVerbs\n".to_owned() };
    for row in rows(&answer["status"]) {
        text.push_str(&row.join("\t"));
        text.push('\n');
    }
    output::write(TABLE.format(&text).as_bytes());
    if answer.pointer("/status/incomplete") == Some(&Value::Bool(true)) {
        output::complain(format!("warning: the list may be incomplete: {}", at(&answer, "/status/evaluationError")));
    }
    Ok(())
}

async fn whoami(session: &Session, args: &Args) -> Result<()> {
    args.none()?;
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let answer = session.post("/apis/authentication.k8s.io/v1/selfsubjectreviews", &review).await?;
    if let Some(printer) = Printer::of(args)? {
        return printer.print(&answer, "selfsubjectreview.authentication.k8s.io/");
    }
    output::write(TABLE.format(&identity(&answer)).as_bytes());
    Ok(())
}

fn identity(review: &Value) -> String {
    let user = &review["status"]["userInfo"];
    let mut text = "ATTRIBUTE\tVALUE\n".to_owned();
    let join = |values: &Value| format!("[{}]", array(values, "").filter_map(Value::as_str).collect::<Vec<_>>().join(" "));
    for (name, key) in [("Username", "username"), ("UID", "uid")] {
        if !at(user, &format!("/{key}")).is_empty() {
            text.push_str(&format!("{name}\t{}\n", at(user, &format!("/{key}"))));
        }
    }
    if array(user, "/groups").next().is_some() {
        text.push_str(&format!("Groups\t{}\n", join(&user["groups"])));
    }
    for (key, values) in user["extra"].as_object().into_iter().flatten() {
        text.push_str(&format!("Extra: {key}\t{}\n", join(values)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_rows() {
        let status = json!({
            "resourceRules": [{"verbs": ["get", "list"], "apiGroups": ["", "apps"], "resources": ["deployments", "deployments/scale"], "resourceNames": ["x"]}],
            "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/healthz"]}]
        });
        let rows: Vec<String> = rows(&status).iter().map(|row| row.join(" ")).collect();
        assert_eq!(rows, ["deployments [] [x] [get list]", "deployments.apps [] [x] [get list]", "deployments/scale [] [x] [get list]", "deployments.apps/scale [] [x] [get list]", " [/healthz] [] [get]"]);
    }

    #[test]
    fn people() {
        let review = json!({"status": {"userInfo": {"username": "joe", "groups": ["a", "b"], "extra": {"k": ["v"]}}}});
        assert_eq!(identity(&review), "ATTRIBUTE\tVALUE\nUsername\tjoe\nGroups\t[a b]\nExtra: k\t[v]\n");
    }
}
