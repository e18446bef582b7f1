//! String formats. Mirrors kube-openapi/pkg/validation/strfmt; formats that are not in this list are not held against anything.

use std::sync::LazyLock;

use regex::Regex;

use crate::names;

/// Names as they are compared: without dashes.
const KNOWN: &[&str] = &[
    "bsonobjectid", "uri", "email", "hostname", "ipv4", "ipv6", "cidr", "mac", "uuid", "uuid3", "uuid4", "uuid5", "isbn", "isbn10", "isbn13", "creditcard", "ssn", "hexcolor", "rgbcolor", "byte", "password",
    "date", "duration", "datetime", "k8sshortname", "k8slongname",
];

fn plain(format: &str) -> String {
    format.replace('-', "")
}

pub fn known(format: &str) -> bool {
    !format.is_empty() && KNOWN.contains(&plain(format).as_str())
}

macro_rules! patterns {
    ($($name:ident = $pattern:expr;)*) => {
        $(static $name: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new($pattern).ok());)*
    };
}

patterns! {
    HOSTNAME = r"^([a-zA-Z0-9\p{S}\p{L}]((-?[a-zA-Z0-9\p{S}\p{L}]{0,62})?)|([a-zA-Z0-9\p{S}\p{L}](([a-zA-Z0-9-\p{S}\p{L}]{0,61}[a-zA-Z0-9\p{S}\p{L}])?)(\.)){1,}([a-zA-Z\p{L}]){2,63})$";
    UUID = r"(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}$";
    UUID3 = r"(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?3[0-9a-f]{3}-?[0-9a-f]{4}-?[0-9a-f]{12}$";
    UUID4 = r"(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?4[0-9a-f]{3}-?[89ab][0-9a-f]{3}-?[0-9a-f]{12}$";
    UUID5 = r"(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?5[0-9a-f]{3}-?[89ab][0-9a-f]{3}-?[0-9a-f]{12}$";
    MAC = r"^([0-9a-fA-F]{2}[:-]){5}([0-9a-fA-F]{2}|[0-9a-fA-F]{2}([:-][0-9a-fA-F]{2}){2}|[0-9a-fA-F]{2}([:-][0-9a-fA-F]{2}){14})$|^([0-9a-fA-F]{4}\.){2}[0-9a-fA-F]{4}$|^([0-9a-fA-F]{4}\.){3}[0-9a-fA-F]{4}$";
    CREDIT_CARD = r"^(?:4[0-9]{12}(?:[0-9]{3})?|5[1-5][0-9]{14}|(222[1-9]|22[3-9][0-9]|2[3-6][0-9]{2}|27[01][0-9]|2720)[0-9]{12}|6(?:011|5[0-9][0-9])[0-9]{12}|3[47][0-9]{13}|3(?:0[0-5]|[68][0-9])[0-9]{11}|(?:2131|1800|35[0-9]{3})[0-9]{11}|6[27][0-9]{14})$";
    SSN = r"^[0-9]{3}[- ]?[0-9]{2}[- ]?[0-9]{4}$";
    HEX_COLOR = r"^#?([0-9a-fA-F]{3}|[0-9a-fA-F]{6})$";
    RGB_COLOR = r"^rgb\([\t\n\f\r ]*(0|[1-9][0-9]?|1[0-9][0-9]?|2[0-4][0-9]|25[0-5])[\t\n\f\r ]*,[\t\n\f\r ]*(0|[1-9][0-9]?|1[0-9][0-9]?|2[0-4][0-9]|25[0-5])[\t\n\f\r ]*,[\t\n\f\r ]*(0|[1-9][0-9]?|1[0-9][0-9]?|2[0-4][0-9]|25[0-5])[\t\n\f\r ]*\)$";
    BASE64 = r"^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=|[A-Za-z0-9+/]{4})$";
    DATE = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$";
    DATE_TIME = r"^([0-9]{4})-([0-9]{2})-([0-9]{2})[tT ]([0-9]{2}):([0-9]{2}):([0-9]{2})(\.[0-9]+)?([zZ]|[+-][0-9]{2}:?[0-9]{2})?$";
    DURATION = r"^[-+]?(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+$|^[-+]?0$";
    SCALA_DURATION = r"(?i)^((\d+)\s*(ns|nano|nanos|nanosecond|nanoseconds|us|µs|micro|micros|microsecond|microseconds|ms|milli|millis|millisecond|milliseconds|s|sec|secs|second|seconds|m|min|mins|minute|minutes|h|hr|hrs|hour|hours|d|day|days|w|wk|wks|week|weeks))$";
    OBJECT_ID = r"^[0-9a-fA-F]{24}$";
    EMAIL = r#"^(?:[^<>@]*<)?[^\s<>@,;:\\"\[\]()]+@[^\s<>@,;:\\"()]+>?$"#;
}

fn matches(pattern: &LazyLock<Option<Regex>>, text: &str) -> bool {
    pattern.as_ref().is_some_and(|pattern| pattern.is_match(text))
}

/// Leading zeros are tolerated, as ever.
fn ipv4(text: &str) -> bool {
    let parts: Vec<&str> = text.split('.').collect();
    parts.len() == 4 && parts.iter().all(|part| !part.is_empty() && part.len() <= 3 && part.bytes().all(|byte| byte.is_ascii_digit()) && part.parse::<u16>().is_ok_and(|part| part < 256))
}

