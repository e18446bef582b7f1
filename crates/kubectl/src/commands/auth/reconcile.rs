//! `kubectl auth reconcile`: roles and bindings get what they lack, and lose what is too much only if asked.
//!
//! Mirrors k8s.io/kubectl/pkg/cmd/auth/reconcile.go and component-helpers' rbac reconciliation; which rule covers which is `covers`.

use http::Method;
use serde_json::{Value, json};

use crate::builder::{self, FILES, Found};
use crate::command::command;
use crate::commands::apply::{DryRun, dry_run};
use crate::error::{Error, Result, fail};
use crate::flags::{Args, Flag, optional, switch};
use crate::output;
use crate::printers::{self, OUTPUT};
use crate::session::{Query, Session};

const FLAGS: &[Flag] = &[
    optional("dry-run", "unchanged", "none", "Must be \"none\", \"server\", or \"client\"."),
    switch("remove-extra-permissions", "If true, removes extra permissions added to roles"),
    switch("remove-extra-subjects", "If true, removes extra subjects added to rolebindings"),
];
command!(RECONCILE, "reconcile", [], "-f FILENAME [options]", "Reconciles rules for RBAC role, role binding, cluster role, and cluster role binding objects", [FLAGS, FILES, OUTPUT], run);

const GROUP: &str = "rbac.authorization.k8s.io";
const PROTECTED: &str = "rbac.authorization.kubernetes.io/autoupdate";
const RULE_FIELDS: [(&str, &str); 5] = [("verbs", "Verbs"), ("apiGroups", "APIGroups"), ("resources", "Resources"), ("resourceNames", "ResourceNames"), ("nonResourceURLs", "NonResourceURLs")];

fn texts<'a>(value: &'a Value, key: &str) -> Vec<&'a str> {
    value.get(key).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect()
}

fn items(object: &Value, key: &str) -> Vec<Value> {
    object.get(key).and_then(Value::as_array).cloned().unwrap_or_default()
}

/// A rule as rules of one verb on one thing each.
fn single(rule: &Value) -> Vec<Value> {
    let mut all = Vec::new();
    for group in texts(rule, "apiGroups") {
        for resource in texts(rule, "resources") {
            for verb in texts(rule, "verbs") {
                let names = texts(rule, "resourceNames");
                let one = json!({"apiGroups": [group], "resources": [resource], "verbs": [verb]});
                if names.is_empty() {
                    all.push(one);
                    continue;
                }
                all.extend(names.into_iter().map(|name| {
                    let mut one = one.clone();
                    one["resourceNames"] = json!([name]);
                    one
                }));
            }
        }
    }
    for url in texts(rule, "nonResourceURLs") {
        all.extend(texts(rule, "verbs").into_iter().map(|verb| json!({"nonResourceURLs": [url], "verbs": [verb]})));
    }
    all
}

fn covers(owner: &Value, one: &Value) -> bool {
    let has = |key: &str, fits: &dyn Fn(&str, &str) -> bool| texts(one, key).iter().all(|wanted| texts(owner, key).iter().any(|held| *held == "*" || held == wanted || fits(held, wanted)));
    let plain = |_: &str, _: &str| false;
    let sub = |held: &str, wanted: &str| held.strip_prefix("*/").is_some_and(|sub| wanted.split_once('/').is_some_and(|(_, asked)| asked == sub));
    let url = |held: &str, wanted: &str| held.strip_suffix('*').is_some_and(|start| wanted.starts_with(start));
    let names = texts(owner, "resourceNames");
    let names_fit = names.is_empty() || !texts(one, "resourceNames").is_empty() && texts(one, "resourceNames").iter().all(|name| names.contains(name));
    has("verbs", &plain) && has("apiGroups", &plain) && has("resources", &sub) && names_fit && has("nonResourceURLs", &url)
}

/// What of `wanted` no rule of `held` covers.
fn uncovered(held: &[Value], wanted: &[Value]) -> Vec<Value> {
    wanted.iter().flat_map(single).filter(|one| !held.iter().flat_map(single).any(|owner| covers(&owner, one))).collect()
}

