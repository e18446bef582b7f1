//! What names, label keys and label values may look like, and how a name is made from a `generateName`.
//!
//! Texts word for word as k8s.io/apimachinery/pkg/util/validation and pkg/api/validate/content. Each check returns what is wrong, nothing if fine.

use crate::resource::Resource;

pub const DNS_LABEL_MAX: usize = 63;
pub const DNS_SUBDOMAIN_MAX: usize = 253;
pub const LABEL_VALUE_MAX: usize = 63;

const LABEL_FMT: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const SUBDOMAIN_FMT: &str = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
const SUBDOMAIN_MSG: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character";

/// Upstream's `RegexError`.
pub fn regex_error(message: &str, regex: &str, examples: &[&str]) -> String {
    if examples.is_empty() {
        return format!("{message} (regex used for validation is '{regex}')");
    }
    let listed = examples.iter().map(|example| format!("'{example}', ")).collect::<Vec<_>>().join(" or ");
    format!("{message} (e.g. {listed}regex used for validation is '{regex}')")
}

fn too_long(max: usize, unit: &str) -> String {
    format!("must be no more than {max} {unit}")
}

fn is_lower_alnum(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

/// `inner` anywhere, `edge` at both ends, not empty.
fn shaped(text: &str, edge: fn(u8) -> bool, inner: fn(u8) -> bool) -> bool {
    match text.as_bytes() {
        [] => false,
        [one] => edge(*one),
        [first, middle @ .., last] => edge(*first) && edge(*last) && middle.iter().all(|byte| inner(*byte)),
    }
}

fn label_shaped(text: &str) -> bool {
    shaped(text, is_lower_alnum, |byte| is_lower_alnum(byte) || byte == b'-')
}

fn subdomain_shaped(text: &str) -> bool {
    text.split('.').all(label_shaped)
}

pub fn dns_label(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > DNS_LABEL_MAX {
        errors.push(too_long(DNS_LABEL_MAX, "characters"));
    }
    if !label_shaped(value) {
        errors.push(if subdomain_shaped(value) {
            "must not contain dots".to_owned()
        } else {
            regex_error(
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character",
                LABEL_FMT,
                &["my-name", "123-abc"],
            )
        });
    }
    errors
}

fn subdomain_in(value: &str, unit: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > DNS_SUBDOMAIN_MAX {
        errors.push(too_long(DNS_SUBDOMAIN_MAX, unit));
    }
    if !subdomain_shaped(value) {
        errors.push(regex_error(SUBDOMAIN_MSG, SUBDOMAIN_FMT, &["example.com"]));
    }
    errors
}

pub fn dns_subdomain(value: &str) -> Vec<String> {
    subdomain_in(value, "characters")
}

/// As search paths of DNS may be.
pub fn dns_subdomain_with_underscore(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > DNS_SUBDOMAIN_MAX {
        errors.push(too_long(DNS_SUBDOMAIN_MAX, "characters"));
    }
    let part = |part: &str| {
        let part = part.strip_prefix('_').unwrap_or(part);
        let end = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
        end(part.as_bytes().first()) && end(part.as_bytes().last()) && part.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_'))
    };
    if !value.split('.').all(part) {
        errors.push(regex_error(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', and must start and end with an alphanumeric character",
            r"_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?(\._?[a-z0-9]([-_a-z0-9]*[a-z0-9])?)*",
            &["example.com"],
        ));
    }
    errors
}

/// `*.example.com`.
pub fn wildcard_dns_subdomain(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > DNS_SUBDOMAIN_MAX {
        errors.push(too_long(DNS_SUBDOMAIN_MAX, "characters"));
    }
    if !value.strip_prefix("*.").is_some_and(subdomain_shaped) {
        errors.push(regex_error(
            "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character",
            &format!(r"\*\.{SUBDOMAIN_FMT}"),
            &["*.example.com"],
        ));
    }
    errors
}

pub fn dns1035_label(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > DNS_LABEL_MAX {
        errors.push(too_long(DNS_LABEL_MAX, "characters"));
    }
    if !(label_shaped(value) && value.as_bytes().first().is_some_and(u8::is_ascii_lowercase)) {
        errors.push(regex_error(
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character",
            "[a-z]([-a-z0-9]*[a-z0-9])?",
            &["my-name", "abc-123"],
        ));
    }
    errors
}

fn label_key_shaped(text: &str) -> bool {
    shaped(text, |byte| byte.is_ascii_alphanumeric(), |byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

/// A label key, annotation key (lower-cased first), finalizer or resource name: `[example.com/]MyName`.
pub fn qualified_name(value: &str) -> Vec<String> {
    const FMT: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";
    const MSG: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
    let shape = || regex_error(MSG, FMT, &["MyName", "my.name", "123-abc"]);
    let mut errors = Vec::new();
    let name = match value.split('/').collect::<Vec<_>>().as_slice() {
        [name] => *name,
        [prefix, name] => {
            if prefix.is_empty() {
                errors.push("prefix part must be non-empty".to_owned());
            } else {
                errors.extend(subdomain_in(prefix, "bytes").into_iter().map(|error| format!("prefix part {error}")));
            }
            *name
        }
        _ => return vec![format!("a valid label key {} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')", shape())],
    };
    if name.is_empty() {
        errors.push("name part must be non-empty".to_owned());
    } else if name.len() > DNS_LABEL_MAX {
        errors.push(format!("name part {}", too_long(DNS_LABEL_MAX, "bytes")));
    }
    if !label_key_shaped(name) {
        errors.push(format!("name part {}", shape()));
    }
    errors
}

pub fn label_value(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > LABEL_VALUE_MAX {
        errors.push(too_long(LABEL_VALUE_MAX, "bytes"));
    }
    if !value.is_empty() && !label_key_shaped(value) {
        errors.push(regex_error(
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character",
            "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?",
            &["MyValue", "my_value", "12345"],
        ));
    }
    errors
}

/// What may stand as one segment of a URL path (RBAC names).
pub fn path_segment(value: &str) -> Vec<String> {
    if matches!(value, "." | "..") {
        return vec![format!("may not be '{value}'")];
    }
    path_segment_prefix(value)
}

fn path_segment_prefix(value: &str) -> Vec<String> {
    ["/", "%"].iter().filter(|illegal| value.contains(**illegal)).map(|illegal| format!("may not contain '{illegal}'")).collect()
}

/// `http`, `web-1`: an IANA_SVC_NAME of at most 15 characters.
/// `IsValidIP`: an address of either family, without the zeros in front that some take for octal numbers.
pub fn ip(value: &str) -> Vec<String> {
    if value.parse::<std::net::IpAddr>().is_ok() {
        return Vec::new();
    }
    let octet = |part: &str| {
        let digits = part.trim_start_matches('0');
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()) && (digits.is_empty() || digits.parse::<u8>().is_ok())
    };
    let zeros = value.split('.').count() == 4 && value.split('.').all(octet);
    vec![if zeros { "must not have leading 0s" } else { "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)" }.to_owned()]
}

/// Whether Go's old parser takes a text for an address, which minded no leading zeros.
pub fn sloppy_ip(value: &str) -> bool {
    ip(value).iter().all(|wrong| wrong.contains("leading"))
}

pub fn port_name(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > 15 {
        errors.push(too_long(15, "characters"));
    }
    if value.is_empty() || !value.bytes().all(|byte| is_lower_alnum(byte) || byte == b'-') {
        errors.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned());
    }
    if !value.bytes().any(|byte| byte.is_ascii_lowercase()) {
        errors.push("must contain at least one letter (a-z)".to_owned());
    }
    if value.contains("--") {
        errors.push("must not contain consecutive hyphens".to_owned());
    }
    if value.starts_with('-') || value.ends_with('-') {
        errors.push("must not begin or end with a hyphen".to_owned());
    }
    errors
}

pub fn port_number(value: i64) -> Vec<String> {
    if (1..=65535).contains(&value) { Vec::new() } else { vec!["must be between 1 and 65535, inclusive".to_owned()] }
}

/// The relaxed rule (since 1.34): anything printable but `=`.
pub fn env_name(value: &str) -> Vec<String> {
    if value.is_empty() {
        return vec!["environment variable name must be non-empty".to_owned()];
    }
    if value.bytes().any(|byte| !(0x20..0x7f).contains(&byte) || byte == b'=') {
        return vec!["a valid environment variable name must consist only of printable ASCII characters other than '='".to_owned()];
    }
    Vec::new()
}

/// A key of a ConfigMap or Secret.
pub fn config_map_key(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > DNS_SUBDOMAIN_MAX {
        errors.push(too_long(DNS_SUBDOMAIN_MAX, "characters"));
    }
    if value.is_empty() || !value.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_')) {
        errors.push(regex_error("a valid config key must consist of alphanumeric characters, '-', '_' or '.'", "[-._a-zA-Z0-9]+", &["key.name", "KEY_NAME", "key-name"]));
    }
    match value {
        "." => errors.push("must not be '.'".to_owned()),
        ".." => errors.push("must not be '..'".to_owned()),
        _ if value.starts_with("..") => errors.push("must not start with '..'".to_owned()),
        _ => {}
    }
    errors
}

