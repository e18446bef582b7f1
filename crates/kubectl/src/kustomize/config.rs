//! Which fields of which kinds the transformers change: kustomize's own facts, and those of `configurations`.
//!
//! Mirrors kustomize's builtinpluginconsts and TransformerConfig.

use serde::Deserialize;

use super::fields::FieldSpec;
use super::id::Gvk;
use crate::error::Result;

/// The fields that hold the name of a kind.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct NameReference {
    #[serde(flatten)]
    pub gvk: Gvk,
    pub field_specs: Vec<FieldSpec>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Config {
    pub name_prefix: Vec<FieldSpec>,
    pub name_suffix: Vec<FieldSpec>,
    pub namespace: Vec<FieldSpec>,
    pub common_labels: Vec<FieldSpec>,
    pub labels: Vec<FieldSpec>,
    pub template_labels: Vec<FieldSpec>,
    pub common_annotations: Vec<FieldSpec>,
    pub name_reference: Vec<NameReference>,
    pub var_reference: Vec<FieldSpec>,
    pub images: Vec<FieldSpec>,
    pub replicas: Vec<FieldSpec>,
}

/// Where kinds have their pod's spec.
const POD_SPECS: &[(&str, &str)] = &[
    ("Pod", "spec"), ("PodTemplate", "template/spec"), ("Deployment", TEMPLATE), ("ReplicaSet", TEMPLATE), ("DaemonSet", TEMPLATE), ("StatefulSet", TEMPLATE), ("Job", TEMPLATE),
    ("CronJob", "spec/jobTemplate/spec/template/spec"),
];
const TEMPLATE: &str = "spec/template/spec";
/// The kinds whose pods' accounts, claims and priorities are followed.
const WORKLOADS: &[(&str, &str)] = &[
    ("Pod", "spec"), ("StatefulSet", TEMPLATE), ("Deployment", TEMPLATE), ("ReplicationController", TEMPLATE), ("CronJob", "spec/jobTemplate/spec/template/spec"), ("Job", TEMPLATE), ("DaemonSet", TEMPLATE),
];

fn spec(group: &str, kind: &str, path: &str, create: bool) -> FieldSpec {
    FieldSpec { gvk: Gvk { group: group.into(), version: String::new(), kind: kind.into() }, path: path.into(), create }
}

fn versioned(version: &str, kind: &str, path: &str, create: bool) -> FieldSpec {
    FieldSpec { gvk: Gvk { group: String::new(), version: version.into(), kind: kind.into() }, path: path.into(), create }
}

fn within(places: &[(&str, &str)], paths: &[&str]) -> Vec<FieldSpec> {
    places.iter().flat_map(|(kind, base)| paths.iter().map(move |path| FieldSpec::of(kind, &format!("{base}/{path}")))).collect()
}

fn reference(group: &str, version: &str, kind: &str, mut field_specs: Vec<FieldSpec>, others: &[(&str, &str, &str)]) -> NameReference {
    field_specs.extend(others.iter().map(|(group, kind, path)| spec(group, kind, path, false)));
    NameReference { gvk: Gvk { group: group.into(), version: version.into(), kind: kind.into() }, field_specs }
}

const RBAC: &str = "rbac.authorization.k8s.io";
const ADMISSION: &str = "admissionregistration.k8s.io";

