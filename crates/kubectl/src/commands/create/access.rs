//! `create role`, `rolebinding`, `clusterrole`, `clusterrolebinding`, `token`.

use serde_json::{Value, json};

use super::super::apply::WRITE;
use super::submit;
use crate::command::command;
use crate::error::{Result, fail};
use crate::flags::{Args, Flag, list, text};
use crate::output;
use crate::printers::{OUTPUT, Printer};
use crate::session::Session;

const RULES: &[Flag] = &[
    list("resource", "Resource that the rule applies to"),
    list("resource-name", "Resource in the white list that the rule applies to, repeat this flag for multiple items"),
    list("verb", "Verb that applies to the resources contained in the rule"),
    list("non-resource-url", "A partial url that user should have access to."),
    list("aggregation-rule", "An aggregation label selector for combining ClusterRoles."),
];
const SUBJECTS: &[Flag] = &[
    text("clusterrole", "", "ClusterRole this RoleBinding should reference"),
    text("role", "", "Role this RoleBinding should reference"),
    list("group", "Groups to bind to the role."),
    list("serviceaccount", "Service accounts to bind to the role, in the format <namespace>:<name>."),
    list("user", "Usernames to bind to the role."),
];
command!(ROLE, "role", [], "NAME --verb=verb --resource=resource.group/subresource [--resource-name=resourcename] [--dry-run=server|client|none] [options]", "Create a role with single rule", [RULES, WRITE, OUTPUT], role);
command!(CLUSTERROLE, "clusterrole", [], "NAME --verb=verb --resource=resource.group [--resource-name=resourcename] [--dry-run=server|client|none] [options]", "Create a cluster role", [RULES, WRITE, OUTPUT], clusterrole);
command!(ROLEBINDING, "rolebinding", [], "NAME --clusterrole=NAME|--role=NAME [--user=username] [--group=groupname] [--serviceaccount=namespace:serviceaccountname] [--dry-run=server|client|none] [options]", "Create a role binding for a particular role or cluster role", [SUBJECTS, WRITE, OUTPUT], rolebinding);
command!(CLUSTERROLEBINDING, "clusterrolebinding", [], "NAME --clusterrole=NAME [--user=username] [--group=groupname] [--serviceaccount=namespace:serviceaccountname] [--dry-run=server|client|none] [options]", "Create a cluster role binding for a particular cluster role", [SUBJECTS, WRITE, OUTPUT], clusterrolebinding);
command!(TOKEN, "token", [], "SERVICE_ACCOUNT_NAME [options]", "Request a service account token", [TOKEN_FLAGS, OUTPUT], token);
const TOKEN_FLAGS: &[Flag] = &[
    list("audience", "Audience of the requested token."),
    text("duration", "0", "Requested lifetime of the issued token."),
    text("bound-object-kind", "", "Kind of an object to bind the token to."),
    text("bound-object-name", "", "Name of an object to bind the token to."),
    text("bound-object-uid", "", "UID of an object to bind the token to."),
];
const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

async fn rules(session: &Session, args: &Args) -> Result<Vec<Value>> {
    let verbs = args.slice("verb");
    if verbs.is_empty() {
        return fail("at least one verb must be specified");
    }
    let urls = args.slice("non-resource-url");
    if !urls.is_empty() {
        return Ok(vec![json!({"nonResourceURLs": urls, "verbs": verbs})]);
    }
    let resources = args.slice("resource");
    if resources.is_empty() {
        return fail("at least one resource must be specified");
    }
    let mut groups: Vec<(String, Vec<String>)> = Vec::new();
    for text in resources {
        let (name, subresource) = text.split_once('/').unwrap_or((&text, ""));
        let (group, mut plural) = if name == "*" {
            (String::new(), "*".to_owned())
        } else {
            let resource = session.resource(name).await?;
            (resource.group, resource.plural)
        };
        if !subresource.is_empty() {
            plural = format!("{plural}/{subresource}");
        }
        match groups.iter_mut().find(|(known, _)| *known == group) {
            Some((_, known)) => known.push(plural),
            None => groups.push((group, vec![plural])),
        }
    }
    let names = args.slice("resource-name");
    Ok(groups
        .into_iter()
        .map(|(group, resources)| {
            let mut rule = json!({"apiGroups": [group], "resources": resources, "verbs": verbs});
            if !names.is_empty() {
                rule["resourceNames"] = names.clone().into();
            }
            rule
        })
        .collect())
}

