//! What the audit log counts of itself, by upstream's names (apiserver/pkg/audit/metrics.go).

use crate::metrics::Counters;

pub struct AuditMetrics {
    events: Counters,
    errors: Counters,
    rejected: Counters,
    levels: Counters,
}

impl Default for AuditMetrics {
    fn default() -> Self {
        Self {
            events: Counters::new("apiserver_audit_event_total", "[ALPHA] Counter of audit events generated and sent to the audit backend.", &[]),
            errors: Counters::new("apiserver_audit_error_total", "[ALPHA] Counter of audit events that failed to be audited properly. Plugin identifies the plugin affected by the error.", &["plugin"]),
            rejected: Counters::new("apiserver_audit_requests_rejected_total", "[ALPHA] Counter of apiserver requests rejected due to an error in audit logging backend.", &[]),
            levels: Counters::new("apiserver_audit_level_total", "[ALPHA] Counter of policy levels for audit events (1 per request).", &["level"]),
        }
    }
}

impl AuditMetrics {
    pub fn event(&self) {
        self.events.add(&[], 1);
    }

    pub fn level(&self, level: &str) {
        self.levels.add(&[level], 1);
    }

    pub fn rejected(&self) {
        self.rejected.add(&[], 1);
    }

    /// Events that are lost, and why.
    pub fn dropped(&self, plugin: &str, count: u64, why: &str) {
        self.errors.add(&[plugin], count);
        tracing::error!(plugin, count, why, "audit events are lost");
    }

    pub fn text(&self, out: &mut String) {
        for counters in [&self.events, &self.errors, &self.rejected, &self.levels] {
            counters.text(out);
        }
    }
}
