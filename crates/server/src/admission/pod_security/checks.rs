//! The Pod Security Standards, check by check, each with the releases it holds from. Words are upstream's (k8s.io/pod-security-admission/policy).

use std::collections::BTreeSet;

use ::api::kinds::json::{child, list, number, strings, text};
use serde_json::Value;

/// The newest release any check knows.
const NEWEST: u32 = 36;

/// What is wrong, in short and in full.
#[derive(Debug, PartialEq, Eq)]
pub struct Finding {
    pub reason: String,
    pub detail: String,
}

type Check = fn(&Value, u32) -> Option<Finding>;

/// In upstream's order: by name. Those that a stricter check of the same matter replaces have the release it does so from.
const BASELINE: [(Check, Option<u32>); 12] = [
    (app_armor, None),
    (default_capabilities, Some(22)),
    (host_namespaces, None),
    (host_path_volumes, Some(0)),
    (host_ports, None),
    (probe_hosts, None),
    (privileged, None),
    (proc_mount, Some(35)),
    (se_linux, None),
    (seccomp, Some(19)),
    (sysctls, None),
    (host_process, None),
];
const RESTRICTED: [Check; 7] = [privilege_escalation, dropped_capabilities, proc_mount_restricted, restricted_volumes, run_as_non_root, run_as_user, seccomp_restricted];

/// Checks a pod or a template of pods. `minor` is the release whose rules hold; none is the newest.
pub fn evaluate(restricted: bool, any: bool, minor: Option<u32>, pod: &Value) -> Vec<Finding> {
    if !any {
        return Vec::new();
    }
    let minor = minor.unwrap_or(NEWEST).min(NEWEST);
    let baseline = BASELINE.iter().filter(|(_, replaced)| !restricted || replaced.is_none_or(|from| minor < from)).filter_map(|(check, _)| check(pod, minor));
    let strict = RESTRICTED.iter().filter(|_| restricted).filter_map(|check| check(pod, minor));
    baseline.chain(strict).collect()
}

fn found(reason: &str, detail: String) -> Option<Finding> {
    Some(Finding { reason: reason.to_owned(), detail })
}

fn quoted<T: AsRef<str>>(names: impl IntoIterator<Item = T>) -> String {
    names.into_iter().map(|name| format!("\"{}\"", name.as_ref())).collect::<Vec<_>>().join(", ")
}

fn plural(word: &str, count: usize) -> String {
    if count == 1 { word.to_owned() } else { format!("{word}s") }
}

fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    ["spec.initContainers", "spec.containers", "spec.ephemeralContainers"].into_iter().flat_map(|path| list(pod, path))
}

