//! Which flags of upstream's programs this one has, for `extraArgs` of kubeadm's configuration files. Those that it has are found in its own command line, so that no list can lag behind.

use clap::Args;
use kubeadm::{Component, Meaning};

use crate::api_server::ApiServerOptions;
use crate::controller_options::ControllerOptions;
use crate::leader::Times;
use crate::parts::PartOptions;
use crate::user_flags::UserFlags;

/// About logs, profiles and kubeconfigs of processes of their own, and how much of a cache or of the API one takes: none of it changes what a cluster does.
const OF_PROCESSES: [&str; 24] = [
    "v", "vmodule", "logging-format", "log-flush-frequency", "log-json-info-buffer-size", "log-json-split-stream", "log-text-info-buffer-size", "log-text-split-stream", "profiling", "contention-profiling", "bind-address", "secure-port",
    "kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig", "authentication-skip-lookup", "kube-api-qps", "kube-api-burst", "kube-api-content-type", "leader-elect", "min-resync-period", "permit-port-sharing", "permit-address-sharing", "http2-max-streams-per-connection",
];
/// Of the API server: how it caches, and how it takes turns.
const OF_API_SERVER: [&str; 9] = ["watch-cache", "watch-cache-sizes", "default-watch-cache-size", "goaway-chance", "min-request-timeout", "endpoint-reconciler-type", "enable-aggregator-routing", "event-ttl-jitter", "delete-collection-workers"];
/// Of the agent: what its container runtime is.
const OF_KUBELET: [&str; 8] = ["container-runtime-endpoint", "image-service-endpoint", "pod-infra-container-image", "runtime-request-timeout", "cgroup-driver", "fail-swap-on", "event-qps", "event-burst"];
/// What is so anyhow, whoever asks for it.
const AS_IT_IS: [(&str, &str); 8] = [
    ("allow-privileged", "true"), ("use-service-account-credentials", "true"), ("allocate-node-cidrs", "true"), ("rotate-certificates", "true"), ("rotate-server-certificates", "true"), ("read-only-port", "0"), ("enable-bootstrap-token-auth", "true"), ("register-node", "true"),
];

fn has<A: Args>(flag: &str) -> bool {
    A::augment_args(clap::Command::new("coracle")).get_arguments().any(|argument| argument.get_long() == Some(flag))
}

/// The name of the flag here: two parts that are one process cannot both have a `--secure-port`.
pub fn own_name(component: Component, flag: &str) -> String {
    match (component, flag) {
        (Component::Scheduler, "bind-address" | "secure-port") => format!("scheduler-{flag}"),
        (Component::ControllerManager, "bind-address" | "secure-port") => format!("controllers-{flag}"),
        _ => flag.to_owned(),
    }
}

pub fn meaning(component: Component, flag: &str, value: &str) -> Meaning {
    let honoured = match component {
        Component::ApiServer => has::<ApiServerOptions>(flag) || has::<UserFlags>(flag),
        Component::ControllerManager => has::<ControllerOptions>(flag) || has::<Times>(flag) || has::<PartOptions>(&own_name(component, flag)),
        Component::Scheduler => has::<Times>(flag) || has::<PartOptions>(&own_name(component, flag)),
        // The last one is our own: upstream's proxy is no part of its kubelet.
        Component::OwnKubelet => matches!(flag, "node-labels" | "service-proxy"),
        Component::Kubelet => matches!(flag, "node-labels" | "register-with-taints" | "node-ip" | "service-proxy"),
    };
    let nothing = OF_PROCESSES.contains(&flag)
        || AS_IT_IS.contains(&(flag, value))
        || match component {
            Component::ApiServer => OF_API_SERVER.contains(&flag),
            Component::ControllerManager => flag.starts_with("concurrent-"),
            Component::Scheduler => false,
            // The node's address is the API server's.
            Component::OwnKubelet => OF_KUBELET.contains(&flag) || flag == "node-ip",
            Component::Kubelet => OF_KUBELET.contains(&flag),
        };
    match (honoured, nothing) {
        (true, _) => Meaning::Honoured,
        (false, true) => Meaning::Nothing,
        (false, false) => Meaning::Missing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_flags_come_to() {
        for (component, flag, value, expected) in [
            (Component::ApiServer, "audit-log-path", "-", Meaning::Honoured),
            (Component::ApiServer, "service-account-issuer", "https://x", Meaning::Honoured),
            (Component::ApiServer, "v", "4", Meaning::Nothing),
            (Component::ApiServer, "data-dir", "/x", Meaning::Missing),
            (Component::ApiServer, "etcd-servers", "http://x", Meaning::Missing),
            (Component::ApiServer, "runtime-config", "api/all=true", Meaning::Missing),
            (Component::ControllerManager, "cluster-signing-duration", "1h", Meaning::Honoured),
            (Component::ControllerManager, "leader-elect-lease-duration", "15s", Meaning::Honoured),
            (Component::ControllerManager, "concurrent-job-syncs", "5", Meaning::Nothing),
            (Component::ControllerManager, "allocate-node-cidrs", "true", Meaning::Nothing),
            (Component::ControllerManager, "allocate-node-cidrs", "false", Meaning::Missing),
            (Component::Scheduler, "config", "/x", Meaning::Missing),
            (Component::Scheduler, "bind-address", "0.0.0.0", Meaning::Honoured),
            (Component::ControllerManager, "secure-port", "0", Meaning::Honoured),
            (Component::ApiServer, "bind-address", "0.0.0.0", Meaning::Nothing),
            (Component::Kubelet, "node-labels", "a=b", Meaning::Honoured),
            (Component::Kubelet, "service-proxy", "none", Meaning::Honoured),
            (Component::OwnKubelet, "node-ip", "10.0.0.1", Meaning::Nothing),
            (Component::Kubelet, "cloud-provider", "external", Meaning::Missing),
        ] {
            assert_eq!(meaning(component, flag, value), expected, "{component:?} {flag}={value}");
        }
    }
}
