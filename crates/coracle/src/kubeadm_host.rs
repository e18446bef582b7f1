//! What kubeadm has this machine do: the same as `coracle up --detach`, `coracle kubelet --detach`, `coracle down` and `coracle reset`.

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::Path;
use std::process::ExitCode;

use kubeadm::{Agent, Args, Component, ControlPlane, EtcdFacts, ExternalEtcd, Host, Meaning};
use serde_json::{Value, json};

use crate::cli::{Cidrs, cidrs};
use crate::etcd_options::EtcdOptions;
use crate::paths::Paths;
use crate::{component_flags, detach, down, own_image, reset, up};

const POD_NETWORK: &str = "10.244.0.0/16";
const SERVICES: &str = "10.96.0.0/12";

/// Of what failed to start.
const LOG_LINES: usize = 5;

pub struct ThisMachine;

pub fn main(arguments: Vec<OsString>) -> ExitCode {
    kubeadm::main(arguments, &ThisMachine)
}

fn text(error: anyhow::Error) -> String {
    format!("{error:#}")
}

/// Starts this program in the background, and leaves a note of how: to start it again, and to take it away.
fn start(data_dir: &Path, arguments: Vec<OsString>, pod_network: &str, services: &str) -> Result<(), String> {
    let paths = Paths::new(data_dir);
    let words: Vec<String> = arguments.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let note = json!({"arguments": words, "podNetworkCidr": pod_network, "serviceCidr": services});
    kubeadm::write_private(&paths.kubeadm_mark(), note.to_string().as_bytes()).map_err(|error| format!("cannot write {}: {error}", paths.kubeadm_mark().display()))?;
    detach::start(&paths, arguments).map_err(text)
}

/// What was noted; null if nothing was.
fn note(paths: &Paths) -> Value {
    std::fs::read(paths.kubeadm_mark()).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}

/// The command line of what kubeadm made of this machine, for who says just `coracle up`: after a reboot, say. Without it, another cluster would be made there.
pub fn noted(options: &up::Options) -> Option<Vec<OsString>> {
    let (paths, detach) = options.plain()?;
    let note = note(&paths);
    let words = note["arguments"].as_array()?.iter().filter_map(|word| word.as_str().map(OsString::from));
    Some(std::iter::once(OsString::from("coracle")).chain(words).chain(detach.then(|| OsString::from("--detach"))).collect())
}

/// The same command line with another etcd, or none.
fn with_etcd(arguments: &[String], etcd: &[String]) -> Vec<String> {
    let mut rest = arguments.iter();
    let mut kept = Vec::new();
    while let Some(word) = rest.next() {
        if !word.starts_with("--etcd-") {
            kept.push(word.clone());
        } else if !word.contains('=') {
            // Its value.
            rest.next();
        }
    }
    kept.extend(etcd.iter().cloned());
    kept
}

/// The objects have moved: what kubeadm made of this machine goes on with that etcd, or with none. Whether it made something.
pub fn note_etcd(paths: &Paths, etcd: Option<&EtcdOptions>) -> anyhow::Result<bool> {
    let mut note = note(paths);
    let Some(arguments) = note["arguments"].as_array() else { return Ok(false) };
    let arguments: Vec<String> = arguments.iter().filter_map(|word| word.as_str().map(str::to_owned)).collect();
    let etcd: Vec<String> = etcd.map(EtcdOptions::words).unwrap_or_default().iter().map(|word| word.to_string_lossy().into_owned()).collect();
    note["arguments"] = json!(with_etcd(&arguments, &etcd));
    kubeadm::write_private(&paths.kubeadm_mark(), note.to_string().as_bytes())?;
    Ok(true)
}

/// The ranges that were noted.
fn ranges(paths: &Paths) -> Result<(Cidrs, Cidrs), String> {
    let note = note(paths);
    let of = |key: &str, default: &str| note[key].as_str().and_then(|text| cidrs(text).ok()).map_or_else(|| cidrs(default), Ok);
    Ok((of("podNetworkCidr", POD_NETWORK)?, of("serviceCidr", SERVICES)?))
}

fn words(pairs: &[(&str, &dyn AsRef<std::ffi::OsStr>)]) -> Vec<OsString> {
    pairs.iter().flat_map(|(flag, value)| [OsString::from(flag), value.as_ref().to_owned()]).collect()
}

fn proxy(disabled: bool) -> Vec<OsString> {
    if disabled { words(&[("--service-proxy", &"none")]) } else { Vec::new() }
}

/// Of the flags of a configuration file, those that this program has. Some are of several parts, which are one process: the first one's counts.
fn honoured(parts: &[(Component, &Args)]) -> Vec<OsString> {
    let mut all: Args = Vec::new();
    for (component, args) in parts {
        let mut mine: Args = args.iter().filter(|(name, value)| component_flags::meaning(*component, name, value) == Meaning::Honoured).map(|(name, value)| (component_flags::own_name(*component, name), value.clone())).collect();
        mine.retain(|(name, value)| match all.iter().find(|(taken, _)| taken == name) {
            Some((_, other)) if other != value => {
                eprintln!("hint: --{name}={value} is left out: another part of this process has it as {other}.");
                false
            }
            other => other.is_none(),
        });
        all.append(&mut mine);
    }
    all.into_iter().map(|(name, value)| OsString::from(format!("--{name}={value}"))).collect()
}

