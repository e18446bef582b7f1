//! A KubeletConfiguration (`kubelet.config.k8s.io/v1beta1`) as this node goes by it: read, completed with the defaults, checked.
//!
//! Promises: what is wrong is an error in upstream's words; what is not known, and what is known but has no effect here, is a warning; `/configz` shows what holds.
//! Mirrors upstream's `kubeletconfig/configfiles`, `apis/config/v1beta1` and `apis/config/validation`.

mod fields;
mod validate;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use api::quantity::Quantity;
use jiff::SignedDuration;
use serde_json::{Map, Value, json};

use crate::duration;
use crate::eviction::thresholds::{self, Threshold};
use crate::shutdown::{self, Period};
use fields::{FIELDS, Kind, at, put};

const KIND: &str = "KubeletConfiguration";
const API_VERSION: &str = "kubelet.config.k8s.io/v1beta1";

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigurationError {
    #[error("failed to decode: {0}")]
    Decode(String),
    #[error("failed to validate kubelet configuration, error: {}", aggregate(.0))]
    Invalid(Vec<String>),
}

/// As Go prints several errors.
fn aggregate(errors: &[String]) -> String {
    match errors {
        [one] => one.clone(),
        several => format!("[{}]", several.join(", ")),
    }
}

/// When unused images go.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ImageGc {
    pub high_percent: u64,
    pub low_percent: u64,
    pub minimum_age: SignedDuration,
    /// Zero: images never grow too old.
    pub maximum_age: SignedDuration,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// All of it, as `/configz` shows it.
    pub whole: Value,
    pub static_pod_path: Option<PathBuf>,
    /// Unless it is where upstream has it by default.
    pub pod_logs_dir: Option<PathBuf>,
    pub address: Option<IpAddr>,
    pub port: u16,
    pub read_only_port: Option<u16>,
    pub tls_cipher_suites: Vec<String>,
    pub tls_min_version: Option<String>,
    /// Pulls a second (none: as many as there are), and how many at once after a quiet time.
    pub pull_rate: Option<(u32, u32)>,
    /// At a time.
    pub parallel_pulls: Option<usize>,
    pub debugging_handlers: bool,
    pub cluster_domain: String,
    pub cluster_dns: Vec<IpAddr>,
    pub status_update_frequency: SignedDuration,
    pub status_report_frequency: SignedDuration,
    pub lease_seconds: i32,
    pub image_gc: ImageGc,
    pub max_pods: u32,
    pub pods_per_core: u32,
    pub pod_pids_limit: Option<i64>,
    /// Empty: pods get none of the machine's name servers.
    pub resolv_conf: PathBuf,
    /// `None`: all.
    pub status_max_images: Option<usize>,
    pub thresholds: Vec<Threshold>,
    pub pressure_transition: SignedDuration,
    pub eviction_max_pod_grace_seconds: i64,
    pub log_max_bytes: u64,
    pub log_max_files: usize,
    pub log_monitor_interval: SignedDuration,
    /// Of the system and of this program together.
    pub reserved: BTreeMap<String, Quantity>,
    pub allowed_unsafe_sysctls: Vec<String>,
    pub provider_id: String,
    /// By priority, lowest first; empty: the node ends without a word.
    pub shutdown: Vec<Period>,
    pub crash_loop_longest: SignedDuration,
    pub seccomp_default: bool,
    pub register_with_taints: Vec<Value>,
    pub register_node: bool,
    pub local_storage_isolation: bool,
    /// It is not to start beside swap. Upstream's default; this node's is that it may.
    pub fail_swap_on: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self::of(&complete(&json!({})))
    }
}

/// Defaults in place of what is not given.
fn complete(given: &Value) -> Value {
    let mut whole = given.as_object().cloned().map_or_else(|| json!({}), Value::Object);
    whole["kind"] = KIND.into();
    whole["apiVersion"] = API_VERSION.into();
    for field in FIELDS.iter().filter(|field| !field.default.is_empty()) {
        if at(given, field.path).is_none_or(|value| field.kind.is_unset(value))
            && let Ok(default) = serde_json::from_str(field.default)
        {
            put(&mut whole, field.path, default);
        }
    }
    // Upstream: what is reported as often as it is looked at, unless said otherwise.
    if let Some(frequency) = at(given, "nodeStatusUpdateFrequency").filter(|_| at(given, "nodeStatusReportFrequency").is_none()) {
        whole["nodeStatusReportFrequency"] = frequency.clone();
    }
    if at(given, "serializeImagePulls").is_none() && at(given, "maxParallelImagePulls").and_then(Value::as_i64) == Some(1) {
        whole["serializeImagePulls"] = true.into();
    }
    if at(&whole, "podPidsLimit").and_then(Value::as_i64).is_some_and(|limit| limit < 0) {
        whole["podPidsLimit"] = (-1).into();
    }
    whole["evictionHard"] = thresholds::hard(given.get("evictionHard").filter(|given| !given.is_null()), whole["mergeDefaultEvictionSettings"] == true);
    whole
}

