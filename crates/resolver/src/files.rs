//! `/etc/hosts` and `/etc/resolv.conf`, as far as a client needs them (hosts(5), resolv.conf(5)).

use std::net::{IpAddr, Ipv4Addr};

#[derive(Debug, PartialEq, Eq)]
pub struct Configuration {
    pub servers: Vec<IpAddr>,
    pub search: Vec<String>,
}

pub fn resolv_conf(text: &str) -> Configuration {
    let (mut servers, mut search) = (Vec::new(), Vec::new());
    for line in text.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            // `fe80::1%eth0`: the zone is for sockets.
            Some("nameserver") => servers.extend(words.next().and_then(|word| word.split('%').next()?.parse::<IpAddr>().ok())),
            Some("search" | "domain") => search = words.map(|word| word.trim_end_matches('.').to_owned()).collect(),
            _ => {}
        }
    }
    if servers.is_empty() {
        servers.push(Ipv4Addr::LOCALHOST.into());
    }
    Configuration { servers, search }
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
        let want = Configuration { servers: vec![[10, 96, 0, 10].into(), "fe80::1".parse().unwrap()], search: vec!["default.svc.cluster.local".into(), "svc.cluster.local".into()] };
        assert_eq!(resolv_conf(text), want);
        assert_eq!(resolv_conf("").servers, [IpAddr::from([127, 0, 0, 1])]);
    }
}
