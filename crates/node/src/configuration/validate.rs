//! Whether a complete KubeletConfiguration is valid: pure. Mirrors upstream's `apis/config/validation` and the parsing of thresholds, word for word.

use api::quantity::Quantity;
use jiff::SignedDuration;
use serde_json::Value;

use super::fields::at;
use crate::backoff::go_duration;
use crate::duration;
use crate::eviction::thresholds;

const MINIMUM_LOG_INTERVAL: SignedDuration = SignedDuration::from_secs(3);
const RESTART_PERIOD: (SignedDuration, SignedDuration) = (SignedDuration::from_secs(1), SignedDuration::from_secs(300));
const RESERVABLE: [&str; 4] = ["cpu", "memory", "ephemeral-storage", "pid"];
const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
/// Name, flag, lowest and highest, and how upstream says so.
const RANGES: [(&str, &str, i64, i64, &str); 19] = [
    ("eventBurst", "--event-burst", 0, i64::MAX, "must not be a negative number"),
    ("eventRecordQPS", "--event-qps", 0, i64::MAX, "must not be a negative number"),
    ("healthzPort", "--healthz-port", 0, 65535, "must be between 1 and 65535, inclusive"),
    ("imageGCHighThresholdPercent", "--image-gc-high-threshold", 0, 100, "must be between 0 and 100, inclusive"),
    ("imageGCLowThresholdPercent", "--image-gc-low-threshold", 0, 100, "must be between 0 and 100, inclusive"),
    ("iptablesDropBit", "--iptables-drop-bit", 0, 31, "must be between 0 and 31, inclusive"),
    ("iptablesMasqueradeBit", "--iptables-masquerade-bit", 0, 31, "must be between 0 and 31, inclusive"),
    ("kubeAPIBurst", "--kube-api-burst", 0, i64::MAX, "must not be a negative number"),
    ("kubeAPIQPS", "--kube-api-qps", 0, i64::MAX, "must not be a negative number"),
    ("nodeStatusMaxImages", "--node-status-max-images", -1, i64::MAX, "must be -1 or greater"),
    ("maxOpenFiles", "--max-open-files", 0, i64::MAX, "must not be a negative number"),
    ("maxPods", "--max-pods", 0, i64::MAX, "must not be a negative number"),
    ("oomScoreAdj", "--oom-score-adj", -1000, 1000, "must be between -1000 and 1000, inclusive"),
    ("podsPerCore", "--pods-per-core", 0, i64::MAX, "must not be a negative number"),
    ("port", "--port", 1, 65535, "must be between 1 and 65535, inclusive"),
    ("readOnlyPort", "--read-only-port", 0, 65535, "must be between 0 and 65535, inclusive"),
    ("registryBurst", "--registry-burst", 0, i64::MAX, "must not be a negative number"),
    ("registryPullQPS", "--registry-qps", 0, i64::MAX, "must not be a negative number"),
    ("evictionMaxPodGracePeriod", "--eviction-max-pod-grace-period", 0, i64::MAX, "must not be a negative number"),
];

struct Read<'a>(&'a Value);

impl Read<'_> {
    fn number(&self, path: &str) -> i64 {
        at(self.0, path).and_then(Value::as_i64).unwrap_or_default()
    }
    fn text(&self, path: &str) -> &str {
        at(self.0, path).and_then(Value::as_str).unwrap_or_default()
    }
    fn time(&self, path: &str) -> SignedDuration {
        duration::parse(self.text(path)).unwrap_or_default()
    }
    fn yes(&self, path: &str) -> bool {
        at(self.0, path).and_then(Value::as_bool).unwrap_or_default()
    }
}