/// Which of the rules above the name of a kind has to follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameRule {
    DnsSubdomain,
    DnsLabel,
    Dns1035Label,
    PathSegment,
    /// Checked by the kind itself, if at all.
    Free,
}

impl NameRule {
    pub fn of(resource: &Resource) -> Self {
        match (&*resource.group, &*resource.plural) {
            ("", "namespaces" | "services") | ("apps", "statefulsets") => Self::DnsLabel,
            ("rbac.authorization.k8s.io", _) | ("apiregistration.k8s.io", "apiservices") => Self::PathSegment,
            ("policy", "poddisruptionbudgets") | ("", "events") => Self::PathSegment,
            ("certificates.k8s.io", "certificatesigningrequests") => Self::PathSegment,
            ("certificates.k8s.io", "clustertrustbundles") | ("networking.k8s.io", "ipaddresses") | ("internal.apiserver.k8s.io", _) => Self::Free,
            _ => Self::DnsSubdomain,
        }
    }

    /// What is wrong with a name; with `prefix`, with a `generateName` (a trailing dash is fine).
    pub fn check(self, name: &str, prefix: bool) -> Vec<String> {
        let masked: String;
        let name = match name.strip_suffix('-') {
            // As upstream's maskTrailingDash: the last two characters give way to one letter.
            Some(rest) if prefix && !rest.is_empty() => {
                let keep = rest.char_indices().next_back().map_or(0, |(at, _)| at);
                masked = format!("{}a", &rest[..keep]);
                &masked
            }
            _ => name,
        };
        match self {
            Self::DnsSubdomain => dns_subdomain(name),
            Self::DnsLabel => dns_label(name),
            Self::Dns1035Label => dns1035_label(name),
            Self::PathSegment if prefix => path_segment_prefix(name),
            Self::PathSegment => path_segment(name),
            Self::Free => Vec::new(),
        }
    }
}

