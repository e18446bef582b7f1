//! `kubeadm upgrade`: what runs where, and this program, newer, in place of what runs. Mirrors `cmd/upgrade`: words and order.
//!
//! There is one version that this program can upgrade to: its own. Whoever wants another puts that one's binary here first. Pods run on meanwhile: only the process over them is another.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use client::kubeconfig::Config;
use client::{Client, HttpClient, ListOptions};
use http::Method;
use serde_json::{Value, json};

use crate::control_plane::{ADMIN, KUBELET_CONFIG as KUBELET_CONF};
use crate::documents;
use crate::error::{Error, InPhase};
use crate::files::write_private;
use crate::host::{Host, KUBELET_FOLDER, KUBERNETES_FOLDER};
use crate::options::DEFAULT_DATA;
use crate::objects::{KUBEADM_CONFIG, KUBELET_CONFIG};
use crate::patches::Patches;
use crate::rest::{self, CONFIG_MAPS, NODES, connect};
use crate::tabs::columns;
use crate::{preflight, publish, reset, tokens};

const NAMESPACE: &str = "kube-system";
const CONTROL_PLANE_LABEL: &str = "node-role.kubernetes.io/control-plane";

#[derive(Args, Debug)]
pub struct UpgradeCommand {
    #[command(subcommand)]
    what: Upgrade,
}

#[derive(Args, Debug, Clone)]
struct Common {
    /// The kubeconfig file to use when talking to the cluster
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Where the node's data are kept
    #[arg(long, value_name = "DIR", default_value = DEFAULT_DATA)]
    data_dir: PathBuf,
    /// Don't apply any changes; just output what would be done
    #[arg(long)]
    dry_run: bool,
    /// Checks whose errors will be shown as warnings; 'all' ignores errors from all checks
    #[arg(long, value_name = "CHECKS", value_delimiter = ',')]
    ignore_preflight_errors: Vec<String>,
    /// Path to a directory that contains files named "target[suffix][+patchtype].extension". For example, "kubeletconfiguration0+merge.yaml"
    #[arg(long, value_name = "DIR")]
    patches: Option<PathBuf>,
}

#[derive(Subcommand, Debug)]
enum Upgrade {
    /// Check which versions are available to upgrade to and validate whether your current cluster is upgradeable
    Plan {
        version: Option<String>,
        #[command(flatten)]
        common: Common,
    },
    /// Upgrade your Kubernetes cluster to the specified version
    Apply {
        version: Option<String>,
        #[command(flatten)]
        common: Common,
        /// Perform the upgrade and do not prompt for confirmation
        #[arg(long, short)]
        yes: bool,
        /// Force upgrading although some requirements might not be met
        #[arg(long, short)]
        force: bool,
    },
    /// Upgrade commands for a node in the cluster
    Node {
        #[command(flatten)]
        common: Common,
    },
    /// Show what differences would be applied to existing static pod manifests: there are none
    Diff { version: Option<String> },
}

/// What runs where.
struct Running {
    cluster: String,
    /// Name, version of the agent, whether it is a control plane.
    nodes: Vec<(String, String, bool)>,
}

async fn running(config: &Config, client: &Client) -> Result<Running, Error> {
    let failed = |message: String| Error::Host(format!("couldn't fetch cluster version from the API Server: {message}"));
    let http = HttpClient::new(config, "kubeadm").map_err(|error| failed(error.to_string()))?;
    let response = http.request(Method::GET, "/version", &[("accept", "application/json")], Vec::<u8>::new()).await.map_err(|error| failed(error.to_string()))?;
    let body = client::remote::success(response).await.map_err(|status| failed(status.message))?;
    let version: Value = serde_json::from_slice(&body).map_err(|error| failed(error.to_string()))?;
    let found = client.transport().list(&NODES.target(None, None), &ListOptions::default()).await.map_err(Error::api("couldn't list all nodes in cluster"))?;
    let node = |node: &Value| {
        let text = |path: &str| node.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
        (text("/metadata/name"), text("/status/nodeInfo/kubeletVersion"), node["metadata"]["labels"].get(CONTROL_PLANE_LABEL).is_some())
    };
    Ok(Running { cluster: version["gitVersion"].as_str().unwrap_or_default().to_owned(), nodes: found.items.iter().filter_map(|item| item.value().ok()).map(|value| node(&value)).collect() })
}

