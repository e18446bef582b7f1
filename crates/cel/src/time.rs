//! Timestamps and durations: Go's notations, and the calendar.

use jiff::civil::Date;
use jiff::tz::{Offset, TimeZone};
use jiff::{Timestamp, Zoned};

use crate::error::EvalError;

/// An instant, and the offset it was written with: Go prints it so, though it compares and counts in UTC.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    pub at: Timestamp,
    pub offset_seconds: i32,
}

impl From<Timestamp> for Moment {
    fn from(at: Timestamp) -> Self {
        Self { at, offset_seconds: 0 }
    }
}

impl PartialEq for Moment {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}

impl Eq for Moment {}

impl PartialOrd for Moment {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Moment {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.at.cmp(&other.at)
    }
}

const NANOSECONDS: i128 = 1_000_000_000;

/// Go's zero time, 0001-01-01T00:00:00Z.
pub fn zero() -> Timestamp {
    Timestamp::from_second(-62_135_596_800).unwrap_or(Timestamp::MIN)
}

/// RFC 3339, strictly.
pub fn parse_timestamp(text: &str) -> Result<Moment, EvalError> {
    rfc3339(text).ok_or_else(|| EvalError::failed(format!("parsing time {text:?} as \"2006-01-02T15:04:05Z07:00\": cannot parse")))
}

fn rfc3339(text: &str) -> Option<Moment> {
    let bytes = text.as_bytes();
    let pattern = b"dddd-dd-ddTdd:dd:dd";
    if bytes.len() <= pattern.len()
        || !bytes.iter().zip(pattern).all(|(byte, wanted)| if *wanted == b'd' { byte.is_ascii_digit() } else { byte == wanted })
    {
        return None;
    }
    let mut rest = &bytes[pattern.len()..];
    if rest[0] == b'.' {
        let digits = rest[1..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        if !(1..=9).contains(&digits) {
            return None;
        }
        rest = &rest[1 + digits..];
    }
    let zone_is_fine = match rest {
        b"Z" => true,
        [b'+' | b'-', a, b, b':', c, d] => [a, b, c, d].iter().all(|digit| digit.is_ascii_digit()) && bytes.get(17..19) != Some(b"60"),
        _ => false,
    };
    if !zone_is_fine || bytes.get(17..19) == Some(b"60") || bytes.get(..4) == Some(b"0000") {
        return None;
    }
    let digits =
        |from: usize| -> i32 { rest.get(from..from + 2).and_then(|two| std::str::from_utf8(two).ok()).and_then(|two| two.parse().ok()).unwrap_or(0) };
    let offset = digits(1) * 3600 + digits(4) * 60;
    let offset_seconds = if rest[0] == b'-' { -offset } else { offset };
    text.parse().ok().map(|at| Moment { at, offset_seconds })
}

/// What OpenAPI's `date-time` takes beside RFC 3339: lower case letters, and no zone at all.
pub fn parse_openapi_datetime(text: &str) -> Result<Moment, EvalError> {
    let upper = text.to_ascii_uppercase();
    rfc3339(&upper)
        .or_else(|| rfc3339(&format!("{upper}Z")))
        .ok_or_else(|| EvalError::failed(format!("Invalid date-time formatted string {text}: cannot parse")))
}

pub fn parse_date(text: &str) -> Result<Moment, EvalError> {
    let shaped = text.len() == 10 && text.bytes().enumerate().all(|(at, byte)| if at == 4 || at == 7 { byte == b'-' } else { byte.is_ascii_digit() });
    let date: Option<Date> = if shaped { text.parse().ok() } else { None };
    date.and_then(|date| date.to_zoned(TimeZone::UTC).ok())
        .map(|zoned| zoned.timestamp().into())
        .ok_or_else(|| EvalError::failed(format!("Invalid date formatted string {text}: cannot parse")))
}

/// As Go prints it: as many digits of a fraction as there are.
pub fn format_timestamp(moment: Moment) -> String {
    match Offset::from_seconds(moment.offset_seconds) {
        Ok(offset) if moment.offset_seconds != 0 => moment.at.display_with_offset(offset).to_string(),
        _ => moment.at.to_string(),
    }
}

/// Go's `time.ParseDuration`: `1h30m`, `-1.5s`, `0`.
pub fn parse_duration(text: &str) -> Option<i64> {
    parse_units(text, |unit| {
        Some(match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        })
    })
}

fn parse_units(text: &str, unit_of: impl Fn(&str) -> Option<i128>) -> Option<i64> {
    let (negative, mut rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let whole = &rest[..digits];
        rest = &rest[digits..];
        let mut fraction = "";
        if let Some(after) = rest.strip_prefix('.') {
            let digits = after.bytes().take_while(u8::is_ascii_digit).count();
            fraction = &after[..digits];
            rest = &after[digits..];
        }
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let unit_end = rest.find(|character: char| character == '.' || character.is_ascii_digit()).unwrap_or(rest.len());
        let unit = unit_of(&rest[..unit_end])?;
        rest = &rest[unit_end..];
        let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        total = total.checked_add(whole.checked_mul(unit)?)?;
        if !fraction.is_empty() {
            let fraction = &fraction[..fraction.len().min(18)];
            total += fraction.parse::<i128>().ok()? * unit / 10i128.pow(fraction.len() as u32);
        }
        if total > i128::from(i64::MAX) + i128::from(negative) {
            return None;
        }
    }
    i64::try_from(if negative { -total } else { total }).ok()
}

