//! The phases of `kubeadm init`. Mirrors `cmd/phases/init`, names, order and texts.

use std::path::Path;
use std::time::Instant;

use client::Client;
use jiff::Timestamp;

use serde_json::Value;

use crate::bootstrap_token::BootstrapToken;
use crate::certificates::{AUTHORITIES, CA, CONFIGS, ENTRIES};
use crate::control_plane::{ADMIN, Etcd, SUPER_ADMIN};
use crate::documents;
use crate::error::Error;
use crate::host::KUBERNETES_FOLDER;
use crate::init::Init;
use crate::join_command::{self, Shared};
use crate::kubeconfig::of_cluster;
use crate::objects::{self, ClusterConfiguration, KUBEADM_CONFIG};
use crate::phases::{Phase, wants};
use crate::preflight;
use crate::publish;
use crate::rest::{self, CONFIG_MAPS, Kind, connect};
use crate::shared_certificates::{self, CertificateKey};

const fn phase(name: &'static str, short: &'static str, parts: &'static [&'static str]) -> Phase {
    Phase { name, short, parts }
}

pub const PHASES: [Phase; 14] = [
    phase("preflight", "Run pre-flight checks", &[]),
    phase("certs", "Certificate generation", &["ca", "apiserver", "apiserver-kubelet-client", "front-proxy-ca", "front-proxy-client", "sa"]),
    phase("kubeconfig", "Generate all kubeconfig files necessary to establish the control plane and the admin kubeconfig file", &["admin", "super-admin", "kubelet", "controller-manager", "scheduler"]),
    phase("etcd", "Nothing to write: objects are in the data folder or in an etcd of others", &["local"]),
    phase("control-plane", "Nothing to write: the control plane is one process, which wait-control-plane starts", &["apiserver", "controller-manager", "scheduler"]),
    phase("kubelet-start", "Write kubelet settings and (re)start the kubelet", &[]),
    phase("wait-control-plane", "Wait for the control plane to start", &[]),
    phase("upload-config", "Upload the kubeadm and kubelet configuration to a ConfigMap", &["kubeadm", "kubelet"]),
    phase("upload-certs", "Upload certificates to kubeadm-certs", &[]),
    phase("mark-control-plane", "Mark a node as a control-plane", &[]),
    phase("bootstrap-token", "Generates bootstrap tokens used to join a node to a cluster", &[]),
    phase("kubelet-finalize", "Updates settings relevant to the kubelet after TLS bootstrap", &[]),
    phase("addon", "Install required addons for passing conformance tests", &["coredns", PROXY]),
    phase("show-join-command", "Show the join command for control-plane and worker node", &[]),
];

/// The part of `addon` without which a cluster has no proxy of our own.
pub const PROXY: &str = "kube-proxy";

/// Why a phase alone has nothing to do.
pub fn nothing(phase: &str) -> Option<&'static str> {
    match phase {
        "etcd" => Some("objects are in the data folder, or in an etcd that kubeadm does not run"),
        "control-plane" => Some("there are no manifests to write, the control plane is one process, which wait-control-plane starts"),
        "kubelet-finalize" => Some("this node's agent has its certificates from the process it is in"),
        _ => None,
    }
}

/// One phase, or only a part of it.
pub fn run(init: &mut Init<'_>, phase: &str, only: Option<&str>) -> Result<(), Error> {
    if init.options.common.dry_run && phase != "preflight" {
        return dry_run(init, phase);
    }
    match phase {
        "preflight" => preflight(init),
        "certs" => certs(init, only),
        "kubeconfig" => kubeconfigs(init, only),
        "kubelet-start" => kubelet_start(init),
        "wait-control-plane" => wait_control_plane(init),
        "upload-config" => upload_config(init, only),
        "upload-certs" => upload_certs(init),
        "mark-control-plane" => with_client(init, async |init, client| publish::mark_control_plane(&client, &init.what.node_name, init.options.file.taints.as_deref()).await),
        "bootstrap-token" => bootstrap_token(init),
        "addon" => {
            if wants("addon", "coredns", only, &init.options.common.skip_phases) {
                println!("[addons] Applied essential addon: CoreDNS");
            }
            if wants("addon", PROXY, only, &init.options.common.skip_phases) {
                match init.what.no_proxy {
                    true => println!("[addons] Skipping the kube-proxy addon: it is disabled in the configuration"),
                    false => println!("[addons] Applied essential addon: kube-proxy"),
                }
            }
            Ok(())
        }
        "show-join-command" => show_join_command(init),
        _ => Ok(()),
    }
}

