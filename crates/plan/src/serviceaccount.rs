//! What every namespace gets: the ServiceAccount `default` and the ConfigMap `kube-root-ca.crt`.
//!
//! Watches: namespaces and those two objects. Writes: those two objects. Mirrors `pkg/controller/serviceaccount` and `pkg/controller/certificates/rootcacertpublisher`.

pub mod tokens;

use std::collections::BTreeMap;
use std::sync::Arc;

use api::k8s::api::core::v1::{ConfigMap, Namespace, ServiceAccount};
use api::k8s::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::json;

use crate::meta::{deleting, name};
use crate::op::{Op, Plan};

pub const ACCOUNT: &str = "default";
pub const ROOT_CA: &str = "kube-root-ca.crt";
const DESCRIPTION: &str = "kubernetes.io/description";
const DESCRIPTION_TEXT: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters.";

pub struct View {
    pub namespace: Arc<Namespace>,
    pub account: Option<Arc<ServiceAccount>>,
    pub root_ca: Option<Arc<ConfigMap>>,
    /// The certificate (PEM) by which the API server is known.
    pub certificate: Arc<str>,
}

pub fn plan(view: &View) -> Plan {
    let mut plan = Plan::default();
    let namespace = view.namespace.as_ref();
    if deleting(namespace) || namespace.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Terminating") {
        return plan;
    }
    let meta = |object: &str| ObjectMeta { name: Some(object.to_owned()), namespace: Some(name(namespace).to_owned()), ..ObjectMeta::default() };
    if view.account.is_none() {
        plan.push(or_exists(Op::create(&ServiceAccount { metadata: meta(ACCOUNT), ..ServiceAccount::default() })));
    }
    let data = BTreeMap::from([("ca.crt".to_owned(), view.certificate.to_string())]);
    match &view.root_ca {
        None => {
            let annotations = Some(BTreeMap::from([(DESCRIPTION.to_owned(), DESCRIPTION_TEXT.to_owned())]));
            plan.push(or_exists(Op::create(&ConfigMap {
                metadata: ObjectMeta { annotations, ..meta(ROOT_CA) },
                data: Some(data),
                ..ConfigMap::default()
            })));
        }
        Some(known) if known.data.as_ref() != Some(&data) => {
            plan.push(Op::replace(&ConfigMap { data: Some(data), ..known.as_ref().clone() }));
        }
        Some(known) if crate::meta::annotation(known.as_ref(), DESCRIPTION) != Some(DESCRIPTION_TEXT) => {
            plan.push(Op::merge(known.as_ref(), json!({"metadata": {"annotations": {DESCRIPTION: DESCRIPTION_TEXT}}})));
        }
        Some(_) => {}
    }
    plan
}

fn or_exists(mut op: Op) -> Op {
    if let Op::Create { or_exists, .. } = &mut op {
        *or_exists = true;
    }
    op
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_are_made_and_kept() {
        let object = |json: serde_json::Value| json;
        let namespace = |phase: &str| {
            Arc::new(serde_json::from_value::<Namespace>(object(json!({"metadata": {"name": "x"}, "status": {"phase": phase}}))).unwrap())
        };
        let mut view = View { namespace: namespace("Active"), account: None, root_ca: None, certificate: "PEM".into() };
        assert_eq!(plan(&view).to_string(), "create ServiceAccount x/default\ncreate ConfigMap x/kube-root-ca.crt\n");
        view.account = Some(Arc::default());
        view.root_ca =
            Some(Arc::new(serde_json::from_value(json!({"metadata": {"name": ROOT_CA, "namespace": "x"}, "data": {"ca.crt": "old"}})).unwrap()));
        assert_eq!(plan(&view).to_string(), "replace ConfigMap x/kube-root-ca.crt\n");
        view.namespace = namespace("Terminating");
        assert_eq!(plan(&view).to_string(), "");
    }
}