impl Host for ThisMachine {
    fn version(&self) -> &str {
        server::GIT_VERSION
    }

    fn own_image(&self) -> String {
        format!("{}:{}", own_image::NAME, server::GIT_VERSION)
    }

    fn meaning(&self, component: Component, flag: &str, value: &str) -> Meaning {
        component_flags::meaning(component, flag, value)
    }

    fn address(&self, ipv4: bool) -> Option<IpAddr> {
        up::own_address(ipv4)
    }

    fn ask_etcd(&self, etcd: &ExternalEtcd) -> Result<EtcdFacts, String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())?;
        runtime.block_on(EtcdOptions::of(etcd).ask()).map_err(text)
    }

    fn start_control_plane(&self, what: &ControlPlane) -> Result<(), String> {
        let (address, port) = (what.advertise_address.to_string(), what.secure_port.to_string());
        let mut arguments = vec![OsString::from("up")];
        arguments.extend(words(&[
            ("--data-dir", &what.data_dir),
            ("--cert-dir", &what.pki_dir),
            ("--node-name", &what.node_name),
            ("--advertise-address", &address),
            ("--secure-port", &port),
            ("--pod-network-cidr", &what.pod_network_cidr),
            ("--service-cidr", &what.service_cidr),
            ("--cluster-domain", &what.dns_domain),
            ("--network", &if what.no_network { "none" } else { "builtin" }),
            ("--kubelet-config", &Path::new(kubeadm::KUBELET_FOLDER).join("config.yaml")),
        ]));
        if !what.extra_names.is_empty() {
            arguments.extend(words(&[("--apiserver-cert-extra-sans", &what.extra_names.join(","))]));
        }
        if let Some(etcd) = &what.etcd {
            arguments.extend(EtcdOptions::of(etcd).words());
        }
        arguments.extend(proxy(what.no_proxy));
        let parts = [(Component::ApiServer, &what.args.api_server), (Component::ControllerManager, &what.args.controller_manager), (Component::Scheduler, &what.args.scheduler), (Component::OwnKubelet, &what.kubelet_args)];
        arguments.extend(honoured(&parts));
        start(&what.data_dir, arguments, &what.pod_network_cidr, &what.service_cidr)
    }

    fn start_agent(&self, what: &Agent) -> Result<(), String> {
        let mut arguments = vec![OsString::from("kubelet")];
        arguments.extend(words(&[
            ("--data-dir", &what.data_dir),
            ("--kubeconfig", &what.kubeconfig),
            ("--config", &what.config),
            ("--hostname-override", &what.node_name),
            ("--pod-network-cidr", &what.pod_network_cidr),
            ("--service-cidr", &what.service_cidr),
            ("--network", &if what.no_network { "none" } else { "builtin" }),
        ]));
        arguments.extend(proxy(what.no_proxy));
        arguments.extend(honoured(&[(Component::Kubelet, &what.kubelet_args)]));
        if let Some(address) = what.node_ip {
            arguments.extend(words(&[("--node-ip", &address.to_string())]));
        }
        start(&what.data_dir, arguments, &what.pod_network_cidr, &what.service_cidr)
    }

    fn restart(&self, data_dir: &Path) -> Result<(), String> {
        let paths = Paths::new(data_dir);
        let note = note(&paths);
        let arguments = note["arguments"].as_array().ok_or_else(|| format!("kubeadm has made nothing of this machine in {}", data_dir.display()))?;
        let arguments = arguments.iter().filter_map(|word| word.as_str().map(OsString::from)).collect();
        down::stop(&paths).map_err(text)?;
        detach::start(&paths, arguments).map_err(text)
    }

    fn remove(&self, data_dir: &Path) -> Result<(), String> {
        let paths = Paths::new(data_dir);
        let (pods, services) = ranges(&paths)?;
        reset::remove(&paths, &pods, &services, None).map_err(text)
    }

    fn undo(&self, data_dir: &Path, before: Option<&[OsString]>) -> Result<(), String> {
        let paths = Paths::new(data_dir);
        let (pods, services) = ranges(&paths)?;
        // What the log says of the failure would go with the folder.
        let log = std::fs::read_to_string(paths.log_file()).unwrap_or_default();
        log.lines().rev().take(LOG_LINES).collect::<Vec<_>>().into_iter().rev().for_each(|line| eprintln!("{line}"));
        reset::remove(&paths, &pods, &services, before).map_err(text)
    }

    fn runs(&self, data_dir: &Path) -> bool {
        down::running(&Paths::new(data_dir)).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_etcd() {
        let of = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let without = of("up --data-dir /d --secure-port 6443 --audit-log-path=-");
        let with = with_etcd(&without, &of("--etcd-servers https://e:2379 --etcd-cafile /ca"));
        assert_eq!(with.join(" "), "up --data-dir /d --secure-port 6443 --audit-log-path=- --etcd-servers https://e:2379 --etcd-cafile /ca");
        assert_eq!(with_etcd(&with, &[]), without);
        assert_eq!(with_etcd(&of("up --etcd-servers=a --node-name n"), &[]), of("up --node-name n"));
    }
}
