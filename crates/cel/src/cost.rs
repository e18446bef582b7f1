//! Ranges of sizes and of costs, with arithmetic that stops at the ends, and cel-go's prices.

pub const SELECT_AND_IDENT: u64 = 1;
pub const LIST_CREATE: u64 = 10;
pub const MAP_CREATE: u64 = 30;
pub const STRUCT_CREATE: u64 = 40;
/// Per character of a string that is read once.
pub const STRING_TRAVERSAL: f64 = 0.1;
/// Per character of a regular expression.
pub const REGEX_LENGTH: f64 = 0.25;
/// One question to the authorizer: an expression can afford two.
pub const AUTHORIZATION_CHECK: u64 = 350_000;
/// Per character of a selector: how many requirements it may hold, and what one costs.
pub const REQUIREMENTS_PER_CHARACTER: f64 = 0.5;
pub const PER_REQUIREMENT: f64 = (LIST_CREATE + STRUCT_CREATE) as f64;
pub const MAX_FORMAT_SIZE: u64 = 64;
pub const MAX_FORMAT_REGEX_SIZE: f64 = 128.0;

/// From what to what: of a size, or of a cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CostEstimate {
    pub min: u64,
    pub max: u64,
}

impl CostEstimate {
    pub const ZERO: CostEstimate = CostEstimate { min: 0, max: 0 };
    pub const UNKNOWN: CostEstimate = CostEstimate { min: 0, max: u64::MAX };

    pub const fn fixed(value: u64) -> Self {
        Self { min: value, max: value }
    }

    pub fn plus(self, other: Self) -> Self {
        Self { min: self.min.saturating_add(other.min), max: self.max.saturating_add(other.max) }
    }

    pub fn times(self, other: Self) -> Self {
        Self { min: self.min.saturating_mul(other.min), max: self.max.saturating_mul(other.max) }
    }

    pub fn factor(self, factor: f64) -> Self {
        Self { min: scale(self.min, factor), max: scale(self.max, factor) }
    }

    pub fn union(self, other: Self) -> Self {
        Self { min: self.min.min(other.min), max: self.max.max(other.max) }
    }
}

/// Rounded up; as `u64::MAX` if it is more. (A cast from a float saturates.)
pub fn scale(value: u64, factor: f64) -> u64 {
    (value as f64 * factor).ceil() as u64
}

/// What reading a selector of this length costs.
pub fn selector(length: CostEstimate) -> CostEstimate {
    let requirements = length.factor(REQUIREMENTS_PER_CHARACTER).factor(PER_REQUIREMENT);
    CostEstimate::fixed(LIST_CREATE).plus(length.factor(STRING_TRAVERSAL)).plus(requirements)
}
