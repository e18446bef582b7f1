//! Durations as Go writes them (`1h0m30s`, `-1.5s`, `0`): what a KubeletConfiguration has. Mirrors `time.ParseDuration` and its errors; printed by [`crate::backoff::go_duration`].

use jiff::SignedDuration;

const UNITS: [(&str, f64); 7] = [("ns", 1.0), ("us", 1e3), ("µs", 1e3), ("ms", 1e6), ("s", 1e9), ("m", 60e9), ("h", 3600e9)];

pub fn parse(text: &str) -> Result<SignedDuration, String> {
    let bad = || format!("time: invalid duration {text:?}");
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(SignedDuration::ZERO);
    }
    if rest.is_empty() {
        return Err(bad());
    }
    let mut nanos = 0f64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(|| format!("time: missing unit in duration {text:?}"))?;
        let number: f64 = rest[..digits].parse().map_err(|_| bad())?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let unit = &rest[..letters];
        let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(|| format!("time: unknown unit {unit:?} in duration {text:?}"))?;
        nanos += number * factor;
        rest = &rest[letters..];
    }
    // Go's durations are 64 bits of nanoseconds.
    if !(nanos.is_finite() && nanos < i64::MAX as f64) {
        return Err(bad());
    }
    let nanos = nanos.round() as i64;
    Ok(SignedDuration::from_nanos(if negative { -nanos } else { nanos }))
}

/// What a timer can wait; nothing for a negative one.
pub fn std(duration: SignedDuration) -> std::time::Duration {
    std::time::Duration::try_from(duration).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_go_reads_them() {
        for (text, millis) in [("0", 0), ("30s", 30_000), ("1h2m3s", 3_723_000), ("1.5s", 1500), ("100ms", 100), ("-2s", -2000), ("5m0s", 300_000)] {
            assert_eq!(parse(text), Ok(SignedDuration::from_millis(millis)), "{text}");
        }
        for (text, error) in [("", "time: invalid duration \"\""), ("3", "time: missing unit in duration \"3\""), ("3d", "time: unknown unit \"d\" in duration \"3d\""), ("x", "time: invalid duration \"x\"")] {
            assert_eq!(parse(text).unwrap_err(), error);
        }
    }
}
