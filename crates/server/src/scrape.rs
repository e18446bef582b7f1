//! `/metrics` and `/metrics/slis`: all that is measured, put together for who scrapes.
//!
//! https://kubernetes.io/docs/reference/instrumentation/metrics/

use std::collections::BTreeSet;

use basics::histogram::head;
use basics::metrics::{line, shown, single};

use crate::api::Api;
use crate::{aggregator, expressions_measured, health, special};

pub fn metrics(api: &Api) -> String {
    let mut out = String::new();
    basics::version::build_info(&mut out, &api.config.git_version);
    head(&mut out, "version_info", "gauge", "[ALPHA] Provides the compatibility version info of the component. The component label is the name of the component, usually kube, but is relevant for aggregated-apiservers.");
    line(&mut out, "version_info", &shown([("binary", "1.36"), ("component", "kube"), ("emulation", "1.36"), ("min_compat", "1.35")]), 1);
    objects(api, &mut out);
    if let Some(size) = api.store.size_bytes() {
        head(&mut out, "apiserver_storage_size_bytes", "gauge", "[STABLE] Size of the storage database file physically allocated in bytes.");
        line(&mut out, "apiserver_storage_size_bytes", "storage_cluster_id=\"etcd-0\"", size);
        head(&mut out, "apiserver_storage_db_total_size_in_bytes", "gauge", "[ALPHA] Total size of the storage database file physically allocated in bytes.");
        line(&mut out, "apiserver_storage_db_total_size_in_bytes", "endpoint=\"embedded\"", size);
    }
    special::allocation::metrics(api, &mut out);
    head(&mut out, "aggregator_unavailable_apiservice", "gauge", "[ALPHA] Gauge of APIServices which are marked as unavailable broken down by APIService name.");
    for (name, available) in aggregator::availability(api) {
        line(&mut out, "aggregator_unavailable_apiservice", &shown([("name", &*name)]), u8::from(!available));
    }
    api.requests.text(&mut out);
    api.measured.text(&mut out);
    expressions_measured::text(&mut out);
    out.push_str(&api.flow_control.metrics());
    if let Some(audit) = &api.config.audit {
        audit.text(&mut out);
    }
    if let Some(encryption) = &api.config.encryption {
        encryption.metrics.text(&mut out);
    }
    if let Some(webhook) = &api.config.authentication.webhook {
        webhook.metrics.text(&mut out);
    }
    for followed in &api.config.followed {
        if let Some(metrics) = &followed.metrics {
            metrics.text(&mut out);
        }
    }
    api.outbound.metrics.text(&mut out);
    single(&mut out, "coracle_store_revision", "counter", "The newest revision of the key space.", api.store.revision());
    basics::process::text(&mut out);
    out
}

/// Each check of the health endpoints, as it is now.
pub fn indicators(api: &Api) -> String {
    let mut out = String::new();
    head(&mut out, "kubernetes_healthcheck", "gauge", "[STABLE] This metric records the result of a single healthcheck.");
    for kind in health::ENDPOINTS {
        for (name, outcome) in health::checks(api, kind) {
            line(&mut out, "kubernetes_healthcheck", &shown([("name", name), ("type", kind)]), u8::from(outcome.is_ok()));
        }
    }
    out
}

/// How many there are of each kind.
fn objects(api: &Api, out: &mut String) {
    let rows = api.serving.rows();
    let mut seen = BTreeSet::new();
    let counted: Vec<_> = rows.all().iter().filter(|row| row.allows(::api::Verb::List) && seen.insert(row.prefix.clone())).map(|row| (row, api.store.count(&row.prefix))).collect();
    head(out, "apiserver_storage_objects", "gauge", "[STABLE] [DEPRECATED, consider using apiserver_resource_objects instead] Number of stored objects at the time of last check split by kind. In case of a fetching error, the value will be -1.");
    counted.iter().for_each(|(row, count)| line(out, "apiserver_storage_objects", &shown([("resource", &*row.qualified())]), count));
    head(out, "apiserver_resource_objects", "gauge", "[ALPHA] Number of stored objects at the time of last check split by kind. In case of a fetching error, the value will be -1.");
    counted.iter().for_each(|(row, count)| line(out, "apiserver_resource_objects", &shown([("group", &*row.group), ("resource", &*row.plural)]), count));
}
