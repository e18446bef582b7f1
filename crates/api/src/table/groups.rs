//! The named groups: the kinds under `/apis`, in upstream's order of priority.

use super::kind::{Group, Kind, cluster, namespaced};

pub(super) const GROUPS: &[Group] = &[
    Group::new("apiregistration.k8s.io", "v1", "io.k8s.kube-aggregator.pkg.apis.apiregistration.v1", APIREGISTRATION).folder("apiregistration.k8s.io/"),
    Group::new("apps", "v1", "io.k8s.api.apps.v1", APPS),
    Group::new("events.k8s.io", "v1", "io.k8s.api.events.v1", EVENTS),
    Group::new("authentication.k8s.io", "v1", "io.k8s.api.authentication.v1", AUTHENTICATION),
    Group::new("authorization.k8s.io", "v1", "io.k8s.api.authorization.v1", AUTHORIZATION),
    Group::new("autoscaling", "v2", "io.k8s.api.autoscaling.v2", AUTOSCALING),
    Group::new("autoscaling", "v1", "io.k8s.api.autoscaling.v1", AUTOSCALING).stored_as("v2"),
    Group::new("batch", "v1", "io.k8s.api.batch.v1", BATCH),
    Group::new("certificates.k8s.io", "v1", "io.k8s.api.certificates.v1", CERTIFICATES),
    Group::new("networking.k8s.io", "v1", "io.k8s.api.networking.v1", NETWORKING),
    Group::new("policy", "v1", "io.k8s.api.policy.v1", POLICY),
    Group::new("rbac.authorization.k8s.io", "v1", "io.k8s.api.rbac.v1", RBAC),
    Group::new("storage.k8s.io", "v1", "io.k8s.api.storage.v1", STORAGE),
    Group::new("admissionregistration.k8s.io", "v1", "io.k8s.api.admissionregistration.v1", ADMISSION),
    Group::new("apiextensions.k8s.io", "v1", "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1", APIEXTENSIONS).folder("apiextensions.k8s.io/"),
    Group::new("scheduling.k8s.io", "v1", "io.k8s.api.scheduling.v1", SCHEDULING),
    Group::new("coordination.k8s.io", "v1", "io.k8s.api.coordination.v1", COORDINATION),
    Group::new("node.k8s.io", "v1", "io.k8s.api.node.v1", NODE),
    Group::new("discovery.k8s.io", "v1", "io.k8s.api.discovery.v1", DISCOVERY),
    Group::new("resource.k8s.io", "v1", "io.k8s.api.resource.v1", RESOURCE),
    Group::new("flowcontrol.apiserver.k8s.io", "v1", "io.k8s.api.flowcontrol.v1", FLOWCONTROL),
];

const APIREGISTRATION: &[Kind] = &[cluster("APIService", "apiservices").in_extensions().status()];

const APPS: &[Kind] = &[
    namespaced("ControllerRevision", "controllerrevisions"),
    namespaced("DaemonSet", "daemonsets").short(&["ds"]).in_all().status(),
    namespaced("Deployment", "deployments").short(&["deploy"]).in_all().subresources(&["scale", "status"]),
    namespaced("ReplicaSet", "replicasets").short(&["rs"]).in_all().subresources(&["scale", "status"]).selectable(&["status.replicas"]),
    namespaced("StatefulSet", "statefulsets").short(&["sts"]).in_all().subresources(&["scale", "status"]),
];

/// The same objects as the core group's events, in another form; stored in the core one.
const EVENTS: &[Kind] = &[namespaced("Event", "events").short(&["ev"]).selectable(&[
    "regarding.kind",
    "regarding.namespace",
    "regarding.name",
    "regarding.uid",
    "regarding.apiVersion",
    "regarding.resourceVersion",
    "regarding.fieldPath",
    "reason",
    "reportingController",
    "source",
    "type",
])];

const AUTHENTICATION: &[Kind] = &[cluster("SelfSubjectReview", "selfsubjectreviews").create_only(), cluster("TokenReview", "tokenreviews").create_only()];