/// The plan's tables; none if all is as new as `target`.
fn plan(running: &Running, target: &str) -> Option<String> {
    let head = || ["COMPONENT", "NODE", "CURRENT", "TARGET"].map(str::to_owned).to_vec();
    let row = |name: &str, node: &str, current: &str| vec![name.to_owned(), node.to_owned(), current.to_owned(), target.to_owned()];
    let (mut agents, mut parts) = (vec![head()], vec![head()]);
    agents.extend(running.nodes.iter().filter(|(_, version, _)| version != target).map(|(name, version, _)| row("kubelet", name, version)));
    if running.cluster != target {
        for part in ["kube-apiserver", "kube-controller-manager", "kube-scheduler"] {
            parts.extend(running.nodes.iter().filter(|(.., control_plane)| *control_plane).map(|(name, ..)| row(part, name, &running.cluster)));
        }
    }
    let mut text = String::new();
    if agents.len() > 1 {
        text.push_str(&format!("Components that must be upgraded manually after you have upgraded the control plane with 'kubeadm upgrade apply':\n{}\n", columns(&agents)));
    }
    if parts.len() > 1 {
        text.push_str(&format!("Upgrade to the version of this program:\n\n{}\nYou can now apply the upgrade by executing the following command:\n\n\tkubeadm upgrade apply {target}\n\n_____________________________________________________________________\n\n", columns(&parts)));
    }
    (!text.is_empty()).then_some(text)
}

/// The same with and without `v` in front.
fn check_version(asked: Option<&str>, own: &str) -> Result<(), Error> {
    match asked.filter(|asked| asked.trim_start_matches('v') != own.trim_start_matches('v')) {
        None => Ok(()),
        Some(asked) => Err(Error::Hinted {
            message: format!("the version argument is invalid: {asked:?} is not the version of this kubeadm, {own}"),
            hint: "this program is the whole of one Kubernetes: put the binary of the version that you want in place of this one, and run its `kubeadm upgrade apply`".into(),
        }),
    }
}

fn login(common: &Common) -> Result<(Config, Client), Error> {
    let config = tokens::config(common.kubeconfig.as_deref())?;
    let client = connect(&config)?;
    Ok((config, client))
}

/// The configuration in the cluster.
async fn stored(client: &Client) -> Result<Value, Error> {
    println!("[upgrade/config] Reading configuration from the {KUBEADM_CONFIG:?} ConfigMap in namespace {NAMESPACE:?}...");
    println!("[upgrade/config] Use 'kubeadm init phase upload-config kubeadm --config your-config-file' to re-upload it.");
    rest::get(client, &CONFIG_MAPS, Some(NAMESPACE), KUBEADM_CONFIG).await.map_err(Error::api("unable to fetch the kubeadm-config ConfigMap"))?.ok_or_else(|| Error::Hinted {
        message: format!("[upgrade] In order to upgrade, a ConfigMap called {KUBEADM_CONFIG:?} in the {NAMESPACE:?} namespace must exist."),
        hint: "a cluster that `kubeadm init` did not make is upgraded by `coracle down` and `coracle up` of the newer binary".into(),
    })
}

/// The ClusterConfiguration's text for another version; what else it says stays.
fn with_version(map: &Value, version: &str) -> Result<String, Error> {
    let text = map.pointer("/data/ClusterConfiguration").and_then(Value::as_str).unwrap_or_default();
    let mut whole: Value = serde_saphyr::from_str(text).map_err(|error| Error::Invalid(format!("unable to decode the ClusterConfiguration in the kubeadm-config ConfigMap: {error}")))?;
    whole["kubernetesVersion"] = version.into();
    Ok(documents::yaml(&whole))
}

