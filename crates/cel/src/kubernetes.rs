//! The declared types of admission's variables. Upstream: `BuildRequestType` and `BuildNamespaceType` of the admission CEL plugin.

use crate::decl::DeclType;

fn strings() -> DeclType {
    DeclType::list(DeclType::string(), None)
}

/// The type of `request`: no `uid`; `object` and `oldObject` are variables of their own.
pub fn request_type() -> DeclType {
    let string = DeclType::string;
    let kind = DeclType::object("kubernetes.GroupVersionKind", [("group", string()), ("version", string()), ("kind", string())]);
    let resource = DeclType::object("kubernetes.GroupVersionResource", [("group", string()), ("version", string()), ("resource", string())]);
    let user = DeclType::object(
        "kubernetes.UserInfo",
        [("username", string()), ("uid", string()), ("groups", strings()), ("extra", DeclType::map(string(), strings(), None))],
    );
    DeclType::object(
        "kubernetes.AdmissionRequest",
        [
            ("kind", kind.clone()),
            ("resource", resource.clone()),
            ("subResource", string()),
            ("requestKind", kind),
            ("requestResource", resource),
            ("requestSubResource", string()),
            ("name", string()),
            ("namespace", string()),
            ("operation", string()),
            ("userInfo", user),
            ("dryRun", DeclType::bool()),
            ("options", DeclType::dyn_()),
        ],
    )
}

/// The type of `namespaceObject`.
pub fn namespace_type() -> DeclType {
    let string = DeclType::string;
    let labels = || DeclType::map(string(), string(), None);
    let condition = DeclType::object(
        "kubernetes.NamespaceCondition",
        [("status", string()), ("type", string()), ("lastTransitionTime", DeclType::timestamp()), ("message", string()), ("reason", string())],
    );
    let metadata = DeclType::object(
        "kubernetes.NamespaceMetadata",
        [
            ("name", string()),
            ("generateName", string()),
            ("namespace", string()),
            ("labels", labels()),
            ("annotations", labels()),
            ("UID", string()),
            ("creationTimestamp", DeclType::timestamp()),
            ("deletionGracePeriodSeconds", DeclType::int()),
            ("deletionTimestamp", DeclType::timestamp()),
            ("generation", DeclType::int()),
            ("resourceVersion", string()),
            ("finalizers", strings()),
        ],
    );
    let status = DeclType::object("kubernetes.NamespaceStatus", [("conditions", DeclType::list(condition, None)), ("phase", string())]);
    DeclType::object(
        "kubernetes.Namespace",
        [("metadata", metadata), ("spec", DeclType::object("kubernetes.NamespaceSpec", [("finalizers", strings())])), ("status", status)],
    )
}
