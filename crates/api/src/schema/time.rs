//! `metav1.Time` and `metav1.MicroTime`: RFC 3339 as Go reads it, and the form it is kept in.

use jiff::Timestamp;

use crate::world::{rfc3339, rfc3339_micro};

const LAYOUT: &str = "2006-01-02T15:04:05Z07:00";
const MICRO_LAYOUT: &str = "2006-01-02T15:04:05.000000Z07:00";

/// None when the text is canonical already. Err is Go's `time.ParseError`.
pub(super) fn canonical(text: &str, micro: bool) -> Result<Option<String>, String> {
    let layout = if micro { MICRO_LAYOUT } else { LAYOUT };
    if let Err((rest, element)) = shape(text, micro) {
        return Err(format!("parsing time {text:?} as {layout:?}: cannot parse {rest:?} as {element:?}"));
    }
    let at: Timestamp = text.parse().map_err(|_| format!("parsing time {text:?}: day out of range"))?;
    let canonical = if micro { rfc3339_micro(at) } else { rfc3339(at) };
    Ok((canonical != text).then_some(canonical))
}

/// Walks the layout; Err is what was left and the element it should have begun with.
fn shape(text: &str, micro: bool) -> Result<(), (&str, &'static str)> {
    const ELEMENTS: [(usize, &str); 11] =
        [(4, "2006"), (0, "-"), (2, "01"), (0, "-"), (2, "02"), (0, "T"), (2, "15"), (0, ":"), (2, "04"), (0, ":"), (2, "05")];
    let mut rest = text;
    for (digits, element) in ELEMENTS {
        rest = if digits == 0 {
            rest.strip_prefix(element).ok_or((rest, element))?
        } else {
            let found = rest.bytes().take(digits).take_while(u8::is_ascii_digit).count();
            if found < digits { return Err((rest, element)) } else { &rest[digits..] }
        };
    }
    if let Some(fraction) = rest.strip_prefix('.') {
        rest = fraction.trim_start_matches(|c: char| c.is_ascii_digit());
    } else if micro && rest != "Z" {
        // Without a fraction, only what ends in `Z` is read.
        return Err((rest, ".000000"));
    }
    let zone = rest.as_bytes();
    let offset = zone.len() == 6 && matches!(zone[0], b'+' | b'-') && zone[3] == b':' && [1, 2, 4, 5].iter().all(|at| zone[*at].is_ascii_digit());
    if rest == "Z" || offset { Ok(()) } else { Err((rest, "Z07:00")) }
}

#[cfg(test)]
mod tests {
    use super::canonical;

    #[test]
    fn keeps_utc_and_whole_seconds() {
        for (text, wanted) in [
            ("2026-11-22T01:02:03Z", None),
            ("2026-11-22T01:02:03.9Z", Some("2026-11-22T01:02:03Z")),
            ("2026-11-22T01:02:03+02:00", Some("2026-11-21T23:02:03Z")),
        ] {
            assert_eq!(canonical(text, false).unwrap().as_deref(), wanted);
        }
        assert_eq!(canonical("2026-11-22T01:02:03Z", true).unwrap().unwrap(), "2026-11-22T01:02:03.000000Z");
    }

    #[test]
    fn refuses_in_gos_words() {
        for (text, wanted) in [
            ("x", r#"parsing time "x" as "2006-01-02T15:04:05Z07:00": cannot parse "x" as "2006""#),
            ("2026-11-22", r#"parsing time "2026-11-22" as "2006-01-02T15:04:05Z07:00": cannot parse "" as "T""#),
            ("2026-11-22T01:02:03", r#"parsing time "2026-11-22T01:02:03" as "2006-01-02T15:04:05Z07:00": cannot parse "" as "Z07:00""#),
        ] {
            assert_eq!(canonical(text, false).unwrap_err(), wanted);
        }
        assert!(canonical("2026-13-22T01:02:03Z", false).is_err());
    }
}
