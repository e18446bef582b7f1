//! `kubeadm join --control-plane`: one more API server, scheduler and controllers on the etcd that the cluster's control planes share.
//!
//! Mirrors `cmd/phases/join` (`preflight.go`, `controlplaneprepare.go`, `controlplanejoin.go`). A cluster whose objects are in one machine's data folder cannot have a second
//! one: `docs/adr/0018-several-control-planes.md`.

use jiff::Timestamp;

use crate::certificates::{CA, PkiFolder};
use crate::control_plane::{ADMIN, Etcd, advertised, endpoint};
use crate::error::Error;
use crate::files::names_in;
use crate::host::{ControlPlane, Host, KUBELET_FOLDER, KUBERNETES_FOLDER};
use crate::join::{Join, Options};
use crate::objects::ClusterConfiguration;
use crate::patches::Patches;
use crate::{preflight, publish, shared_certificates};

/// Why this cluster cannot have this machine as a control plane.
fn obstacle(options: &Options, cluster: &ClusterConfiguration, pki: &PkiFolder) -> Option<Error> {
    let not_ready = |what: &str| {
        format!("\nOne or more conditions for hosting a new control plane instance is not satisfied.\n\n{what}\n\nPlease ensure that:\n* The cluster has a stable controlPlaneEndpoint address.\n* The certificates that must be shared among control plane instances are provided.\n\n")
    };
    if cluster.etcd.is_none() {
        return Some(Error::Hinted {
            message: not_ready("unable to add a new control plane instance to a cluster whose objects are in the data folder of its one control plane (the embedded store)"),
            hint: "several control planes share an etcd. A new cluster gets it with `kubeadm init --etcd-servers=…` (or etcd.external in --config); this one's objects are moved into an etcd with `coracle store migrate --to etcd` (docs/clusters.md). Without --control-plane this machine joins as a worker".into(),
        });
    }
    if cluster.control_plane_endpoint.is_none() {
        return Some(Error::Hinted {
            message: not_ready("unable to add a new control plane instance to a cluster that doesn't have a stable controlPlaneEndpoint address"),
            hint: "`kubeadm init --control-plane-endpoint NAME` gives it one: a name or address that leads to all API servers".into(),
        });
    }
    if options.certificate_key.is_some() {
        return None;
    }
    let missing = shared_certificates::missing(pki, cluster.etcd.as_ref())?;
    Some(Error::Hinted { message: not_ready(&missing), hint: "--certificate-key fetches them; `kubeadm init phase upload-certs --upload-certs` on a control plane uploads them and prints the key".into() })
}

/// What is on this machine, or was just fetched, must be this very cluster's.
fn check_authority(pki: &PkiFolder, ca: &str) -> Result<(), Error> {
    let path = pki.certificate(CA).display().to_string();
    let hashes = |pem: &str| pki::public_key_hash(pem.as_bytes()).map_err(|error| Error::Certificate { path: path.clone(), message: error.to_string() });
    if hashes(&pki.identity(CA)?.certificate_pem)? == hashes(ca)? {
        return Ok(());
    }
    Err(Error::Hinted { message: format!("{path} is not the authority of the cluster that is joined"), hint: "it is another cluster's: remove it, or bring the right one".into() })
}

fn instance(options: &Options, node_name: &str, cluster: &ClusterConfiguration, host: &dyn Host) -> Result<ControlPlane, Error> {
    let mut extra_names = cluster.extra_names.clone();
    if let Some(text) = &cluster.control_plane_endpoint {
        let (name, _) = endpoint(text, options.apiserver_bind_port)?;
        if !extra_names.contains(&name) {
            extra_names.push(name);
        }
    }
    Ok(ControlPlane {
        data_dir: options.common.data_dir.clone(),
        pki_dir: std::path::Path::new(KUBERNETES_FOLDER).join("pki"),
        node_name: node_name.to_owned(),
        advertise_address: advertised(options.apiserver_advertise_address.or(options.node_ip), &cluster.service_subnet, host)?,
        secure_port: options.apiserver_bind_port,
        pod_network_cidr: cluster.pod_subnet.clone(),
        service_cidr: cluster.service_subnet.clone(),
        extra_names,
        no_network: cluster.no_network,
        no_proxy: cluster.no_proxy,
        etcd: cluster.etcd.clone(),
        dns_domain: cluster.dns_domain.clone(),
        args: cluster.args.clone(),
        kubelet_args: options.file.kubelet_args.clone(),
    })
}

/// This machine as a control plane of the cluster.
fn this(join: &mut Join<'_>) -> Result<ControlPlane, Error> {
    let (options, host, node_name) = (join.options, join.host, join.wanted.node_name.clone());
    instance(options, &node_name, &join.learned()?.cluster, host)
}