/// What is given under names that nobody knows.
fn unknown(given: &Map<String, Value>, prefix: &str, out: &mut Vec<String>) {
    for (name, value) in given {
        let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        let below = format!("{path}.");
        if ["kind", "apiVersion", "metadata"].contains(&path.as_str()) || FIELDS.iter().any(|field| field.path == path) {
            continue;
        }
        match value {
            Value::Object(inner) if FIELDS.iter().any(|field| field.path.starts_with(&below)) => unknown(inner, &path, out),
            Value::Null => {}
            _ => out.push(format!("strict decoding error: unknown field {path:?}")),
        }
    }
}

/// Whether the same is said: durations may be written in many ways.
fn same(kind: Kind, a: &Value, b: &Value) -> bool {
    let parsed = |value: &Value| value.as_str().and_then(|text| duration::parse(text).ok());
    a == b || (kind == Kind::Duration && parsed(a).is_some() && parsed(a) == parsed(b))
}

fn check_types(given: &Value) -> Result<(), ConfigurationError> {
    for field in FIELDS {
        let Some(value) = at(given, field.path) else { continue };
        if !field.kind.fits(value) {
            let what = match value {
                Value::String(_) => "string".to_owned(),
                Value::Bool(_) => "bool".to_owned(),
                Value::Array(_) => "array".to_owned(),
                Value::Object(_) => "object".to_owned(),
                number => format!("number {number}"),
            };
            return Err(ConfigurationError::Decode(format!("json: cannot unmarshal {what} into Go struct field {KIND}.{} of type {}", field.path, field.kind.go())));
        }
        if field.kind == Kind::Duration
            && let Some(Err(why)) = value.as_str().map(duration::parse)
        {
            return Err(ConfigurationError::Decode(why));
        }
    }
    Ok(())
}

impl Settings {
    /// What is given, and the warnings about it.
    pub fn read(given: &Value) -> Result<(Self, Vec<String>), ConfigurationError> {
        let empty = Map::new();
        let map = match given {
            Value::Null => &empty,
            Value::Object(map) => map,
            _ => return Err(ConfigurationError::Decode(format!("json: cannot unmarshal {given} into Go value of type config.{KIND}"))),
        };
        let said = |name: &str, expected: &str| map.get(name).and_then(Value::as_str).filter(|said| !said.is_empty() && *said != expected);
        if let Some(kind) = said("kind", KIND) {
            return Err(ConfigurationError::Decode(format!("no kind {kind:?} is registered for version {API_VERSION:?} in scheme \"pkg/kubelet/apis/config/scheme/scheme.go\"")));
        }
        if let Some(version) = said("apiVersion", API_VERSION) {
            return Err(ConfigurationError::Decode(format!("no kind {KIND:?} is registered for version {version:?} in scheme \"pkg/kubelet/apis/config/scheme/scheme.go\"")));
        }
        check_types(given)?;
        let mut warnings = Vec::new();
        unknown(map, "", &mut warnings);
        let whole = complete(given);
        let wrong = validate::validate(&whole);
        if !wrong.is_empty() {
            return Err(ConfigurationError::Invalid(wrong));
        }
        for field in FIELDS {
            let (Some(why), Some(value)) = (field.without, at(given, field.path)) else { continue };
            let default = serde_json::from_str(field.default).unwrap_or(Value::Null);
            let nothing = value == false || value.as_object().is_some_and(Map::is_empty) || value.as_array().is_some_and(Vec::is_empty);
            // Switched off what is not there: as asked.
            if !field.kind.is_unset(value) && !same(field.kind, value, &default) && !(nothing && default.is_null()) {
                warnings.push(format!("{}: {value} has no effect: {why}", field.path));
            }
        }
        Ok((Self::of(&whole), warnings))
    }