/// What is wrong; nothing if it is valid.
pub fn validate(whole: &Value) -> Vec<String> {
    let read = Read(whole);
    let mut wrong = Vec::new();
    if read.number("nodeLeaseDurationSeconds") <= 0 {
        wrong.push("nodeLeaseDurationSeconds must be greater than 0".to_owned());
    }
    for (name, flag, lowest, highest, words) in RANGES {
        let number = read.number(name);
        if !(lowest..=highest).contains(&number) {
            wrong.push(format!("{name} ({flag}) {number} {words}"));
        }
    }
    images(&read, &mut wrong);
    taints(&read, &mut wrong);
    choices(&read, &mut wrong);
    shutdown(&read, &mut wrong);
    enforcement(&read, &mut wrong);
    logs(&read, &mut wrong);
    if let Some(period) = at(whole, "crashLoopBackOff.maxContainerRestartPeriod").map(|_| read.time("crashLoopBackOff.maxContainerRestartPeriod"))
        && !(RESTART_PERIOD.0..=RESTART_PERIOD.1).contains(&period)
    {
        wrong.push(format!("CrashLoopBackOff.MaxContainerRestartPeriod (got: {} seconds) must be set between 1s and 300s", period.as_secs_f64()));
    }
    if read.yes("runOnce") {
        wrong.push("runOnce (--runOnce) true, Runonce mode has been deprecated and should not be set".to_owned());
    }
    let mut wrong: Vec<String> = wrong.into_iter().map(|what| format!("invalid configuration: {what}")).collect();
    // Upstream finds these when it starts, and says them bare.
    wrong.extend(thresholds::of(whole).err());
    for path in ["systemReserved", "kubeReserved"] {
        for (name, value) in at(whole, path).and_then(Value::as_object).into_iter().flatten() {
            let quantity = value.as_str().map(Quantity::parse);
            match quantity {
                _ if !RESERVABLE.contains(&name.as_str()) => wrong.push(format!("cannot reserve {name:?} resource")),
                Some(Ok(quantity)) if quantity.is_negative() => wrong.push(format!("resource quantity for {name:?} cannot be negative: {}", value.as_str().unwrap_or_default())),
                Some(Ok(_)) => {}
                _ => wrong.push(format!("failed to parse quantity {} for {name:?} resource: quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'", value)),
            }
        }
    }
    wrong
}

fn images(read: &Read, wrong: &mut Vec<String>) {
    let (low, high) = (read.number("imageGCLowThresholdPercent"), read.number("imageGCHighThresholdPercent"));
    if low >= high {
        wrong.push(format!("imageGCLowThresholdPercent (--image-gc-low-threshold) {low} must be less than imageGCHighThresholdPercent (--image-gc-high-threshold) {high}"));
    }
    let (youngest, oldest) = (read.time("imageMinimumGCAge"), read.time("imageMaximumGCAge"));
    for (name, age) in [("imageMinimumGCAge", youngest), ("imageMaximumGCAge", oldest)] {
        if age.is_negative() {
            wrong.push(format!("{name} {} must not be negative", go_duration(age)));
        }
    }
    if oldest.is_positive() && oldest <= youngest {
        wrong.push(format!("imageMaximumGCAge {} must be greater than imageMinimumGCAge {}", go_duration(oldest), go_duration(youngest)));
    }
    let parallel = at(read.0, "maxParallelImagePulls").and_then(Value::as_i64);
    if let Some(pulls) = parallel.filter(|pulls| *pulls < 1) {
        wrong.push(format!("maxParallelImagePulls {pulls} must be a positive number"));
    }
    if read.yes("serializeImagePulls") && parallel.is_some_and(|pulls| pulls > 1) {
        wrong.push("maxParallelImagePulls cannot be larger than 1 unless SerializeImagePulls (--serialize-image-pulls) is set to false".to_owned());
    }
}

fn taints(read: &Read, wrong: &mut Vec<String>) {
    for taint in at(read.0, "registerWithTaints").and_then(Value::as_array).into_iter().flatten() {
        let text = |name: &str| taint[name].as_str().unwrap_or_default();
        if text("key").is_empty() || !EFFECTS.contains(&text("effect")) {
            wrong.push(format!("invalid taint: {{{} {} {} <nil>}}", text("key"), text("value"), text("effect")));
        }
        if !taint["timeAdded"].is_null() {
            wrong.push("taint.TimeAdded is not nil".to_owned());
        }
    }
}