/// What a phase would do.
fn dry_run(init: &Init<'_>, phase: &str) -> Result<(), Error> {
    let shown = |objects: &[(Kind, Value)]| {
        for (kind, object) in objects {
            println!("[dryrun] Would perform action CREATE on resource {:?} in API group \"{}/{}\"", kind.2, kind.0, kind.1);
            println!("[dryrun] Attached object:\n{}", documents::yaml(object).lines().map(|line| format!("\t{line}\n")).collect::<String>().trim_end());
        }
    };
    let (folder, data) = (init.what.pki_dir.display(), init.what.data_dir.display());
    match phase {
        "certs" => {
            let names = init.what.names()?;
            let addresses: Vec<String> = names.addresses.iter().map(ToString::to_string).collect();
            println!("[dryrun] Would write certificates and keys to {folder}: {}", ENTRIES.iter().map(|entry| entry.name).chain(AUTHORITIES.iter().map(|entry| entry.name)).chain(["sa"]).collect::<Vec<_>>().join(", "));
            println!("[dryrun] Would sign the API server's certificate for DNS names [{}] and IPs [{}]", names.dns.join(" "), addresses.join(" "));
        }
        "kubeconfig" => println!("[dryrun] Would write {}, kubelet.conf to {:?}, for {}", CONFIGS.iter().map(|entry| entry.file).collect::<Vec<_>>().join(", "), KUBERNETES_FOLDER, init.server()),
        "kubelet-start" => println!("[dryrun] Would write file {:?} with content:\n{}", init.kubelet_config().display().to_string(), init.kubelet_patched()?.lines().map(|line| format!("\t{line}\n")).collect::<String>().trim_end()),
        "wait-control-plane" => {
            println!("[dryrun] Would start the control plane with its data in {data}, and wait for it at {}", init.what.own_endpoint());
            shown(&[objects::administrators()]);
        }
        "upload-config" => {
            shown(&objects::kubeadm_config(&configuration(init)));
            shown(&objects::kubelet_config(&init.kubelet));
        }
        "upload-certs" if init.options.upload_certs => println!("[dryrun] Would upload the control plane's certificates to the Secret \"kubeadm-certs\" in the \"kube-system\" Namespace"),
        "mark-control-plane" => println!("[dryrun] Would mark the node {} as control-plane", init.what.node_name),
        "bootstrap-token" => {
            println!("[dryrun] Would create the bootstrap token {}", if init.options.skip_token_print { "<value withheld>".to_owned() } else { init.token.to_string() });
            shown(&objects::bootstrap_rules());
        }
        _ => {}
    }
    Ok(())
}

/// With whom `--kubeconfig` names, else as the administrator to this machine's own API server.
fn with_client(init: &mut Init<'_>, work: impl AsyncFnOnce(&mut Init<'_>, Client) -> Result<(), Error>) -> Result<(), Error> {
    let client = match &init.options.kubeconfig {
        Some(path) => connect(&client::kubeconfig::Config::load(Some(path))?)?,
        None => init.what.client(ADMIN)?,
    };
    crate::cli::block_on(work(init, client))?
}

fn preflight(init: &Init<'_>) -> Result<(), Error> {
    let ignored = preflight::ignored(&init.options.common.ignore_preflight_errors);
    preflight::root(&ignored)?;
    println!("[preflight] Running pre-flight checks");
    preflight::run(&init.what.checks(init.host, Etcd::Empty), &ignored)
}

fn certs(init: &mut Init<'_>, only: Option<&str>) -> Result<(), Error> {
    let pki = init.what.pki();
    println!("[certs] Using certificateDir folder {:?}", pki.0.display().to_string());
    init.journal.expect(&pki.0);
    let wanted = |name: &str| wants("certs", name, only, &init.options.common.skip_phases);
    pki.ensure_some(&init.what.names()?, Timestamp::now().as_second(), &wanted, &mut |line| println!("{line}"))
}

fn kubeconfigs(init: &mut Init<'_>, only: Option<&str>) -> Result<(), Error> {
    println!("[kubeconfig] Using kubeconfig folder {:?}", crate::host::KUBERNETES_FOLDER);
    let server = init.server();
    init.what.write_kubeconfigs(&mut init.journal, &server, only.filter(|only| *only != "all"))
}

fn kubelet_start(init: &mut Init<'_>) -> Result<(), Error> {
    let config = init.kubelet_config();
    println!("[kubelet-start] Writing kubelet configuration to file {:?}", config.display().to_string());
    let kubelet = init.kubelet_patched()?;
    init.journal.write(&config, kubelet.as_bytes())?;
    // The agent makes it.
    init.journal.expect(&Path::new(KUBERNETES_FOLDER).join("manifests"));
    println!("[kubelet-start] Starting the kubelet");
    Ok(())
}

