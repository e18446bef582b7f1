//! ResourceQuota: `status.hard` follows the spec, `status.used` what was counted.
//!
//! Watches: quotas, and the going of whatever they count. Writes: the quota's status. Never: refuses anything; that is admission's, which counts up while
//! this counts anew. Mirrors `pkg/controller/resourcequota`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api::k8s::api::core::v1::{ResourceQuota, ResourceQuotaStatus};
use api::k8s::apimachinery::pkg::api::resource::Quantity as Text;
use api::quantity::Quantity;
use api::usage::Amounts;

use crate::meta::deleting;
use crate::op::{Op, Plan};

/// Whatever was missed is counted by then.
const RESYNC: Duration = Duration::from_secs(5 * 60);

pub struct View {
    pub quota: Arc<ResourceQuota>,
    /// What objects in the namespace use of what the quota bounds; a resource nobody counts is left out.
    pub used: Amounts,
}

pub fn plan(view: &View) -> Plan {
    let mut plan = Plan::default();
    let quota = view.quota.as_ref();
    if deleting(quota) {
        return plan;
    }
    plan.look_again(RESYNC);
    let hard = quota.spec.as_ref().and_then(|spec| spec.hard.clone()).unwrap_or_default();
    let old = quota.status.clone().unwrap_or_default();
    let mut used = old.used.clone().unwrap_or_default();
    for (name, amount) in &view.used {
        used.insert(name.clone(), Text(amount.to_string()));
    }
    used.retain(|name, _| hard.contains_key(name));
    if same(old.hard.as_ref(), &hard) && same(old.used.as_ref(), &used) {
        return plan;
    }
    plan.push(Op::status(&ResourceQuota { status: Some(ResourceQuotaStatus { hard: Some(hard), used: Some(used) }), ..quota.clone() }));
    plan
}

/// By value: `1` is `1000m`.
fn same(old: Option<&BTreeMap<String, Text>>, new: &BTreeMap<String, Text>) -> bool {
    let value = |text: &Text| Quantity::parse(&text.0).ok();
    old.is_some_and(|old| old.len() == new.len() && new.iter().all(|(name, amount)| old.get(name).is_some_and(|known| known == amount || value(known) == value(amount))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_status_follows_spec_and_count() {
        let quota = |status| Arc::new(serde_json::from_value::<ResourceQuota>(json!({"metadata": {"name": "q", "namespace": "ns"}, "spec": {"hard": {"pods": "5", "cpu": "2"}}, "status": status})).unwrap());
        let used = Amounts::from([("pods".to_owned(), Quantity::parse("1").unwrap()), ("secrets".to_owned(), Quantity::parse("9").unwrap())]);
        let written = |status| {
            let plan = plan(&View { quota: quota(status), used: used.clone() });
            assert_eq!(plan.requeue_after, Some(RESYNC));
            plan.ops.into_iter().map(|op| match op { Op::Replace { object, .. } => object["status"].to_string(), other => panic!("{other}") }).collect::<Vec<_>>()
        };
        assert_eq!(written(json!({})), [r#"{"hard":{"cpu":"2","pods":"5"},"used":{"pods":"1"}}"#]);
        // What nobody counts now keeps what was known of it.
        assert_eq!(written(json!({"hard": {"pods": "4"}, "used": {"pods": "3", "cpu": "1"}})), [r#"{"hard":{"cpu":"2","pods":"5"},"used":{"cpu":"1","pods":"1"}}"#]);
        assert!(written(json!({"hard": {"pods": "5", "cpu": "2000m"}, "used": {"pods": "1", "cpu": "0"}})).is_empty());
    }
}