fn choices(read: &Read, wrong: &mut Vec<String>) {
    let policy = read.text("topologyManagerPolicy");
    if !["none", "best-effort", "restricted", "single-numa-node"].contains(&policy) {
        wrong.push(format!("topologyManagerPolicy (--topology-manager-policy) {policy:?} must be one of: [\"none\" \"best-effort\" \"restricted\" \"single-numa-node\"]"));
    }
    let scope = read.text("topologyManagerScope");
    if !["container", "pod"].contains(&scope) {
        wrong.push(format!("topologyManagerScope (--topology-manager-scope) {scope:?} must be one of: \"container\", or \"pod\""));
    }
    let hairpin = read.text("hairpinMode");
    if !["none", "hairpin-veth", "promiscuous-bridge"].contains(&hairpin) {
        wrong.push(format!("option {hairpin:?} specified for hairpinMode (--hairpin-mode). Valid options are \"none\", \"hairpin-veth\" or \"promiscuous-bridge\""));
    }
    let swap = read.text("memorySwap.swapBehavior");
    if !["", "NoSwap", "LimitedSwap"].contains(&swap) {
        wrong.push(format!("memorySwap.swapBehavior {swap:?} must be one of: \"\", \"LimitedSwap\" or \"NoSwap\""));
    }
    let factor = at(read.0, "memoryThrottlingFactor").and_then(Value::as_f64).unwrap_or(1.0);
    if factor <= 0.0 || factor > 1.0 {
        wrong.push(format!("memoryThrottlingFactor {factor} must be greater than 0 and less than or equal to 1.0"));
    }
    let memory = read.text("memoryReservationPolicy");
    match memory {
        "None" => {}
        "TieredReservation" => wrong.push("memoryReservationPolicy \"TieredReservation\" requires MemoryQoS feature gate to be enabled".to_owned()),
        _ => wrong.push(format!("option {memory:?} specified for memoryReservationPolicy. Valid options are \"None\" or \"TieredReservation\"")),
    }
    if read.yes("enableSystemLogQuery") && !read.yes("enableSystemLogHandler") {
        wrong.push("enableSystemLogHandler is required for enableSystemLogQuery".to_owned());
    }
    let (systems, own, root) = (read.text("systemReservedCgroup"), read.text("kubeReservedCgroup"), read.text("cgroupRoot"));
    if !read.text("systemCgroups").is_empty() && root.is_empty() {
        wrong.push("systemCgroups (--system-cgroups) was specified and cgroupRoot (--cgroup-root) was not specified".to_owned());
    }
    if !read.text("reservedSystemCPUs").is_empty() && !(systems.is_empty() && own.is_empty()) {
        wrong.push("can't use reservedSystemCPUs (--reserved-cpus) with systemReservedCgroup (--system-reserved-cgroup) or kubeReservedCgroup (--kube-reserved-cgroup)".to_owned());
    }
}

fn shutdown(read: &Read, wrong: &mut Vec<String>) {
    let (all, critical) = (read.time("shutdownGracePeriod"), read.time("shutdownGracePeriodCriticalPods"));
    // Printed as the struct it is.
    let shown = |duration| format!("{{{}}}", go_duration(duration));
    if critical > all {
        wrong.push(format!("shutdownGracePeriodCriticalPods {} must be <= shutdownGracePeriod {}", shown(critical), shown(all)));
    }
    for (name, period) in [("shutdownGracePeriod", all), ("shutdownGracePeriodCriticalPods", critical)] {
        if period.is_negative() || (period.is_positive() && period < SignedDuration::from_secs(1)) {
            wrong.push(format!("{name} {} must be either zero or otherwise >= 1 sec", shown(period)));
        }
    }
    let by_priority = at(read.0, "shutdownGracePeriodByPodPriority").and_then(Value::as_array).is_some_and(|list| !list.is_empty());
    if by_priority && (all.is_positive() || critical.is_positive()) {
        wrong.push("Cannot specify both shutdownGracePeriodByPodPriority and shutdownGracePeriod at the same time".to_owned());
    }
}

fn enforcement(read: &Read, wrong: &mut Vec<String>) {
    const KNOWN: [&str; 6] = ["pods", "system-reserved", "system-reserved-compressible", "kube-reserved", "kube-reserved-compressible", "none"];
    let list: Vec<&str> = at(read.0, "enforceNodeAllocatable").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    for (whole, part) in [("system-reserved", "system-reserved-compressible"), ("kube-reserved", "kube-reserved-compressible")] {
        if list.contains(&whole) && list.contains(&part) {
            wrong.push(format!("both {whole:?} and {part:?} cannot be specified together in enforceNodeAllocatable (--enforce-node-allocatable)"));
        }
    }
    for &option in &list {
        for (prefix, path, flag) in [("system-reserved", "systemReservedCgroup", "--system-reserved-cgroup"), ("kube-reserved", "kubeReservedCgroup", "--kube-reserved-cgroup")] {
            if (option == prefix || option.strip_prefix(prefix) == Some("-compressible")) && read.text(path).is_empty() {
                wrong.push(format!("{path} ({flag}) must be specified when {prefix:?} or \"{prefix}-compressible\" included in enforceNodeAllocatable (--enforce-node-allocatable)"));
            }
        }
        match option {
            "none" if list.len() > 1 => wrong.push("enforceNodeAllocatable (--enforce-node-allocatable) may not contain additional enforcements when \"none\" is specified".to_owned()),
            "none" => {}
            _ if !KNOWN.contains(&option) => wrong.push(format!("option {option:?} specified for enforceNodeAllocatable (--enforce-node-allocatable). Valid options are \"pods\", \"system-reserved\", \"system-reserved-compressible\", \"kube-reserved\", \"kube-reserved-compressible\" or \"none\"")),
            _ if !read.yes("cgroupsPerQOS") => wrong.push(format!("cgroupsPerQOS (--cgroups-per-qos) must be set to true when {option:?} contained in enforceNodeAllocatable (--enforce-node-allocatable)")),
            _ => {}
        }
    }
}