    /// Of a complete and valid one. What is not valid is as if it were not there.
    fn of(whole: &Value) -> Self {
        let text = |path: &str| at(whole, path).and_then(Value::as_str).unwrap_or_default();
        let some = |path: &str| Some(text(path)).filter(|text| !text.is_empty());
        let number = |path: &str| at(whole, path).and_then(Value::as_i64).unwrap_or_default();
        let count = |path: &str| u32::try_from(number(path)).unwrap_or_default();
        let yes = |path: &str| at(whole, path).and_then(Value::as_bool).unwrap_or_default();
        let time = |path: &str| duration::parse(text(path)).unwrap_or_default();
        let texts = |path: &str| at(whole, path).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>();
        let port = |path: &str| u16::try_from(number(path)).ok().filter(|port| *port > 0);
        let mut reserved: BTreeMap<String, Quantity> = BTreeMap::new();
        for path in ["systemReserved", "kubeReserved"] {
            for (name, value) in at(whole, path).and_then(Value::as_object).into_iter().flatten() {
                let Some(quantity) = value.as_str().and_then(|text| Quantity::parse(text).ok()) else { continue };
                let sum = reserved.get(name).map_or_else(|| quantity.clone(), |before| before.plus(&quantity));
                reserved.insert(name.clone(), sum);
            }
        }
        let parallel = at(whole, "maxParallelImagePulls").and_then(Value::as_u64).and_then(|pulls| usize::try_from(pulls).ok());
        Self {
            static_pod_path: some("staticPodPath").map(Into::into),
            pod_logs_dir: some("podLogsDir").filter(|path| *path != "/var/log/pods").map(Into::into),
            address: text("address").parse().ok().filter(|address: &IpAddr| !address.is_unspecified()),
            port: port("port").unwrap_or(crate::KUBELET_PORT),
            read_only_port: port("readOnlyPort"),
            tls_cipher_suites: texts("tlsCipherSuites"),
            tls_min_version: some("tlsMinVersion").map(str::to_owned),
            pull_rate: Some((count("registryPullQPS"), count("registryBurst"))).filter(|(rate, _)| *rate > 0),
            parallel_pulls: if yes("serializeImagePulls") { Some(1) } else { parallel },
            debugging_handlers: yes("enableDebuggingHandlers"),
            cluster_domain: text("clusterDomain").to_owned(),
            cluster_dns: texts("clusterDNS").iter().filter_map(|text| text.parse().ok()).collect(),
            status_update_frequency: time("nodeStatusUpdateFrequency"),
            status_report_frequency: time("nodeStatusReportFrequency"),
            lease_seconds: i32::try_from(number("nodeLeaseDurationSeconds")).unwrap_or(i32::MAX),
            image_gc: ImageGc {
                high_percent: u64::from(count("imageGCHighThresholdPercent")),
                low_percent: u64::from(count("imageGCLowThresholdPercent")),
                minimum_age: time("imageMinimumGCAge"),
                maximum_age: time("imageMaximumGCAge"),
            },
            max_pods: count("maxPods"),
            pods_per_core: count("podsPerCore"),
            pod_pids_limit: Some(number("podPidsLimit")).filter(|limit| *limit > 0),
            resolv_conf: text("resolvConf").into(),
            status_max_images: usize::try_from(number("nodeStatusMaxImages")).ok(),
            thresholds: thresholds::of(whole).unwrap_or_default(),
            pressure_transition: time("evictionPressureTransitionPeriod"),
            eviction_max_pod_grace_seconds: number("evictionMaxPodGracePeriod"),
            log_max_bytes: Quantity::parse(text("containerLogMaxSize")).ok().and_then(|size| u64::try_from(size.value()).ok()).unwrap_or(u64::MAX),
            log_max_files: usize::try_from(number("containerLogMaxFiles")).unwrap_or(2),
            log_monitor_interval: time("containerLogMonitorInterval"),
            reserved,
            allowed_unsafe_sysctls: texts("allowedUnsafeSysctls"),
            provider_id: text("providerID").to_owned(),
            shutdown: shutdown::periods(whole),
            crash_loop_longest: some("crashLoopBackOff.maxContainerRestartPeriod").and_then(|text| duration::parse(text).ok()).unwrap_or(crate::backoff::LONGEST),
            seccomp_default: yes("seccompDefault"),
            register_with_taints: at(whole, "registerWithTaints").and_then(Value::as_array).cloned().unwrap_or_default(),
            register_node: yes("registerNode"),
            local_storage_isolation: yes("localStorageCapacityIsolation"),
            fail_swap_on: yes("failSwapOn"),
            whole: whole.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults() {
        let settings = Settings::default();
        assert_eq!((settings.max_pods, settings.port, settings.lease_seconds, settings.log_max_bytes, settings.log_max_files), (110, 10250, 40, 10 << 20, 5));
        assert_eq!((settings.image_gc.high_percent, settings.image_gc.low_percent, settings.image_gc.minimum_age), (85, 80, SignedDuration::from_secs(120)));
        assert_eq!((settings.shutdown.len(), settings.thresholds.len(), settings.pod_pids_limit, settings.pull_rate), (0, 4, None, None));
        assert_eq!(settings.whole["evictionHard"]["memory.available"], "100Mi");
        assert!(FIELDS.iter().all(|field| field.default.is_empty() || serde_json::from_str::<Value>(field.default).is_ok_and(|default| field.kind.fits(&default))), "a default that does not fit");
        assert_eq!(Settings::read(&Value::Null).unwrap(), (settings, vec![]));
    }

    #[test]
    fn the_document_names_each_where_it_belongs() {
        let text = include_str!("../../../docs/kubelet-configuration.md");
        let (effect, without) = text.split_once("\n## What is taken").unwrap();
        for field in FIELDS {
            let row = format!("| `{}` |", field.path);
            let (here, there) = if field.without.is_none() { (effect, without) } else { (without, effect) };
            assert!(here.contains(&row) && !there.contains(&row), "{}", field.path);
        }
    }

    #[test]
    fn what_kubeadm_writes() {
        let given = json!({"apiVersion": API_VERSION, "kind": KIND, "authentication": {"anonymous": {"enabled": false}, "webhook": {"cacheTTL": "0s", "enabled": true}, "x509": {"clientCAFile": "/etc/kubernetes/pki/ca.crt"}},
            "authorization": {"mode": "Webhook", "webhook": {"cacheAuthorizedTTL": "0s", "cacheUnauthorizedTTL": "0s"}}, "cgroupDriver": "systemd", "clusterDNS": ["10.96.0.10"], "clusterDomain": "cluster.local",
            "containerRuntimeEndpoint": "", "cpuManagerReconcilePeriod": "0s", "crashLoopBackOff": {}, "evictionPressureTransitionPeriod": "0s", "fileCheckFrequency": "0s", "healthzBindAddress": "127.0.0.1",
            "imageMaximumGCAge": "0s", "imageMinimumGCAge": "0s", "logging": {}, "memorySwap": {}, "nodeStatusUpdateFrequency": "0s", "rotateCertificates": true, "runtimeRequestTimeout": "0s",
            "shutdownGracePeriod": "0s", "shutdownGracePeriodCriticalPods": "0s", "staticPodPath": "/etc/kubernetes/manifests", "streamingConnectionIdleTimeout": "0s", "syncFrequency": "0s", "volumeStatsAggPeriod": "0s"});
        let (settings, warnings) = Settings::read(&given).unwrap();
        assert_eq!(warnings, ["cgroupDriver: \"systemd\" has no effect: this node keeps its cgroups at /kubepods, by QoS class, through cgroupfs"]);
        assert_eq!((settings.pressure_transition, settings.cluster_dns.len(), settings.static_pod_path), (SignedDuration::from_mins(5), 1, Some("/etc/kubernetes/manifests".into())));
    }

    #[test]
    fn what_is_given() {
        let given = json!({"maxPods": 30, "shutdownGracePeriod": "30s", "shutdownGracePeriodCriticalPods": "10s", "nodeStatusUpdateFrequency": "4s", "maxParallelImagePulls": 3, "systemReserved": {"cpu": "100m"},
            "kubeReserved": {"cpu": "200m", "memory": "1Gi"}, "crashLoopBackOff": {"maxContainerRestartPeriod": "20s"}, "evictionHard": {"nodefs.available": "0%"}, "podPidsLimit": 64, "other": 1, "authentication": {"x": 1}, "syncFrequency": "60s", "cpuManagerPolicy": "static"});
        let (settings, warnings) = Settings::read(&given).unwrap();
        assert_eq!((settings.max_pods, settings.shutdown.len(), settings.parallel_pulls, settings.pod_pids_limit), (30, 2, Some(3), Some(64)));
        assert_eq!((settings.status_report_frequency.as_secs(), settings.crash_loop_longest.as_secs(), settings.thresholds.len()), (4, 20, 0));
        assert_eq!((settings.reserved["cpu"].milli_value(), settings.reserved["memory"].value()), (300, 1 << 30));
        assert_eq!(warnings, ["strict decoding error: unknown field \"authentication.x\"", "strict decoding error: unknown field \"other\"", "cpuManagerPolicy: \"static\" has no effect: this node does not pin processors or memory to containers"]);
    }

    #[test]
    fn what_cannot_be_read() {
        for (given, error) in [
            (json!({"maxPods": "x"}), "failed to decode: json: cannot unmarshal string into Go struct field KubeletConfiguration.maxPods of type int32"),
            (json!({"syncFrequency": "x"}), "failed to decode: time: invalid duration \"x\""),
            (json!({"kind": "Pod"}), "failed to decode: no kind \"Pod\" is registered for version \"kubelet.config.k8s.io/v1beta1\" in scheme \"pkg/kubelet/apis/config/scheme/scheme.go\""),
            (json!({"maxPods": -1}), "failed to validate kubelet configuration, error: invalid configuration: maxPods (--max-pods) -1 must not be a negative number"),
        ] {
            assert_eq!(Settings::read(&given).unwrap_err().to_string(), error);
        }
    }
}
