//! Plugins that are off unless they are asked for: AlwaysPullImages, DenyServiceExternalIPs, OwnerReferencesPermissionEnforcement.
//!
//! Mirrors plugin/pkg/admission/{alwayspullimages,denyserviceexternalips,gc}, messages word for word.
//! https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/

use ::api::{Resource, Status};
use serde_json::Value;

use super::shown_name;
use crate::api::{Api, Context};
use crate::authorization::Attributes;
use crate::references::list;
use crate::registry::text;

/// Each start of a container asks the registry, and so whether its pod may have the image at all.
pub fn always_pull(pod: &mut Value) {
    for containers in ["initContainers", "containers", "ephemeralContainers"] {
        for container in pod["spec"].get_mut(containers).and_then(Value::as_array_mut).into_iter().flatten() {
            container["imagePullPolicy"] = "Always".into();
        }
    }
    for volume in pod["spec"].get_mut("volumes").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(image) = volume.get_mut("image").filter(|image| image.is_object()) {
            image["pullPolicy"] = "Always".into();
        }
    }
}

/// Addresses that are there already may stay.
pub fn deny_external_ips(new: &Value, old: Option<&Value>) -> Result<(), Status> {
    let known: Vec<&Value> = old.into_iter().flat_map(|old| list(old, "/spec/externalIPs")).collect();
    if list(new, "/spec/externalIPs").all(|address| known.contains(&address)) {
        return Ok(());
    }
    Err(Status::forbidden("", "services", shown_name(new), "Use of external IPs is denied by admission control"))
}

/// Whoever makes an object wait for another, or go with it, must have the right to delete the one and to finalize the other.
pub fn owner_references(api: &Api, row: &Resource, subresource: &str, namespace: Option<&str>, new: &Value, old: Option<&Value>, cx: &Context) -> Result<(), Status> {
    if row.group.is_empty() && row.plural == "pods" && subresource == "status" {
        return Ok(());
    }
    let owners = |object: &Value| list(object, "/metadata/ownerReferences").cloned().collect::<Vec<Value>>();
    let (after, before) = (owners(new), old.map(owners).unwrap_or_default());
    if after == before {
        return Ok(());
    }
    let refuse = |why: String| Err(Status::forbidden(&row.group, &row.plural, shown_name(new), &why));
    let asked = |verb: &str, group: &str, resource: &str, subresource: &str, namespace: &str, name: &str| {
        api.authorizer.decide(&*api.store, &cx.user, &Attributes { verb: verb.into(), group: group.into(), resource: resource.into(), subresource: subresource.into(), namespace: namespace.into(), name: name.into(), ..Attributes::default() })
    };
    let namespace = namespace.unwrap_or("");
    if old.is_some() {
        let decision = asked("delete", &row.group, &row.plural, subresource, namespace, text(new, "/metadata/name"));
        if !decision.allowed {
            return refuse(format!("cannot set an ownerRef on a resource you can't delete: {}, <nil>", decision.reason));
        }
    }
    let blocks = |owner: &&Value| owner.get("blockOwnerDeletion") == Some(&Value::Bool(true));
    let same = |a: &Value, b: &Value| text(a, "/uid") == text(b, "/uid");
    let fresh: Vec<&Value> = after.iter().filter(blocks).filter(|owner| !before.iter().filter(blocks).any(|known| same(known, owner))).collect();
    if fresh.is_empty() || asked("update", "*", "*", "finalizers", "", "*").allowed {
        return Ok(());
    }
    let rows = api.serving.rows();
    for owner in fresh {
        let (version, kind) = (text(owner, "/apiVersion"), text(owner, "/kind"));
        let (group, version) = version.split_once('/').unwrap_or(("", version));
        let Some(found) = rows.all().iter().find(|row| row.group == group && row.version == version && row.kind == kind) else {
            return refuse(format!("cannot set blockOwnerDeletion in this case because cannot find RESTMapping for APIVersion {} Kind {kind}: no matches for kind {kind:?} in version {:?}", text(owner, "/apiVersion"), text(owner, "/apiVersion")));
        };
        let decision = asked("update", group, &found.plural, "finalizers", if found.namespaced() { namespace } else { "" }, text(owner, "/name"));
        if !decision.allowed {
            return refuse(format!("cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on: {}, <nil>", decision.reason));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn images_are_pulled_always() {
        let mut pod = json!({"spec": {"containers": [{"imagePullPolicy": "Never"}], "initContainers": [{}], "volumes": [{"image": {"reference": "x"}}, {"emptyDir": {}}]}});
        always_pull(&mut pod);
        assert_eq!(pod, json!({"spec": {"containers": [{"imagePullPolicy": "Always"}], "initContainers": [{"imagePullPolicy": "Always"}], "volumes": [{"image": {"reference": "x", "pullPolicy": "Always"}}, {"emptyDir": {}}]}}));
    }

    #[test]
    fn external_addresses_stay_but_do_not_come() {
        let service = |addresses: Value| json!({"metadata": {"name": "s"}, "spec": {"externalIPs": addresses}});
        assert!(deny_external_ips(&service(json!(["192.0.2.1"])), None).is_err());
        assert!(deny_external_ips(&service(json!(["192.0.2.1"])), Some(&service(json!(["192.0.2.1", "192.0.2.2"])))).is_ok());
        assert!(deny_external_ips(&service(json!([])), None).is_ok());
    }
}