fn name_references() -> Vec<NameReference> {
    let mut found: Vec<NameReference> =
        ["Deployment", "ReplicationController", "ReplicaSet", "StatefulSet"].iter().map(|kind| reference("", "", kind, Vec::new(), &[("", "HorizontalPodAutoscaler", "spec/scaleTargetRef/name")])).collect();
    found.extend([
        reference(
            "", "v1", "ConfigMap",
            within(POD_SPECS, &[
                "volumes/configMap/name", "containers/env/valueFrom/configMapKeyRef/name", "initContainers/env/valueFrom/configMapKeyRef/name", "containers/envFrom/configMapRef/name",
                "initContainers/envFrom/configMapRef/name", "volumes/projected/sources/configMap/name",
            ]),
            &[
                ("", "Node", "spec/configSource/configMap"), ("", "Role", "rules/resourceNames"), ("", "ClusterRole", "rules/resourceNames"),
                ("", "Ingress", "metadata/annotations/nginx.ingress.kubernetes.io\\/fastcgi-params-configmap"),
            ],
        ),
        reference(
            "", "v1", "Secret",
            within(POD_SPECS, &[
                "volumes/secret/secretName", "containers/env/valueFrom/secretKeyRef/name", "initContainers/env/valueFrom/secretKeyRef/name", "containers/envFrom/secretRef/name", "initContainers/envFrom/secretRef/name",
                "imagePullSecrets/name", "volumes/projected/sources/secret/name",
            ]),
            &[
                ("", "Ingress", "spec/tls/secretName"), ("", "Ingress", "metadata/annotations/ingress.kubernetes.io\\/auth-secret"), ("", "Ingress", "metadata/annotations/nginx.ingress.kubernetes.io\\/auth-secret"),
                ("", "Ingress", "metadata/annotations/nginx.ingress.kubernetes.io\\/auth-tls-secret"), ("", "ServiceAccount", "imagePullSecrets/name"), ("", "StorageClass", "parameters/secretName"),
                ("", "StorageClass", "parameters/adminSecretName"), ("", "StorageClass", "parameters/userSecretName"), ("", "StorageClass", "parameters/secretRef"), ("", "Role", "rules/resourceNames"),
                ("", "ClusterRole", "rules/resourceNames"), ("serving.knative.dev", "Service", "spec/template/spec/containers/env/valueFrom/secretKeyRef/name"), ("", "PersistentVolume", "spec/azureFile/secretName"),
            ],
        ),
        reference(
            "", "v1", "Service", Vec::new(),
            &[
                ("apps", "StatefulSet", "spec/serviceName"), ("", "Ingress", "spec/rules/http/paths/backend/serviceName"), ("", "Ingress", "spec/backend/serviceName"),
                ("", "Ingress", "spec/rules/http/paths/backend/service/name"), ("", "Ingress", "spec/defaultBackend/service/name"), ("apiregistration.k8s.io", "APIService", "spec/service/name"),
                (ADMISSION, "ValidatingWebhookConfiguration", "webhooks/clientConfig/service"), (ADMISSION, "MutatingWebhookConfiguration", "webhooks/clientConfig/service"),
            ],
        ),
        reference(RBAC, "", "Role", Vec::new(), &[(RBAC, "RoleBinding", "roleRef/name")]),
        reference(RBAC, "", "ClusterRole", Vec::new(), &[(RBAC, "RoleBinding", "roleRef/name"), (RBAC, "ClusterRoleBinding", "roleRef/name")]),
        reference("", "v1", "ServiceAccount", within(WORKLOADS, &["serviceAccountName"]), &[(RBAC, "RoleBinding", "subjects"), (RBAC, "ClusterRoleBinding", "subjects")]),
        reference("", "v1", "PersistentVolumeClaim", within(WORKLOADS, &["volumes/persistentVolumeClaim/claimName"]), &[]),
        reference("", "v1", "PersistentVolume", Vec::new(), &[("", "PersistentVolumeClaim", "spec/volumeName"), ("", "ClusterRole", "rules/resourceNames")]),
        reference(
            "storage.k8s.io", "v1", "StorageClass", Vec::new(),
            &[("", "PersistentVolume", "spec/storageClassName"), ("", "PersistentVolumeClaim", "spec/storageClassName"), ("", "StatefulSet", "spec/volumeClaimTemplates/spec/storageClassName")],
        ),
        reference("scheduling.k8s.io", "v1", "PriorityClass", within(WORKLOADS, &["priorityClassName"]), &[]),
        // Upstream's group has a version in it, so it selects nothing; ours does the same.
        reference("networking.k8s.io/v1", "v1", "IngressClass", Vec::new(), &[("", "Ingress", "spec/ingressClassName")]),
        reference(ADMISSION, "", "ValidatingAdmissionPolicy", Vec::new(), &[(ADMISSION, "ValidatingAdmissionPolicyBinding", "spec/policyName")]),
    ]);
    found
}

fn metadata_labels() -> Vec<FieldSpec> {
    vec![
        spec("", "", "metadata/labels", true),
        versioned("v1", "ReplicationController", "spec/template/metadata/labels", true),
        spec("", "Deployment", "spec/template/metadata/labels", true),
        spec("", "ReplicaSet", "spec/template/metadata/labels", true),
        spec("", "DaemonSet", "spec/template/metadata/labels", true),
        spec("apps", "StatefulSet", "spec/template/metadata/labels", true),
        spec("apps", "StatefulSet", "spec/volumeClaimTemplates[]/metadata/labels", true),
        spec("batch", "Job", "spec/template/metadata/labels", true),
        spec("batch", "CronJob", "spec/jobTemplate/metadata/labels", true),
        spec("batch", "CronJob", "spec/jobTemplate/spec/template/metadata/labels", true),
    ]
}

