//! Bootstrap tokens: their form, new ones, and the Secret that one is. Mirrors `k8s.io/cluster-bootstrap/token` and `apis/bootstraptoken/v1`.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use jiff::{SignedDuration, Timestamp};
use plan::bootstrap::{SECRET_NAMESPACE, SECRET_PREFIX, SECRET_TYPE};
use serde_json::{Value, json};

use crate::error::Error;

const ID_CHARS: usize = 6;
const SECRET_CHARS: usize = 16;
const ALPHABET: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
/// Bytes from here on would make some characters likelier than others.
const FAIR: u8 = 252;
pub const PATTERN: &str = r"\\A([a-z0-9]{6})\\.([a-z0-9]{16})\\z";
pub const ID_PATTERN: &str = r"\\A([a-z0-9]{6})\\z";
/// Who comes with a token that `kubeadm` made.
pub const GROUP: &str = "system:bootstrappers:kubeadm:default-node-token";

fn plain(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|byte| byte.is_ascii_digit() || byte.is_ascii_lowercase())
}

pub fn is_id(text: &str) -> bool {
    plain(text, ID_CHARS)
}

/// `abcdef.0123456789abcdef`.
#[derive(Clone, PartialEq, Eq)]
pub struct BootstrapToken {
    pub id: String,
    pub secret: String,
}

impl fmt::Display for BootstrapToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.id, self.secret)
    }
}

/// Its secret is nothing for logs.
impl fmt::Debug for BootstrapToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.…", self.id)
    }
}

impl FromStr for BootstrapToken {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let parts = text.split_once('.').filter(|(id, secret)| plain(id, ID_CHARS) && plain(secret, SECRET_CHARS));
        let (id, secret) = parts.ok_or_else(|| Error::Invalid(format!("the bootstrap token {text:?} was not of the form \"{PATTERN}\"")))?;
        Ok(Self { id: id.to_owned(), secret: secret.to_owned() })
    }
}

fn random(length: usize) -> Result<String, Error> {
    let mut out = String::new();
    let mut bytes = [0u8; 32];
    while out.len() < length {
        getrandom::fill(&mut bytes).map_err(|error| Error::Host(format!("the kernel gives no random numbers: {error}")))?;
        let fair = bytes.iter().filter(|byte| **byte < FAIR).map(|byte| char::from(ALPHABET[usize::from(*byte) % ALPHABET.len()]));
        out.extend(fair.take(length - out.len()));
    }
    Ok(out)
}

impl BootstrapToken {
    pub fn generate() -> Result<Self, Error> {
        Ok(Self { id: random(ID_CHARS)?, secret: random(SECRET_CHARS)? })
    }

    /// The Secret in kube-system; `expires`: none is for ever.
    pub fn secret(&self, what: &Description, expires: Option<Timestamp>) -> Value {
        let mut data = json!({"token-id": self.id, "token-secret": self.secret});
        if let Some(at) = expires {
            data["expiration"] = api::world::rfc3339(at).into();
        }
        for usage in &what.usages {
            data[format!("usage-bootstrap-{usage}")] = "true".into();
        }
        if !what.groups.is_empty() {
            data["auth-extra-groups"] = what.groups.join(",").into();
        }
        if !what.description.is_empty() {
            data["description"] = what.description.as_str().into();
        }
        let encoded: serde_json::Map<String, Value> = data
            .as_object()
            .into_iter()
            .flatten()
            .map(|(key, value)| (key.clone(), base64::engine::general_purpose::STANDARD.encode(value.as_str().unwrap_or_default()).into()))
            .collect();
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": format!("{SECRET_PREFIX}{}", self.id), "namespace": SECRET_NAMESPACE}, "type": SECRET_TYPE, "data": encoded})
    }
}

/// What a token is for.
#[derive(Debug, Clone)]
pub struct Description {
    pub usages: Vec<String>,
    pub groups: Vec<String>,
    pub description: String,
}

/// Go's `time.ParseDuration`, as far as positive ones go: `24h0m0s`, `1.5h`, `0`.
pub fn duration(text: &str) -> Result<SignedDuration, String> {
    let bad = || format!("time: invalid duration {text:?}");
    if text == "0" {
        return Ok(SignedDuration::ZERO);
    }
    let mut rest = text;
    let mut seconds = 0f64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(|| format!("time: missing unit in duration {text:?}"))?;
        let number: f64 = rest[..digits].parse().map_err(|_| bad())?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        seconds += number
            * match &rest[..letters] {
                "h" => 3600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 1e-3,
                other => return Err(format!("time: unknown unit {other:?} in duration {text:?}")),
            };
        rest = &rest[letters..];
    }
    if text.is_empty() || !seconds.is_finite() {
        return Err(bad());
    }
    SignedDuration::try_from_secs_f64(seconds).map_err(|_| bad())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_have_one_form() {
        for good in ["abcdef.0123456789abcdef", "000000.zzzzzzzzzzzzzzzz"] {
            assert_eq!(good.parse::<BootstrapToken>().unwrap().to_string(), good);
        }
        for bad in ["", "abcdef", "abcdef.0123456789abcde", "abcdef.0123456789abcdefg", "ABCDEF.0123456789abcdef", "abcdef:0123456789abcdef", "abcdef.0123456789abcdef\n", " abcdef.0123456789abcdef", "äbcde.0123456789abcdef"] {
            let error = bad.parse::<BootstrapToken>().unwrap_err();
            assert!(error.to_string().ends_with(r#"was not of the form "\\A([a-z0-9]{6})\\.([a-z0-9]{16})\\z""#), "{error}");
            assert_eq!(error.code(), 3);
        }
        let (one, other) = (BootstrapToken::generate().unwrap(), BootstrapToken::generate().unwrap());
        assert!(one != other && one.to_string().parse::<BootstrapToken>().is_ok());
        assert!(!format!("{one:?}").contains(&one.secret));
    }

    #[test]
    fn a_token_is_a_secret() {
        let token: BootstrapToken = "abcdef.0123456789abcdef".parse().unwrap();
        let what = Description { usages: vec!["signing".into(), "authentication".into()], groups: vec![GROUP.into()], description: "x".into() };
        let secret = token.secret(&what, Some("2026-01-01T00:00:00Z".parse().unwrap()));
        assert_eq!(secret["metadata"]["name"], "bootstrap-token-abcdef");
        assert_eq!(secret["data"]["expiration"], "MjAyNi0wMS0wMVQwMDowMDowMFo=");
        assert_eq!((&secret["data"]["usage-bootstrap-signing"], &secret["data"]["usage-bootstrap-authentication"]), (&json!("dHJ1ZQ=="), &json!("dHJ1ZQ==")));
        assert!(token.secret(&what, None)["data"].get("expiration").is_none());
    }

    #[test]
    fn durations() {
        for (text, seconds) in [("24h0m0s", 86400), ("0", 0), ("0s", 0), ("1.5h", 5400), ("90m", 5400), ("2h3s", 7203)] {
            assert_eq!(duration(text).unwrap().as_secs(), seconds, "{text}");
        }
        for bad in ["", "24", "h", "1d", "-1h", "1h1", "..h", "99999999999999999999h"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