const AUTHORIZATION: &[Kind] = &[
    namespaced("LocalSubjectAccessReview", "localsubjectaccessreviews").create_only(),
    cluster("SelfSubjectAccessReview", "selfsubjectaccessreviews").create_only(),
    cluster("SelfSubjectRulesReview", "selfsubjectrulesreviews").create_only(),
    cluster("SubjectAccessReview", "subjectaccessreviews").create_only(),
];

const AUTOSCALING: &[Kind] = &[namespaced("HorizontalPodAutoscaler", "horizontalpodautoscalers").short(&["hpa"]).in_all().status()];

const BATCH: &[Kind] = &[
    namespaced("CronJob", "cronjobs").short(&["cj"]).in_all().status(),
    namespaced("Job", "jobs").in_all().status().selectable(&["status.successful"]),
];

const CERTIFICATES: &[Kind] = &[cluster("CertificateSigningRequest", "certificatesigningrequests")
    .short(&["csr"])
    .subresources(&["approval", "status"])
    .selectable(&["spec.signerName"])];

const NETWORKING: &[Kind] = &[
    cluster("IngressClass", "ingressclasses"),
    namespaced("Ingress", "ingresses").short(&["ing"]).at("ingress").status(),
    cluster("IPAddress", "ipaddresses").short(&["ip"]),
    namespaced("NetworkPolicy", "networkpolicies").short(&["netpol"]),
    cluster("ServiceCIDR", "servicecidrs").status(),
];

const POLICY: &[Kind] = &[namespaced("PodDisruptionBudget", "poddisruptionbudgets").short(&["pdb"]).status()];

const RBAC: &[Kind] = &[
    cluster("ClusterRoleBinding", "clusterrolebindings"),
    cluster("ClusterRole", "clusterroles"),
    namespaced("RoleBinding", "rolebindings"),
    namespaced("Role", "roles"),
];

const STORAGE: &[Kind] = &[
    cluster("CSIDriver", "csidrivers"),
    cluster("CSINode", "csinodes"),
    namespaced("CSIStorageCapacity", "csistoragecapacities"),
    cluster("StorageClass", "storageclasses").short(&["sc"]),
    cluster("VolumeAttachment", "volumeattachments").status(),
    cluster("VolumeAttributesClass", "volumeattributesclasses").short(&["vac"]),
];

const ADMISSION: &[Kind] = &[
    cluster("MutatingAdmissionPolicy", "mutatingadmissionpolicies").in_extensions(),
    cluster("MutatingAdmissionPolicyBinding", "mutatingadmissionpolicybindings").in_extensions(),
    cluster("MutatingWebhookConfiguration", "mutatingwebhookconfigurations").in_extensions(),
    cluster("ValidatingAdmissionPolicy", "validatingadmissionpolicies").in_extensions().status(),
    cluster("ValidatingAdmissionPolicyBinding", "validatingadmissionpolicybindings").in_extensions(),
    cluster("ValidatingWebhookConfiguration", "validatingwebhookconfigurations").in_extensions(),
];

const APIEXTENSIONS: &[Kind] = &[cluster("CustomResourceDefinition", "customresourcedefinitions").short(&["crd", "crds"]).in_extensions().status()];

const SCHEDULING: &[Kind] = &[cluster("PriorityClass", "priorityclasses").short(&["pc"])];

const COORDINATION: &[Kind] = &[namespaced("Lease", "leases")];

const NODE: &[Kind] = &[cluster("RuntimeClass", "runtimeclasses")];

const DISCOVERY: &[Kind] = &[namespaced("EndpointSlice", "endpointslices")];

const FLOWCONTROL: &[Kind] = &[cluster("FlowSchema", "flowschemas").status(), cluster("PriorityLevelConfiguration", "prioritylevelconfigurations").status()];

const RESOURCE: &[Kind] = &[
    cluster("DeviceClass", "deviceclasses"),
    namespaced("ResourceClaim", "resourceclaims").status(),
    namespaced("ResourceClaimTemplate", "resourceclaimtemplates"),
    cluster("ResourceSlice", "resourceslices").selectable(&["spec.nodeName", "spec.driver"]),
];
