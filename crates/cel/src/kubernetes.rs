//! The declared types of admission's variables, and of DRA's device. Upstream: `BuildRequestType` and `BuildNamespaceType` of the admission CEL plugin.

use crate::decl::DeclType;
use crate::types::Type;

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

// What a device may have at most (resource.k8s.io/v1).
const DOMAIN_LENGTH: u64 = 63;
const ID_LENGTH: u64 = 32;
const DRIVER_LENGTH: u64 = 63;
const ATTRIBUTES: u64 = 32;
const ATTRIBUTE_VALUE_LENGTH: u64 = 64;

/// A device as the selectors of DRA see it (k8s.io/dynamic-resource-allocation/cel).
pub fn device_type() -> DeclType {
    let string = |most| DeclType::string().with_max_elements(most);
    let of_domain = |value: DeclType| DeclType::map(string(DOMAIN_LENGTH), DeclType::map(string(ID_LENGTH), value, Some(ATTRIBUTES)), Some(ATTRIBUTES));
    let fields = [
        ("driver", string(DRIVER_LENGTH)),
        ("attributes", of_domain(DeclType::dyn_().with_max_elements(ATTRIBUTE_VALUE_LENGTH))),
        ("capacity", of_domain(DeclType::of(Type::QUANTITY))),
        ("allowMultipleAllocations", DeclType::bool().with_max_elements(1)),
    ];
    DeclType::object("kubernetes.DRADevice", fields)
}
