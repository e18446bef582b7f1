//! `--config` of `init` and `join`: what a file of documents says becomes the options that flags would have given, and what no flag can say.
//!
//! Mirrors `util/config/initconfiguration.go` and `joinconfiguration.go`. What has no meaning here (images, volumes and environment of static pods) is told, not refused.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use jiff::SignedDuration;
use serde_json::Value;

use crate::bootstrap_token::duration;
use crate::domain::domain;
use crate::documents::{self, Document, KUBE_PROXY, KUBELET, of_kind};
use crate::error::Error;
use crate::host::{Args, ControlPlaneArgs};
use crate::objects::external_etcd;
use crate::{init, join};

/// One of `bootstrapTokens`.
#[derive(Debug, Clone, Default)]
pub struct TokenWish {
    pub token: Option<String>,
    pub ttl: Option<SignedDuration>,
    pub description: Option<String>,
    pub usages: Vec<String>,
    pub groups: Vec<String>,
}

/// What no flag can say.
#[derive(Debug, Clone, Default)]
pub struct FromFile {
    /// None: kubeadm's own.
    pub taints: Option<Vec<Value>>,
    pub tokens: Vec<TokenWish>,
    /// A KubeletConfiguration: what differs from the default.
    pub kubelet: Option<Value>,
    /// `proxy.disabled`.
    pub proxy_disabled: bool,
    /// `extraArgs` of the control plane's parts.
    pub args: ControlPlaneArgs,
    /// `timeouts.discovery`.
    pub discovery: Option<SignedDuration>,
    /// `nodeRegistration.kubeletExtraArgs`.
    pub kubelet_args: Args,
}

/// A document whose fields are read by their paths.
pub struct Reader<'a>(pub &'a Value);

fn wrong(path: &str, value: &Value, why: impl std::fmt::Display) -> Error {
    Error::Invalid(format!("{}: Invalid value: {value}: {why}", path.trim_start_matches('/').replace('/', ".")))
}

impl Reader<'_> {
    fn at(&self, path: &str) -> Option<&Value> {
        self.0.pointer(path).filter(|value| !value.is_null() && value.as_str() != Some(""))
    }

    pub fn text(&self, path: &str) -> Result<Option<String>, Error> {
        self.at(path).map(|value| value.as_str().map(str::to_owned).ok_or_else(|| wrong(path, value, "want a text"))).transpose()
    }

    fn parsed<T, E: std::fmt::Display>(&self, path: &str, parse: impl FnOnce(&str) -> Result<T, E>) -> Result<Option<T>, Error> {
        self.text(path)?.map(|text| parse(&text).map_err(|error| wrong(path, &text.as_str().into(), error))).transpose()
    }

    pub fn truth(&self, path: &str) -> Result<bool, Error> {
        self.at(path).map_or(Ok(false), |value| value.as_bool().ok_or_else(|| wrong(path, value, "want true or false")))
    }

    fn port(&self, path: &str) -> Result<Option<u16>, Error> {
        self.at(path).map(|value| value.as_u64().and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0).ok_or_else(|| wrong(path, value, "must be between 1 and 65535, inclusive"))).transpose()
    }

    fn list(&self, path: &str) -> Result<Option<&Vec<Value>>, Error> {
        self.at(path).map(|value| value.as_array().ok_or_else(|| wrong(path, value, "want a list"))).transpose()
    }

    pub fn texts(&self, path: &str) -> Result<Vec<String>, Error> {
        let items = self.list(path)?.into_iter().flatten();
        items.map(|item| item.as_str().map(str::to_owned).ok_or_else(|| wrong(path, item, "want a text"))).collect()
    }

    /// `[{name, value}]`.
    fn arguments(&self, path: &str) -> Result<Args, Error> {
        let items = self.list(path)?.into_iter().flatten();
        items
            .map(|item| {
                let name = item["name"].as_str().filter(|name| !name.is_empty()).ok_or_else(|| wrong(path, item, "want a name and a value"))?;
                let value = item["value"].as_str().map_or_else(|| item["value"].to_string(), str::to_owned);
                Ok((name.trim_start_matches('-').to_owned(), value))
            })
            .collect()
    }

    fn address(&self, path: &str) -> Result<Option<IpAddr>, Error> {
        self.parsed(path, |text| text.parse::<IpAddr>().map_err(|_| "must be a valid IP address"))
    }

    /// Tells of what is there and has no meaning.
    pub fn pass_over(&self, paths: &[&str]) {
        for path in paths.iter().filter(|path| self.at(path).is_some_and(|value| value.as_array().is_none_or(|list| !list.is_empty()))) {
            eprintln!("hint: {} has no meaning here: the control plane is one process, and no pods of images.", path.trim_start_matches('/').replace('/', "."));
        }
    }
}

