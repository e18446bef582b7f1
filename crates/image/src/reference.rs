//! Image references, as `docker` and the kubelet read them.
//!
//! Mirrors github.com/distribution/reference: `alpine` means `docker.io/library/alpine:latest`. The error text is what
//! the kubelet puts behind `Failed to apply default image tag …` with reason `InvalidImageName`.

use std::fmt;

use crate::digest::{Digest, is_hex64};

/// distribution/reference: NameTotalLengthMax.
const NAME_MAX: usize = 255;
const TAG_MAX: usize = 128;
pub const DEFAULT_DOMAIN: &str = "docker.io";
const LEGACY_DOMAIN: &str = "index.docker.io";
const DEFAULT_TAG: &str = "latest";

/// A normalised reference: the domain and path are always there, and a tag or a digest or both.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    /// `docker.io`, `localhost:5000`, …
    pub domain: String,
    /// `library/alpine`, …
    pub path: String,
    pub tag: Option<String>,
    pub digest: Option<Digest>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("couldn't parse image reference {reference:?}: {problem}")]
pub struct InvalidReference {
    pub reference: String,
    pub problem: ReferenceProblem,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceProblem {
    #[error("invalid reference format")]
    Format,
    #[error("invalid reference format: repository name ({0}) must be lowercase")]
    NotLowercase(String),
    #[error("repository name must have at least one component")]
    Empty,
    #[error("repository name must not be more than 255 characters")]
    TooLong,
    #[error("invalid repository name ({0}), cannot specify 64-byte hexadecimal strings")]
    Identifier(String),
    #[error("invalid checksum digest length")]
    DigestLength,
    #[error("unsupported digest algorithm")]
    DigestAlgorithm,
}

impl Reference {
    /// Parses and normalises; adds `:latest` when there is neither a tag nor a digest.
    pub fn parse(text: &str) -> Result<Reference, InvalidReference> {
        parse(text).map_err(|problem| InvalidReference { reference: text.to_owned(), problem })
    }

    /// `docker.io/library/alpine`.
    pub fn repository(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    /// As a person would write it: `alpine:latest`, `user/worker:v0.2`, `localhost:5000/x:1`.
    pub fn familiar(&self) -> String {
        let full = self.to_string();
        match full.strip_prefix("docker.io/") {
            Some(rest) => rest.strip_prefix("library/").unwrap_or(rest).to_owned(),
            None => full,
        }
    }

    /// What goes into `/v2/<path>/manifests/<this>`: the digest when there is one.
    pub fn object(&self) -> &str {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.as_str(),
            (None, Some(tag)) => tag,
            (None, None) => DEFAULT_TAG,
        }
    }

    /// The same repository at a digest, without a tag.
    pub fn at(&self, digest: &Digest) -> Reference {
        Reference { tag: None, digest: Some(digest.clone()), ..self.clone() }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.domain, self.path)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

fn parse(text: &str) -> Result<Reference, ReferenceProblem> {
    use ReferenceProblem::*;
    if text.is_empty() {
        return Err(Empty);
    }
    if is_hex64(text) {
        return Err(Identifier(text.to_owned()));
    }
    let (domain, remainder) = split_domain(text);
    let remote = remainder.split(':').next().unwrap_or_default();
    let remote = remote.split('@').next().unwrap_or_default();
    if remote.to_lowercase() != remote {
        return Err(NotLowercase(remote.to_owned()));
    }
    let (rest, digest) = match remainder.split_once('@') {
        Some((rest, digest)) => (rest, Some(parse_digest(digest)?)),
        None => (remainder, None),
    };
    let (path, tag) = match rest.split_once(':') {
        Some((path, tag)) => (path, Some(tag)),
        None => (rest, None),
    };
    if !domain_is_valid(domain) || !path.split('/').all(component_is_valid) {
        return Err(Format);
    }
    if tag.is_some_and(|tag| !tag_is_valid(tag)) {
        return Err(Format);
    }
    let path = if domain == DEFAULT_DOMAIN && !path.contains('/') { format!("library/{path}") } else { path.to_owned() };
    if domain.len() + 1 + path.len() > NAME_MAX {
        return Err(TooLong);
    }
    let tag = match (tag, &digest) {
        (Some(tag), _) => Some(tag.to_owned()),
        (None, Some(_)) => None,
        (None, None) => Some(DEFAULT_TAG.to_owned()),
    };
    Ok(Reference { domain: domain.to_owned(), path, tag, digest })
}

/// The part before the first `/` is a domain only if it looks like one: a dot, a colon, `localhost`, or upper case.
fn split_domain(text: &str) -> (&str, &str) {
    match text.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':']) || first == "localhost" || first.to_lowercase() != first =>
        {
            (if first == LEGACY_DOMAIN { DEFAULT_DOMAIN } else { first }, rest)
        }
        _ => (DEFAULT_DOMAIN, text),
    }
}

