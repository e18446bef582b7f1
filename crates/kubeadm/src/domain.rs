//! Names of the DNS that Kubernetes takes for names of nodes and of a cluster: RFC 1123's subdomains.

/// What the names of a cluster's Services and pods end in when nothing else was said.
pub const DEFAULT_DNS_DOMAIN: &str = "cluster.local";
/// Upstream's words for what is none.
pub const WANTED: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character";
const MAX_CHARS: usize = 253;

pub fn is_subdomain(name: &str) -> bool {
    let part = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-') && !part.starts_with('-') && !part.ends_with('-');
    name.len() <= MAX_CHARS && name.split('.').all(part)
}

/// `--service-dns-domain`, `networking.dnsDomain`.
pub fn domain(text: &str) -> Result<String, String> {
    if is_subdomain(text) { Ok(text.to_owned()) } else { Err(WANTED.to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subdomains() {
        for (name, good) in [("node1", true), ("a.b-c", true), ("cluster.local", true), ("Node1", false), ("", false), ("-a", false), ("a..b", false), ("a_b", false), ("a.", false)] {
            assert_eq!((is_subdomain(name), domain(name).is_ok()), (good, good), "{name}");
        }
        assert!(!is_subdomain(&"a".repeat(MAX_CHARS + 1)));
    }
}
