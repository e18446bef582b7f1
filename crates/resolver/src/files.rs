//! `/etc/hosts` and `/etc/resolv.conf`, as far as a client needs them (hosts(5), resolv.conf(5)).

use std::net::{IpAddr, Ipv4Addr};

#[derive(Debug, PartialEq, Eq)]
pub struct Configuration {
    pub servers: Vec<IpAddr>,
    pub search: Vec<String>,
    /// A name with fewer dots is looked for in the search domains first.
    pub ndots: usize,
}

/// As resolv.conf(5) has them.
const NDOTS: usize = 1;
const NDOTS_MAX: usize = 15;

impl Configuration {
    /// What a host may be called in full, in the order of asking. Who ends it with a dot means just that.
    pub fn names(&self, host: &str) -> Vec<String> {
        if let Some(full) = host.strip_suffix('.') {
            return vec![full.to_owned()];
        }
        let mut names: Vec<String> = self.search.iter().map(|domain| format!("{host}.{domain}")).collect();
        let at = if host.matches('.').count() >= self.ndots { 0 } else { names.len() };
        names.insert(at, host.to_owned());
        names
    }
}

pub fn resolv_conf(text: &str) -> Configuration {
    let (mut servers, mut search, mut ndots) = (Vec::new(), Vec::new(), NDOTS);
    for line in text.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            // `fe80::1%eth0`: the zone is for sockets.
            Some("nameserver") => servers.extend(words.next().and_then(|word| word.split('%').next()?.parse::<IpAddr>().ok())),
            Some("search" | "domain") => search = words.map(|word| word.trim_end_matches('.').to_owned()).collect(),
            Some("options") => ndots = words.filter_map(|word| word.strip_prefix("ndots:")?.parse().ok()).next_back().unwrap_or(ndots).min(NDOTS_MAX),
            _ => {}
        }
    }
    if servers.is_empty() {
        servers.push(Ipv4Addr::LOCALHOST.into());
    }
    Configuration { servers, search, ndots }
}

pub fn hosts(text: &str, host: &str) -> Vec<IpAddr> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split('#').next()?.split_whitespace();
            let address = words.next()?.parse().ok()?;
            words.any(|word| word.eq_ignore_ascii_case(host)).then_some(address)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_by_any_of_their_names() {
        let text = "127.0.0.1 localhost\n10.0.0.9 Node1 node1.example # x\nnonsense node1\n";
        assert_eq!(hosts(text, "node1"), [IpAddr::from([10, 0, 0, 9])]);
        assert!(hosts(text, "x").is_empty());
    }

    #[test]
    fn servers_and_search() {
        let text = "# made by hand\nnameserver 10.96.0.10\nnameserver fe80::1%eth0\nnameserver what\nsearch default.svc.cluster.local. svc.cluster.local\noptions ndots:5\n";
        let want = Configuration { servers: vec![[10, 96, 0, 10].into(), "fe80::1".parse().unwrap()], search: vec!["default.svc.cluster.local".into(), "svc.cluster.local".into()], ndots: 5 };
        assert_eq!(resolv_conf(text), want);
        assert_eq!(resolv_conf("").servers, [IpAddr::from([127, 0, 0, 1])]);
        let within = |text: &str, host: &str| resolv_conf(text).names(host).join(" ");
        for (options, host, names) in [
            ("options ndots:5", "kubernetes.default", "kubernetes.default.a kubernetes.default.b kubernetes.default"),
            ("options ndots:5", "kubernetes.default.", "kubernetes.default"),
            ("", "kubernetes.default", "kubernetes.default kubernetes.default.a kubernetes.default.b"),
            ("options rotate ndots:x", "node1", "node1.a node1.b node1"),
            ("options ndots:0", "node1", "node1 node1.a node1.b"),
        ] {
            assert_eq!(within(&format!("search a b\n{options}\n"), host), names, "{options} {host}");
        }
    }
}