fn parse_digest(text: &str) -> Result<Digest, ReferenceProblem> {
    let (algorithm, hex) = text.split_once(':').ok_or(ReferenceProblem::Format)?;
    if hex.is_empty() || !hex.bytes().all(|b| b.is_ascii_hexdigit()) || algorithm.is_empty() {
        return Err(ReferenceProblem::Format);
    }
    if algorithm != "sha256" {
        return Err(ReferenceProblem::DigestAlgorithm);
    }
    Digest::parse(text).map_err(|_| ReferenceProblem::DigestLength)
}

fn domain_is_valid(domain: &str) -> bool {
    let (host, port) = match domain.strip_prefix('[') {
        Some(v6) => match v6.split_once(']') {
            Some((address, rest)) => {
                if address.is_empty() || !address.bytes().all(|b| b.is_ascii_hexdigit() || b == b':') {
                    return false;
                }
                return rest.is_empty() || rest.strip_prefix(':').is_some_and(port_is_valid);
            }
            None => return false,
        },
        None => match domain.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (domain, None),
        },
    };
    let label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    host.split('.').all(label) && port.is_none_or(port_is_valid)
}

fn port_is_valid(port: &str) -> bool {
    !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit())
}

/// `[a-z0-9]+` runs joined by `.`, `_`, `__` or any number of `-`.
fn component_is_valid(component: &str) -> bool {
    let bytes = component.as_bytes();
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let (Some(&first), Some(&last)) = (bytes.first(), bytes.last()) else { return false };
    if !alphanumeric(first) || !alphanumeric(last) {
        return false;
    }
    bytes
        .split(|&b| alphanumeric(b))
        .all(|separator| matches!(separator, b"" | b"." | b"_" | b"__") || separator.iter().all(|&b| b == b'-'))
}

fn tag_is_valid(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    !tag.is_empty()
        && tag.len() <= TAG_MAX
        && tag.bytes().enumerate().all(|(i, b)| word(b) || (i > 0 && (b == b'.' || b == b'-')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normalises() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for (given, full, familiar) in [
            ("alpine", "docker.io/library/alpine:latest", "alpine:latest"),
            ("alpine:3.20", "docker.io/library/alpine:3.20", "alpine:3.20"),
            ("user/x:tag", "docker.io/user/x:tag", "user/x:tag"),
            ("docker.io/alpine", "docker.io/library/alpine:latest", "alpine:latest"),
            ("index.docker.io/library/alpine", "docker.io/library/alpine:latest", "alpine:latest"),
            ("localhost/x", "localhost/x:latest", "localhost/x:latest"),
            ("localhost:5000/a/b-c:1.0_x", "localhost:5000/a/b-c:1.0_x", "localhost:5000/a/b-c:1.0_x"),
            ("[::1]:5000/x", "[::1]:5000/x:latest", "[::1]:5000/x:latest"),
            ("registry.k8s.io/pause:3.10", "registry.k8s.io/pause:3.10", "registry.k8s.io/pause:3.10"),
            ("a__b/c--d", "docker.io/a__b/c--d:latest", "a__b/c--d:latest"),
        ] {
            let reference = Reference::parse(given).unwrap_or_else(|e| panic!("{given}: {e}"));
            assert_eq!(reference.to_string(), full);
            assert_eq!(reference.familiar(), familiar);
        }
        let both = Reference::parse(&format!("alpine:3@{digest}")).unwrap();
        assert_eq!(both.object(), digest);
        assert_eq!(both.to_string(), format!("docker.io/library/alpine:3@{digest}"));
        assert_eq!(Reference::parse(&format!("alpine@{digest}")).unwrap().tag, None);
    }

    #[test]
    fn refuses_with_the_kubelets_words() {
        let refused = |text: &str| Reference::parse(text).unwrap_err().to_string();
        assert_eq!(refused("/worker:v0.3"), "couldn't parse image reference \"/worker:v0.3\": invalid reference format");
        assert_eq!(
            refused("Alpine"),
            "couldn't parse image reference \"Alpine\": invalid reference format: repository name (Alpine) must be lowercase"
        );
        assert_eq!(
            refused("user/Worker:v1"),
            "couldn't parse image reference \"user/Worker:v1\": invalid reference format: repository name (user/Worker) must be lowercase"
        );
        for bad in ["", "x:", ":x", "a//b", "a/", "-a", "a-", "a___b", "a..b", "x y", "x@sha256:zz", "x:../y", "a:b:c", "x:-t", "localhost:port/x"] {
            assert!(Reference::parse(bad).is_err(), "{bad:?} was accepted");
        }
        assert!(refused(&"a".repeat(64)).contains("64-byte hexadecimal"));
        assert!(refused(&"x".repeat(300)).ends_with("must not be more than 255 characters"));
        assert!(refused(&format!("x@sha256:{}", "a".repeat(63))).ends_with("invalid checksum digest length"));
    }
}