/// The names of containers that are as asked.
fn those<'a>(pod: &'a Value, is: impl FnMut(&&'a Value) -> bool) -> Vec<&'a str> {
    containers(pod).filter(is).map(|container| text(container, "name")).collect()
}

fn say(names: &[&str]) -> String {
    format!("{} {}", plural("container", names.len()), quoted(names))
}

/// The pod itself, containers, or both: `pod and container "a"`.
fn setters(pod: bool, names: &[&str]) -> Option<String> {
    match (pod, names.is_empty()) {
        (false, true) => None,
        (true, true) => Some("pod".to_owned()),
        (false, false) => Some(say(names)),
        (true, false) => Some(format!("pod and {}", say(names))),
    }
}

fn is_windows(pod: &Value) -> bool {
    text(pod, "spec.os.name") == "windows"
}

/// A pod in a user namespace of its own: from 1.35 on root in it is nobody outside.
fn own_users(pod: &Value) -> bool {
    child(pod, "spec.hostUsers").and_then(Value::as_bool) == Some(false)
}

fn flagged(value: &Value, path: &str) -> Option<bool> {
    child(value, path).and_then(Value::as_bool)
}

fn annotations(pod: &Value) -> impl Iterator<Item = (&str, &str)> {
    child(pod, "metadata.annotations").and_then(Value::as_object).into_iter().flatten().filter_map(|(key, value)| Some((key.as_str(), value.as_str()?)))
}

fn app_armor(pod: &Value, _: u32) -> Option<Finding> {
    fn bad(value: &Value) -> Option<&Value> {
        child(value, "securityContext.appArmorProfile").filter(|profile| !matches!(text(profile, "type"), "RuntimeDefault" | "Localhost"))
    }
    let of_pod = child(pod, "spec").and_then(bad);
    let names = those(pod, |container| bad(container).is_some());
    let values: BTreeSet<String> = containers(pod).chain(child(pod, "spec")).filter_map(bad).map(|profile| text(profile, "type").to_owned()).collect();
    let mut who: Vec<String> = setters(of_pod.is_some(), &names).into_iter().collect();
    let mut wrong: Vec<String> = annotations(pod)
        .filter(|(key, value)| key.starts_with("container.apparmor.security.beta.kubernetes.io/") && !(value.is_empty() || *value == "runtime/default" || value.starts_with("localhost/")))
        .map(|(key, value)| format!("{key}={value:?}"))
        .collect();
    wrong.sort();
    if !wrong.is_empty() {
        who.push(plural("annotation", wrong.len()));
    }
    if who.is_empty() {
        return None;
    }
    let all: Vec<String> = values.into_iter().chain(wrong).collect();
    found(&plural("forbidden AppArmor profile", all.len()), format!("{} must not set AppArmor profile type to {}", who.join(" and "), quoted(&all)))
}

const DEFAULT_CAPABILITIES: [&str; 13] =
    ["AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"];

fn added(container: &Value) -> impl Iterator<Item = &str> {
    strings(container, "securityContext.capabilities.add")
}

fn default_capabilities(pod: &Value, _: u32) -> Option<Finding> {
    let bad = |name: &&str| !DEFAULT_CAPABILITIES.contains(name);
    let names = those(pod, |container| added(container).any(|name| bad(&name)));
    let capabilities: BTreeSet<&str> = containers(pod).flat_map(added).filter(bad).collect();
    if names.is_empty() { None } else { found("non-default capabilities", format!("{} must not include {} in securityContext.capabilities.add", say(&names), quoted(capabilities))) }
}

fn dropped_capabilities(pod: &Value, minor: u32) -> Option<Finding> {
    if minor < 22 || minor >= 25 && is_windows(pod) {
        return None;
    }
    let missing = those(pod, |container| !strings(container, "securityContext.capabilities.drop").any(|name| name == "ALL"));
    let bad = |name: &&str| *name != "NET_BIND_SERVICE";
    let adding = those(pod, |container| added(container).any(|name| bad(&name)));
    let mut details = Vec::new();
    if !missing.is_empty() {
        details.push(format!("{} must set securityContext.capabilities.drop=[\"ALL\"]", say(&missing)));
    }
    if !adding.is_empty() {
        let capabilities: BTreeSet<&str> = containers(pod).flat_map(added).filter(bad).collect();
        details.push(format!("{} must not include {} in securityContext.capabilities.add", say(&adding), quoted(capabilities)));
    }
    if details.is_empty() { None } else { found("unrestricted capabilities", details.join("; ")) }
}

fn host_namespaces(pod: &Value, _: u32) -> Option<Finding> {
    let set: Vec<String> = ["hostNetwork", "hostPID", "hostIPC"].into_iter().filter(|name| flagged(pod, &format!("spec.{name}")) == Some(true)).map(|name| format!("{name}=true")).collect();
    if set.is_empty() { None } else { found("host namespaces", set.join(", ")) }
}

fn host_path_volumes(pod: &Value, _: u32) -> Option<Finding> {
    let names: Vec<&str> = list(pod, "spec.volumes").iter().filter(|volume| child(volume, "hostPath").is_some()).map(|volume| text(volume, "name")).collect();
    if names.is_empty() { None } else { found("hostPath volumes", format!("{} {}", plural("volume", names.len()), quoted(&names))) }
}

fn host_ports(pod: &Value, _: u32) -> Option<Finding> {
    let ports = |container: &Value| -> Vec<String> { list(container, "ports").iter().filter_map(|port| number(port, "hostPort")).filter(|port| *port != 0).map(|port| port.to_string()).collect() };
    let names = those(pod, |container| !ports(container).is_empty());
    if names.is_empty() {
        return None;
    }
    let all: BTreeSet<String> = containers(pod).flat_map(ports).collect();
    let uses = if names.len() == 1 { "uses" } else { "use" };
    found("hostPort", format!("{} {uses} {} {}", say(&names), plural("hostPort", all.len()), all.into_iter().collect::<Vec<_>>().join(", ")))
}

fn probe_hosts(pod: &Value, minor: u32) -> Option<Finding> {
    if minor < 34 {
        return None;
    }
    let hosts = |container: &Value| -> Vec<String> {
        ["livenessProbe", "readinessProbe", "startupProbe", "lifecycle.postStart", "lifecycle.preStop"]
            .into_iter()
            .flat_map(|place| ["httpGet", "tcpSocket"].map(|how| text(container, &format!("{place}.{how}.host")).to_owned()))
            .filter(|host| !host.is_empty())
            .collect()
    };
    let names: BTreeSet<&str> = those(pod, |container| !hosts(container).is_empty()).into_iter().collect();
    if names.is_empty() {
        return None;
    }
    let (names, all): (Vec<&str>, BTreeSet<String>) = (names.into_iter().collect(), containers(pod).flat_map(hosts).collect());
    let uses = if names.len() == 1 { "uses" } else { "use" };
    found("probe or lifecycle host", format!("{} {uses} {} {}", say(&names), plural("probe or lifecycle host", all.len()), quoted(&all)))
}

fn privileged(pod: &Value, _: u32) -> Option<Finding> {
    let names = those(pod, |container| flagged(container, "securityContext.privileged") == Some(true));
    if names.is_empty() { None } else { found("privileged", format!("{} must not set securityContext.privileged=true", say(&names))) }
}

fn proc_mounts(pod: &Value) -> Option<Finding> {
    let mount = |container: &Value| Some(text(container, "securityContext.procMount").to_owned()).filter(|mount| !mount.is_empty() && mount != "Default");
    let names = those(pod, |container| mount(container).is_some());
    let kinds: BTreeSet<String> = containers(pod).filter_map(mount).collect();
    if names.is_empty() { None } else { found("procMount", format!("{} must not set securityContext.procMount to {}", say(&names), quoted(&kinds))) }
}

fn proc_mount(pod: &Value, minor: u32) -> Option<Finding> {
    if minor >= 35 && own_users(pod) { None } else { proc_mounts(pod) }
}

fn proc_mount_restricted(pod: &Value, minor: u32) -> Option<Finding> {
    if minor < 35 { None } else { proc_mounts(pod) }
}

fn se_linux(pod: &Value, minor: u32) -> Option<Finding> {
    let options = |value: &Value| child(value, "securityContext.seLinuxOptions").cloned();
    let allowed = |kind: &str| matches!(kind, "" | "container_t" | "container_init_t" | "container_kvm_t") || minor >= 31 && kind == "container_engine_t";
    let bad = |options: &Value| !allowed(text(options, "type")) || !text(options, "user").is_empty() || !text(options, "role").is_empty();
    let of_pod = child(pod, "spec").and_then(options).is_some_and(|options| bad(&options));
    let names = those(pod, |container| options(container).is_some_and(|options| bad(&options)));
    let who = setters(of_pod, &names)?;
    let all: Vec<Value> = child(pod, "spec").into_iter().chain(containers(pod)).filter_map(options).collect();
    let kinds: BTreeSet<&str> = all.iter().map(|options| text(options, "type")).filter(|kind| !allowed(kind)).collect();
    let mut data = Vec::new();
    if !kinds.is_empty() {
        data.push(format!("{} {}", plural("type", kinds.len()), quoted(kinds)));
    }
    for field in ["user", "role"] {
        if all.iter().any(|options| !text(options, field).is_empty()) {
            data.push(format!("{field} may not be set"));
        }
    }
    found("seLinuxOptions", format!("{who} set forbidden securityContext.seLinuxOptions: {}", data.join("; ")))
}

const SECCOMP: &str = "securityContext.seccompProfile";

fn bad_seccomp(value: &Value) -> Option<&str> {
    child(value, SECCOMP).map(|profile| text(profile, "type")).filter(|kind| !matches!(*kind, "RuntimeDefault" | "Localhost"))
}

fn seccomp(pod: &Value, minor: u32) -> Option<Finding> {
    if minor < 19 {
        return seccomp_annotations(pod);
    }
    let names = those(pod, |container| bad_seccomp(container).is_some());
    let who = setters(child(pod, "spec").and_then(bad_seccomp).is_some(), &names)?;
    let kinds: BTreeSet<&str> = child(pod, "spec").into_iter().chain(containers(pod)).filter_map(bad_seccomp).collect();
    found("seccompProfile", format!("{who} must not set securityContext.seccompProfile.type to {}", quoted(kinds)))
}

fn seccomp_annotations(pod: &Value) -> Option<Finding> {
    let keys: BTreeSet<String> =
        containers(pod).map(|container| format!("container.seccomp.security.alpha.kubernetes.io/{}", text(container, "name"))).chain(["seccomp.security.alpha.kubernetes.io/pod".to_owned()]).collect();
    let wrong: BTreeSet<String> = annotations(pod)
        .filter(|(key, value)| keys.contains(*key) && !(matches!(*value, "runtime/default" | "docker/default") || value.starts_with("localhost/")))
        .map(|(key, value)| format!("{key}={value:?}"))
        .collect();
    if wrong.is_empty() { None } else { found("seccompProfile", format!("forbidden {} {}", plural("annotation", wrong.len()), wrong.into_iter().collect::<Vec<_>>().join(", "))) }
}

fn seccomp_restricted(pod: &Value, minor: u32) -> Option<Finding> {
    if minor < 19 || minor >= 25 && is_windows(pod) {
        return None;
    }
    if let Some(finding) = seccomp(pod, minor) {
        return Some(finding);
    }
    let covered = child(pod, &format!("spec.{SECCOMP}")).is_some();
    let names = those(pod, |container| !covered && child(container, SECCOMP).is_none());
    if names.is_empty() { None } else { found("seccompProfile", format!("pod or {} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"", say(&names))) }
}

fn sysctls(pod: &Value, minor: u32) -> Option<Finding> {
    let from = |name: &str| match name {
        "kernel.shm_rmid_forced" | "net.ipv4.ip_local_port_range" | "net.ipv4.tcp_syncookies" | "net.ipv4.ping_group_range" | "net.ipv4.ip_unprivileged_port_start" => Some(0),
        "net.ipv4.ip_local_reserved_ports" => Some(27),
        "net.ipv4.tcp_keepalive_time" | "net.ipv4.tcp_fin_timeout" | "net.ipv4.tcp_keepalive_intvl" | "net.ipv4.tcp_keepalive_probes" => Some(29),
        "net.ipv4.tcp_rmem" | "net.ipv4.tcp_wmem" => Some(32),
        _ => None,
    };
    let wrong: Vec<&str> = list(pod, "spec.securityContext.sysctls").iter().map(|sysctl| text(sysctl, "name")).filter(|name| from(name).is_none_or(|from| minor < from)).collect();
    if wrong.is_empty() { None } else { found("forbidden sysctls", wrong.join(", ")) }
}

fn host_process(pod: &Value, _: u32) -> Option<Finding> {
    let set = |value: &Value| flagged(value, "securityContext.windowsOptions.hostProcess") == Some(true);
    let names = those(pod, |container| set(container));
    let who = setters(child(pod, "spec").is_some_and(set), &names)?;
    found("hostProcess", format!("{who} must not set securityContext.windowsOptions.hostProcess=true"))
}

fn privilege_escalation(pod: &Value, minor: u32) -> Option<Finding> {
    if minor < 8 || minor >= 25 && is_windows(pod) {
        return None;
    }
    let names = those(pod, |container| flagged(container, "securityContext.allowPrivilegeEscalation") != Some(false));
    if names.is_empty() { None } else { found("allowPrivilegeEscalation != false", format!("{} must set securityContext.allowPrivilegeEscalation=false", say(&names))) }
}

const ALLOWED_VOLUMES: [&str; 9] = ["configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "image", "persistentVolumeClaim", "projected", "secret"];
const KNOWN_VOLUMES: [&str; 21] = [
    "hostPath", "gcePersistentDisk", "awsElasticBlockStore", "gitRepo", "nfs", "iscsi", "glusterfs", "rbd", "flexVolume", "cinder", "cephfs", "flocker", "fc", "azureFile", "vsphereVolume", "quobyte",
    "azureDisk", "photonPersistentDisk", "portworxVolume", "scaleIO", "storageos",
];

fn restricted_volumes(pod: &Value, _: u32) -> Option<Finding> {
    let bad: Vec<&Value> = list(pod, "spec.volumes").iter().filter(|volume| !ALLOWED_VOLUMES.iter().any(|kind| child(volume, kind).is_some())).collect();
    if bad.is_empty() {
        return None;
    }
    let kinds: BTreeSet<&str> = bad.iter().map(|volume| KNOWN_VOLUMES.into_iter().find(|kind| child(volume, kind).is_some()).unwrap_or("unknown")).collect();
    let uses = if bad.len() == 1 { "uses" } else { "use" };
    let names = quoted(bad.iter().map(|volume| text(volume, "name")));
    found("restricted volume types", format!("{} {names} {uses} {} {}", plural("volume", bad.len()), plural("restricted volume type", kinds.len()), quoted(kinds)))
}

fn run_as_non_root(pod: &Value, minor: u32) -> Option<Finding> {
    const REASON: &str = "runAsNonRoot != true";
    const PATH: &str = "securityContext.runAsNonRoot";
    if minor >= 35 && own_users(pod) {
        return None;
    }
    let of_pod = flagged(pod, &format!("spec.{PATH}"));
    let explicit = those(pod, |container| flagged(container, PATH) == Some(false));
    if let Some(who) = setters(of_pod == Some(false), &explicit) {
        return found(REASON, format!("{who} must not set securityContext.runAsNonRoot=false"));
    }
    let implicit = those(pod, |container| of_pod != Some(true) && flagged(container, PATH).is_none());
    if implicit.is_empty() { None } else { found(REASON, format!("pod or {} must set securityContext.runAsNonRoot=true", say(&implicit))) }
}

fn run_as_user(pod: &Value, minor: u32) -> Option<Finding> {
    if minor < 23 || minor >= 35 && own_users(pod) {
        return None;
    }
    let root = |value: &Value| number(value, "securityContext.runAsUser") == Some(0);
    let names = those(pod, |container| root(container));
    let who = setters(child(pod, "spec").is_some_and(root), &names)?;
    found("runAsUser=0", format!("{who} must not set runAsUser=0"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn told(restricted: bool, minor: Option<u32>, spec: Value) -> String {
        super::super::details(&evaluate(restricted, true, minor, &json!({"spec": spec})))
    }

    #[test]
    fn baseline() {
        let with = |context: Value| json!({"containers": [{"name": "a", "securityContext": context}]});
        let cases = [
            (json!({"containers": [{"name": "a"}]}), ""),
            (json!({"hostNetwork": true, "hostPID": true, "containers": []}), "host namespaces (hostNetwork=true, hostPID=true)"),
            (json!({"volumes": [{"name": "v", "hostPath": {}}, {"name": "w", "hostPath": {}}]}), "hostPath volumes (volumes \"v\", \"w\")"),
            (json!({"containers": [{"name": "a", "ports": [{"hostPort": 80}, {"hostPort": 81}]}]}), "hostPort (container \"a\" uses hostPorts 80, 81)"),
            (with(json!({"privileged": true})), "privileged (container \"a\" must not set securityContext.privileged=true)"),
            (with(json!({"capabilities": {"add": ["NET_ADMIN", "CHOWN"]}})), "non-default capabilities (container \"a\" must not include \"NET_ADMIN\" in securityContext.capabilities.add)"),
            (with(json!({"procMount": "Unmasked"})), "procMount (container \"a\" must not set securityContext.procMount to \"Unmasked\")"),
            (with(json!({"seccompProfile": {"type": "Unconfined"}})), "seccompProfile (container \"a\" must not set securityContext.seccompProfile.type to \"Unconfined\")"),
            (with(json!({"seLinuxOptions": {"type": "x", "user": "u"}})), "seLinuxOptions (container \"a\" set forbidden securityContext.seLinuxOptions: type \"x\"; user may not be set)"),
            (with(json!({"windowsOptions": {"hostProcess": true}})), "hostProcess (container \"a\" must not set securityContext.windowsOptions.hostProcess=true)"),
            (json!({"securityContext": {"sysctls": [{"name": "net.ipv4.tcp_rmem"}, {"name": "kernel.x"}]}}), "forbidden sysctls (kernel.x)"),
            (with(json!({"appArmorProfile": {"type": "Unconfined"}})), "forbidden AppArmor profile (container \"a\" must not set AppArmor profile type to \"Unconfined\")"),
            (json!({"containers": [{"name": "a", "livenessProbe": {"httpGet": {"host": "h"}}}]}), "probe or lifecycle host (container \"a\" uses probe or lifecycle host \"h\")"),
        ];
        for (spec, expected) in cases {
            assert_eq!(told(false, None, spec.clone()), expected, "{spec}");
        }
        assert_eq!(told(false, Some(31), json!({"securityContext": {"sysctls": [{"name": "net.ipv4.tcp_rmem"}]}})), "forbidden sysctls (net.ipv4.tcp_rmem)");
    }

    #[test]
    fn restricted() {
        assert_eq!(
            told(true, None, json!({"containers": [{"name": "a"}]})),
            "allowPrivilegeEscalation != false (container \"a\" must set securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (container \"a\" must set securityContext.capabilities.drop=[\"ALL\"]), runAsNonRoot != true (pod or container \"a\" must set securityContext.runAsNonRoot=true), seccompProfile (pod or container \"a\" must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")"
        );
        let good = json!({"securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}}, "containers": [{"name": "a", "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}}]});
        assert_eq!(told(true, None, good.clone()), "");
        let mut volumes = good.clone();
        volumes["volumes"] = json!([{"name": "v", "hostPath": {}}, {"name": "w", "nfs": {}}, {"name": "s", "secret": {}}]);
        assert_eq!(told(true, None, volumes), "restricted volume types (volumes \"v\", \"w\" use restricted volume types \"hostPath\", \"nfs\")");
        let mut root = good;
        root["securityContext"]["runAsUser"] = 0.into();
        assert_eq!(told(true, None, root.clone()), "runAsUser=0 (pod must not set runAsUser=0)");
        root["hostUsers"] = false.into();
        assert_eq!(told(true, None, root.clone()), "");
        assert_eq!(told(true, Some(34), root), "runAsUser=0 (pod must not set runAsUser=0)");
    }
}