/// As Go prints the struct.
fn shown_rule(rule: &Value) -> String {
    let fields: Vec<String> = RULE_FIELDS.iter().map(|(key, name)| format!("{name}:[{}]", texts(rule, key).join(" "))).collect();
    format!("{{{}}}", fields.join(" "))
}

fn shown_subject(subject: &Value) -> String {
    let text = |key: &str| subject.get(key).and_then(Value::as_str).unwrap_or("");
    format!("{{Kind:{} APIGroup:{} Name:{} Namespace:{}}}", text("kind"), text("apiGroup"), text("name"), text("namespace"))
}

/// What the server would fill in.
fn defaulted(subject: &Value) -> Value {
    let mut subject = subject.clone();
    if subject.get("apiGroup").and_then(Value::as_str).unwrap_or("").is_empty() && matches!(subject["kind"].as_str(), Some("User" | "Group")) {
        subject["apiGroup"] = GROUP.into();
    }
    if let Some(map) = subject.as_object_mut() {
        map.retain(|_, value| value.as_str() != Some(""));
    }
    subject
}

struct Outcome {
    object: Value,
    operation: &'static str,
    missing: Vec<String>,
    extra: Vec<String>,
    protected: bool,
}

fn reconcile(wanted: &Value, existing: Option<Value>, field: &'static str, remove: bool) -> Outcome {
    let shown = if field == "rules" { shown_rule } else { shown_subject };
    let want: Vec<Value> = if field == "rules" { items(wanted, field) } else { items(wanted, field).iter().map(defaulted).collect() };
    let Some(mut object) = existing else {
        return Outcome { object: wanted.clone(), operation: "create", missing: want.iter().map(shown).collect(), extra: Vec::new(), protected: false };
    };
    let protected = object.pointer("/metadata/annotations").and_then(|annotations| annotations.get(PROTECTED)).is_some_and(|value| value == "false");
    let held = items(&object, field);
    let mut operation = "";
    if field == "subjects" && object["roleRef"] != wanted["roleRef"] {
        // Which role a binding is for cannot be changed.
        operation = "recreate";
        object["roleRef"] = wanted["roleRef"].clone();
    }
    let (missing, extra): (Vec<Value>, Vec<Value>) = if field == "rules" {
        (uncovered(&held, &want), uncovered(&want, &held))
    } else {
        let held: Vec<Value> = held.iter().map(defaulted).collect();
        (want.iter().filter(|one| !held.contains(one)).cloned().collect(), held.iter().filter(|one| !want.contains(one)).cloned().collect())
    };
    let update = |operation: &mut &'static str| {
        if operation.is_empty() {
            *operation = "update";
        }
    };
    if remove && !extra.is_empty() {
        object[field] = want.clone().into();
        update(&mut operation);
    } else if !missing.is_empty() {
        object[field] = held.iter().chain(&missing).cloned().collect();
        update(&mut operation);
    }
    for key in ["labels", "annotations"] {
        for (name, value) in wanted["metadata"].get(key).and_then(Value::as_object).into_iter().flatten() {
            if object["metadata"][key].get(name).is_none() {
                object["metadata"][key][name] = value.clone();
                update(&mut operation);
            }
        }
    }
    if let Some(rule) = wanted.get("aggregationRule").filter(|rule| object.get("aggregationRule") != Some(*rule)) {
        object["aggregationRule"] = rule.clone();
        update(&mut operation);
    }
    Outcome { object, operation, missing: missing.iter().map(shown).collect(), extra: extra.iter().map(shown).collect(), protected }
}