/// Whether the cluster can have it, and this machine can be it.
pub fn preflight(join: &mut Join<'_>) -> Result<(), Error> {
    let what = this(join)?;
    let options = join.options;
    if let Some(error) = obstacle(options, &join.learned()?.cluster, &what.pki()) {
        return Err(error);
    }
    println!("[preflight] Running pre-flight checks before initializing the new control plane instance");
    // etcd can only be asked with the certificates that the cluster has for it.
    let local = ControlPlane { etcd: None, ..what };
    preflight::run(&local.checks(join.host, Etcd::InUse), &join.ignored())
}

/// The shared certificates, this machine's own, and its kubeconfigs: those of it that are `wanted`.
pub fn prepare(join: &mut Join<'_>, wanted: &dyn Fn(&str) -> bool) -> Result<(), Error> {
    let what = this(join)?;
    let pki = what.pki();
    let (options, learned) = (join.options, join.learned()?);
    let (client, ca) = (learned.client.clone(), learned.ca.clone());
    let server = format!("https://{}", learned.cluster.control_plane_endpoint.as_deref().unwrap_or_default());
    let journal = &mut join.journal;
    journal.expect(&pki.0);
    if let Some(key) = options.certificate_key.as_ref().filter(|_| wanted("download-certs")) {
        crate::cli::block_on(shared_certificates::download(&client, &pki, what.etcd.as_ref(), key, journal))??;
    }
    if wanted("certs") {
        check_authority(&pki, &ca)?;
        println!("[certs] Using certificateDir folder {:?}", pki.0.display().to_string());
        pki.ensure(&what.names()?, Timestamp::now().as_second(), &mut |line| println!("{line}"))?;
    }
    if wanted("kubeconfig") {
        println!("[kubeconfig] Generating kubeconfig files");
        println!("[kubeconfig] Using kubeconfig folder {KUBERNETES_FOLDER:?}");
        what.write_kubeconfigs(journal, &server, None)?;
    }
    Ok(())
}

pub fn check_etcd(join: &mut Join<'_>) -> Result<(), Error> {
    println!("[check-etcd] Checking that the etcd cluster is healthy");
    let what = this(join)?;
    preflight::run(what.etcd_check(join.host, Etcd::InUse).as_slice(), &join.ignored())
}

/// The whole control plane, with this node's agent in it.
pub fn start(join: &mut Join<'_>) -> Result<(), Error> {
    let what = this(join)?;
    let config = std::path::Path::new(KUBELET_FOLDER).join("config.yaml");
    println!("[kubelet-start] Writing kubelet configuration to file {:?}", config.display().to_string());
    let patches = Patches::of(join.options.patches.as_deref())?;
    let kubelet = patches.kubelet_configuration(&join.learned()?.kubelet)?;
    join.journal.write(&config, kubelet.as_bytes())?;
    // The agent makes it.
    join.journal.expect(&std::path::Path::new(KUBERNETES_FOLDER).join("manifests"));
    println!("[kubelet-start] Starting the kubelet");
    join.before = Some(names_in(&what.data_dir));
    join.host.start_control_plane(&what).map_err(Error::Host)
}

pub fn mark(join: &mut Join<'_>) -> Result<(), Error> {
    let what = this(join)?;
    let client = what.client(ADMIN)?;
    crate::cli::block_on(publish::mark_control_plane(&client, &what.node_name, join.options.file.taints.as_deref()))?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::ExternalEtcd;
    use crate::options::of_line;

    #[test]
    fn what_a_cluster_must_have() {
        let options = |line: &str| of_line::<Options>(line).unwrap();
        let key = format!("--certificate-key {}", "ab".repeat(32));
        let mut cluster = ClusterConfiguration {
            version: "v1.36.2".into(),
            control_plane_endpoint: Some("lb.example:6443".into()),
            pod_subnet: "10.244.0.0/16".into(),
            service_subnet: "10.96.0.0/12".into(),
            no_network: false,
            no_proxy: false,
            extra_names: Vec::new(),
            etcd: Some(ExternalEtcd::default()),
            dns_domain: "cluster.local".into(),
            args: Default::default(),
        };
        let empty = tempfile::tempdir().unwrap();
        let pki = PkiFolder(empty.path().to_owned());
        let says = |cluster: &ClusterConfiguration, line: &str| obstacle(&options(line), cluster, &pki).map(|error| error.to_string());
        assert_eq!(says(&cluster, &key), None);
        assert!(says(&cluster, "").unwrap().contains("/ca.crt: no such file"));
        cluster.control_plane_endpoint = None;
        assert!(says(&cluster, &key).unwrap().contains("doesn't have a stable controlPlaneEndpoint address\n\nPlease ensure that:\n"));
        cluster.etcd = None;
        let error = obstacle(&options(&key), &cluster, &pki).unwrap();
        assert!(error.to_string().contains("(the embedded store)") && error.hint().unwrap().contains("store migrate --to etcd"));
    }
}
