//! The fields of a KubeletConfiguration (`kubelet.config.k8s.io/v1beta1`): name, type, default, and whether they mean anything to this node.
//!
//! Mirrors upstream's `config/v1beta1/types.go` and the defaults of `apis/config/v1beta1/defaults.go`. A field without effect is taken, shown by `/configz`, and warned of when it is
//! given another value than the one by which this node goes anyway.

use serde_json::Value;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Upstream's pointers: given is given, be it zero or false.
    Bool,
    Int32,
    Int64,
    Float,
    MaybeText,
    /// Zero and empty are as not given.
    Int,
    Text,
    Duration,
    /// A switch that is off unless it is on.
    Flag,
    Texts,
    Map,
    Gates,
    Any,
}

impl Kind {
    /// Go's name of the type, for its words about what cannot be read.
    pub fn go(self) -> &'static str {
        match self {
            Self::Bool | Self::Flag => "bool",
            Self::Int32 | Self::Int => "int32",
            Self::Int64 => "int64",
            Self::Float => "float64",
            Self::MaybeText | Self::Text | Self::Duration => "string",
            Self::Texts => "[]string",
            Self::Map => "map[string]string",
            Self::Gates => "map[string]bool",
            Self::Any => "object",
        }
    }

    pub fn fits(self, value: &Value) -> bool {
        let all = |fits: fn(&Value) -> bool| value.as_object().is_some_and(|map| map.values().all(fits));
        match self {
            Self::Bool | Self::Flag => value.is_boolean(),
            Self::Int32 | Self::Int => value.as_i64().is_some_and(|number| i32::try_from(number).is_ok()),
            Self::Int64 => value.as_i64().is_some(),
            Self::Float => value.is_number(),
            Self::MaybeText | Self::Text | Self::Duration => value.is_string(),
            Self::Texts => value.as_array().is_some_and(|list| list.iter().all(Value::is_string)),
            Self::Map => all(Value::is_string),
            Self::Gates => all(Value::is_boolean),
            Self::Any => value.is_object() || value.is_array(),
        }
    }

    /// Whether upstream puts the default in its place.
    pub fn is_unset(self, value: &Value) -> bool {
        match self {
            Self::Int => value.as_i64() == Some(0),
            Self::Text => value.as_str() == Some(""),
            Self::Duration => value.as_str().is_some_and(|text| crate::duration::parse(text).is_ok_and(|duration| duration.is_zero())),
            _ => value.is_null(),
        }
    }
}

pub struct Field {
    /// With dots between the names.
    pub path: &'static str,
    pub kind: Kind,
    /// As JSON; empty: left out.
    pub default: &'static str,
    /// Why it has no effect, if so.
    pub without: Option<&'static str>,
}

const fn used(path: &'static str, kind: Kind, default: &'static str) -> Field {
    Field { path, kind, default, without: None }
}

const fn moot(path: &'static str, kind: Kind, default: &'static str, why: &'static str) -> Field {
    Field { path, kind, default, without: Some(why) }
}

const EVENTS: &str = "this node does not poll, it is told of changes";
const CGROUPS: &str = "this node keeps its cgroups at /kubepods, by QoS class, through cgroupfs";
const PINNING: &str = "this node does not pin processors or memory to containers";
const IPTABLES: &str = "this node programs nftables in tables of its own";
const EMBEDDED: &str = "the container runtime and the image store are part of this program";
const NO_PAGE: &str = "this node has no such page";
const SIGNED: &str = "this node's certificates are always signed by the cluster, and renewed";
const WEBHOOK: &str = "who asks is always told by a client certificate or the API server, which also says what they may";
const UNLIMITED: &str = "this node's requests are not limited";

use Kind::{Any, Bool, Duration, Flag, Float, Gates, Int, Int32, Int64, Map, MaybeText, Text, Texts};