fn cidr(text: &str) -> bool {
    let Some((address, length)) = text.split_once('/') else { return false };
    let most = if ipv4(address) {
        32
    } else if address.parse::<std::net::Ipv6Addr>().is_ok() {
        128
    } else {
        return false;
    };
    !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit()) && length.parse::<u8>().is_ok_and(|length| length <= most)
}

fn isbn10(text: &str) -> bool {
    let digits: Vec<u32> = text.chars().filter(|c| !matches!(c, '-' | ' ')).map(|c| if matches!(c, 'X' | 'x') { 10 } else { c.to_digit(10).unwrap_or(11) }).collect();
    digits.len() == 10 && digits[..9].iter().all(|digit| *digit < 10) && digits[9] < 11 && digits.iter().zip(1..).map(|(digit, weight)| digit * weight).sum::<u32>().is_multiple_of(11)
}

fn isbn13(text: &str) -> bool {
    let digits: Option<Vec<u32>> = text.chars().filter(|c| !matches!(c, '-' | ' ')).map(|c| c.to_digit(10)).collect();
    digits.is_some_and(|digits| digits.len() == 13 && digits.iter().enumerate().map(|(at, digit)| digit * if at % 2 == 0 { 1 } else { 3 }).sum::<u32>().is_multiple_of(10))
}

fn credit_card(text: &str) -> bool {
    let digits: String = text.chars().filter(char::is_ascii_digit).collect();
    let sum: u32 = digits.chars().rev().enumerate().filter_map(|(at, c)| c.to_digit(10).map(|digit| if at % 2 == 1 { if digit > 4 { digit * 2 - 9 } else { digit * 2 } } else { digit })).sum();
    matches(&CREDIT_CARD, &digits) && sum.is_multiple_of(10)
}

/// net/url.ParseRequestURI: absolute, or a path.
fn uri(text: &str) -> bool {
    if text.is_empty() || text.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
        return false;
    }
    if text.starts_with('/') {
        return true;
    }
    let Some((scheme, rest)) = text.split_once(':') else { return false };
    scheme.starts_with(|c: char| c.is_ascii_alphabetic()) && scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.')) && rest.starts_with('/')
}

fn date_time(text: &str) -> bool {
    matches(&DATE_TIME, text) && (text.parse::<jiff::Timestamp>().is_ok() || text.parse::<jiff::civil::DateTime>().is_ok())
}

pub fn holds(format: &str, text: &str) -> bool {
    match plain(format).as_str() {
        "bsonobjectid" => matches(&OBJECT_ID, text),
        "uri" => uri(text),
        "email" => matches(&EMAIL, text),
        "hostname" => matches(&HOSTNAME, text) && text.len() <= 255 && text.split('.').all(|part| part.len() <= 63),
        "ipv4" => ipv4(text),
        "ipv6" => text.parse::<std::net::Ipv6Addr>().is_ok(),
        "cidr" => cidr(text),
        "mac" => matches(&MAC, text),
        "uuid" => matches(&UUID, text),
        "uuid3" => matches(&UUID3, text),
        "uuid4" => matches(&UUID4, text),
        "uuid5" => matches(&UUID5, text),
        "isbn" => isbn10(text) || isbn13(text),
        "isbn10" => isbn10(text),
        "isbn13" => isbn13(text),
        "creditcard" => credit_card(text),
        "ssn" => matches(&SSN, text),
        "hexcolor" => matches(&HEX_COLOR, text),
        "rgbcolor" => matches(&RGB_COLOR, text),
        "byte" => matches(&BASE64, text),
        "date" => matches(&DATE, text) && text.parse::<jiff::civil::Date>().is_ok(),
        "duration" => matches(&DURATION, text) || matches(&SCALA_DURATION, text),
        "datetime" => date_time(text),
        "k8sshortname" => names::dns_label(text).is_empty(),
        "k8slongname" => names::dns_subdomain(text).is_empty(),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats() {
        for (format, good, bad) in [
            ("ipv4", "10.0.0.1", "10.0.0.256"),
            ("ipv6", "::1", "10.0.0.1"),
            ("cidr", "10.0.0.0/8", "10.0.0.0/33"),
            ("uri", "https://example.com/a", "example"),
            ("email", "a@example.com", "a"),
            ("hostname", "node-1.example.com", "-a."),
            ("uuid", "123e4567-e89b-12d3-a456-426614174000", "123"),
            ("date", "2026-01-31", "2026-02-31"),
            ("date-time", "2026-01-31T00:00:00Z", "2026-01-31"),
            ("duration", "1h30m", "an hour"),
            ("byte", "YWJj", "a"),
            ("mac", "00:11:22:33:44:55", "00:11"),
            ("isbn", "978-0321751041", "978-0321751042"),
            ("hexcolor", "#fff", "#ff"),
            ("rgbcolor", "rgb(0, 255, 10)", "rgb(0,256,1)"),
            ("k8s-short-name", "a-b", "A"),
        ] {
            assert!(known(format) && holds(format, good), "{format} {good}");
            assert!(!holds(format, bad), "{format} {bad}");
        }
        assert!(!known("int32") && !known("unheard-of"));
    }
}
