//! Quantities as numbers, as far as the node needs them: rounded up to whole units or thousandths, as upstream's `Value` and `MilliValue`.

use std::collections::BTreeMap;

use api::k8s::apimachinery::pkg::api::resource::Quantity;

const NANO: i128 = 1_000_000_000;

/// In billionths; `None` when the text is no quantity.
fn nanos(text: &str) -> Option<i128> {
    let text = text.trim();
    let digits_end = text.find(|c: char| !(c.is_ascii_digit() || c == '.' || c == '+' || c == '-')).unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits_end);
    let (negative, number) = match number.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, number.strip_prefix('+').unwrap_or(number)),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let multiplier: i128 = match suffix {
        "" => NANO,
        "n" => 1,
        "u" => 1_000,
        "m" => 1_000_000,
        "k" => NANO * 1_000,
        "M" => NANO * 1_000_000,
        "G" => NANO * 1_000_000_000,
        "T" => NANO * 1_000_000_000_000,
        "P" => NANO * 1_000_000_000_000_000,
        "E" => NANO * 1_000_000_000_000_000_000,
        "Ki" => NANO << 10,
        "Mi" => NANO << 20,
        "Gi" => NANO << 30,
        "Ti" => NANO << 40,
        "Pi" => NANO << 50,
        "Ei" => NANO << 60,
        exponent => {
            let power: i32 = exponent.strip_prefix(['e', 'E'])?.parse().ok()?;
            let shift = 9 + power;
            if !(0..=30).contains(&shift) {
                return None;
            }
            10i128.checked_pow(shift as u32)?
        }
    };
    let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let mut total = whole.checked_mul(multiplier)?;
    let mut scale = multiplier;
    for digit in fraction.chars() {
        let digit = i128::from(digit.to_digit(10)?);
        // Anything below a billionth rounds up, as upstream.
        total = total.checked_add(if scale % 10 == 0 { digit * (scale / 10) } else { (digit * scale + 9) / 10 })?;
        scale /= 10;
    }
    Some(if negative { -total } else { total })
}

fn round_up(nanos: i128, unit: i128) -> i64 {
    let quotient = nanos.div_euclid(unit) + i128::from(nanos.rem_euclid(unit) != 0);
    i64::try_from(quotient).unwrap_or(i64::MAX)
}

/// Whole units, rounded up.
pub fn value(quantity: &Quantity) -> Option<i64> {
    nanos(&quantity.0).map(|n| round_up(n, NANO))
}

/// Thousandths, rounded up.
pub fn milli_value(quantity: &Quantity) -> Option<i64> {
    nanos(&quantity.0).map(|n| round_up(n, NANO / 1000))
}

/// `quantity / divisor`, rounded up, in whole units; what `resourceFieldRef` gives.
pub fn divided(quantity: &Quantity, divisor: &Quantity) -> Option<i64> {
    let by = nanos(&divisor.0).filter(|n| *n > 0).unwrap_or(NANO);
    nanos(&quantity.0).map(|n| round_up(n, by))
}

pub type List = BTreeMap<String, Quantity>;

pub fn of(list: Option<&List>, name: &str) -> Option<i64> {
    value(list?.get(name)?)
}

pub fn milli_of(list: Option<&List>, name: &str) -> Option<i64> {
    milli_value(list?.get(name)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values() {
        let cases: &[(&str, Option<i64>, Option<i64>)] = &[
            ("100m", Some(1), Some(100)),
            ("1", Some(1), Some(1000)),
            ("1.5", Some(2), Some(1500)),
            ("0.1", Some(1), Some(100)),
            ("64Mi", Some(64 << 20), Some((64 << 20) * 1000)),
            ("1e3", Some(1000), Some(1_000_000)),
            ("2G", Some(2_000_000_000), Some(2_000_000_000_000)),
            (".5Gi", Some(512 << 20), Some((512 << 20) * 1000)),
            ("-1", Some(-1), Some(-1000)),
            ("x", None, None),
            ("", None, None),
        ];
        for (text, whole, milli) in cases {
            let quantity = Quantity((*text).to_owned());
            assert_eq!(value(&quantity), *whole, "{text}");
            assert_eq!(milli_value(&quantity), *milli, "{text}");
        }
        assert_eq!(divided(&Quantity("64Mi".into()), &Quantity("1Mi".into())), Some(64));
        assert_eq!(divided(&Quantity("250m".into()), &Quantity("1".into())), Some(1));
        assert_eq!(divided(&Quantity("250m".into()), &Quantity("1m".into())), Some(250));
    }
}
