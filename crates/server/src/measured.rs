//! What the API server measures of its own doing, beside its requests (`http/counted.rs`): who comes, who may, admission, the store, lists, other servers.
//!
//! Names, labels, bounds and words are those of k8s.io/apiserver: endpoints/filters/metrics.go, endpoints/metrics, admission/metrics, storage/etcd3/metrics,
//! authentication/request/x509, and kube-aggregator's.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ::api::{Resource, Status};
use basics::histogram::{Histogram, head};
use basics::metrics::{Counters, Family, Histograms, line, single};

use crate::authentication::{Presented, User};
use crate::authorization::Decision;

/// From a millisecond, doubled 14 times.
const MILLISECONDS: &[f64] = &[0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096, 8.192, 16.384];
const FILTER: &[f64] = &[0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 5.0, 10.0, 15.0, 30.0];
const ADMISSION: &[f64] = &[0.005, 0.025, 0.1, 0.5, 1.0, 2.5];
const STORE: &[f64] = &[0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0];
/// Nothing, half an hour, 1, 2, 6 and 12 hours, 1, 2, 4 and 7 days, 1, 3, 6 and 12 months.
const CERTIFICATE: &[f64] = &[0.0, 1800.0, 3600.0, 7200.0, 21600.0, 43200.0, 86400.0, 172_800.0, 345_600.0, 604_800.0, 2_592_000.0, 7_776_000.0, 15_552_000.0, 31_104_000.0];
/// Users who are told apart.
const KNOWN_USERS: [&str; 5] = ["admin", "client", "kube_proxy", "kubelet", "system:serviceaccount:kube-system:default"];

/// `LIST` of one kind.
#[derive(Default)]
struct Lists {
    count: AtomicU64,
    fetched: AtomicU64,
    returned: AtomicU64,
}

pub struct Measured {
    users: Counters,
    authentications: Counters,
    authentication: Histograms,
    authorizations: Counters,
    authorization: Histograms,
    certificates: Histogram,
    filters: Histograms,
    handshake_errors: AtomicU64,
    controllers: Histograms,
    steps: Histograms,
    store: Histograms,
    store_requests: Counters,
    store_errors: Counters,
    lists: Family<Lists>,
    pub(crate) unavailable: Counters,
    service_account_tokens: AtomicU64,
    pod_security: Counters,
    pod_security_errors: Counters,
}

impl Default for Measured {
    fn default() -> Self {
        const OPERATION: &[&str] = &["operation", "group", "resource"];
        Self {
            users: Counters::new("authenticated_user_requests", "[ALPHA] Counter of authenticated requests broken out by username.", &["username"]),
            authentications: Counters::new("authentication_attempts", "[ALPHA] Counter of authenticated attempts.", &["result"]),
            authentication: Histograms::new("authentication_duration_seconds", "[ALPHA] Authentication duration in seconds broken out by result.", &["result"], MILLISECONDS),
            authorizations: Counters::new("authorization_attempts_total", "[ALPHA] Counter of authorization attempts broken down by result. It can be either 'allowed', 'denied', 'no-opinion' or 'error'.", &["result"]),
            authorization: Histograms::new("authorization_duration_seconds", "[ALPHA] Authorization duration in seconds broken out by result.", &["result"], MILLISECONDS),
            certificates: Histogram::new(CERTIFICATE),
            filters: Histograms::new("apiserver_request_filter_duration_seconds", "[ALPHA] Request filter latency distribution in seconds, for each filter type", &["filter"], FILTER),
            handshake_errors: AtomicU64::new(0),
            controllers: Histograms::new("apiserver_admission_controller_admission_duration_seconds", "[STABLE] Admission controller latency histogram in seconds, identified by name and broken out for each operation and API resource and type (validate or admit).", &["name", "type", "operation", "rejected"], ADMISSION),
            steps: Histograms::new("apiserver_admission_step_admission_duration_seconds", "[STABLE] Admission sub-step latency histogram in seconds, broken out for each operation and API resource and step type (validate or admit).", &["type", "operation", "rejected"], ADMISSION),
            store: Histograms::new("etcd_request_duration_seconds", "[ALPHA] Etcd request latency in seconds for each operation and object type.", OPERATION, STORE),
            store_requests: Counters::new("etcd_requests_total", "[ALPHA] Etcd request counts for each operation and object type.", OPERATION),
            store_errors: Counters::new("etcd_request_errors_total", "[ALPHA] Etcd failed request counts for each operation and object type.", OPERATION),
            lists: Family::new(&["group", "resource"]),
            unavailable: Counters::new("aggregator_unavailable_apiservice_total", "[ALPHA] Counter of APIServices which are marked as unavailable broken down by APIService name and reason.", &["name", "reason"]),
            service_account_tokens: AtomicU64::new(0),
            pod_security: Counters::new("pod_security_evaluations_total", "[ALPHA] Number of policy evaluations that occurred, not counting ignored or exempt requests.", &["decision", "mode", "policy_level", "policy_version", "request_operation", "resource", "subresource"]),
            pod_security_errors: Counters::new("pod_security_errors_total", "[ALPHA] Number of errors preventing normal evaluation. Non-fatal errors may result in the latest restricted profile being used for evaluation.", &["fatal", "request_operation", "resource", "subresource"]),
        }
    }
}

