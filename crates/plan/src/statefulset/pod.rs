//! The pods and claims of a StatefulSet: what each is called and made of.

use std::collections::BTreeMap;

use api::k8s::api::apps::v1::{ControllerRevision, StatefulSet, StatefulSetSpec};
use api::k8s::api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, Pod, PodTemplateSpec, Volume};
use api::k8s::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::meta::{controller_reference, name, namespace};
use crate::pods;
use crate::revisions::HASH;

const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
const POD_INDEX: &str = "apps.kubernetes.io/pod-index";

/// The number in `web-3`, if it is a pod's name of this set.
pub fn ordinal(set: &str, pod: &str) -> Option<i32> {
    let digits = pod.strip_prefix(set)?.strip_prefix('-')?;
    let number: i32 = digits.parse().ok()?;
    (number >= 0 && number.to_string() == digits).then_some(number)
}

/// The template a revision holds.
pub fn template_of(revision: &ControllerRevision) -> Option<PodTemplateSpec> {
    serde_json::from_value(revision.data.as_ref()?.0.pointer("/spec/template")?.clone()).ok()
}

fn claim_name(template: &PersistentVolumeClaim, set: &StatefulSet, ordinal: i32) -> String {
    format!("{}-{}-{ordinal}", name(template), name(set))
}

pub fn claims(set: &StatefulSet, spec: &StatefulSetSpec, ordinal: i32) -> Vec<PersistentVolumeClaim> {
    let build = |template: &PersistentVolumeClaim| {
        let mut labels = template.metadata.labels.clone().unwrap_or_default();
        labels.extend(spec.selector.match_labels.clone().unwrap_or_default());
        PersistentVolumeClaim {
            metadata: ObjectMeta {
                name: Some(claim_name(template, set, ordinal)),
                namespace: Some(namespace(set).to_owned()),
                labels: Some(labels),
                annotations: template.metadata.annotations.clone(),
                ..ObjectMeta::default()
            },
            spec: template.spec.clone(),
            status: None,
        }
    };
    spec.volume_claim_templates.iter().flatten().map(build).collect()
}

pub fn build(set: &StatefulSet, spec: &StatefulSetSpec, template: &PodTemplateSpec, ordinal: i32, revision: &str) -> Pod {
    let mut pod = pods::from_template(template, namespace(set), name(set), controller_reference(set));
    let pod_name = format!("{}-{ordinal}", name(set));
    pod.metadata.generate_name = Some(format!("{}-", name(set)));
    pod.metadata.name = Some(pod_name.clone());
    let labels: &mut BTreeMap<String, String> = pod.metadata.labels.get_or_insert_default();
    labels.insert(POD_NAME.to_owned(), pod_name.clone());
    labels.insert(POD_INDEX.to_owned(), ordinal.to_string());
    labels.insert(HASH.to_owned(), revision.to_owned());
    let pod_spec = pod.spec.get_or_insert_default();
    pod_spec.hostname = Some(pod_name);
    pod_spec.subdomain = spec.service_name.clone().filter(|name| !name.is_empty());
    let volumes = pod_spec.volumes.get_or_insert_default();
    for claim in spec.volume_claim_templates.iter().flatten() {
        volumes.retain(|volume| volume.name != name(claim));
        let source = PersistentVolumeClaimVolumeSource { claim_name: claim_name(claim, set, ordinal), read_only: None };
        volumes.push(Volume { name: name(claim).to_owned(), persistent_volume_claim: Some(source), ..Volume::default() });
    }
    pod
}