/// OpenAPI's `duration`: Go's, and days and weeks, and units spelled out.
pub fn parse_openapi_duration(text: &str) -> Result<i64, EvalError> {
    parse_duration(text)
        .or_else(|| {
            let compact: String = text.chars().filter(|character| !character.is_whitespace()).collect();
            parse_units(&compact, |unit| {
                Some(match unit {
                    "ns" | "nano" | "nanos" | "nanosecond" | "nanoseconds" => 1,
                    "us" | "µs" | "micro" | "micros" | "microsecond" | "microseconds" => 1_000,
                    "ms" | "milli" | "millis" | "millisecond" | "milliseconds" => 1_000_000,
                    "s" | "sec" | "secs" | "second" | "seconds" => 1_000_000_000,
                    "m" | "min" | "mins" | "minute" | "minutes" => 60_000_000_000,
                    "h" | "hr" | "hour" | "hours" => 3_600_000_000_000,
                    "d" | "day" | "days" => 86_400_000_000_000,
                    "w" | "wk" | "week" | "weeks" => 604_800_000_000_000,
                    _ => return None,
                })
            })
        })
        .ok_or_else(|| EvalError::failed(format!("Invalid duration {text}: time: invalid duration {text:?}")))
}

/// Seconds with a fraction, as protobuf's JSON and CEL's `string()` have it.
pub fn duration_to_json(nanoseconds: i64) -> String {
    let (seconds, rest) = (nanoseconds / NANOSECONDS as i64, (nanoseconds % NANOSECONDS as i64).unsigned_abs());
    if rest == 0 {
        return format!("{seconds}s");
    }
    let sign = if nanoseconds < 0 && seconds == 0 { "-" } else { "" };
    let fraction = format!("{rest:09}");
    format!("{sign}{seconds}.{}s", fraction.trim_end_matches('0'))
}

pub fn add(moment: Moment, nanoseconds: i64) -> Result<Moment, EvalError> {
    let at = from_nanoseconds(moment.at.as_nanosecond() + i128::from(nanoseconds))?;
    Ok(Moment { at, ..moment })
}

fn overflow() -> EvalError {
    EvalError::failed("timestamp overflow")
}

fn from_nanoseconds(nanoseconds: i128) -> Result<Timestamp, EvalError> {
    let timestamp = Timestamp::from_nanosecond(nanoseconds).map_err(|_| overflow())?;
    // CEL's years are 1 to 9999.
    if timestamp < zero() { Err(overflow()) } else { Ok(timestamp) }
}

pub fn from_seconds(seconds: i64) -> Result<Moment, EvalError> {
    from_nanoseconds(i128::from(seconds) * NANOSECONDS).map(Moment::from)
}

pub fn difference(one: Moment, other: Moment) -> Result<i64, EvalError> {
    i64::try_from(one.at.as_nanosecond() - other.at.as_nanosecond()).map_err(|_| EvalError::failed("duration overflow"))
}

/// In UTC, at an offset (`+01:30`, `02:00`) or in a named zone.
pub fn in_zone(moment: Moment, zone: &str) -> Result<Zoned, EvalError> {
    let timestamp = moment.at;
    let unknown = || EvalError::failed(format!("unknown time zone {zone}"));
    if zone.is_empty() || zone == "UTC" {
        return Ok(timestamp.to_zoned(TimeZone::UTC));
    }
    let zone = match zone.split_once(':') {
        None => TimeZone::get(zone).map_err(|_| unknown())?,
        Some((hours, minutes)) => {
            let negative = hours.starts_with('-');
            let hours: i32 = hours.parse().map_err(|_| unknown())?;
            let minutes: i32 = minutes.parse().map_err(|_| unknown())?;
            let minutes = if negative { -minutes } else { minutes };
            let seconds = hours.checked_mul(3600).and_then(|hours| hours.checked_add(minutes.checked_mul(60)?)).ok_or_else(unknown)?;
            TimeZone::fixed(Offset::from_seconds(seconds).map_err(|_| unknown())?)
        }
    };
    Ok(timestamp.to_zoned(zone))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, nanoseconds) in [
            ("1h", 3_600_000_000_000),
            ("1h30m", 5_400_000_000_000),
            ("-1.5s", -1_500_000_000),
            ("0", 0),
            (".5s", 500_000_000),
            ("1us", 1000),
            ("1ms2ns", 1_000_002),
        ] {
            assert_eq!(parse_duration(text), Some(nanoseconds), "{text}");
        }
        for wrong in ["", "1", "s", "1x", "1h 2m", "-", "9999999999h", "1.s.", "é"] {
            assert_eq!(parse_duration(wrong), None, "{wrong}");
        }
        assert_eq!(parse_openapi_duration("3 days").unwrap(), 3 * 86_400_000_000_000);
        assert_eq!(duration_to_json(-1_500_000_000), "-1.5s");
        assert_eq!(duration_to_json(-500_000_000), "-0.5s");
        assert_eq!(duration_to_json(60_000_000_000), "60s");
    }

    #[test]
    fn timestamps() {
        for fine in ["2021-01-01T00:00:00Z", "2021-01-01T00:00:00.000001Z", "2021-01-01T00:00:00-23:59", "0001-01-01T00:00:00Z"] {
            assert!(parse_timestamp(fine).is_ok(), "{fine}");
        }
        for wrong in ["", "2021-01-01", "2021-01-01T00:00:00", "2021-13-01T00:00:00Z", "2021-01-01t00:00:00z", "2021-01-01T00:00:60Z", "x"] {
            assert!(parse_timestamp(wrong).is_err(), "{wrong}");
        }
        assert!(parse_openapi_datetime("2021-01-01T00:00:00").is_ok());
        assert!(parse_date("2021-02-30").is_err());
    }
}