async fn run(session: &Session, args: &Args) -> Result<()> {
    if !builder::has_files(args) {
        return fail("must specify one of -f and -k");
    }
    args.none()?;
    let dry = dry_run(args)?;
    let mut errors = Vec::new();
    for document in builder::documents(session, args).await? {
        let one = async {
            let wanted = builder::place(session, document?).await?;
            let document = wanted.document.clone().unwrap_or_default();
            let field = match (wanted.resource.group.as_str(), wanted.resource.kind.as_str()) {
                (GROUP, "Role" | "ClusterRole") => "rules",
                (GROUP, "RoleBinding" | "ClusterRoleBinding") => "subjects",
                // Other kinds in the same files are no concern of this.
                _ => return Ok(()),
            };
            let existing = match session.get(&wanted.path()).await {
                Ok(object) => Some(object),
                Err(error) if error.is_not_found() => None,
                Err(error) => return Err(error),
            };
            let remove = args.on(if field == "rules" { "remove-extra-permissions" } else { "remove-extra-subjects" });
            let mut outcome = reconcile(&document, existing, field, remove);
            if dry != DryRun::Client && !outcome.protected {
                let query = |path: String| Query::of(path).with("dryRun", if dry == DryRun::Server { "All" } else { "" }).end();
                let collection = query(wanted.resource.collection(wanted.namespace.as_deref()));
                outcome.object = match outcome.operation {
                    "" => outcome.object,
                    "update" => session.put(&query(wanted.path()), &outcome.object).await?,
                    "recreate" => {
                        session.send(Method::DELETE, &query(wanted.path()), "application/json", &json!({"apiVersion": "v1", "kind": "DeleteOptions"})).await?;
                        if let Some(metadata) = outcome.object["metadata"].as_object_mut() {
                            ["resourceVersion", "uid", "creationTimestamp", "managedFields"].iter().for_each(|key| {
                                metadata.remove(*key);
                            });
                        }
                        session.post(&collection, &outcome.object).await?
                    }
                    _ => {
                        if let Some(namespace) = &wanted.namespace
                            && session.get(&format!("/api/v1/namespaces/{namespace}")).await.is_err_and(|error| error.is_not_found())
                        {
                            session.post(&query("/api/v1/namespaces".into()), &json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})).await?;
                        }
                        session.post(&collection, &outcome.object).await?
                    }
                };
            }
            let found = Found::of(&wanted.resource, outcome.object.clone(), &wanted.source);
            printers::done(args, &found.object, &found.label(), "reconciled")?;
            told(&outcome, field, remove);
            Ok::<(), Error>(())
        };
        if let Err(error) = one.await {
            errors.push(error);
        }
    }
    builder::gather(errors)
}

fn told(outcome: &Outcome, field: &str, remove: bool) {
    let caveat = if outcome.protected { format!(", but object opted out ({PROTECTED}: false)") } else { String::new() };
    if outcome.operation.is_empty() {
        return;
    }
    output::complain(format!("\treconciliation required {}{caveat}", outcome.operation));
    for (list, what, shown) in [(&outcome.missing, "missing", "added"), (&outcome.extra, "extra", "removed")] {
        if list.is_empty() || what == "extra" && !remove {
            continue;
        }
        output::complain(format!("\t{what} {field} {shown}:"));
        list.iter().for_each(|one| output::complain(format!("\t\t{one}")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_covers_what() {
        let rule = |group: &str, resource: &str, verb: &str| json!({"apiGroups": [group], "resources": [resource], "verbs": [verb]});
        for (owner, wanted, want) in [
            (rule("", "pods", "get"), rule("", "pods", "get"), true),
            (rule("", "*", "*"), rule("", "pods", "get"), true),
            (rule("apps", "*", "*"), rule("", "pods", "get"), false),
            (rule("*", "*/scale", "get"), rule("apps", "deployments/scale", "get"), true),
            (json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["get"], "resourceNames": ["a"]}), rule("", "pods", "get"), false),
            (json!({"nonResourceURLs": ["/healthz*"], "verbs": ["get"]}), json!({"nonResourceURLs": ["/healthz/x"], "verbs": ["get"]}), true),
        ] {
            assert_eq!(covers(&owner, &wanted), want, "{owner} {wanted}");
        }
        let held = json!({"metadata": {}, "rules": [rule("", "pods", "get")]});
        let wanted = json!({"metadata": {}, "rules": [{"apiGroups": [""], "resources": ["pods", "services"], "verbs": ["get"]}]});
        let outcome = reconcile(&wanted, Some(held), "rules", false);
        assert_eq!((outcome.operation, outcome.missing), ("update", vec!["{Verbs:[get] APIGroups:[] Resources:[services] ResourceNames:[] NonResourceURLs:[]}".to_owned()]));
    }
}
