//! The phases of `kubeadm join`. Mirrors `cmd/phases/join`, names, order and texts.

use crate::error::Error;
use crate::host::{KUBELET_FOLDER, KUBERNETES_FOLDER};
use crate::join::Join;
use crate::join_control_plane as control_plane;
use crate::phases::{Phase, wants};

pub const PHASES: [Phase; 8] = [
    Phase { name: "preflight", short: "Run join pre-flight checks", parts: &[] },
    Phase { name: "control-plane-prepare", short: "Prepare the machine for serving a control plane", parts: &["download-certs", "certs", "kubeconfig", "control-plane"] },
    Phase { name: "check-etcd", short: "Check etcd health for control-plane join", parts: &[] },
    Phase { name: "kubelet-start", short: "Write kubelet settings, certificates and (re)start the kubelet", parts: &[] },
    Phase { name: "etcd-join", short: "Nothing to join: an etcd that is shared is not kubeadm's", parts: &[] },
    Phase { name: "kubelet-wait-bootstrap", short: "Nothing to wait for: kubelet-start does", parts: &[] },
    Phase { name: "control-plane-join", short: "Join a machine as a control plane instance", parts: &["etcd", "mark-control-plane"] },
    Phase { name: "wait-control-plane", short: "Nothing to wait for: kubelet-start does", parts: &[] },
];

/// Why a phase alone has nothing to do.
pub fn nothing(phase: &str, control_plane: bool) -> Option<&'static str> {
    match phase {
        "preflight" | "kubelet-start" => None,
        "etcd-join" => Some("the control planes of a cluster share an etcd that kubeadm does not run"),
        "kubelet-wait-bootstrap" | "wait-control-plane" => Some("kubelet-start returns when what it started answers"),
        _ if !control_plane => Some("it is about control planes, and --control-plane was not given"),
        _ => None,
    }
}

/// One phase, or only a part of it.
pub fn run(join: &mut Join<'_>, phase: &str, only: Option<&str>) -> Result<(), Error> {
    if nothing(phase, join.options.control_plane).is_some() {
        return Ok(());
    }
    let control_plane = join.options.control_plane;
    if join.options.common.dry_run && phase != "preflight" {
        return dry_run(join, phase);
    }
    let skipped = &join.options.common.skip_phases;
    let wanted = |part: &str| wants(phase, part, only, skipped);
    match phase {
        "preflight" => {
            join.preflight()?;
            if control_plane { control_plane::preflight(join) } else { Ok(()) }
        }
        "control-plane-prepare" => control_plane::prepare(join, &wanted),
        "check-etcd" => control_plane::check_etcd(join),
        "kubelet-start" if control_plane => control_plane::start(join),
        "kubelet-start" => join.start_agent(),
        "control-plane-join" if wanted("mark-control-plane") => control_plane::mark(join),
        _ => Ok(()),
    }
}

/// What a phase would do.
fn dry_run(join: &mut Join<'_>, phase: &str) -> Result<(), Error> {
    let name = join.wanted.node_name.clone();
    match phase {
        "control-plane-prepare" => println!("[dryrun] Would fetch the shared certificates, and write certificates and kubeconfigs to {KUBERNETES_FOLDER:?}"),
        "check-etcd" => println!("[dryrun] Would check that the etcd cluster is healthy"),
        "kubelet-start" if join.options.control_plane => println!("[dryrun] Would write kubelet configuration to {KUBELET_FOLDER:?}, and start the control plane of {name} with the kubelet of this node in it"),
        "kubelet-start" => println!("[dryrun] Would get a certificate for the node {name} and write it to {KUBELET_FOLDER:?}, write kubelet.conf to {KUBERNETES_FOLDER:?}, and start the kubelet"),
        "control-plane-join" => println!("[control-plane-join] Would mark node {name} as a control-plane"),
        _ => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_phase_does_something_or_says_why_not() {
        for (phase, worker, other) in [("preflight", true, true), ("control-plane-prepare", false, true), ("check-etcd", false, true), ("kubelet-start", true, true), ("control-plane-join", false, true), ("wait-control-plane", false, false), ("etcd-join", false, false)] {
            assert_eq!((nothing(phase, false).is_none(), nothing(phase, true).is_none()), (worker, other), "{phase}");
        }
    }
}