fn set<T>(target: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *target = value;
    }
}

/// A flag goes before the file.
fn patches(read: &Reader<'_>, patches: &mut Option<PathBuf>) -> Result<(), Error> {
    if patches.is_none() {
        *patches = read.text("/patches/directory")?.map(Into::into);
    }
    Ok(())
}

/// Words like `key=value` of `--node-labels` are the host's to read.
fn node_registration(read: &Reader<'_>, file: &mut FromFile, name: &mut Option<String>, ignored: &mut Vec<String>) -> Result<(), Error> {
    // A flag goes before the file.
    if name.is_none() {
        *name = read.text("/nodeRegistration/name")?.map(|name| name.trim().to_lowercase());
    }
    ignored.extend(read.texts("/nodeRegistration/ignorePreflightErrors")?);
    file.taints = read.list("/nodeRegistration/taints")?.cloned();
    if let Some(bad) = file.taints.iter().flatten().find(|taint| taint["key"].as_str().is_none_or(str::is_empty) || !matches!(taint["effect"].as_str(), Some("NoSchedule" | "PreferNoSchedule" | "NoExecute"))) {
        return Err(wrong("/nodeRegistration/taints", bad, "a taint has a key and an effect: NoSchedule, PreferNoSchedule or NoExecute"));
    }
    file.kubelet_args = read.arguments("/nodeRegistration/kubeletExtraArgs")?;
    Ok(())
}

fn token(value: &Value) -> Result<TokenWish, Error> {
    let read = Reader(value);
    let mut ttl = read.parsed("/ttl", duration)?;
    if let Some(at) = read.parsed("/expires", str::parse::<jiff::Timestamp>)? {
        ttl = Some(at.duration_since(jiff::Timestamp::now()));
    }
    Ok(TokenWish { token: read.text("/token")?, ttl, description: read.text("/description")?, usages: read.texts("/usages")?, groups: read.texts("/groups")? })
}

fn open(path: &Path, wanted: &[&str]) -> Result<Vec<Document>, Error> {
    let (documents, notes) = documents::read(path)?;
    notes.warn();
    if !documents.iter().any(|document| wanted.contains(&document.kind.as_str())) {
        return Err(Error::Invalid(format!("no {} kind was found in the YAML file", wanted.join(" or "))));
    }
    Ok(documents)
}

pub fn init(options: &mut init::Options, path: &Path) -> Result<(), Error> {
    let documents = open(path, &["InitConfiguration", "ClusterConfiguration"])?;
    of_init(options, &documents)
}

pub fn of_init(options: &mut init::Options, documents: &[Document]) -> Result<(), Error> {
    if let Some(value) = of_kind(documents, "InitConfiguration") {
        let read = Reader(value);
        node_registration(&read, &mut options.file, &mut options.node_name, &mut options.common.ignore_preflight_errors)?;
        options.apiserver_advertise_address = read.address("/localAPIEndpoint/advertiseAddress")?;
        set(&mut options.apiserver_bind_port, read.port("/localAPIEndpoint/bindPort")?);
        options.certificate_key = read.parsed("/certificateKey", str::parse)?;
        options.common.skip_phases.extend(read.texts("/skipPhases")?);
        options.common.dry_run |= read.truth("/dryRun")?;
        options.file.tokens = read.list("/bootstrapTokens")?.into_iter().flatten().map(token).collect::<Result<_, _>>()?;
        patches(&read, &mut options.patches)?;
    }
    if let Some(value) = of_kind(documents, "ClusterConfiguration") {
        let read = Reader(value);
        set(&mut options.pod_network_cidr, read.parsed("/networking/podSubnet", init::cidr)?);
        set(&mut options.service_cidr, read.parsed("/networking/serviceSubnet", init::cidr)?);
        set(&mut options.service_dns_domain, read.parsed("/networking/dnsDomain", domain)?);
        options.control_plane_endpoint = read.text("/controlPlaneEndpoint")?;
        options.kubernetes_version = read.text("/kubernetesVersion")?;
        set(&mut options.cert_dir, read.text("/certificatesDir")?.map(Into::into));
        options.apiserver_cert_extra_sans = read.texts("/apiServer/certSANs")?;
        options.file.args = ControlPlaneArgs { api_server: read.arguments("/apiServer/extraArgs")?, controller_manager: read.arguments("/controllerManager/extraArgs")?, scheduler: read.arguments("/scheduler/extraArgs")? };
        options.file.proxy_disabled = read.truth("/proxy/disabled")?;
        if let Some(etcd) = external_etcd(value) {
            if etcd.endpoints.is_empty() {
                return Err(wrong("/etcd/external/endpoints", &Value::Null, "endpoints must be set"));
            }
            if etcd.cert_file.is_some() != etcd.key_file.is_some() {
                return Err(wrong("/etcd/external", &Value::Null, "either both or none of .Etcd.External.CertFile and .Etcd.External.KeyFile must be set"));
            }
            options.etcd = init::EtcdFlags::of(&etcd);
        }
        let parts = ["apiServer", "controllerManager", "scheduler"];
        let of_pods: Vec<String> = parts.iter().flat_map(|part| [format!("/{part}/extraVolumes"), format!("/{part}/extraEnvs")]).chain(["/etcd/local/extraArgs".to_owned()]).collect();
        read.pass_over(&of_pods.iter().map(String::as_str).collect::<Vec<_>>());
    }
    options.file.kubelet = of_kind(documents, KUBELET).cloned();
    if of_kind(documents, KUBE_PROXY).is_some() {
        eprintln!("hint: KubeProxyConfiguration has no meaning here: every node is its Services' proxy by itself.");
    }
    Ok(())
}