pub const FIELDS: &[Field] = &[
    moot("enableServer", Bool, "true", "the API server needs the kubelet's API"),
    used("staticPodPath", Text, ""),
    used("podLogsDir", Text, "\"/var/log/pods\""),
    moot("syncFrequency", Duration, "\"1m0s\"", EVENTS),
    moot("fileCheckFrequency", Duration, "\"20s\"", EVENTS),
    moot("httpCheckFrequency", Duration, "\"20s\"", EVENTS),
    moot("staticPodURL", Text, "", "static pods come from staticPodPath only"),
    moot("staticPodURLHeader", Any, "", "static pods come from staticPodPath only"),
    used("address", Text, "\"0.0.0.0\""),
    used("port", Int, "10250"),
    used("readOnlyPort", Int, ""),
    moot("tlsCertFile", Text, "", SIGNED),
    moot("tlsPrivateKeyFile", Text, "", SIGNED),
    used("tlsCipherSuites", Texts, ""),
    moot("tlsCurvePreferences", Any, "", "the groups of key exchange are those of this program's TLS"),
    used("tlsMinVersion", Text, ""),
    moot("rotateCertificates", Flag, "true", SIGNED),
    moot("serverTLSBootstrap", Flag, "true", SIGNED),
    moot("authentication.anonymous.enabled", Bool, "false", WEBHOOK),
    moot("authentication.webhook.enabled", Bool, "true", WEBHOOK),
    moot("authentication.webhook.cacheTTL", Duration, "\"2m0s\"", "answers are believed for upstream's default times"),
    moot("authentication.x509.clientCAFile", Text, "\"/etc/kubernetes/pki/ca.crt\"", "clients are judged by the authority that the node's kubeconfig names"),
    moot("authorization.mode", Text, "\"Webhook\"", WEBHOOK),
    moot("authorization.webhook.cacheAuthorizedTTL", Duration, "\"5m0s\"", "answers are believed for upstream's default times"),
    moot("authorization.webhook.cacheUnauthorizedTTL", Duration, "\"30s\"", "answers are believed for upstream's default times"),
    used("registryPullQPS", Int32, "0"),
    used("registryBurst", Int, "10"),
    moot("imagePullCredentialsVerificationPolicy", Text, "\"NeverVerify\"", "an image that is here may be used by every pod"),
    moot("preloadedImagesVerificationAllowlist", Texts, "", "an image that is here may be used by every pod"),
    moot("eventRecordQPS", Int32, "50", "events are limited by source and subject, as upstream's spam filter does"),
    moot("eventBurst", Int, "100", "events are limited by source and subject, as upstream's spam filter does"),
    used("enableDebuggingHandlers", Bool, "true"),
    moot("enableContentionProfiling", Flag, "false", NO_PAGE),
    moot("healthzPort", Int32, "0", "the kubelet's API has /healthz on its own port"),
    moot("healthzBindAddress", Text, "\"127.0.0.1\"", "the kubelet's API has /healthz on its own port"),
    moot("oomScoreAdj", Int32, "0", "whoever starts this program sets its score"),
    used("clusterDomain", Text, "\"cluster.local\""),
    used("clusterDNS", Texts, ""),
    moot("streamingConnectionIdleTimeout", Duration, "\"4h0m0s\"", "a session lives as long as its connection"),
    used("nodeStatusUpdateFrequency", Duration, "\"10s\""),
    used("nodeStatusReportFrequency", Duration, "\"5m0s\""),
    used("nodeLeaseDurationSeconds", Int, "40"),
    used("imageMinimumGCAge", Duration, "\"2m0s\""),
    used("imageMaximumGCAge", Duration, "\"0s\""),
    used("imageGCHighThresholdPercent", Int32, "85"),
    used("imageGCLowThresholdPercent", Int32, "80"),
    moot("volumeStatsAggPeriod", Duration, "\"1m0s\"", "volumes are measured when somebody asks"),
    moot("kubeletCgroups", Text, "", CGROUPS),
    moot("systemCgroups", Text, "", CGROUPS),
    moot("cgroupRoot", Text, "", CGROUPS),
    moot("cgroupsPerQOS", Bool, "true", CGROUPS),
    moot("cgroupDriver", Text, "\"cgroupfs\"", CGROUPS),
    moot("cpuManagerPolicy", Text, "\"none\"", PINNING),
    moot("singleProcessOOMKill", Bool, "", "the kernel decides"),
    moot("cpuManagerPolicyOptions", Map, "", PINNING),
    moot("cpuManagerReconcilePeriod", Duration, "\"10s\"", PINNING),
    moot("memoryManagerPolicy", Text, "\"None\"", PINNING),
    moot("topologyManagerPolicy", Text, "\"none\"", PINNING),
    moot("topologyManagerScope", Text, "\"container\"", PINNING),
    moot("topologyManagerPolicyOptions", Map, "", PINNING),
    moot("qosReserved", Map, "", CGROUPS),
    moot("runtimeRequestTimeout", Duration, "\"2m0s\"", EMBEDDED),
    moot("hairpinMode", Text, "\"promiscuous-bridge\"", "pods reach themselves through their Services by the pod network's own rules"),
    used("maxPods", Int, "110"),
    moot("podCIDR", Text, "", "the range of a node's pods is the cluster's to give"),
    used("podPidsLimit", Int64, "-1"),
    used("resolvConf", MaybeText, "\"/etc/resolv.conf\""),
    moot("runOnce", Flag, "false", "there is no such mode"),
    moot("cpuCFSQuota", Bool, "true", "limits of processors are always kept"),
    moot("cpuCFSQuotaPeriod", Duration, "\"100ms\"", "it needs the feature gate CustomCPUCFSQuotaPeriod"),
    used("nodeStatusMaxImages", Int32, "50"),
    moot("maxOpenFiles", Int, "1000000", "whoever starts this program sets its limits"),
    moot("contentType", Text, "\"application/json\"", "this node talks JSON"),
    moot("kubeAPIQPS", Int32, "0", UNLIMITED),
    moot("kubeAPIBurst", Int, "0", UNLIMITED),
    used("serializeImagePulls", Bool, "false"),
    used("maxParallelImagePulls", Int32, ""),
    used("evictionHard", Map, ""),
    used("evictionSoft", Map, ""),
    used("evictionSoftGracePeriod", Map, ""),
    used("evictionPressureTransitionPeriod", Duration, "\"5m0s\""),
    used("evictionMaxPodGracePeriod", Int, ""),
    used("evictionMinimumReclaim", Map, ""),
    used("mergeDefaultEvictionSettings", Bool, "false"),
    used("podsPerCore", Int, ""),
    moot("enableControllerAttachDetach", Bool, "true", "volumes that are to be attached are attached by the control plane"),
    moot("protectKernelDefaults", Flag, "false", "this node does not change the kernel's defaults"),
    moot("makeIPTablesUtilChains", Bool, "false", IPTABLES),
    moot("iptablesMasqueradeBit", Int32, "14", IPTABLES),
    moot("iptablesDropBit", Int32, "15", IPTABLES),
    moot("featureGates", Gates, "", "features are as in upstream's default, and cannot be switched"),
    used("failSwapOn", Bool, "false"),
    moot("memorySwap.swapBehavior", Text, "", "containers have as much swap as the kernel gives them"),
    used("containerLogMaxSize", Text, "\"10Mi\""),
    used("containerLogMaxFiles", Int32, "5"),
    moot("containerLogMaxWorkers", Int32, "1", "one worker is enough: a log is only renamed"),
    used("containerLogMonitorInterval", Duration, "\"10s\""),
    moot("configMapAndSecretChangeDetectionStrategy", Text, "\"Watch\"", EVENTS),
    used("systemReserved", Map, ""),
    used("kubeReserved", Map, ""),
    moot("reservedSystemCPUs", Text, "", PINNING),
    moot("showHiddenMetricsForVersion", Text, "", NO_PAGE),
    moot("systemReservedCgroup", Text, "", "the machine's own processes are not limited"),
    moot("kubeReservedCgroup", Text, "", "this program is not limited"),
    moot("enforceNodeAllocatable", Texts, "[\"none\"]", "what is reserved is kept from the scheduler, and memory is guarded by eviction; no cgroup enforces it"),
    used("allowedUnsafeSysctls", Texts, ""),
    moot("volumePluginDir", Text, "\"/usr/libexec/kubernetes/kubelet-plugins/volume/exec/\"", "there are no FlexVolumes"),
    used("providerID", Text, ""),
    moot("kernelMemcgNotification", Flag, "false", "memory is looked at every ten seconds"),
    moot("logging", Any, "", "RUST_LOG says what is logged"),
    moot("enableSystemLogHandler", Bool, "false", NO_PAGE),
    moot("enableSystemLogQuery", Bool, "", NO_PAGE),
    used("shutdownGracePeriod", Duration, "\"0s\""),
    used("shutdownGracePeriodCriticalPods", Duration, "\"0s\""),
    used("shutdownGracePeriodByPodPriority", Any, ""),
    used("crashLoopBackOff.maxContainerRestartPeriod", Duration, ""),
    moot("reservedMemory", Any, "", PINNING),
    moot("enableProfilingHandler", Bool, "false", NO_PAGE),
    moot("enableDebugFlagsHandler", Bool, "false", NO_PAGE),
    used("seccompDefault", Bool, "false"),
    moot("memoryThrottlingFactor", Float, "0.9", "it needs the feature gate MemoryQoS"),
    moot("memoryReservationPolicy", Text, "\"None\"", "it needs the feature gate MemoryQoS"),
    used("registerWithTaints", Any, ""),
    used("registerNode", Bool, "true"),
    moot("tracing", Any, "", "there are no traces"),
    used("localStorageCapacityIsolation", Bool, "true"),
    moot("containerRuntimeEndpoint", Text, "\"coracle\"", EMBEDDED),
    moot("imageServiceEndpoint", Text, "", EMBEDDED),
    moot("userNamespaces", Any, "", "pods have the machine's users"),
];

/// The value at a path with dots.
pub fn at<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(value, |value, name| value.get(name)).filter(|value| !value.is_null())
}

pub fn put(value: &mut Value, path: &str, what: Value) {
    let mut place = value;
    for name in path.split('.') {
        if !place.is_object() {
            *place = Value::Object(serde_json::Map::new());
        }
        place = &mut place[name];
    }
    *place = what;
}
