//! A pod's resolver configuration and its /etc/hosts, as upstream's network/dns and `ensureHostsFile`.

use std::fmt::Write;
use std::net::IpAddr;

use api::k8s::api::core::v1::Pod;
use sandbox::cri::DnsConfig;

use crate::pod;

/// glibc's limits, kept by upstream.
const MAX_SERVERS: usize = 3;
const MAX_SEARCHES: usize = 32;
const MAX_SEARCH_CHARS: usize = 2048;
/// A Linux host name.
const MAX_HOSTNAME: usize = 63;

/// Reads a resolv.conf. The last `search` and `options` line wins, as in glibc.
pub fn parse_resolv_conf(text: &str) -> DnsConfig {
    let mut config = DnsConfig::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => config.servers.extend(words.next().and_then(|w| w.split('%').next()?.parse::<IpAddr>().ok())),
            Some("search" | "domain") => config.searches = words.map(|w| if w == "." { w.to_owned() } else { w.trim_end_matches('.').to_owned() }).collect(),
            Some("options") => config.options = words.map(str::to_owned).collect(),
            _ => {}
        }
    }
    config
}

fn add_new<T: PartialEq>(list: &mut Vec<T>, items: impl IntoIterator<Item = T>) {
    for item in items {
        if !list.contains(&item) {
            list.push(item);
        }
    }
}

pub fn of_pod(pod: &Pod, cluster_dns: &[IpAddr], cluster_domain: &str, host: &DnsConfig) -> DnsConfig {
    let spec = pod::spec(pod);
    let policy = match spec.dns_policy.as_deref().unwrap_or("ClusterFirst") {
        "ClusterFirstWithHostNet" => "ClusterFirst",
        "ClusterFirst" if pod::host_network(pod) => "Default",
        other => other,
    };
    let mut config = match policy {
        "None" => DnsConfig::default(),
        "ClusterFirst" if !cluster_dns.is_empty() => {
            let mut searches = Vec::new();
            if !cluster_domain.is_empty() {
                searches = vec![format!("{}.svc.{cluster_domain}", pod::namespace(pod)), format!("svc.{cluster_domain}"), cluster_domain.to_owned()];
            }
            add_new(&mut searches, host.searches.iter().cloned());
            DnsConfig { servers: cluster_dns.to_vec(), searches, options: vec!["ndots:5".to_owned()] }
        }
        _ => host.clone(),
    };
    if let Some(extra) = &spec.dns_config {
        add_new(&mut config.servers, extra.nameservers.iter().flatten().filter_map(|s| s.parse().ok()));
        add_new(&mut config.searches, extra.searches.iter().flatten().cloned());
        for option in extra.options.iter().flatten() {
            let Some(name) = &option.name else { continue };
            let prefix = format!("{name}:");
            config.options.retain(|known| known != name && !known.starts_with(&prefix));
            config.options.push(match option.value.as_deref() {
                Some(value) if !value.is_empty() => format!("{name}:{value}"),
                _ => name.clone(),
            });
        }
    }
    config.servers.truncate(MAX_SERVERS);
    config.searches.truncate(MAX_SEARCHES);
    while config.searches.join(" ").len() > MAX_SEARCH_CHARS {
        config.searches.pop();
    }
    config
}

/// The pod's host name, and its full name when it has a subdomain.
pub fn hostname(pod: &Pod, cluster_domain: &str) -> (String, Option<String>) {
    let spec = pod::spec(pod);
    if let Some(over) = spec.hostname_override.as_deref().filter(|h| !h.is_empty()) {
        return (over.to_owned(), None);
    }
    let mut host = spec.hostname.clone().filter(|h| !h.is_empty()).unwrap_or_else(|| pod::name(pod).to_owned());
    if host.len() > MAX_HOSTNAME {
        host.truncate(MAX_HOSTNAME);
        host.truncate(host.trim_end_matches(['-', '.']).len());
    }
    let full = spec.subdomain.as_deref().filter(|s| !s.is_empty()).map(|sub| format!("{host}.{sub}.{}.svc.{cluster_domain}", pod::namespace(pod)));
    (host, full)
}