pub fn join(options: &mut join::Options, path: &Path) -> Result<(), Error> {
    let documents = open(path, &["JoinConfiguration"])?;
    of_join(options, &documents)
}

pub fn of_join(options: &mut join::Options, documents: &[Document]) -> Result<(), Error> {
    let Some(value) = of_kind(documents, "JoinConfiguration") else { return Ok(()) };
    let read = Reader(value);
    node_registration(&read, &mut options.file, &mut options.node_name, &mut options.common.ignore_preflight_errors)?;
    if let Some(endpoint) = read.text("/discovery/bootstrapToken/apiServerEndpoint")? {
        options.endpoint = Some(endpoint);
    }
    options.file.discovery = read.parsed("/timeouts/discovery", duration)?;
    options.discovery_token = read.text("/discovery/bootstrapToken/token")?;
    options.tls_bootstrap_token = read.text("/discovery/tlsBootstrapToken")?.or_else(|| options.discovery_token.clone());
    options.discovery_token_ca_cert_hash = read.texts("/discovery/bootstrapToken/caCertHashes")?;
    options.discovery_token_unsafe_skip_ca_verification = read.truth("/discovery/bootstrapToken/unsafeSkipCAVerification")?;
    options.discovery_file = read.text("/discovery/file/kubeConfigPath")?.map(Into::into);
    options.common.skip_phases.extend(read.texts("/skipPhases")?);
    options.common.dry_run |= read.truth("/dryRun")?;
    if read.0.get("controlPlane").is_some_and(|value| !value.is_null()) {
        options.control_plane = true;
        options.certificate_key = read.parsed("/controlPlane/certificateKey", str::parse)?;
        options.apiserver_advertise_address = read.address("/controlPlane/localAPIEndpoint/advertiseAddress")?;
        set(&mut options.apiserver_bind_port, read.port("/controlPlane/localAPIEndpoint/bindPort")?);
    }
    let ip = options.file.kubelet_args.iter().find(|(name, _)| name == "node-ip").map(|(_, value)| value.clone());
    if let Some(ip) = ip {
        options.node_ip = Some(ip.parse().map_err(|_| wrong("/nodeRegistration/kubeletExtraArgs", &ip.into(), "node-ip must be a valid IP address"))?);
    }
    patches(&read, &mut options.patches)?;
    Ok(())
}

