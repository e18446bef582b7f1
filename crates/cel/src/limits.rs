//! Kubernetes' limits on expressions. Upstream: `apiserver/pkg/apis/cel/config.go` and apiextensions' validation.

/// What one evaluation may cost; about a tenth of a second.
pub const PER_CALL_LIMIT: u64 = 1_000_000;
/// What all rules of one custom resource, or all expressions of one policy binding, may cost together.
pub const RUNTIME_COST_BUDGET: u64 = 10_000_000;
/// What the match conditions of one webhook or binding may cost for one object.
pub const RUNTIME_COST_BUDGET_MATCH_CONDITIONS: u64 = 2_500_000;
/// The highest estimate that a rule of a CRD may have.
pub const STATIC_ESTIMATED_COST_LIMIT: u64 = 10_000_000;
/// The highest estimate for all rules of a CRD.
pub const STATIC_ESTIMATED_CRD_COST_LIMIT: u64 = 100_000_000;
/// How Kubernetes says that an estimate is too high: `estimated rule cost exceeds budget by factor of …`.
pub fn exceeds_budget(cost_name: &str, cost: u64, limit: u64) -> String {
    let excess = cost as f64 / limit as f64;
    let factor = if excess > 100.0 {
        "more than 100x".to_owned()
    } else if excess < 1.5 {
        format!("{excess:.6}x")
    } else {
        format!("{excess:.1}x")
    };
    format!(
        "{cost_name} exceeds budget by factor of {factor} (try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)"
    )
}

/// The largest request: what an unlimited list or string could at most hold.
pub const MAX_REQUEST_SIZE_BYTES: u64 = 3 * 1024 * 1024;
/// The longest text that a messageExpression may give.
pub const MAX_MESSAGE_EXPRESSION_BYTES: usize = 5 * 1024;
/// The worst estimate of a DRA selector.
pub const DEVICE_SELECTOR_COST_LIMIT: u64 = 1_000_000;