fn print_plan(version: Option<&str>, common: &Common, host: &dyn Host) -> Result<(), Error> {
    check_version(version, host.version())?;
    let (config, client) = login(common)?;
    println!("[preflight] Running pre-flight checks.");
    crate::cli::block_on(async {
        stored(&client).await?;
        println!("[upgrade] Running cluster health checks");
        let running = running(&config, &client).await?;
        println!("[upgrade] Fetching available versions to upgrade to");
        println!("[upgrade/versions] Cluster version: {}\n[upgrade/versions] kubeadm version: {}\n", running.cluster.trim_start_matches('v'), host.version());
        match plan(&running, host.version()) {
            Some(text) => print!("{text}"),
            None => println!("All of the cluster is of this version."),
        }
        eprintln!("hint: no newer versions were looked for, this program does not ask the Internet: a newer one's `kubeadm upgrade plan` tells what it would change.");
        Ok(())
    })?
}

/// The agent's configuration as the cluster has it, with this machine's patches.
async fn kubelet_configuration(client: &Client, common: &Common) -> Result<String, Error> {
    let map = rest::get(client, &CONFIG_MAPS, Some(NAMESPACE), KUBELET_CONFIG).await.map_err(Error::api("unable to fetch the kubelet-config ConfigMap"))?;
    let text = map.as_ref().and_then(|map| map.pointer("/data/kubelet")?.as_str()).ok_or_else(|| Error::Invalid(format!("the ConfigMap {KUBELET_CONFIG:?} in the {NAMESPACE:?} namespace has no KubeletConfiguration")))?;
    Patches::of(common.patches.as_deref())?.kubelet_configuration(text)
}

/// This program in place of the one that runs, with that configuration. Where it does not start with it, it goes on with the former one.
fn restart(common: &Common, host: &dyn Host, kubelet: &str) -> Result<(), Error> {
    let path = Path::new(KUBELET_FOLDER).join("config.yaml");
    if common.dry_run {
        println!("[dryrun] Would write file {:?} with content:\n{}", path.display().to_string(), kubelet.lines().map(|line| format!("\t{line}\n")).collect::<String>().trim_end());
        println!("[dryrun] Would restart what runs with {} as {}", common.data_dir.display(), host.version());
        return Ok(());
    }
    let before = std::fs::read(&path);
    println!("[upgrade/kubelet-config] Writing kubelet configuration to file {:?}", path.display().to_string());
    write_private(&path, kubelet.as_bytes()).map_err(Error::file("cannot write", &path))?;
    let Err(message) = host.restart(&common.data_dir) else { return Ok(()) };
    if let Ok(before) = before {
        write_private(&path, &before).map_err(Error::file("cannot write", &path))?;
        if let Err(again) = host.restart(&common.data_dir) {
            eprintln!("warning: it does not start with its former configuration either: {again}");
        }
    }
    Err(Error::Host(message))
}

fn apply(version: Option<&str>, common: &Common, sure: bool, host: &dyn Host) -> Result<(), Error> {
    let target = host.version();
    check_version(version, target).phase("preflight")?;
    println!("[upgrade/preflight] Running preflight checks");
    preflight::root(&preflight::ignored(&common.ignore_preflight_errors)).phase("preflight")?;
    let (config, client) = login(common)?;
    let (map, kubelet) = crate::cli::block_on(async {
        let map = stored(&client).await?;
        let running = running(&config, &client).await?;
        println!("[upgrade/preflight] You have chosen to upgrade the cluster version to {target:?}");
        println!("[upgrade/versions] Cluster version: {}\n[upgrade/versions] kubeadm version: {target}", running.cluster);
        Ok::<_, Error>((map, kubelet_configuration(&client, common).await?))
    })??;
    if !sure && !common.dry_run && !reset::confirmed("[upgrade] Are you sure you want to proceed?")? {
        return Err(Error::Host("won't proceed; the user didn't answer (Y|y) in order to continue".into())).phase("preflight");
    }
    println!("[upgrade/control-plane] Upgrading the control plane of this machine to version {target:?}...");
    restart(common, host, &kubelet).phase("control-plane")?;
    let text = with_version(&map, target)?;
    if common.dry_run {
        println!("[dryrun] Would upload the kubeadm ClusterConfiguration to a ConfigMap\n[dryrun] Would configure bootstrap token and cluster-info RBAC rules\n[upgrade/successful] Finished dryrunning successfully!");
        return Ok(());
    }
    println!("[upgrade/control-plane] The control plane instance for this node was successfully upgraded!");
    crate::cli::block_on(async {
        println!("[upload-config] Storing the configuration used in ConfigMap {KUBEADM_CONFIG:?} in the {NAMESPACE:?} Namespace");
        let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": KUBEADM_CONFIG, "namespace": NAMESPACE}, "data": {"ClusterConfiguration": text}});
        rest::put(&client, &CONFIG_MAPS, object).await.map_err(Error::api("error uploading the kubeadm ClusterConfiguration"))?;
        println!("[upgrade/bootstrap-token] Configuring bootstrap token and cluster-info RBAC rules");
        publish::bootstrap_rules(&client).await
    })??;
    println!("\n[upgrade] SUCCESS! A control plane node of your cluster was upgraded to {target:?}.\n\n[upgrade] Now please proceed with upgrading the rest of the nodes by following the right order.");
    Ok(())
}

