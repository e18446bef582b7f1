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
/// The largest request: what an unlimited list or string could at most hold.
pub const MAX_REQUEST_SIZE_BYTES: u64 = 3 * 1024 * 1024;
/// The longest text that a messageExpression may give.
pub const MAX_MESSAGE_EXPRESSION_BYTES: usize = 5 * 1024;
