//! `resource.Quantity`: `500m`, `1.5Gi`, `12e6`. Parsing, canonical form, order and arithmetic as k8s.io/apimachinery/pkg/api/resource.
//!
//! A quantity is an exact decimal of at most 38 digits and nine decimals (finer amounts are rounded away from zero, as upstream), plus the
//! family of suffixes it prints with. Never panics on input; arithmetic saturates.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use serde_json::Value;

/// The family of suffixes a quantity was written in and prints with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Format {
    /// `12e6`
    DecimalExponent,
    /// `12Mi`
    BinarySi,
    /// `12M`
    #[default]
    DecimalSi,
}

/// Texts as upstream's `ErrFormatWrong`, `ErrNumeric`, `ErrSuffix`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    #[error("unable to parse numeric part of quantity")]
    Numeric,
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

/// The smallest power of ten that is kept.
const NANO: i32 = -9;
/// Exponents beyond this are refused: they could not be held exactly.
const MAX_EXPONENT: i32 = 37;
const MAX_BINARY: i128 = i64::MAX as i128;

/// `mantissa * 10^scale`. Compares by value: `1` equals `1000m`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Quantity {
    mantissa: i128,
    scale: i32,
    format: Format,
}

fn pow10(exponent: u32) -> Option<i128> {
    10i128.checked_pow(exponent)
}

fn suffix(text: &str) -> Option<(Format, i32)> {
    Some(match text {
        "" => (Format::DecimalSi, 0),
        "n" => (Format::DecimalSi, -9),
        "u" => (Format::DecimalSi, -6),
        "m" => (Format::DecimalSi, -3),
        "k" => (Format::DecimalSi, 3),
        "M" => (Format::DecimalSi, 6),
        "G" => (Format::DecimalSi, 9),
        "T" => (Format::DecimalSi, 12),
        "P" => (Format::DecimalSi, 15),
        "E" => (Format::DecimalSi, 18),
        "Ki" => (Format::BinarySi, 10),
        "Mi" => (Format::BinarySi, 20),
        "Gi" => (Format::BinarySi, 30),
        "Ti" => (Format::BinarySi, 40),
        "Pi" => (Format::BinarySi, 50),
        "Ei" => (Format::BinarySi, 60),
        _ => {
            let exponent = text.strip_prefix(['e', 'E'])?;
            (Format::DecimalExponent, exponent.parse().ok()?)
        }
    })
}