fn node(common: &Common, host: &dyn Host) -> Result<(), Error> {
    println!("[upgrade/preflight] Running pre-flight checks");
    preflight::root(&preflight::ignored(&common.ignore_preflight_errors)).phase("preflight")?;
    let admin = Path::new(KUBERNETES_FOLDER).join(ADMIN).exists();
    if admin {
        println!("[upgrade/control-plane] Upgrading the control plane instance of this machine to version {:?}...", host.version());
    } else {
        println!("[upgrade/control-plane] Skipping phase. Not a control plane node.");
    }
    // A machine that joined is let read what concerns it as the node that it is.
    let own = Path::new(KUBERNETES_FOLDER).join(KUBELET_CONF);
    let config = if admin || common.kubeconfig.is_some() { tokens::config(common.kubeconfig.as_deref())? } else { Config::load(Some(&own))? };
    let client = connect(&config)?;
    let kubelet = crate::cli::block_on(kubelet_configuration(&client, common))?.phase("kubelet-config")?;
    restart(common, host, &kubelet).phase("kubelet-config")?;
    println!("{}", if common.dry_run { "[upgrade/successful] Finished dryrunning successfully!" } else { "[upgrade/kubelet-config] The kubelet configuration for this node was successfully upgraded!" });
    Ok(())
}

pub fn run(command: &UpgradeCommand, host: &dyn Host) -> Result<(), Error> {
    match &command.what {
        Upgrade::Plan { version, common } => print_plan(version.as_deref(), common, host),
        Upgrade::Apply { version, common, yes, force } => apply(version.as_deref(), common, *yes || *force, host),
        Upgrade::Node { common } => node(common, host),
        Upgrade::Diff { .. } => {
            println!("hint: there are no static pod manifests of a control plane to compare: it is one process.");
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans() {
        let running = |cluster: &str, agent: &str| Running { cluster: cluster.into(), nodes: vec![("node1".into(), cluster.into(), true), ("node2".into(), agent.into(), false)] };
        assert_eq!(plan(&running("v1.36.2", "v1.36.2"), "v1.36.2"), None);
        let text = plan(&running("v1.36.1", "v1.36.0"), "v1.36.2").unwrap();
        for line in ["COMPONENT   NODE      CURRENT   TARGET", "kubelet     node2     v1.36.0   v1.36.2", "kube-apiserver            node1     v1.36.1   v1.36.2", "\tkubeadm upgrade apply v1.36.2"] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        let only_agents = plan(&running("v1.36.2", "v1.36.0"), "v1.36.2").unwrap();
        assert!(!only_agents.contains("upgrade apply v1") && only_agents.contains("node2") && !only_agents.contains("node1"));
        assert!(check_version(None, "v1.36.2").is_ok() && check_version(Some("1.36.2"), "v1.36.2").is_ok() && check_version(Some("v1.37.0"), "v1.36.2").is_err());
        let map = json!({"data": {"ClusterConfiguration": "kubernetesVersion: v1.36.0\nunknown: {kept: 1}\n"}});
        let whole: Value = serde_saphyr::from_str(&with_version(&map, "v1.36.2").unwrap()).unwrap();
        assert_eq!(whole, json!({"kubernetesVersion": "v1.36.2", "unknown": {"kept": 1}}));
    }
}