async fn role(session: &Session, args: &Args) -> Result<()> {
    let object = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": args.name()?}, "rules": rules(session, args).await?});
    submit(session, args, RBAC, "roles", true, "role.rbac.authorization.k8s.io", object).await
}

async fn clusterrole(session: &Session, args: &Args) -> Result<()> {
    let mut object = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": args.name()?}, "rules": null});
    let aggregation = super::pairs(args, "aggregation-rule")?;
    if aggregation.is_empty() {
        object["rules"] = rules(session, args).await?.into();
    } else {
        let labels = super::map(aggregation.into_iter().map(|(key, value)| (key, value.into())).collect());
        object["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": labels}]});
    }
    submit(session, args, RBAC, "clusterroles", false, "clusterrole.rbac.authorization.k8s.io", object).await
}

fn subjects(args: &Args) -> Result<Vec<Value>> {
    let mut found = Vec::new();
    for (flag, kind) in [("user", "User"), ("group", "Group")] {
        found.extend(args.slice(flag).into_iter().map(|name| json!({"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name})));
    }
    for account in args.slice("serviceaccount") {
        let Some((namespace, name)) = account.split_once(':').filter(|(namespace, name)| !namespace.is_empty() && !name.is_empty()) else {
            return fail("serviceaccount must be <namespace>:<name>");
        };
        found.push(json!({"kind": "ServiceAccount", "name": name, "namespace": namespace}));
    }
    Ok(found)
}

async fn rolebinding(session: &Session, args: &Args) -> Result<()> {
    let (kind, role) = match (args.given("clusterrole"), args.given("role")) {
        (Some(role), None) => ("ClusterRole", role),
        (None, Some(role)) => ("Role", role),
        _ => return fail("exactly one of clusterrole or role must be specified"),
    };
    let object = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": args.name()?}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role}, "subjects": subjects(args)?});
    submit(session, args, RBAC, "rolebindings", true, "rolebinding.rbac.authorization.k8s.io", object).await
}

async fn clusterrolebinding(session: &Session, args: &Args) -> Result<()> {
    let Some(role) = args.given("clusterrole") else { return fail("required flag(s) \"clusterrole\" not set") };
    let object = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": args.name()?}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role}, "subjects": subjects(args)?});
    submit(session, args, RBAC, "clusterrolebindings", false, "clusterrolebinding.rbac.authorization.k8s.io", object).await
}

async fn token(session: &Session, args: &Args) -> Result<()> {
    let mut spec = json!({});
    let audiences = args.slice("audience");
    if !audiences.is_empty() {
        spec["audiences"] = audiences.into();
    }
    let duration = args.duration("duration")?;
    if duration > 0.0 {
        spec["expirationSeconds"] = (duration as i64).into();
    }
    if let Some(kind) = args.given("bound-object-kind") {
        spec["boundObjectRef"] = json!({"apiVersion": "v1", "kind": kind, "name": args.text("bound-object-name"), "uid": args.text("bound-object-uid")});
    }
    let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec});
    let object = session.post(&format!("/api/v1/namespaces/{}/serviceaccounts/{}/token", session.namespace()?, args.name()?), &request).await?;
    match Printer::of(args)? {
        Some(printer) => printer.print(&object, "token"),
        None => match object.pointer("/status/token").and_then(Value::as_str) {
            Some(token) => {
                output::line(token);
                Ok(())
            }
            None => fail("no token in server response"),
        },
    }
}