/// What differs, over what is there.
pub fn overlaid(base: &mut Value, over: &Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => over.iter().for_each(|(name, value)| overlaid(base.entry(name.clone()).or_insert(Value::Null), value)),
        (base, over) => *base = over.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::of_line;

    fn of(text: &str) -> Result<init::Options, Error> {
        let mut options = of_line::<init::Options>("--node-name flag").unwrap();
        of_init(&mut options, &documents::parse(text).unwrap().0).map(|()| options)
    }

    #[test]
    fn a_cluster_from_a_file() {
        let options = of("apiVersion: kubeadm.k8s.io/v1beta4\nkind: InitConfiguration\nlocalAPIEndpoint: {advertiseAddress: 10.0.0.1, bindPort: 7443}\nnodeRegistration: {name: x, taints: []}\nskipPhases: [addon]\ndryRun: true\nbootstrapTokens:\n- {token: abcdef.0123456789abcdef, ttl: 1h0m0s, usages: [signing]}\n- {description: second}\n---\napiVersion: kubeadm.k8s.io/v1beta3\nkind: ClusterConfiguration\nnetworking: {podSubnet: 10.32.0.0/12, dnsDomain: example.org}\ncontrollerManager: {extraArgs: {cluster-signing-duration: 1h}}\nscheduler: {extraArgs: {v: '4'}}\ncontrolPlaneEndpoint: lb\napiServer: {certSANs: [a, b], extraArgs: {audit-log-path: '-'}}\netcd: {external: {endpoints: ['https://e:2379'], caFile: /ca, certFile: '', keyFile: ''}}\n---\napiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nmaxPods: 7\n").unwrap();
        assert_eq!((options.apiserver_advertise_address.unwrap().to_string().as_str(), options.apiserver_bind_port, options.node_name.as_deref()), ("10.0.0.1", 7443, Some("flag")));
        assert_eq!((options.pod_network_cidr.as_str(), options.service_cidr.as_str(), options.control_plane_endpoint.as_deref()), ("10.32.0.0/12", init::DEFAULT_SERVICE_SUBNET, Some("lb")));
        assert_eq!((options.common.skip_phases.as_slice(), options.common.dry_run, options.file.taints.as_deref()), (&["addon".to_owned()][..], true, Some(&[][..])));
        assert_eq!((options.file.tokens.len(), options.file.tokens[0].ttl.unwrap().as_secs(), options.file.tokens[1].description.as_deref()), (2, 3600, Some("second")));
        assert_eq!((options.file.args.api_server.as_slice(), options.apiserver_cert_extra_sans.len()), (&[("audit-log-path".to_owned(), "-".to_owned())][..], 2));
        let etcd = options.etcd.external().unwrap();
        assert_eq!((etcd.endpoints.as_slice(), etcd.ca_file.as_deref(), etcd.cert_file), (&["https://e:2379".to_owned()][..], Some(Path::new("/ca")), None));
        assert_eq!(options.file.kubelet.unwrap()["maxPods"], 7);
        assert_eq!((options.service_dns_domain.as_str(), options.file.args.controller_manager[0].1.as_str(), options.file.args.scheduler[0].0.as_str()), ("example.org", "1h", "v"));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let says = |fields: &str| of(&format!("apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\n{fields}")).unwrap_err().to_string();
        for (fields, part) in [
            ("networking: {podSubnet: x}", "networking.podSubnet: Invalid value: \"x\": couldn't parse subnet"),
            ("networking: {dnsDomain: Example}", "networking.dnsDomain: Invalid value: \"Example\": a lowercase RFC 1123 subdomain"),
            ("etcd: {external: {endpoints: []}}", "etcd.external.endpoints: Invalid value"),
            ("apiServer: {certSANs: x}", "apiServer.certSANs: Invalid value: \"x\": want a list"),
            ("apiServer: {extraArgs: [{value: x}]}", "want a name and a value"),
        ] {
            assert!(says(fields).contains(part), "{fields}: {}", says(fields));
        }
    }

    #[test]
    fn a_join_from_a_file() {
        let mut options = of_line::<join::Options>("").unwrap();
        let text = "apiVersion: kubeadm.k8s.io/v1beta4\nkind: JoinConfiguration\ndiscovery:\n  bootstrapToken: {token: abcdef.0123456789abcdef, apiServerEndpoint: 'lb:6443', unsafeSkipCAVerification: true}\nnodeRegistration:\n  name: N1\n  taints: [{key: a, effect: NoSchedule}]\n  kubeletExtraArgs: [{name: node-ip, value: 10.0.0.9}, {name: node-labels, value: a=b}]\ncontrolPlane: {localAPIEndpoint: {bindPort: 8443}}\n";
        of_join(&mut options, &documents::parse(text).unwrap().0).unwrap();
        assert_eq!((options.endpoint.as_deref(), options.tls_bootstrap_token.as_deref(), options.node_name.as_deref()), (Some("lb:6443"), Some("abcdef.0123456789abcdef"), Some("n1")));
        assert_eq!((options.node_ip.unwrap().to_string().as_str(), options.control_plane, options.apiserver_bind_port), ("10.0.0.9", true, 8443));
        assert_eq!(options.file.kubelet_args[1], ("node-labels".to_owned(), "a=b".to_owned()));
        let bad = text.replace("NoSchedule", "Never");
        assert!(of_join(&mut options, &documents::parse(&bad).unwrap().0).is_err());
    }

    #[test]
    fn over_what_is_there() {
        let mut base = serde_json::json!({"a": {"b": 1, "c": 2}, "d": [1]});
        overlaid(&mut base, &serde_json::json!({"a": {"b": 3}, "d": [], "e": true}));
        assert_eq!(base, serde_json::json!({"a": {"b": 3, "c": 2}, "d": [], "e": true}));
    }
}
