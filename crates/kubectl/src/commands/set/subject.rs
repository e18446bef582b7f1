//! `kubectl set subject`: more users, groups and service accounts for role bindings.
//!
//! Mirrors k8s.io/kubectl/pkg/cmd/set/set_subject.go.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{COMMON, targets};
use crate::builder::{self, FILES};
use crate::command::command;
use crate::commands::apply::WRITE;
use crate::commands::change::save;
use crate::error::{Error, Result, fail};
use crate::flags::{Args, Flag, list};
use crate::printers::OUTPUT;
use crate::session::Session;

const FLAGS: &[Flag] = &[
    list("group", "Groups to bind to the role"),
    list("serviceaccount", "Service accounts to bind to the role"),
    list("user", "Usernames to bind to the role"),
];
command!(SUBJECT, "subject", [], "(-f FILENAME | TYPE NAME) [--user=username] [--group=groupname] [--serviceaccount=namespace:serviceaccountname] [--dry-run=server|client|none] [options]", "Update the user, group, or service account in a role binding or cluster role binding", [FLAGS, COMMON, WRITE, FILES, OUTPUT], run);

const GROUP: &str = "rbac.authorization.k8s.io";

async fn run(session: &Session, args: &Args) -> Result<()> {
    let found = targets(session, args, &args.positional).await?;
    if args.on("all") && args.given("selector").is_some() {
        return fail("cannot set --all and --selector at the same time");
    }
    let each = |flag: &str| args.slice(flag).into_iter().collect::<BTreeSet<_>>();
    let (users, groups, accounts) = (each("user"), each("group"), each("serviceaccount"));
    if users.is_empty() && groups.is_empty() && accounts.is_empty() {
        return fail("you must specify at least one value of user, group or serviceaccount");
    }
    let mut subjects: Vec<Value> = Vec::new();
    for (kind, names) in [("User", &users), ("Group", &groups)] {
        subjects.extend(names.iter().map(|name| json!({"kind": kind, "apiGroup": GROUP, "name": name})));
    }
    for account in &accounts {
        let (namespace, name) = match account.split(':').collect::<Vec<_>>()[..] {
            [namespace, name] if !name.is_empty() => (namespace, name),
            _ => return fail("serviceaccount must be <namespace>:<name>"),
        };
        if namespace.is_empty() && found.iter().any(|one| one.resource.kind == "ClusterRoleBinding") {
            return fail("serviceaccount must be <namespace>:<name>, namespace must be specified");
        }
        let namespace = if namespace.is_empty() { session.namespace()? } else { namespace.to_owned() };
        subjects.push(json!({"kind": "ServiceAccount", "name": name, "namespace": namespace}));
    }
    let mut errors = Vec::new();
    for one in found {
        if one.resource.group != GROUP || !matches!(one.resource.kind.as_str(), "RoleBinding" | "ClusterRoleBinding") {
            errors.push(Error::Message(format!("{}/{} setting subjects is only supported for RoleBinding/ClusterRoleBinding\n", one.resource.plural, one.name)));
            continue;
        }
        let mut object = one.object.clone();
        let mut all = object["subjects"].as_array().cloned().unwrap_or_default();
        for subject in &subjects {
            if !all.contains(subject) {
                all.push(subject.clone());
            }
        }
        object["subjects"] = all.into();
        if let Err(error) = save(session, args, &one, &object, "subjects updated", "kubectl-set").await {
            errors.push(error);
        }
    }
    builder::gather(errors)
}