/// Splits `+1.5Gi` into sign, whole digits, decimals and suffix; the shape is the regular expression in [`QuantityError::Format`].
fn split(text: &str) -> Result<(bool, &str, &str, &str), QuantityError> {
    let (negative, rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let whole_len = rest.bytes().take_while(u8::is_ascii_digit).count();
    let (whole, mut rest) = rest.split_at(whole_len);
    let mut decimals = "";
    if let Some(after) = rest.strip_prefix('.') {
        let len = after.bytes().take_while(u8::is_ascii_digit).count();
        (decimals, rest) = after.split_at(len);
    }
    let letters = rest.bytes().take_while(|byte| b"eEinumkKMGTP".contains(byte)).count();
    let mut tail = &rest.as_bytes()[letters..];
    if let [b'+' | b'-', after @ ..] = tail {
        tail = after;
    }
    if !tail.iter().all(u8::is_ascii_digit) {
        return Err(QuantityError::Format);
    }
    Ok((negative, whole, decimals, rest))
}

impl Quantity {
    pub const ZERO: Self = Self { mantissa: 0, scale: 0, format: Format::DecimalSi };

    pub fn new(value: i64, format: Format) -> Self {
        Self { mantissa: value.into(), scale: 0, format }
    }

    pub fn from_milli(value: i64, format: Format) -> Self {
        Self { mantissa: value.into(), scale: -3, format }
    }

    pub fn parse(text: &str) -> Result<Self, QuantityError> {
        if text.is_empty() {
            return Err(QuantityError::Format);
        }
        let (negative, whole, decimals, tail) = split(text)?;
        if whole.is_empty() && decimals.is_empty() {
            return Err(if tail.is_empty() { QuantityError::Numeric } else { QuantityError::Format });
        }
        let (mut format, exponent) = suffix(tail).ok_or(QuantityError::Suffix)?;
        let mut mantissa: i128 = 0;
        for digit in whole.bytes().chain(decimals.trim_end_matches('0').bytes()) {
            mantissa = mantissa.checked_mul(10).and_then(|m| m.checked_add(i128::from(digit - b'0'))).ok_or(QuantityError::Numeric)?;
        }
        let mut scale = -i32::try_from(decimals.trim_end_matches('0').len()).map_err(|_| QuantityError::Numeric)?;
        if format == Format::BinarySi {
            mantissa = mantissa.checked_mul(1i128 << exponent).ok_or(QuantityError::Numeric)?;
        } else {
            scale = scale.checked_add(exponent).ok_or(QuantityError::Suffix)?;
        }
        if mantissa == 0 {
            return Ok(Self { mantissa: 0, scale: 0, format });
        }
        if scale > MAX_EXPONENT {
            return Err(QuantityError::Numeric);
        }
        if scale < NANO {
            mantissa = divide_away_from_zero(mantissa, NANO.abs_diff(scale));
            scale = NANO;
        }
        let mut quantity = Self { mantissa, scale, format };
        if format == Format::BinarySi {
            let one = Self::new(1, format);
            if quantity < one {
                format = Format::DecimalSi;
                quantity.format = format;
            } else if quantity > Self::new(i64::MAX, format) {
                quantity = Self { mantissa: MAX_BINARY, scale: 0, format };
            }
        }
        if negative {
            quantity.mantissa = -quantity.mantissa;
        }
        Ok(quantity)
    }

    /// From JSON: a string, or a number (as clients may write `cpu: 2`).
    pub fn from_json(value: &Value) -> Result<Self, QuantityError> {
        match value {
            Value::String(text) => Self::parse(text.trim()),
            Value::Number(number) => Self::parse(&number.to_string()),
            _ => Err(QuantityError::Format),
        }
    }

    pub fn format(&self) -> Format {
        self.format
    }

    pub fn is_zero(&self) -> bool {
        self.mantissa == 0
    }

    pub fn is_negative(&self) -> bool {
        self.mantissa < 0
    }

    /// -1, 0 or 1.
    pub fn sign(&self) -> i32 {
        self.mantissa.signum() as i32
    }

    /// In units of `10^scale`, rounded away from zero; saturating.
    fn scaled(&self, scale: i32) -> i64 {
        let wide = if self.scale >= scale {
            pow10(self.scale.abs_diff(scale)).and_then(|factor| self.mantissa.checked_mul(factor)).unwrap_or(if self.mantissa < 0 { i128::MIN } else { i128::MAX })
        } else {
            divide_away_from_zero(self.mantissa, self.scale.abs_diff(scale))
        };
        i64::try_from(wide).unwrap_or(if wide < 0 { i64::MIN } else { i64::MAX })
    }

    /// Whole units, rounded up.
    pub fn value(&self) -> i64 {
        self.scaled(0)
    }

    /// Thousandths, rounded up.
    pub fn milli_value(&self) -> i64 {
        self.scaled(-3)
    }

    /// Whether it is a whole number of units.
    pub fn is_integer(&self) -> bool {
        self.scale >= 0 || pow10(self.scale.unsigned_abs()).is_some_and(|factor| self.mantissa % factor == 0)
    }

    /// Whether it is a whole number of thousandths.
    pub fn is_whole_milli(&self) -> bool {
        self.scale >= -3 || pow10((-3 - self.scale).unsigned_abs()).is_some_and(|factor| self.mantissa % factor == 0)
    }

    pub fn as_f64(&self) -> f64 {
        self.mantissa as f64 * 10f64.powi(self.scale)
    }

    /// Both at the finer of the two scales; saturating.
    fn aligned(&self, other: &Self) -> (i128, i128, i32) {
        let scale = self.scale.min(other.scale);
        let at = |q: &Self| match pow10(q.scale.abs_diff(scale)) {
            Some(factor) => q.mantissa.saturating_mul(factor),
            None => q.mantissa.signum().saturating_mul(i128::MAX),
        };
        (at(self), at(other), scale)
    }

    /// The sum, in the format of the left side (of the right side if the left is zero).
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        let (a, b, scale) = self.aligned(other);
        Self { mantissa: a.saturating_add(b), scale, format: if self.is_zero() { other.format } else { self.format } }
    }

    #[must_use]
    pub fn minus(&self, other: &Self) -> Self {
        self.plus(&other.negated())
    }

    #[must_use]
    pub fn negated(&self) -> Self {
        Self { mantissa: -self.mantissa, ..*self }
    }

    #[must_use]
    pub fn times(&self, factor: i64) -> Self {
        Self { mantissa: self.mantissa.saturating_mul(factor.into()), ..*self }
    }
}

