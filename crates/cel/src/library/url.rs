//! Kubernetes' URLs, as Go's `net/url` reads them (`ParseRequestURI`: absolute, or an absolute path).

use std::sync::Arc;

use super::{Row, mismatch};
use crate::containers::Map;
use crate::error::EvalError;
use crate::value::{Entries, Evaluated, Key, Text, Value};

#[derive(Debug, PartialEq, Eq)]
pub struct Url {
    scheme: String,
    host: String,
    path: String,
    query: String,
    /// All of it, for equality.
    text: String,
}

pub const TABLE: &[Row] = &[
    ("url", "string_to_url", "(string) -> url", |args| match args {
        [Value::String(text)] => match Url::parse(text) {
            Ok(url) => Ok(Value::Url(Arc::new(url))),
            Err(why) => Err(EvalError::failed(format!("URL parse error during conversion from string: parse {text:?}: {why}"))),
        },
        _ => mismatch(),
    }),
    ("isURL", "is_url_string", "(string) -> bool", |args| match args {
        [Value::String(text)] => Ok(Value::Bool(Url::parse(text).is_ok())),
        _ => mismatch(),
    }),
    ("getScheme", "url_get_scheme", "url.() -> string", |args| part(args, |url| Value::string(url.scheme.as_str()))),
    ("getHost", "url_get_host", "url.() -> string", |args| part(args, |url| Value::string(url.host.as_str()))),
    ("getHostname", "url_get_hostname", "url.() -> string", |args| part(args, |url| Value::string(url.host_and_port().0))),
    ("getPort", "url_get_port", "url.() -> string", |args| part(args, |url| Value::string(url.host_and_port().1))),
    ("getEscapedPath", "url_get_escaped_path", "url.() -> string", |args| part(args, |url| Value::string(escape_path(&url.path)))),
    ("getQuery", "url_get_query", "url.() -> map(string, list(string))", |args| part(args, |url| url.query_values())),
];

fn part<'a>(args: &[Value<'a>], read: fn(&Url) -> Value<'static>) -> Evaluated<'a> {
    match args {
        [Value::Url(url)] => Ok(read(url)),
        _ => mismatch(),
    }
}

impl Url {
    /// The reason, in Go's words, why it is none.
    pub fn parse(text: &str) -> Result<Url, &'static str> {
        if text.bytes().any(|byte| byte < b' ' || byte == 0x7f) {
            return Err("net/url: invalid control character in URL");
        }
        if text.is_empty() {
            return Err("empty url");
        }
        let (scheme, rest) = scheme(text)?;
        // As a request URI a '#' belongs to path or query; as a URL it ends them.
        let rest_without_fragment = rest.split_once('#').map_or(rest, |(rest, _)| rest);
        let (before_query, query) = rest_without_fragment.split_once('?').unwrap_or((rest_without_fragment, ""));
        if !before_query.starts_with('/') {
            if scheme.is_empty() {
                return Err("invalid URI for request");
            }
            // Opaque, like `mailto:x`.
            return Ok(Url { scheme, host: String::new(), path: String::new(), query: query.to_owned(), text: text.to_owned() });
        }
        let (host, path) = match before_query.strip_prefix("//") {
            Some(rest) if !scheme.is_empty() || !before_query.starts_with("///") => {
                let end = rest.find('/').unwrap_or(rest.len());
                (authority(&rest[..end])?, &rest[end..])
            }
            _ => (String::new(), before_query),
        };
        check_escapes(path)?;
        Ok(Url { scheme, host, path: path.to_owned(), query: query.to_owned(), text: text.to_owned() })
    }

    fn host_and_port(&self) -> (&str, &str) {
        let host = self.host.as_str();
        if let Some(rest) = host.strip_prefix('[')
            && let Some((inside, after)) = rest.split_once(']')
        {
            return (inside, after.strip_prefix(':').unwrap_or_default());
        }
        host.rsplit_once(':').unwrap_or((host, ""))
    }

    fn query_values(&self) -> Value<'static> {
        let mut found: std::collections::BTreeMap<String, Vec<Value<'static>>> = std::collections::BTreeMap::new();
        for pair in self.query.split('&') {
            if pair.is_empty() || pair.contains(';') {
                continue;
            }
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (Some(key), Some(value)) = (unescape_query(key), unescape_query(value)) else { continue };
            found.entry(key).or_default().push(Value::string(value));
        }
        let entries: Entries<'static> = found.into_iter().map(|(key, values)| (Key::String(Text::Shared(key.into())), Value::list(values))).collect();
        Value::Map(Map::Owned(Arc::new(entries)))
    }
}

fn scheme(text: &str) -> Result<(String, &str), &'static str> {
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' => {}
            b'0'..=b'9' | b'+' | b'-' | b'.' if at > 0 => {}
            b':' if at == 0 => return Err("missing protocol scheme"),
            b':' => return Ok((text[..at].to_ascii_lowercase(), &text[at + 1..])),
            _ => break,
        }
    }
    // Without a scheme a colon in the first segment is an error.
    if !text.starts_with('/') && text.split('/').next().is_some_and(|first| first.contains(':')) {
        return Err("first path segment in URL cannot contain colon");
    }
    Ok((String::new(), text))
}

fn authority(text: &str) -> Result<String, &'static str> {
    let host = match text.rsplit_once('@') {
        Some((user, host)) => {
            let fine = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:~!$&'()*+,;=%@".contains(&byte);
            if !user.bytes().all(fine) {
                return Err("net/url: invalid userinfo");
            }
            check_escapes(user)?;
            host
        }
        None => text,
    };
    let port_is_fine = |port: &str| port.is_empty() || port.strip_prefix(':').is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
    if host.starts_with('[') {
        let Some(end) = host.rfind(']') else { return Err("missing ']' in host") };
        if !port_is_fine(&host[end + 1..]) {
            return Err("invalid port after host");
        }
    } else if let Some(colon) = host.find(':')
        && !(host.matches(':').count() == 1 && port_is_fine(&host[colon..]))
    {
        return Err("invalid port after host");
    }
    let fine = |byte: u8| byte >= 0x80 || byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:[]<>\"%".contains(&byte);
    if !host.bytes().all(fine) {
        return Err("invalid character in host name");
    }
    // A host's escapes may only be of what is not ASCII.
    match percent_decode(host) {
        Some(decoded) => Ok(decoded),
        None => Err("invalid URL escape"),
    }
}

fn check_escapes(text: &str) -> Result<(), &'static str> {
    percent_decode_bytes(text).map(|_| ()).ok_or("invalid URL escape")
}

fn percent_decode_bytes(text: &str) -> Option<Vec<u8>> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] == b'%' {
            let digit = |at: usize| bytes.get(at).and_then(|byte| char::from(*byte).to_digit(16));
            out.push((digit(at + 1)? * 16 + digit(at + 2)?) as u8);
            at += 3;
        } else {
            out.push(bytes[at]);
            at += 1;
        }
    }
    Some(out)
}

fn percent_decode(text: &str) -> Option<String> {
    percent_decode_bytes(text).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

fn unescape_query(text: &str) -> Option<String> {
    percent_decode(&text.replace('+', " "))
}

/// As written if that is a valid encoding, else encoded.
fn escape_path(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/[]%".contains(&byte);
    if path.bytes().all(valid) {
        return path.to_owned();
    }
    for byte in percent_decode_bytes(path).unwrap_or_default() {
        if byte.is_ascii_alphanumeric() || b"-._~$&+,/:;=@".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}