impl Measured {
    /// Somebody has said who they are, or tried to (`tried`).
    pub(crate) fn authenticated(&self, outcome: &Result<std::sync::Arc<User>, Status>, presented: &Presented, tried: bool, now: i64, took: Duration) {
        let result = match outcome {
            Ok(user) => {
                self.users.add(&[compressed(&user.name)], 1);
                if let Some(ends) = presented.ends.filter(|_| presented.user.is_some()) {
                    self.certificates.observe((ends - now) as f64);
                }
                "success"
            }
            Err(_) if tried => "error",
            Err(_) => "failure",
        };
        self.authentications.add(&[result], 1);
        self.authentication.observe(&[result], took.as_secs_f64());
        self.filter("authentication", took);
    }

    pub(crate) fn authorized(&self, decision: &Decision, took: Duration) {
        let result = match decision {
            Decision { allowed: true, .. } => "allowed",
            Decision { denied: true, .. } => "denied",
            _ => "no-opinion",
        };
        self.authorizations.add(&[result], 1);
        self.authorization.observe(&[result], took.as_secs_f64());
        self.filter("authorization", took);
    }

    pub(crate) fn filter(&self, name: &str, took: Duration) {
        self.filters.observe(&[name], took.as_secs_f64());
    }

    pub(crate) fn handshake_failed(&self) {
        self.handshake_errors.fetch_add(1, Ordering::Relaxed);
    }

    /// A token of a service account was good.
    pub(crate) fn service_account(&self) {
        self.service_account_tokens.fetch_add(1, Ordering::Relaxed);
    }

    /// A plugin of admission was asked; `kind` is `admit` or `validate`.
    pub(crate) fn plugin(&self, name: &str, kind: &str, operation: &str, rejected: bool, took: Duration) {
        self.controllers.observe(&[name, kind, operation, if rejected { "true" } else { "false" }], took.as_secs_f64());
    }

    /// All who change, or all who judge, were asked.
    pub(crate) fn step(&self, kind: &str, operation: &str, rejected: bool, took: Duration) {
        self.steps.observe(&[kind, operation, if rejected { "true" } else { "false" }], took.as_secs_f64());
    }

    /// A write came back from the store. A precondition that did not hold is an answer, not an error.
    pub(crate) fn stored(&self, row: &Resource, operation: &str, outcome: &Result<std::sync::Arc<::api::Object>, store::CommitError>, took: Duration) {
        let labels = [operation, &row.group, &row.plural];
        self.store_requests.add(&labels, 1);
        self.store.observe(&labels, took.as_secs_f64());
        if matches!(outcome, Err(error) if !matches!(error, store::CommitError::Precondition { .. })) {
            self.store_errors.add(&labels, 1);
        }
    }

    /// A pod, or what makes pods, was judged by one mode of its namespace's policy; `of` is the operation, `pod` or `controller`, and the subresource.
    pub(crate) fn pod_security(&self, allowed: bool, mode: &str, (level, version): (&str, &str), of: [&str; 3]) {
        self.pod_security.add(&[if allowed { "allow" } else { "deny" }, mode, level, version, of[0], of[1], of[2]], 1);
    }

