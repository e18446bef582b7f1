//! `rollout undo`: the template of an earlier revision becomes the current one.
//!
//! Mirrors polymorphichelpers/rollback.go.

use serde_json::{Value, json};

use super::history::{self, Revision};
use crate::builder::Found;
use crate::commands::apply::{DryRun, dry_run};
use crate::commands::change;
use crate::error::{Result, fail};
use crate::flags::Args;
use crate::output;
use crate::printers::done;
use crate::session::Session;

const HASH: &str = "pod-template-hash";
/// Annotations that belong to the Deployment, whatever the revision says.
const KEPT: [&str; 5] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    "deployment.kubernetes.io/revision",
    "deployment.kubernetes.io/revision-history",
    "deployment.kubernetes.io/desired-replicas",
    "deployment.kubernetes.io/max-replicas",
];

/// The revision to go back to: the one asked for, or the last but one.
fn choose<'a>(revisions: &'a [Revision], wanted: i64, found: &Found) -> Result<&'a Revision> {
    if wanted > 0 {
        return revisions.iter().find(|revision| revision.number == wanted).map_or_else(|| fail(format!("unable to find specified revision {wanted} in history")), Ok);
    }
    match revisions {
        [.., previous, _] => Ok(previous),
        _ if found.resource.kind == "Deployment" => fail(format!("no rollout history found for deployment {:?}", found.name)),
        _ => fail("no last revision to roll back to"),
    }
}

fn without_hash(template: &Value) -> Value {
    let mut template = template.clone();
    if let Some(labels) = template.pointer_mut("/metadata/labels").and_then(Value::as_object_mut) {
        labels.remove(HASH);
    }
    template
}

/// The JSON patch that takes a Deployment back.
fn deployment(object: &Value, revision: &Revision) -> Value {
    let mut annotations = serde_json::Map::new();
    let of = |value: &Value| value.pointer("/metadata/annotations").and_then(Value::as_object).cloned().unwrap_or_default();
    annotations.extend(of(object).into_iter().filter(|(key, _)| KEPT.contains(&key.as_str())));
    annotations.extend(of(&revision.object).into_iter().filter(|(key, _)| !KEPT.contains(&key.as_str())));
    json!([
        {"op": "replace", "path": "/spec/template", "value": without_hash(&revision.template)},
        {"op": "replace", "path": "/metadata/annotations", "value": annotations},
    ])
}

pub async fn run(session: &Session, args: &Args, found: &Found) -> Result<()> {
    let wanted = args.int("to-revision")?;
    if wanted < 0 {
        return fail(format!("unable to find specified revision {wanted} in history"));
    }
    let is_deployment = found.resource.kind == "Deployment";
    let revisions = history::of(session, found).await?;
    let revision = choose(&revisions, wanted, found)?;
    if dry_run(args)? == DryRun::Client {
        output::line(format!("{} {} (dry run)", found.label(), history::template(&revision.template)));
        return Ok(());
    }
    if is_deployment && found.object["spec"]["paused"] == true {
        return fail(format!("you cannot rollback a paused deployment; resume it first with 'kubectl rollout resume deployment/{}' and try again", found.name));
    }
    if without_hash(&revision.template) == found.object["spec"]["template"] {
        return done(args, &found.object, &found.label(), &format!("skipped rollback (current template already matches revision {})", revision.number));
    }
    let (kind, patch) = if is_deployment { (change::JSON, deployment(&found.object, revision)) } else { (change::STRATEGIC, revision.object["data"].clone()) };
    let object = change::send(session, args, found, super::MANAGER, kind, &patch).await?;
    done(args, &object, &found.label(), "rolled back")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn back_to_a_revision() {
        let object = json!({"metadata": {"annotations": {"deployment.kubernetes.io/revision": "3", "kubernetes.io/change-cause": "now"}}});
        let revision = Revision {
            number: 2,
            cause: String::new(),
            template: json!({"metadata": {"labels": {"app": "x", HASH: "abc"}}}),
            object: json!({"metadata": {"annotations": {"deployment.kubernetes.io/revision": "2", "kubernetes.io/change-cause": "then"}}}),
        };
        assert_eq!(
            deployment(&object, &revision),
            json!([
                {"op": "replace", "path": "/spec/template", "value": {"metadata": {"labels": {"app": "x"}}}},
                {"op": "replace", "path": "/metadata/annotations", "value": {"deployment.kubernetes.io/revision": "3", "kubernetes.io/change-cause": "then"}},
            ])
        );
    }
}
