//! How many seats each priority level gets for the next period, of all there are: what it could use, in proportion, within its bounds.
//!
//! Mirrors apiserver/pkg/util/flowcontrol/conc_alloc.go (KEP-1040 "seat borrowing"). Pure.

/// Wants less than this count as this much, so that nothing is divided by nothing.
const MIN_TARGET: f64 = 0.001;
const EPSILON: f64 = 1e-7;

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Claim {
    pub target: f64,
    pub lower: f64,
    pub upper: f64,
}

impl Claim {
    fn target(&self) -> f64 {
        self.target.max(MIN_TARGET)
    }

    fn at(&self, fraction: f64) -> f64 {
        (self.target() * fraction).max(self.lower).min(self.upper)
    }
}

/// The shares and the one fraction of every target that makes them sum up to `total`, where a bound does not say otherwise. `None`: the bounds leave no way.
pub fn allocate(total: f64, claims: &[Claim]) -> Option<(Vec<f64>, f64)> {
    let sum = |fraction: f64| claims.iter().map(|claim| claim.at(fraction)).sum::<f64>();
    let (least, most) = claims.iter().fold((0.0, 0.0), |(least, most), claim| (least + claim.lower, most + claim.upper));
    if total < 0.0 || least - total > EPSILON || total - most > EPSILON || claims.iter().any(|claim| claim.upper < claim.lower || claim.lower < 0.0) {
        return None;
    }
    // The sum grows with the fraction, in straight lines from one bound to the next.
    let mut bounds: Vec<f64> = claims.iter().flat_map(|claim| [claim.lower / claim.target(), claim.upper / claim.target()]).collect();
    bounds.push(0.0);
    bounds.sort_by(f64::total_cmp);
    let next = bounds.partition_point(|bound| sum(*bound) < total);
    let fraction = match (next.checked_sub(1).map(|before| bounds[before]), bounds.get(next)) {
        (Some(before), Some(after)) => {
            let (low, high) = (sum(before), sum(*after));
            if high - low < EPSILON { *after } else { before + (after - before) * (total - low) / (high - low) }
        }
        (None, Some(first)) => *first,
        (Some(last), None) => last,
        (None, None) => 0.0,
    };
    Some((claims.iter().map(|claim| claim.at(fraction)).collect(), fraction))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(lower: f64, target: f64, upper: f64) -> Claim {
        Claim { target, lower, upper }
    }

    #[test]
    fn shares() {
        let table: &[(&str, f64, &[Claim], &[f64])] = &[
            ("in proportion", 12.0, &[claim(0.0, 1.0, 20.0), claim(0.0, 3.0, 20.0)], &[3.0, 9.0]),
            ("a lower bound holds", 10.0, &[claim(4.0, 4.0, 20.0), claim(0.0, 36.0, 40.0)], &[4.0, 6.0]),
            ("an upper bound holds, the rest goes to the other", 10.0, &[claim(0.0, 9.0, 2.0), claim(0.0, 1.0, 20.0)], &[2.0, 8.0]),
            ("just the lower bounds", 5.0, &[claim(2.0, 9.0, 9.0), claim(3.0, 9.0, 9.0)], &[2.0, 3.0]),
            ("just the upper bounds", 18.0, &[claim(2.0, 9.0, 9.0), claim(3.0, 9.0, 9.0)], &[9.0, 9.0]),
            ("nobody wants anything: evenly", 6.0, &[claim(0.0, 0.0, 9.0), claim(0.0, 0.0, 9.0), claim(0.0, 0.0, 9.0)], &[2.0, 2.0, 2.0]),
            ("nothing to share", 0.0, &[claim(0.0, 5.0, 9.0)], &[0.0]),
        ];
        for (what, total, claims, expected) in table {
            let (shares, _) = allocate(*total, claims).expect(what);
            assert!(shares.iter().zip(*expected).all(|(share, expected)| (share - expected).abs() < 1e-6), "{what}: {shares:?}");
        }
        assert_eq!(allocate(1.0, &[claim(2.0, 2.0, 3.0)]), None, "less than the lower bounds");
        assert_eq!(allocate(4.0, &[claim(2.0, 2.0, 3.0)]), None, "more than the upper bounds");
    }
}
