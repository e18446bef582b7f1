//! Which plugins a Corefile may name: those of CoreDNS as it is released (<https://github.com/coredns/coredns/blob/master/plugin.cfg>). A name that is none of these is a mistake, and
//! the Corefile is not used, as in CoreDNS. Of those that are, some have an effect here, some need none, and the others are told to have none.

/// Nothing to do for: true here without saying, or of no meaning in this server.
const BUILT_IN: [&str; 13] = ["ready", "prometheus", "health", "loop", "reload", "loadbalance", "bufsize", "debug", "metadata", "cancel", "minimal", "bind", "timeouts"];
/// Those that `corefile.rs` reads.
const HONOURED: [&str; 8] = ["forward", "hosts", "rewrite", "template", "cache", "log", "errors", "kubernetes"];
const WITHOUT_EFFECT: &[&str] = &[
    "acl", "any", "auto", "autopath", "azure", "chaos", "clouddns", "dns64", "dnssec", "dnstap", "etcd", "file", "geoip", "grpc", "grpc_server", "header", "https", "https3", "import", "k8s_external", "local", "multisocket", "nomad", "nsid", "on",
    "pprof", "proxyproto", "quic", "root", "route53", "secondary", "sign", "tls", "trace", "transfer", "tsig", "view", "whoami",
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    Honoured,
    /// It is as it says anyhow.
    BuiltIn,
    WithoutEffect,
    Unknown,
}

pub fn standing(name: &str) -> Standing {
    if HONOURED.contains(&name) {
        Standing::Honoured
    } else if BUILT_IN.contains(&name) {
        Standing::BuiltIn
    } else if WITHOUT_EFFECT.contains(&name) {
        Standing::WithoutEffect
    } else {
        Standing::Unknown
    }
}

/// What `kubernetes` may say without anything being otherwise than it says.
pub fn is_of_kubernetes(words: &[String]) -> bool {
    let rest: Vec<&str> = words.iter().skip(1).map(String::as_str).collect();
    match (words.first().map(String::as_str), rest.as_slice()) {
        (Some("pods"), ["insecure"]) | (Some("fallthrough" | "kubeconfig" | "endpoint" | "tls" | "upstream" | "resyncperiod" | "startup_timeout" | "apiserver_qps" | "apiserver_burst" | "apiserver_max_inflight"), _) => true,
        (Some("ttl"), [seconds]) => seconds.parse() == Ok(crate::records::TTL_SECONDS),
        _ => false,
    }
}