fn wait_control_plane(init: &mut Init<'_>) -> Result<(), Error> {
    println!("[wait-control-plane] Waiting for the control plane: one process, with the kubelet of this node in it");
    let started = Instant::now();
    init.start()?;
    println!("[control-plane-check] kube-apiserver is healthy after {:.3}s", started.elapsed().as_secs_f64());
    let client = init.what.client(SUPER_ADMIN)?;
    crate::cli::block_on(publish::administrators(&client))?
}

fn configuration(init: &Init<'_>) -> ClusterConfiguration {
    ClusterConfiguration {
        version: init.host.version().to_owned(),
        control_plane_endpoint: init.options.control_plane_endpoint.as_ref().map(|_| init.endpoint.clone()),
        pod_subnet: init.what.pod_network_cidr.clone(),
        service_subnet: init.what.service_cidr.clone(),
        no_network: init.what.no_network,
        no_proxy: init.what.no_proxy,
        extra_names: init.what.extra_names.clone(),
        etcd: init.what.etcd.clone(),
        dns_domain: init.what.dns_domain.clone(),
        args: init.what.args.clone(),
    }
}

fn upload_config(init: &mut Init<'_>, only: Option<&str>) -> Result<(), Error> {
    with_client(init, async |init, client| {
        if wants("upload-config", "kubeadm", only, &init.options.common.skip_phases) {
            publish::configuration(&client, &configuration(init)).await?;
        }
        if wants("upload-config", "kubelet", only, &init.options.common.skip_phases) {
            publish::kubelet_configuration(&client, &init.kubelet).await?;
        }
        Ok(())
    })
}

fn upload_certs(init: &mut Init<'_>) -> Result<(), Error> {
    if !init.options.upload_certs {
        println!("[upload-certs] Skipping phase. Please see --upload-certs");
        return Ok(());
    }
    with_client(init, async |init, client| {
        // The cluster knows best where its objects are; a phase alone is seldom told.
        let stored = rest::get(&client, &CONFIG_MAPS, Some("kube-system"), KUBEADM_CONFIG).await.map_err(Error::api("unable to fetch the kubeadm-config ConfigMap"))?;
        let etcd = stored.as_ref().and_then(ClusterConfiguration::read).map_or_else(|| init.what.etcd.clone(), |stored| stored.etcd);
        let key = match init.certificate_key.clone() {
            Some(key) => key,
            None => CertificateKey::generate()?,
        };
        shared_certificates::upload(&client, &init.what.pki(), etcd.as_ref(), &key).await?;
        if !init.options.skip_certificate_key_print {
            println!("[upload-certs] Using certificate key:\n{key}");
        }
        if etcd.is_none() {
            eprintln!("hint: this cluster's objects are in this machine's data folder, so it can have no second control plane; `kubeadm init --etcd-servers=…` makes one that can.");
        }
        init.certificate_key = Some(key);
        Ok(())
    })
}

fn bootstrap_token(init: &mut Init<'_>) -> Result<(), Error> {
    let ca = init.what.pki().identity(CA)?.certificate_pem;
    let info = of_cluster(&init.server(), &ca);
    let first = init.options.file.tokens.first().cloned().unwrap_or_default();
    let more = init.options.file.tokens.iter().skip(1).map(|wish| Ok((wish.token.as_ref().map_or_else(BootstrapToken::generate, |text| text.parse())?, wish.clone()))).collect::<Result<Vec<_>, Error>>()?;
    with_client(init, async |init, client| {
        publish::bootstrap(&client, &init.token, first.ttl.unwrap_or(init.options.token_ttl), &first, &info, !init.options.skip_token_print).await?;
        for (token, wish) in more {
            publish::token(&client, &token, &publish::description(&wish, ""), wish.ttl.unwrap_or(init.options.token_ttl)).await?;
        }
        Ok(())
    })
}

fn show_join_command(init: &mut Init<'_>) -> Result<(), Error> {
    let ca = init.what.pki().identity(CA)?.certificate_pem;
    let withheld = || "<value withheld>".to_owned();
    let token = if init.options.skip_token_print { withheld() } else { init.token.to_string() };
    let shared = match (&init.what.etcd, &init.options.control_plane_endpoint, init.options.upload_certs) {
        (Some(_), Some(_), true) => Shared::Uploaded(init.certificate_key.as_ref().filter(|_| !init.options.skip_certificate_key_print).map_or_else(withheld, ToString::to_string)),
        (Some(_), Some(_), false) => Shared::ByHand,
        _ => Shared::Nothing,
    };
    print!("{}", join_command::initialized(&join_command::worker(&init.endpoint, &token, &ca)?, &shared, init.what.no_network));
    Ok(())
}