    /// The policy of a namespace is not understood as a whole.
    pub(crate) fn pod_security_failed(&self, of: [&str; 3]) {
        self.pod_security_errors.add(&["false", of[0], of[1], of[2]], 1);
    }

    pub(crate) fn listed(&self, row: &Resource, fetched: usize, returned: usize) {
        if let Some(lists) = self.lists.series(&[&row.group, &row.plural], Lists::default) {
            lists.count.fetch_add(1, Ordering::Relaxed);
            lists.fetched.fetch_add(fetched as u64, Ordering::Relaxed);
            lists.returned.fetch_add(returned as u64, Ordering::Relaxed);
        }
    }

    pub(crate) fn text(&self, out: &mut String) {
        self.users.text(out);
        self.authentications.text(out);
        self.authentication.text(out);
        self.authorizations.text(out);
        self.authorization.text(out);
        head(out, "apiserver_client_certificate_expiration_seconds", "histogram", "[ALPHA] Distribution of the remaining lifetime on the certificate used to authenticate a request.");
        self.certificates.lines(out, "apiserver_client_certificate_expiration_seconds", "");
        self.filters.text(out);
        single(out, "apiserver_tls_handshake_errors_total", "counter", "[ALPHA] Number of requests dropped with 'TLS handshake error from' error", self.handshake_errors.load(Ordering::Relaxed));
        self.controllers.text(out);
        self.steps.text(out);
        self.store.text(out);
        self.store_requests.text(out);
        self.store_errors.text(out);
        let lists = self.lists.all();
        let mut each = |name: &str, help: &str, index: &str, value: fn(&Lists) -> &AtomicU64| {
            head(out, name, "counter", help);
            for series in &lists {
                line(out, name, &format!("{}{index}", self.lists.shown(series)), value(series).load(Ordering::Relaxed));
            }
        };
        // Lists are served from memory, as upstream's are from its watch cache.
        each("apiserver_cache_list_total", "[ALPHA] Number of LIST requests served from watch cache", ",index=\"\"", |lists| &lists.count);
        each("apiserver_cache_list_fetched_objects_total", "[ALPHA] Number of objects read from watch cache in the course of serving a LIST request", ",index=\"\"", |lists| &lists.fetched);
        each("apiserver_cache_list_returned_objects_total", "[ALPHA] Number of objects returned for a LIST request from watch cache", "", |lists| &lists.returned);
        self.unavailable.text(out);
        self.pod_security.text(out);
        self.pod_security_errors.text(out);
        single(out, "serviceaccount_valid_tokens_total", "counter", "[ALPHA] Cumulative valid projected service account tokens used", self.service_account_tokens.load(Ordering::Relaxed));
    }
}

/// As upstream's compressUsername: there may be very many.
fn compressed(name: &str) -> &'static str {
    match KNOWN_USERS.into_iter().find(|known| *known == name) {
        Some(known) => known,
        None if name.contains('@') => "email_id",
        None => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_few() {
        assert_eq!(["admin", "jane@example.org", "system:node:a"].map(compressed), ["admin", "email_id", "other"]);
    }

    #[test]
    fn what_the_store_refuses_is_no_error_of_its() {
        let measured = Measured::default();
        let row = ::api::table::table().find("apps", "v1", "deployments").unwrap();
        measured.stored(row, "update", &Err(store::CommitError::Precondition { current: None }), Duration::from_millis(30));
        measured.stored(row, "create", &Err(store::CommitError::Full("x".into())), Duration::from_millis(1));
        let mut out = String::new();
        measured.text(&mut out);
        for line in [
            r#"etcd_requests_total{operation="update",group="apps",resource="deployments"} 1"#,
            r#"etcd_request_errors_total{operation="create",group="apps",resource="deployments"} 1"#,
            r#"etcd_request_duration_seconds_bucket{operation="update",group="apps",resource="deployments",le="0.025"} 0"#,
            r#"etcd_request_duration_seconds_bucket{operation="update",group="apps",resource="deployments",le="0.05"} 1"#,
        ] {
            assert!(out.lines().any(|written| written == line), "{line}\nnot in\n{out}");
        }
        assert!(!out.contains(r#"errors_total{operation="update""#));
    }
}