fn divide_away_from_zero(value: i128, power: u32) -> i128 {
    let Some(divisor) = pow10(power) else { return value.signum() };
    let quotient = value / divisor;
    if value % divisor == 0 { quotient } else { quotient + value.signum() }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        let (a, b, _) = self.aligned(other);
        a.cmp(&b)
    }
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

/// The canonical form: no fraction, the largest suffix that needs none.
impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.mantissa == 0 {
            return f.write_str("0");
        }
        if self.format == Format::BinarySi && self.is_integer() {
            let whole = if self.scale >= 0 { pow10(self.scale.unsigned_abs()).map_or(i128::MAX, |factor| self.mantissa.saturating_mul(factor)) } else { divide_away_from_zero(self.mantissa, self.scale.unsigned_abs()) };
            if whole.unsigned_abs() >= 1024 {
                let (mut number, mut step) = (whole, 0);
                while number % 1024 == 0 && step < 6 {
                    number /= 1024;
                    step += 1;
                }
                return write!(f, "{number}{}", ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"][step]);
            }
        }
        let (mut number, mut exponent) = (self.mantissa, self.scale);
        while number % 10 == 0 {
            number /= 10;
            exponent += 1;
        }
        while exponent % 3 != 0 || (exponent > 18 && self.format != Format::DecimalExponent) {
            let Some(more) = number.checked_mul(10) else { break };
            number = more;
            exponent -= 1;
        }
        if self.format == Format::DecimalExponent {
            return if exponent == 0 { write!(f, "{number}") } else { write!(f, "{number}e{exponent}") };
        }
        let letter = match exponent {
            -9 => "n",
            -6 => "u",
            -3 => "m",
            3 => "k",
            6 => "M",
            9 => "G",
            12 => "T",
            15 => "P",
            18 => "E",
            _ => "",
        };
        write!(f, "{number}{letter}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_forms() {
        let cases = [
            ("0", "0"), ("0Gi", "0"), ("1", "1"), ("1000m", "1"), ("0.5", "500m"), ("1.5", "1500m"), (".5", "500m"), ("1.", "1"), ("100m", "100m"),
            ("1Gi", "1Gi"), ("1024Mi", "1Gi"), ("1.5Gi", "1536Mi"), ("1000Ki", "1000Ki"), ("0.5Ki", "512"), ("1k", "1k"), ("1000k", "1M"), ("1e3", "1e3"),
            ("12e6", "12e6"), ("1E3", "1e3"), ("128974848", "128974848"), ("129e6", "129e6"), ("129M", "129M"), ("123Mi", "123Mi"), ("-1.5", "-1500m"),
            ("+5", "5"), ("1e-3", "1e-3"), ("0.0000000001", "1n"), ("1500000u", "1500m"), ("9223372036854775807", "9223372036854775807"), ("20Ei", "9223372036854775807"),
            ("0.1Ki", "102400m"), ("100.5Ki", "102912"), ("64", "64"),
            ("1000M", "1G"), (".001Ki", "1024m"), (".000001Ki", "1024u"), (".000000001Ki", "1024n"), (".000000000001Ki", "2n"),
        ];
        for (text, canonical) in cases {
            assert_eq!(Quantity::parse(text).map(|q| q.to_string()), Ok(canonical.to_owned()), "{text}");
        }
    }

    #[test]
    fn refusals() {
        for (text, error) in [
            ("", QuantityError::Format), ("a", QuantityError::Format), ("1a", QuantityError::Format), ("1mm", QuantityError::Suffix), ("1 Gi", QuantityError::Format), ("1KI", QuantityError::Format),
            ("-", QuantityError::Numeric), ("1.2.3", QuantityError::Format), ("1e", QuantityError::Suffix), ("1e999999999999", QuantityError::Suffix), ("1K", QuantityError::Suffix),
            ("99999999999999999999999999999999999999999999", QuantityError::Numeric),
        ] {
            assert_eq!(Quantity::parse(text), Err(error), "{text}");
        }
    }

    #[test]
    fn values_and_order() {
        let q = |text: &str| Quantity::parse(text).unwrap();
        assert_eq!(q("1500m").value(), 2);
        assert_eq!(q("1500m").milli_value(), 1500);
        assert_eq!(q("100n").milli_value(), 1);
        assert_eq!(q("1"), q("1000m"));
        assert!(q("1Gi") > q("1G"));
        assert_eq!(q("1Gi").plus(&q("1Gi")).to_string(), "2Gi");
        assert_eq!(q("1").minus(&q("250m")).to_string(), "750m");
        assert_eq!(q("250m").times(4).to_string(), "1");
        assert!(q("1e37") > q("1n"));
    }
}
