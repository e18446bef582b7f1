//! Kubernetes' named formats: `format.dns1123Label().validate(x)` gives what is wrong, if anything is.

use api::names;

use super::url::Url;
use super::{Row, mismatch};
use crate::time;
use crate::value::{Evaluated, Value};

#[derive(Debug)]
pub struct NamedFormat {
    pub name: &'static str,
    validate: fn(&str) -> Vec<String>,
    /// What costs are computed from: the size of the expression it stands for.
    pub regex_size: u64,
}

const URL_LENGTH: u64 = 2083;
const BASE64_LENGTH: u64 = 84;
const UUID_LENGTH: u64 = 108;
const DATETIME_LENGTH: u64 = 78;

macro_rules! formats {
    ($($name:ident = ($cel:literal, $size:expr, $validate:expr)),* $(,)?) => {
        $(static $name: NamedFormat = NamedFormat { name: $cel, validate: $validate, regex_size: $size };)*
        static ALL: &[&NamedFormat] = &[$(&$name),*];
    };
}

formats! {
    DNS_LABEL = ("dns1123Label", 30, names::dns_label),
    DNS_SUBDOMAIN = ("dns1123Subdomain", 60, names::dns_subdomain),
    DNS_1035_LABEL = ("dns1035Label", 30, names::dns1035_label),
    QUALIFIED_NAME = ("qualifiedName", 60, names::qualified_name),
    DNS_LABEL_PREFIX = ("dns1123LabelPrefix", 30, |text| names::dns_label(&unmasked(text))),
    DNS_SUBDOMAIN_PREFIX = ("dns1123SubdomainPrefix", 60, |text| names::dns_subdomain(&unmasked(text))),
    DNS_1035_LABEL_PREFIX = ("dns1035LabelPrefix", 30, |text| names::dns1035_label(&unmasked(text))),
    LABEL_VALUE = ("labelValue", 40, names::label_value),
    URI = ("uri", URL_LENGTH, |text| match Url::parse(text) {
        Ok(_) => Vec::new(),
        Err(why) => vec![format!("parse {text:?}: {why}")],
    }),
    UUID = ("uuid", UUID_LENGTH, |text| unless(is_uuid(text), "does not match the UUID format")),
    BYTE = ("byte", BASE64_LENGTH, |text| unless(is_base64(text), "invalid base64")),
    DATE = ("date", DATETIME_LENGTH, |text| unless(time::parse_date(text).is_ok(), "invalid date")),
    DATETIME = ("datetime", DATETIME_LENGTH, |text| unless(time::parse_openapi_datetime(text).is_ok(), "invalid datetime")),
}

macro_rules! constants {
    ($($function:literal => $format:ident),* $(,)?) => {
        &[
            $(($function, $function, "() -> format", |_| Ok(Value::Format(&$format))),)*
            ("format.named", "format-named", "(string) -> optional(format)", named),
            ("validate", "format-validate", "format.(string) -> optional(list(string))", validate),
        ]
    };
}

pub const TABLE: &[Row] = constants! {
    "format.dns1123Label" => DNS_LABEL,
    "format.dns1123Subdomain" => DNS_SUBDOMAIN,
    "format.dns1035Label" => DNS_1035_LABEL,
    "format.qualifiedName" => QUALIFIED_NAME,
    "format.dns1123LabelPrefix" => DNS_LABEL_PREFIX,
    "format.dns1123SubdomainPrefix" => DNS_SUBDOMAIN_PREFIX,
    "format.dns1035LabelPrefix" => DNS_1035_LABEL_PREFIX,
    "format.labelValue" => LABEL_VALUE,
    "format.uri" => URI,
    "format.uuid" => UUID,
    "format.byte" => BYTE,
    "format.date" => DATE,
    "format.datetime" => DATETIME,
};

fn named<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    let [Value::String(name)] = args else { return mismatch() };
    Ok(Value::optional(ALL.iter().find(|format| format.name == &**name).map(|format| Value::Format(format))))
}

fn validate<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    let [Value::Format(format), Value::String(text)] = args else { return mismatch() };
    let wrong = (format.validate)(text);
    Ok(Value::optional((!wrong.is_empty()).then(|| Value::list(wrong.into_iter().map(Value::from).collect()))))
}

fn unless(fine: bool, complaint: &str) -> Vec<String> {
    if fine { Vec::new() } else { vec![complaint.to_owned()] }
}

/// A prefix may end in a hyphen, as what follows it completes the name.
fn unmasked(text: &str) -> String {
    match text.strip_suffix('-') {
        Some(before) if !before.is_empty() => format!("{before}a"),
        _ => text.to_owned(),
    }
}

fn is_uuid(text: &str) -> bool {
    let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b'-').collect();
    let groups: Vec<usize> = text.split('-').map(str::len).collect();
    // Hyphens are optional, but only at their places.
    let mut place = 0;
    let cuts = groups.iter().take(groups.len() - 1).all(|length| {
        place += length;
        matches!(place, 8 | 12 | 16 | 20)
    });
    digits.len() == 32 && digits.iter().all(u8::is_ascii_hexdigit) && cuts && groups.iter().all(|length| *length > 0)
}

fn is_base64(text: &str) -> bool {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.decode(text).is_ok()
}
