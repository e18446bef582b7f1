//! RBAC bindings, disruption budgets, certificates, admission configuration, flow control.

use serde_json::Value;

use super::format::{NONE, UNSET, count, int_or_string, labels, name, or};
use super::{Printer, age, human_duration};
use crate::kinds::json::{child, list, map, number, text};

const BINDINGS: Printer = Printer {
    columns: "Name|Role|Age|Users*|Groups*|ServiceAccounts*",
    cells: |object, now| {
        let of = |kind: &str| {
            let subjects = list(object, "subjects").iter().filter(|subject| text(subject, "kind") == kind);
            let shown = subjects.map(|subject| if kind == "ServiceAccount" { format!("{}/{}", text(subject, "namespace"), text(subject, "name")) } else { text(subject, "name").to_owned() });
            Value::from(shown.collect::<Vec<_>>().join(", "))
        };
        let role = format!("{}/{}", text(object, "roleRef.kind"), text(object, "roleRef.name"));
        vec![name(object), role.into(), age(object, now).into(), of("User"), of("Group"), of("ServiceAccount")]
    },
};

const BUDGETS: Printer = Printer {
    columns: "Name|Min Available|Max Unavailable|Allowed Disruptions:i|Age",
    cells: |object, now| {
        let of = |path: &str| Value::from(child(object, path).map_or("N/A".to_owned(), int_or_string));
        vec![name(object), of("spec.minAvailable"), of("spec.maxUnavailable"), count(object, "status.disruptionsAllowed"), age(object, now).into()]
    },
};

const SIGNING_REQUESTS: Printer = Printer {
    columns: "Name|Age|SignerName|Requestor|RequestedDuration|Condition",
    cells: |object, now| {
        let has = |kind: &str| list(object, "status.conditions").iter().any(|condition| text(condition, "type") == kind);
        let mut condition = if has("Denied") { "Denied" } else if has("Approved") { "Approved" } else { "Pending" }.to_owned();
        if has("Failed") {
            condition.push_str(",Failed");
        }
        if !text(object, "status.certificate").is_empty() {
            condition.push_str(",Issued");
        }
        let duration = number(object, "spec.expirationSeconds").map_or(NONE.to_owned(), human_duration);
        vec![name(object), age(object, now).into(), or(text(object, "spec.signerName"), NONE).into(), text(object, "spec.username").into(), duration.into(), condition.into()]
    },
};

const TRUST_BUNDLES: Printer = Printer { columns: "Name|SignerName", cells: |object, _| vec![name(object), or(text(object, "spec.signerName"), NONE).into()] };

const POD_CERTIFICATES: Printer = Printer {
    columns: "Name|PodName|ServiceAccountName|NodeName|SignerName|State|UnverifiedUserAnnotations",
    cells: |object, _| {
        let state = list(object, "status.conditions").iter().map(|condition| text(condition, "type")).rfind(|kind| matches!(*kind, "Issued" | "Denied" | "Failed")).unwrap_or("Pending");
        let of = |path: &str| Value::from(text(object, path));
        vec![
            name(object), of("spec.podName"), of("spec.serviceAccountName"), of("spec.nodeName"), of("spec.signerName"), state.into(),
            labels(map(object, "spec.unverifiedUserAnnotations")).into(),
        ]
    },
};

const WEBHOOKS: Printer = Printer { columns: "Name|Webhooks:i|Age", cells: |object, now| vec![name(object), list(object, "webhooks").len().into(), age(object, now).into()] };

fn param_kind(object: &Value) -> Value {
    child(object, "spec.paramKind").map_or(UNSET.to_owned(), |kind| format!("{}/{}", text(kind, "apiVersion"), text(kind, "kind"))).into()
}

const VALIDATING_POLICIES: Printer =
    Printer { columns: "Name|Validations:i|ParamKind|Age", cells: |object, now| vec![name(object), list(object, "spec.validations").len().into(), param_kind(object), age(object, now).into()] };

const MUTATING_POLICIES: Printer =
    Printer { columns: "Name|Mutations:i|ParamKind|Age", cells: |object, now| vec![name(object), list(object, "spec.mutations").len().into(), param_kind(object), age(object, now).into()] };

