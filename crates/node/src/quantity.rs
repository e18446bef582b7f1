//! Quantities as numbers, as the node needs them: rounded up to whole units or thousandths.

use std::collections::BTreeMap;

use api::k8s::apimachinery::pkg::api::resource::Quantity as Written;
use api::quantity::Quantity;

/// Whole units, rounded up; `None` when the text is no quantity.
pub fn value(written: &Written) -> Option<i64> {
    Quantity::parse(&written.0).ok().map(|q| q.value())
}

/// Thousandths, rounded up.
pub fn milli_value(written: &Written) -> Option<i64> {
    Quantity::parse(&written.0).ok().map(|q| q.milli_value())
}

/// `quantity / divisor`, rounded up: what `resourceFieldRef` gives.
pub fn divided(written: &Written, divisor: &Written) -> Option<i64> {
    const ONE: i64 = 1000;
    let by = i128::from(milli_value(divisor).filter(|n| *n > 0).unwrap_or(ONE));
    let milli = i128::from(milli_value(written)?);
    i64::try_from(milli.div_euclid(by) + i128::from(milli.rem_euclid(by) != 0)).ok()
}

pub type List = BTreeMap<String, Written>;

pub fn milli_of(list: Option<&List>, name: &str) -> Option<i64> {
    milli_value(list?.get(name)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_up() {
        let of = |text: &str| Written(text.to_owned());
        assert_eq!((value(&of("100m")), milli_value(&of("1.5")), value(&of("64Mi")), value(&of("x"))), (Some(1), Some(1500), Some(64 << 20), None));
        assert_eq!(divided(&of("64Mi"), &of("1Mi")), Some(64));
        assert_eq!(divided(&of("250m"), &of("1")), Some(1));
        assert_eq!(divided(&of("250m"), &of("1m")), Some(250));
    }
}
