//! One topology spread constraint of a pod, taken out of it once.

use std::collections::BTreeMap;

use api::k8s::api::core::v1::TopologySpreadConstraint;
use api::selector::LabelSelector;

use crate::affinity::selector;
use crate::pod::PodInfo;

pub const HOSTNAME: &str = "kubernetes.io/hostname";
const ZONE: &str = "topology.kubernetes.io/zone";
/// Upstream's default constraints (`systemDefaultConstraints`), both `ScheduleAnyway`.
const DEFAULTS: [(&str, i64); 2] = [(HOSTNAME, 3), (ZONE, 5)];

#[derive(Debug, Clone)]
enum Whom {
    Selected(LabelSelector),
    /// Pods of one controller: what upstream's default constraints find by the selectors of Services and controllers.
    OwnedBy(String),
}

#[derive(Debug, Clone)]
pub struct Constraint {
    pub max_skew: i64,
    pub topology_key: String,
    /// `DoNotSchedule`.
    pub hard: bool,
    pub min_domains: i64,
    pub honor_affinity: bool,
    pub honor_taints: bool,
    whom: Whom,
}

impl Constraint {
    pub fn of(each: &TopologySpreadConstraint, labels: &BTreeMap<String, String>) -> Self {
        let mut wanted = each.label_selector.clone();
        if let Some(wanted) = &mut wanted {
            for key in each.match_label_keys.iter().flatten() {
                if let Some(value) = labels.get(key) {
                    wanted.match_labels.get_or_insert_default().insert(key.clone(), value.clone());
                }
            }
        }
        Self {
            max_skew: i64::from(each.max_skew),
            topology_key: each.topology_key.clone(),
            hard: each.when_unsatisfiable != "ScheduleAnyway",
            min_domains: i64::from(each.min_domains.unwrap_or(1)),
            honor_affinity: each.node_affinity_policy.as_deref() != Some("Ignore"),
            honor_taints: each.node_taints_policy.as_deref() == Some("Honor"),
            whom: Whom::Selected(selector(wanted.as_ref())),
        }
    }

    /// For pods that a controller owns and that say nothing themselves.
    pub fn defaults(owner_uid: &str) -> Vec<Self> {
        let default = |(topology_key, max_skew): (&str, i64)| Self {
            max_skew,
            topology_key: topology_key.to_owned(),
            hard: false,
            min_domains: 1,
            honor_affinity: true,
            honor_taints: false,
            whom: Whom::OwnedBy(owner_uid.to_owned()),
        };
        DEFAULTS.map(default).into()
    }

    pub fn selects(&self, pod: &PodInfo) -> bool {
        match &self.whom {
            Whom::Selected(selector) => selector.matches(&pod.labels),
            Whom::OwnedBy(uid) => pod.owner_uid == *uid,
        }
    }

    /// Whether `other` counts against `pod`: of its namespace, selected, and not on its way out. A selector of everything counts nobody, as upstream.
    pub fn counts(&self, pod: &PodInfo, other: &PodInfo) -> bool {
        let empty = matches!(&self.whom, Whom::Selected(selector) if selector.is_empty());
        !other.deleting && !empty && self.selects(other) && other.namespace == pod.namespace
    }
}
