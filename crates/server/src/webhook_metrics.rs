//! What is counted of webhooks: of admission, conversion and authorisation, by upstream's names.
//!
//! apiserver/pkg/admission/metrics, apiextensions-apiserver/pkg/apiserver/conversion/metrics.go, apiserver/plugin/pkg/authorizer/webhook/metrics.

use std::time::Duration;

use crate::metrics::{Counters, Histograms};

const ADMISSION: &[f64] = &[0.005, 0.025, 0.1, 0.5, 1.0, 2.5, 10.0, 25.0];
/// From 1 ms, doubled 14 times.
const CONVERSION: &[f64] = &[0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096, 8.192, 16.384];
const DEFAULT: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// Larger codes are told as this one.
const CODE_MAX: u16 = 600;

pub struct WebhookMetrics {
    admission: Histograms,
    requests: Counters,
    rejections: Counters,
    fail_open: Counters,
    conversions: Counters,
    conversion: Histograms,
    crd_conversion: Histograms,
    evaluations: Counters,
    evaluation: Histograms,
    evaluations_fail_open: Counters,
}

/// A call of an admission webhook.
pub struct Call<'a> {
    pub name: &'a str,
    /// `admit` or `validating`
    pub kind: &'a str,
    pub operation: &'a str,
}

/// Why an admission webhook's call did not end with a yes.
#[derive(Clone, Copy)]
pub enum Rejection {
    /// It said no.
    No,
    Calling,
}

impl Default for WebhookMetrics {
    fn default() -> Self {
        Self {
            admission: Histograms::new("apiserver_admission_webhook_admission_duration_seconds", "[STABLE] Admission webhook latency histogram in seconds, identified by name and broken out for each operation and API resource and type (validate or admit).", &["name", "type", "operation", "rejected"], ADMISSION),
            requests: Counters::new("apiserver_admission_webhook_request_total", "[ALPHA] Admission webhook request total, identified by name and broken out for each admission type (validating or admit) and operation. Additional labels specify whether the request was rejected or not and an HTTP status code. Codes greater than 600 are truncated to 600, to keep the metrics cardinality bounded.", &["name", "type", "operation", "code", "rejected"]),
            rejections: Counters::new("apiserver_admission_webhook_rejection_count", "[ALPHA] Admission webhook rejection count, identified by name and broken out for each admission type (validating or admit) and operation. Additional labels specify an error type (calling_webhook_error or apiserver_internal_error if an error occurred; no_error otherwise) and optionally a non-zero rejection code if the webhook rejects the request with an HTTP status code (honored by the apiserver when the code is greater or equal to 400). Codes greater than 600 are truncated to 600, to keep the metrics cardinality bounded.", &["name", "type", "operation", "error_type", "rejection_code"]),
            fail_open: Counters::new("apiserver_admission_webhook_fail_open_count", "[ALPHA] Admission webhook fail open count, identified by name and broken out for each admission type (validating or admit).", &["name", "type"]),
            conversions: Counters::new("apiserver_conversion_webhook_request_total", "[ALPHA] Counter for conversion webhook requests with success/failure and failure error type", &["result", "failure_type"]),
            conversion: Histograms::new("apiserver_conversion_webhook_duration_seconds", "[ALPHA] Conversion webhook request latency", &["result", "failure_type"], CONVERSION),
            crd_conversion: Histograms::new("apiserver_crd_conversion_webhook_duration_seconds", "[ALPHA] CRD webhook conversion duration in seconds", &["crd_name", "from_version", "to_version", "succeeded"], CONVERSION),
            evaluations: Counters::new("apiserver_authorization_webhook_evaluations_total", "[ALPHA] Round-trips to authorization webhooks.", &["name", "result"]),
            evaluation: Histograms::new("apiserver_authorization_webhook_duration_seconds", "[ALPHA] Request latency in seconds.", &["name", "result"], DEFAULT),
            evaluations_fail_open: Counters::new("apiserver_authorization_webhook_evaluations_fail_open_total", "[ALPHA] NoOpinion results due to webhook timeout or error.", &["name", "result"]),
        }
    }
}

impl WebhookMetrics {
    /// `code`: what the answer to the client is; 200 for a yes.
    pub fn admission(&self, call: &Call<'_>, took: Duration, code: u16, rejection: Option<Rejection>, ignored: bool) {
        let Call { name, kind, operation } = *call;
        let code = code.min(CODE_MAX).to_string();
        // Whoever fails and is ignored does not reject.
        let rejected = if rejection.is_some() && !ignored { "true" } else { "false" };
        match rejection {
            Some(Rejection::No) => self.rejections.add(&[name, kind, operation, "no_error", &code], 1),
            Some(Rejection::Calling) if !ignored => self.rejections.add(&[name, kind, operation, "calling_webhook_error", &code], 1),
            Some(Rejection::Calling) => self.fail_open.add(&[name, kind], 1),
            None => {}
        }
        self.requests.add(&[name, kind, operation, &code, rejected], 1);
        self.admission.observe(&[name, kind, operation, rejected], took.as_secs_f64());
    }

    /// `failure`: upstream's name of what went wrong.
    pub fn conversion(&self, definition: &str, from: &str, to: &str, took: Duration, failure: Option<&str>) {
        let labels = [if failure.is_some() { "failure" } else { "success" }, failure.unwrap_or("")];
        self.conversions.add(&labels, 1);
        self.conversion.observe(&labels, took.as_secs_f64());
        if from != to {
            self.crd_conversion.observe(&[definition, from, to, if failure.is_some() { "false" } else { "true" }], took.as_secs_f64());
        }
    }

    pub fn authorization(&self, name: &str, result: &str, took: Duration, fails_open: bool) {
        self.evaluations.add(&[name, result], 1);
        self.evaluation.observe(&[name, result], took.as_secs_f64());
        if fails_open {
            self.evaluations_fail_open.add(&[name, result], 1);
        }
    }

    pub fn text(&self, out: &mut String) {
        self.admission.text(out);
        self.requests.text(out);
        self.rejections.text(out);
        self.fail_open.text(out);
        self.conversions.text(out);
        self.conversion.text(out);
        self.crd_conversion.text(out);
        self.evaluations.text(out);
        self.evaluation.text(out);
        self.evaluations_fail_open.text(out);
    }
}