/// What `hostname` prints in the pod.
pub fn uts_hostname(pod: &Pod, cluster_domain: &str, node: &str) -> String {
    let spec = pod::spec(pod);
    if pod::host_network(pod) && spec.hostname_override.is_none() {
        return node.to_owned();
    }
    match hostname(pod, cluster_domain) {
        (_, Some(full)) if spec.set_hostname_as_fqdn == Some(true) => full,
        (host, _) => host,
    }
}

/// `host` is the machine's own file, used by pods on the host network.
pub fn hosts_file(pod: &Pod, ips: &[String], cluster_domain: &str, host: &str) -> String {
    let mut out = String::new();
    if pod::host_network(pod) {
        out.push_str("# Kubernetes-managed hosts file (host network).\n");
        out.push_str(host);
    } else {
        out.push_str(
            "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\n\
             fe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n",
        );
        let (name, full) = hostname(pod, cluster_domain);
        for ip in ips {
            let _ = match &full {
                Some(full) => writeln!(out, "{ip}\t{full}\t{name}"),
                None => writeln!(out, "{ip}\t{name}"),
            };
        }
    }
    let spec = pod::spec(pod);
    let aliases = spec.host_aliases.as_deref().unwrap_or_default();
    if !aliases.is_empty() {
        out.push_str("\n# Entries added by HostAliases.\n");
        for alias in aliases {
            let _ = writeln!(out, "{}\t{}", alias.ip, alias.hostnames.clone().unwrap_or_default().join("\t"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(spec: serde_json::Value) -> Pod {
        pod::from_json(json!({"metadata": {"name": "web-0", "namespace": "n", "uid": "u"}, "spec": spec}))
    }

    #[test]
    fn policies() {
        let host = parse_resolv_conf("# x\nnameserver 192.0.2.1\nsearch example.org.\noptions timeout:1\n");
        let of = |spec: serde_json::Value| {
            let config = of_pod(&pod(spec), &["10.96.0.10".parse().unwrap()], "cluster.local", &host);
            format!("{:?} {} {}", config.servers, config.searches.join(","), config.options.join(","))
        };
        assert_eq!(of(json!({})), "[10.96.0.10] n.svc.cluster.local,svc.cluster.local,cluster.local,example.org ndots:5");
        assert_eq!(of(json!({"hostNetwork": true})), "[192.0.2.1] example.org timeout:1");
        assert_eq!(of(json!({"dnsPolicy": "ClusterFirstWithHostNet", "hostNetwork": true})).split(' ').next(), Some("[10.96.0.10]"));
        assert_eq!(
            of(json!({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["1.1.1.1"], "searches": ["a"], "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}]}})),
            "[1.1.1.1] a ndots:2,edns0"
        );
        assert_eq!(of(json!({"dnsConfig": {"options": [{"name": "ndots", "value": "2"}]}})).split(' ').next_back(), Some("ndots:2"));
    }

    #[test]
    fn hosts_and_names() {
        let p = pod(json!({"subdomain": "db", "hostAliases": [{"ip": "1.2.3.4", "hostnames": ["a", "b"]}]}));
        let hosts = hosts_file(&p, &["10.244.0.5".into()], "cluster.local", "");
        assert!(hosts.starts_with("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n"));
        assert!(hosts.ends_with("10.244.0.5\tweb-0.db.n.svc.cluster.local\tweb-0\n\n# Entries added by HostAliases.\n1.2.3.4\ta\tb\n"), "{hosts}");
        assert_eq!(uts_hostname(&p, "cluster.local", "node1"), "web-0");
        assert_eq!(uts_hostname(&pod(json!({"hostNetwork": true})), "cluster.local", "node1"), "node1");
        assert!(hosts_file(&pod(json!({"hostNetwork": true})), &[], "x", "127.0.0.1 me\n").contains("(host network).\n127.0.0.1 me\n"));
    }
}