const GENERATED_SUFFIX_LEN: usize = 5;
const GENERATED_BASE_MAX: usize = 63 - GENERATED_SUFFIX_LEN;
/// Letters and digits without vowels and look-alikes, as k8s.io/apimachinery/pkg/util/rand.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// `SafeEncodeString`: maps the bytes of a text onto the alphabet of generated names.
pub fn safe_encode(text: &str) -> String {
    text.bytes().map(|byte| char::from(ALPHABET[usize::from(byte) % ALPHABET.len()])).collect()
}

/// A name from a `generateName`: five characters drawn from `random`, the base cut so that the whole has at most 63.
pub fn generate(base: &str, mut random: u64) -> String {
    let mut cut = base.len().min(GENERATED_BASE_MAX);
    while !base.is_char_boundary(cut) {
        cut -= 1;
    }
    let mut name = base[..cut].to_owned();
    for _ in 0..GENERATED_SUFFIX_LEN {
        name.push(char::from(ALPHABET[(random % ALPHABET.len() as u64) as usize]));
        random /= ALPHABET.len() as u64;
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules() {
        let cases: [(fn(&str) -> Vec<String>, &str, &str); 15] = [
            (dns_label, "web", ""),
            (dns_label, "a.b", "must not contain dots"),
            (
                dns_label,
                "Web",
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
            ),
            (
                dns_subdomain,
                "a_b",
                r"a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
            ),
            (dns_subdomain, "a.b-c.d", ""),
            (qualified_name, "example.com/name", ""),
            (qualified_name, "", "name part must be non-empty; name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"),
            (label_value, "", ""),
            (label_value, "yes", ""),
            (port_name, "http", ""),
            (port_name, "80", "must contain at least one letter (a-z)"),
            (path_segment, "a/b", "may not contain '/'"),
            (path_segment, "system:node", ""),
            (config_map_key, "..", "must not be '..'"),
            (env_name, "A=B", "a valid environment variable name must consist only of printable ASCII characters other than '='"),
        ];
        for (rule, input, expected) in cases {
            assert_eq!(rule(input).join("; "), expected, "{input}");
        }
        assert_eq!(label_value(&"a".repeat(64)), ["must be no more than 63 bytes"]);
        assert_eq!(dns_label(&"a".repeat(64)), ["must be no more than 63 characters"]);
    }

    #[test]
    fn prefixes_may_end_in_a_dash() {
        for (name, fine) in [("web-", true), ("web", true), ("-", false), ("Web-", false), ("é-", true)] {
            assert_eq!(NameRule::DnsLabel.check(name, true).is_empty(), fine, "{name}");
        }
        assert!(!NameRule::DnsLabel.check("web-", false).is_empty());
    }

    #[test]
    fn generated_names() {
        assert_eq!(generate("web-", 0), "web-bbbbb");
        assert_eq!(generate(&"a".repeat(80), 12345).len(), 63);
        assert_ne!(generate("web-", 1), generate("web-", 2));
    }
}
