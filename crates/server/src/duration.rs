//! Durations as Go writes them: `1m30s`, `500ms`. Mirrors time.ParseDuration.

use std::time::Duration;

const UNITS: [(&str, f64); 8] = [("ns", 1e-9), ("us", 1e-6), ("µs", 1e-6), ("μs", 1e-6), ("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];

/// `None` for what is no duration, or less than none.
pub fn go_duration(text: &str) -> Option<Duration> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    let mut seconds = 0.0;
    let mut any = false;
    while !rest.is_empty() {
        let digits = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(rest.len());
        let (number, after) = rest.split_at(digits);
        let letters = after.find(|letter: char| letter.is_ascii_digit() || letter == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        let (_, factor) = UNITS.iter().find(|(known, _)| *known == unit)?;
        seconds += number.parse::<f64>().ok()? * factor;
        (rest, any) = (after, true);
    }
    any.then(|| Duration::try_from_secs_f64(seconds).ok()).flatten()
}

/// Why a text is no duration, in Go's words.
pub fn why_not(text: &str) -> String {
    match text.strip_suffix(|letter: char| letter.is_ascii_digit() || letter == '.') {
        Some(rest) if go_duration(&format!("{text}s")).is_some() && rest.len() < text.len() => format!("time: missing unit in duration {text:?}"),
        _ => format!("time: invalid duration {text:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_none() {
        assert_eq!(why_not("5"), "time: missing unit in duration \"5\"");
        assert_eq!(why_not("soon"), "time: invalid duration \"soon\"");
    }

    #[test]
    fn as_go() {
        let table = [("1m30s", Some(90.0)), ("500ms", Some(0.5)), ("1.5h", Some(5400.0)), ("0", Some(0.0)), ("+2s", Some(2.0)), ("", None), ("5", None), ("-1s", None), ("s", None), ("1x", None), ("1s ", None)];
        for (text, seconds) in table {
            assert_eq!(go_duration(text), seconds.map(Duration::from_secs_f64), "{text:?}");
        }
    }
}
