//! The core group: the kinds under `/api/v1`.

use super::kind::{Group, Kind, cluster, namespaced};

pub(super) const GROUPS: &[Group] = &[Group::new("", "v1", "io.k8s.api.core.v1", CORE)];

const CORE: &[Kind] = &[
    namespaced("Binding", "bindings").create_only(),
    cluster("ComponentStatus", "componentstatuses").short(&["cs"]).read_only(),
    namespaced("ConfigMap", "configmaps").short(&["cm"]),
    namespaced("Endpoints", "endpoints").short(&["ep"]).at("services/endpoints"),
    namespaced("Event", "events").short(&["ev"]).selectable(&[
        "involvedObject.kind",
        "involvedObject.namespace",
        "involvedObject.name",
        "involvedObject.uid",
        "involvedObject.apiVersion",
        "involvedObject.resourceVersion",
        "involvedObject.fieldPath",
        "reason",
        "reportingComponent",
        "source",
        "type",
    ]),
    namespaced("LimitRange", "limitranges").short(&["limits"]),
    cluster("Namespace", "namespaces").short(&["ns"]).no_collection_delete().subresources(&["finalize", "status"]).selectable(&["status.phase"]),
    cluster("Node", "nodes").short(&["no"]).at("minions").subresources(&["proxy", "status"]).selectable(&["spec.unschedulable"]),
    namespaced("PersistentVolumeClaim", "persistentvolumeclaims").short(&["pvc"]).status(),
    cluster("PersistentVolume", "persistentvolumes").short(&["pv"]).status(),
    namespaced("Pod", "pods")
        .short(&["po"])
        .in_all()
        .subresources(&["attach", "binding", "ephemeralcontainers", "eviction", "exec", "log", "portforward", "proxy", "resize", "status"])
        .selectable(&[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.podIPs",
            "status.nominatedNodeName",
        ]),
    namespaced("PodTemplate", "podtemplates"),
    namespaced("ReplicationController", "replicationcontrollers")
        .short(&["rc"])
        .in_all()
        .at("controllers")
        .subresources(&["scale", "status"])
        .selectable(&["status.replicas"]),
    namespaced("ResourceQuota", "resourcequotas").short(&["quota"]).status(),
    namespaced("Secret", "secrets").selectable(&["type"]),
    namespaced("ServiceAccount", "serviceaccounts").short(&["sa"]).subresources(&["token"]),
    namespaced("Service", "services")
        .short(&["svc"])
        .in_all()
        .at("services/specs")
        .subresources(&["proxy", "status"])
        .selectable(&["spec.clusterIP", "spec.type"]),
];