fn logs(read: &Read, wrong: &mut Vec<String>) {
    if read.number("containerLogMaxWorkers") < 1 {
        wrong.push("containerLogMaxWorkers must be greater than or equal to 1".to_owned());
    }
    if read.time("containerLogMonitorInterval") < MINIMUM_LOG_INTERVAL {
        wrong.push("containerLogMonitorInterval must be a positive time duration greater than or equal to 3s".to_owned());
    }
    if read.number("containerLogMaxFiles") <= 1 {
        wrong.push("containerLogMaxFiles must be greater than 1".to_owned());
    }
    let size = read.text("containerLogMaxSize");
    if !Quantity::parse(size).is_ok_and(|size| size.sign() >= 0) {
        wrong.push(format!("failed to parse container log max size {size:?}"));
    }
    let folder = read.text("podLogsDir");
    if !folder.starts_with('/') {
        wrong.push(format!("pod logs path {folder:?} must be absolute path"));
    }
    if folder.split('/').skip(1).any(|name| matches!(name, "" | "." | "..")) {
        wrong.push(format!("pod logs path {folder:?} must be normalized"));
    }
    if !folder.is_ascii() {
        wrong.push(format!("pod logs path {folder:?} mut contains ASCII characters only"));
    }
}

#[cfg(test)]
mod tests {
    use super::super::Settings;
    use serde_json::json;

    #[test]
    fn words() {
        let cases = [
            (json!({"imageGCHighThresholdPercent": 101}), "imageGCHighThresholdPercent (--image-gc-high-threshold) 101 must be between 0 and 100, inclusive"),
            (json!({"imageGCLowThresholdPercent": 85}), "imageGCLowThresholdPercent (--image-gc-low-threshold) 85 must be less than imageGCHighThresholdPercent (--image-gc-high-threshold) 85"),
            (json!({"imageMaximumGCAge": "1m"}), "imageMaximumGCAge 1m0s must be greater than imageMinimumGCAge 2m0s"),
            (json!({"shutdownGracePeriodCriticalPods": "10s"}), "shutdownGracePeriodCriticalPods {10s} must be <= shutdownGracePeriod {0s}"),
            (json!({"shutdownGracePeriod": "10s", "shutdownGracePeriodByPodPriority": [{"priority": 0, "shutdownGracePeriodSeconds": 1}]}), "Cannot specify both shutdownGracePeriodByPodPriority and shutdownGracePeriod at the same time"),
            (json!({"shutdownGracePeriod": "500ms"}), "shutdownGracePeriod {500ms} must be either zero or otherwise >= 1 sec"),
            (json!({"registerWithTaints": [{"key": "a", "effect": "x"}]}), "invalid taint: {a  x <nil>}"),
            (json!({"crashLoopBackOff": {"maxContainerRestartPeriod": "301s"}}), "CrashLoopBackOff.MaxContainerRestartPeriod (got: 301 seconds) must be set between 1s and 300s"),
            (json!({"containerLogMaxFiles": 1}), "containerLogMaxFiles must be greater than 1"),
            (json!({"podLogsDir": "/a/../b"}), "pod logs path \"/a/../b\" must be normalized"),
            (json!({"enforceNodeAllocatable": ["x"]}), "option \"x\" specified for enforceNodeAllocatable (--enforce-node-allocatable). Valid options are \"pods\", \"system-reserved\", \"system-reserved-compressible\", \"kube-reserved\", \"kube-reserved-compressible\" or \"none\""),
            (json!({"memorySwap": {"swapBehavior": "x"}}), "memorySwap.swapBehavior \"x\" must be one of: \"\", \"LimitedSwap\" or \"NoSwap\""),
            (json!({"serializeImagePulls": true, "maxParallelImagePulls": 2}), "maxParallelImagePulls cannot be larger than 1 unless SerializeImagePulls (--serialize-image-pulls) is set to false"),
        ];
        for (given, words) in cases {
            assert_eq!(Settings::read(&given).unwrap_err().to_string(), format!("failed to validate kubelet configuration, error: invalid configuration: {words}"));
        }
        for (given, words) in [
            (json!({"evictionHard": {"x": "1"}}), "unsupported eviction signal x"),
            (json!({"evictionSoft": {"memory.available": "1Gi"}}), "grace period must be specified for the soft eviction threshold memory.available"),
            (json!({"kubeReserved": {"x": "1"}}), "cannot reserve \"x\" resource"),
        ] {
            assert_eq!(Settings::read(&given).unwrap_err().to_string(), format!("failed to validate kubelet configuration, error: {words}"));
        }
    }
}
