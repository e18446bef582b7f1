//! What a debugging container is granted, and what of a copied pod is kept.
//!
//! Mirrors profiles.go of k8s.io/kubectl/pkg/cmd/debug.

use serde_json::{Map, Value, json};

use crate::error::{Result, fail};
use crate::flags::Args;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    Legacy,
    General,
    Baseline,
    Restricted,
    Netadmin,
    Sysadmin,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    Ephemeral,
    Copy,
    Node,
}

/// A container of the pod by its name.
pub fn container<'a>(pod: &'a mut Value, list: &str, name: &str) -> Option<&'a mut Value> {
    pod.get_mut("spec")?.get_mut(list)?.as_array_mut()?.iter_mut().find(|container| container["name"] == name)
}

impl Profile {
    pub fn of(name: &str) -> Result<Self> {
        Ok(match name {
            "legacy" => Self::Legacy,
            "general" => Self::General,
            "baseline" => Self::Baseline,
            "restricted" => Self::Restricted,
            "netadmin" => Self::Netadmin,
            "sysadmin" => Self::Sysadmin,
            other => return fail(format!("unknown profile: {other}")),
        })
    }

    pub fn apply(self, pod: &mut Value, list: &str, name: &str, style: Style, args: &Args) {
        if matches!(self, Self::Baseline | Self::Restricted) || self == Self::General && style == Style::Node {
            context(pod, list, name, |_| false);
        }
        match self {
            Self::General if style != Style::Node => add(pod, list, name, &["SYS_PTRACE"]),
            Self::Netadmin => add(pod, list, name, &["NET_ADMIN", "NET_RAW"]),
            Self::Sysadmin => context(pod, list, name, |context| {
                context.insert("privileged".into(), true.into());
                true
            }),
            Self::Restricted => context(pod, list, name, |context| {
                context.extend(Map::from_iter([
                    ("runAsNonRoot".to_owned(), true.into()),
                    ("capabilities".to_owned(), json!({"drop": ["ALL"]})),
                    ("allowPrivilegeEscalation".to_owned(), false.into()),
                    ("seccompProfile".to_owned(), json!({"type": "RuntimeDefault"})),
                ]));
                true
            }),
            _ => {}
        }
        match (style, self) {
            (Style::Node, Self::Baseline | Self::Restricted) => {}
            (Style::Node, _) => {
                for field in ["hostNetwork", "hostPID", "hostIPC"] {
                    pod["spec"][field] = true.into();
                }
                if self != Self::Netadmin {
                    mount_root(pod, name);
                }
            }
            (Style::Copy, Self::Legacy) => remove(pod, "/metadata", "labels"),
            (Style::Copy, _) => {
                keep(pod, args);
                if pod["spec"].get("shareProcessNamespace").is_none() {
                    pod["spec"]["shareProcessNamespace"] = true.into();
                }
            }
            (Style::Ephemeral, _) => {}
        }
    }
}

/// Changes the container's security context; false takes it away.
fn context(pod: &mut Value, list: &str, name: &str, change: impl FnOnce(&mut Map<String, Value>) -> bool) {
    let Some(container) = container(pod, list, name).and_then(Value::as_object_mut) else { return };
    let mut context = container.get("securityContext").and_then(Value::as_object).cloned().unwrap_or_default();
    if change(&mut context) {
        container.insert("securityContext".into(), context.into());
    } else {
        container.remove("securityContext");
    }
}

fn add(pod: &mut Value, list: &str, name: &str, capabilities: &[&str]) {
    context(pod, list, name, |context| {
        let held = context.entry("capabilities").or_insert_with(|| json!({}));
        let mut all = held["add"].as_array().cloned().unwrap_or_default();
        all.extend(capabilities.iter().map(|capability| Value::from(*capability)));
        held["add"] = all.into();
        true
    });
}

fn mount_root(pod: &mut Value, name: &str) {
    const VOLUME: &str = "host-root";
    let push = |place: &mut Value, item: Value| {
        let mut items = place.as_array().cloned().unwrap_or_default();
        items.push(item);
        *place = items.into();
    };
    push(&mut pod["spec"]["volumes"], json!({"name": VOLUME, "hostPath": {"path": "/"}}));
    if let Some(container) = container(pod, "containers", name) {
        push(&mut container["volumeMounts"], json!({"name": VOLUME, "mountPath": "/host"}));
    }
}

fn remove(pod: &mut Value, at: &str, key: &str) {
    if let Some(map) = pod.pointer_mut(at).and_then(Value::as_object_mut) {
        map.remove(key);
    }
}

fn keep(pod: &mut Value, args: &Args) {
    for (flag, at, key) in [("keep-labels", "/metadata", "labels"), ("keep-annotations", "/metadata", "annotations"), ("keep-init-containers", "/spec", "initContainers")] {
        if !args.on(flag) {
            remove(pod, at, key);
        }
    }
    for container in pod["spec"]["containers"].as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
        for (flag, probe) in [("keep-liveness", "livenessProbe"), ("keep-readiness", "readinessProbe"), ("keep-startup", "startupProbe")] {
            if !args.on(flag) {
                container.remove(probe);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::classic::Dialect;
    use crate::command::ROOT;

    #[test]
    fn what_each_grants() {
        let args = Args::parse_in(&ROOT, ["debug", "x"].map(str::to_owned).to_vec(), Dialect::Modern).unwrap();
        for (profile, style, want) in [
            (Profile::General, Style::Ephemeral, json!({"containers": [{"name": "d", "securityContext": {"capabilities": {"add": ["SYS_PTRACE"]}}}]})),
            (Profile::Legacy, Style::Ephemeral, json!({"containers": [{"name": "d"}]})),
            (Profile::Netadmin, Style::Node, json!({"hostNetwork": true, "hostPID": true, "hostIPC": true, "containers": [{"name": "d", "securityContext": {"capabilities": {"add": ["NET_ADMIN", "NET_RAW"]}}}]})),
            (Profile::Baseline, Style::Copy, json!({"shareProcessNamespace": true, "containers": [{"name": "d"}]})),
            (
                Profile::Sysadmin, Style::Node,
                json!({
                    "hostNetwork": true, "hostPID": true, "hostIPC": true, "volumes": [{"name": "host-root", "hostPath": {"path": "/"}}],
                    "containers": [{"name": "d", "securityContext": {"privileged": true}, "volumeMounts": [{"name": "host-root", "mountPath": "/host"}]}]
                }),
            ),
        ] {
            let mut pod = json!({"spec": {"containers": [{"name": "d"}]}});
            profile.apply(&mut pod, "containers", "d", style, &args);
            assert_eq!(pod["spec"], want, "{profile:?} {style:?}");
        }
    }
}
