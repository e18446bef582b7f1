//! The revisions of a workload: ReplicaSets of a Deployment, ControllerRevisions of the others.
//!
//! Mirrors polymorphichelpers/history.go.

use serde_json::Value;

use crate::builder::Found;
use crate::commands::pods::{array, selector_of, text};
use crate::error::{Result, fail};
use crate::session::{Query, Session};
use crate::tabwriter::DESCRIBE;

const REVISION: &str = "/metadata/annotations/deployment.kubernetes.io~1revision";
const CAUSE: &str = "/metadata/annotations/kubernetes.io~1change-cause";

pub struct Revision {
    pub number: i64,
    pub cause: String,
    pub template: Value,
    /// The ReplicaSet or ControllerRevision.
    pub object: Value,
}

/// Oldest first.
pub async fn of(session: &Session, found: &Found) -> Result<Vec<Revision>> {
    let (path, deployment) = match found.resource.kind.as_str() {
        "Deployment" => ("replicasets", true),
        "DaemonSet" | "StatefulSet" => ("controllerrevisions", false),
        kind => return fail(format!("no history viewer has been implemented for {:?}", format!("{kind}.{}", found.resource.group))),
    };
    let namespace = found.namespace.as_deref().unwrap_or("");
    let query = Query::of(format!("/apis/apps/v1/namespaces/{namespace}/{path}")).with("labelSelector", &selector_of(found)?);
    let list = session.get(&query.end()).await?;
    let uid = text(&found.object, "/metadata/uid");
    let mut revisions: Vec<Revision> = array(&list, "/items")
        .filter(|item| array(item, "/metadata/ownerReferences").any(|owner| owner["controller"] == true && text(owner, "/uid") == uid))
        .filter_map(|item| {
            let (number, template) = if deployment {
                (text(item, REVISION).parse().ok()?, item["spec"]["template"].clone())
            } else {
                let mut template = item["data"]["spec"]["template"].clone();
                template.as_object_mut()?.remove("$patch");
                (item["revision"].as_i64()?, template)
            };
            Some(Revision { number, cause: text(item, CAUSE).to_owned(), template, object: item.clone() })
        })
        .collect();
    revisions.sort_by_key(|revision| revision.number);
    Ok(revisions)
}

pub fn table(revisions: &[Revision]) -> String {
    let mut rows = "REVISION\tCHANGE-CAUSE\n".to_owned();
    for revision in revisions {
        let cause = if revision.cause.is_empty() { "<none>" } else { &revision.cause };
        rows.push_str(&format!("{}\t{cause}\n", revision.number));
    }
    DESCRIBE.format(&rows)
}

/// A pod template as `describe` shows one.
pub fn template(template: &Value) -> String {
    crate::describe::pod_template(template)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables() {
        let revision = |number, cause: &str| Revision { number, cause: cause.to_owned(), template: Value::Null, object: Value::Null };
        assert_eq!(table(&[revision(2, ""), revision(13, "kubectl set image")]), "REVISION  CHANGE-CAUSE\n2         <none>\n13        kubectl set image\n");
    }
}