const POLICY_BINDINGS: Printer = Printer {
    columns: "Name|PolicyName|ParamRef|Age",
    cells: |object, now| {
        let reference = child(object, "spec.paramRef").map_or(UNSET.to_owned(), |reference| match (text(reference, "namespace"), text(reference, "name")) {
            (_, "") if child(reference, "selector").is_none() => UNSET.to_owned(),
            (_, "") => super::format::selector(reference, "selector"),
            ("", name) => format!("*/{name}"),
            (namespace, name) => format!("{namespace}/{name}"),
        });
        vec![name(object), text(object, "spec.policyName").into(), reference.into(), age(object, now).into()]
    },
};

const FLOW_SCHEMAS: Printer = Printer {
    columns: "Name|PriorityLevel|MatchingPrecedence|DistinguisherMethod|Age|MissingPL",
    cells: |object, now| {
        let dangling = list(object, "status.conditions").iter().find(|condition| text(condition, "type") == "Dangling").map_or("?", |condition| text(condition, "status"));
        vec![
            name(object),
            text(object, "spec.priorityLevelConfiguration.name").into(),
            count(object, "spec.matchingPrecedence"),
            or(text(object, "spec.distinguisherMethod.type"), NONE).into(),
            age(object, now).into(),
            dangling.into(),
        ]
    },
};

const PRIORITY_LEVELS: Printer = Printer {
    columns: "Name|Type|NominalConcurrencyShares|Queues|HandSize|QueueLengthLimit|Age",
    cells: |object, now| {
        let of = |path: &str| number(object, path).map_or(Value::from(NONE), Value::from);
        let queuing = |field: &str| of(&format!("spec.limited.limitResponse.queuing.{field}"));
        vec![
            name(object), text(object, "spec.type").into(), of("spec.limited.nominalConcurrencyShares"), queuing("queues"), queuing("handSize"), queuing("queueLengthLimit"),
            age(object, now).into(),
        ]
    },
};

pub fn printer(group: &str, plural: &str) -> Option<&'static Printer> {
    Some(match (group, plural) {
        ("rbac.authorization.k8s.io", "rolebindings" | "clusterrolebindings") => &BINDINGS,
        ("policy", "poddisruptionbudgets") => &BUDGETS,
        ("certificates.k8s.io", "certificatesigningrequests") => &SIGNING_REQUESTS,
        ("certificates.k8s.io", "clustertrustbundles") => &TRUST_BUNDLES,
        ("certificates.k8s.io", "podcertificaterequests") => &POD_CERTIFICATES,
        ("admissionregistration.k8s.io", "mutatingwebhookconfigurations" | "validatingwebhookconfigurations") => &WEBHOOKS,
        ("admissionregistration.k8s.io", "validatingadmissionpolicies") => &VALIDATING_POLICIES,
        ("admissionregistration.k8s.io", "mutatingadmissionpolicies") => &MUTATING_POLICIES,
        ("admissionregistration.k8s.io", "validatingadmissionpolicybindings" | "mutatingadmissionpolicybindings") => &POLICY_BINDINGS,
        ("flowcontrol.apiserver.k8s.io", "flowschemas") => &FLOW_SCHEMAS,
        ("flowcontrol.apiserver.k8s.io", "prioritylevelconfigurations") => &PRIORITY_LEVELS,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::line;
    use serde_json::json;

    #[test]
    fn policies() {
        let binding = json!({"roleRef": {"kind": "ClusterRole", "name": "admin"}, "subjects": [{"kind": "User", "name": "u"}, {"kind": "ServiceAccount", "namespace": "n", "name": "s"}]});
        assert_eq!(line("rbac.authorization.k8s.io", "v1", "rolebindings", binding), "x|ClusterRole/admin|5m|u||n/s");
        assert_eq!(line("policy", "v1", "poddisruptionbudgets", json!({"spec": {"minAvailable": "50%"}})), "x|50%|N/A|0|5m");
        let csr = json!({"spec": {"signerName": "kubernetes.io/kubelet-serving", "username": "u", "expirationSeconds": 3600}, "status": {"certificate": "eA==", "conditions": [{"type": "Approved"}]}});
        assert_eq!(line("certificates.k8s.io", "v1", "certificatesigningrequests", csr), "x|5m|kubernetes.io/kubelet-serving|u|60m|Approved,Issued");
    }
}