fn common_labels() -> Vec<FieldSpec> {
    let mut found = vec![
        versioned("v1", "Service", "spec/selector", true),
        versioned("v1", "ReplicationController", "spec/selector", true),
        spec("", "Deployment", "spec/selector/matchLabels", true),
        spec("", "ReplicaSet", "spec/selector/matchLabels", true),
        spec("", "DaemonSet", "spec/selector/matchLabels", true),
        spec("apps", "StatefulSet", "spec/selector/matchLabels", true),
        spec("batch", "Job", "spec/selector/matchLabels", false),
        spec("batch", "CronJob", "spec/jobTemplate/spec/selector/matchLabels", false),
        spec("policy", "PodDisruptionBudget", "spec/selector/matchLabels", false),
        spec("networking.k8s.io", "NetworkPolicy", "spec/podSelector/matchLabels", false),
        spec("networking.k8s.io", "NetworkPolicy", "spec/ingress/from/podSelector/matchLabels", false),
        spec("networking.k8s.io", "NetworkPolicy", "spec/egress/to/podSelector/matchLabels", false),
    ];
    for kind in ["Deployment", "StatefulSet"] {
        for affinity in ["podAffinity", "podAntiAffinity"] {
            for term in ["preferredDuringSchedulingIgnoredDuringExecution/podAffinityTerm", "requiredDuringSchedulingIgnoredDuringExecution"] {
                found.push(spec("apps", kind, &format!("spec/template/spec/affinity/{affinity}/{term}/labelSelector/matchLabels"), false));
            }
        }
        found.push(spec("apps", kind, "spec/template/spec/topologySpreadConstraints/labelSelector/matchLabels", false));
    }
    found.extend(metadata_labels());
    found
}

fn common_annotations() -> Vec<FieldSpec> {
    vec![
        spec("", "", "metadata/annotations", true),
        versioned("v1", "ReplicationController", "spec/template/metadata/annotations", true),
        spec("", "Deployment", "spec/template/metadata/annotations", true),
        spec("", "ReplicaSet", "spec/template/metadata/annotations", true),
        spec("", "DaemonSet", "spec/template/metadata/annotations", true),
        spec("", "StatefulSet", "spec/template/metadata/annotations", true),
        spec("batch", "Job", "spec/template/metadata/annotations", true),
        spec("batch", "CronJob", "spec/jobTemplate/metadata/annotations", true),
        spec("batch", "CronJob", "spec/jobTemplate/spec/template/metadata/annotations", true),
    ]
}

fn variables() -> Vec<FieldSpec> {
    let kinds: Vec<(&str, &str)> = POD_SPECS.iter().copied().filter(|(kind, _)| *kind != "PodTemplate").collect();
    let mut found = within(&kinds, &[
        "containers/args", "containers/command", "containers/env/value", "containers/volumeMounts/mountPath", "initContainers/args", "initContainers/command", "initContainers/env/value",
        "initContainers/volumeMounts/mountPath", "volumes/nfs/server",
    ]);
    for (kind, path) in [
        ("Deployment", "spec/template/metadata/annotations"), ("Ingress", "spec/rules/host"), ("Ingress", "spec/tls/hosts"), ("Ingress", "spec/tls/secretName"), ("Service", "spec/ports/port"),
        ("Service", "spec/ports/targetPort"), ("StatefulSet", "spec/volumeClaimTemplates/spec/nfs/server"), ("PersistentVolume", "spec/nfs/server"), ("", "metadata/labels"), ("", "metadata/annotations"),
    ] {
        found.push(FieldSpec::of(kind, path));
    }
    found
}

impl Config {
    pub fn builtin() -> Self {
        let images = ["spec/", "spec/template/spec/"].iter().flat_map(|base| ["containers[]/image", "initContainers[]/image", "volumes[]/image/reference"].map(|path| spec("", "", &format!("{base}{path}"), true))).collect();
        Self {
            name_prefix: vec![FieldSpec::of("", "metadata/name")],
            name_suffix: vec![FieldSpec::of("", "metadata/name")],
            namespace: vec![
                spec("", "Namespace", "metadata/name", true),
                spec("apiregistration.k8s.io", "APIService", "spec/service/namespace", true),
                spec("apiextensions.k8s.io", "CustomResourceDefinition", "spec/conversion/webhook/clientConfig/service/namespace", false),
            ],
            common_labels: common_labels(),
            labels: Vec::new(),
            template_labels: metadata_labels(),
            common_annotations: common_annotations(),
            name_reference: name_references(),
            var_reference: variables(),
            images,
            // In the order in which upstream's sorting leaves them.
            replicas: ["Deployment", "StatefulSet", "ReplicaSet", "ReplicationController"].iter().map(|kind| spec("", kind, "spec/replicas", true)).collect(),
        }
    }

    pub fn merge(&mut self, more: &Config) -> Result<()> {
        for (list, more) in [
            (&mut self.name_prefix, &more.name_prefix),
            (&mut self.name_suffix, &more.name_suffix),
            (&mut self.namespace, &more.namespace),
            (&mut self.common_labels, &more.common_labels),
            (&mut self.labels, &more.labels),
            (&mut self.template_labels, &more.template_labels),
            (&mut self.common_annotations, &more.common_annotations),
            (&mut self.var_reference, &more.var_reference),
            (&mut self.images, &more.images),
            (&mut self.replicas, &more.replicas),
        ] {
            FieldSpec::merge(list, more)?;
        }
        for reference in &more.name_reference {
            match self.name_reference.iter_mut().find(|known| known.gvk == reference.gvk) {
                Some(known) => FieldSpec::merge(&mut known.field_specs, &reference.field_specs)?,
                None => self.name_reference.push(reference.clone()),
            }
        }
        Ok(())
    }
}
