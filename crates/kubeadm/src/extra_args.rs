//! `extraArgs` of a configuration file: flags of upstream's programs.
//!
//! Those that this program has are passed on. Those that can mean nothing in one process are told and left out. Any other one is an error before anything is changed: a cluster that
//! silently is not what was asked for would be worse than none. Who knows better ignores the check.

use crate::host::{Args, Component, ControlPlaneArgs, Host, Meaning};
use crate::preflight::Check;

/// Where in a file each list is, and whose flags it holds.
pub fn of_control_plane<'a>(args: &'a ControlPlaneArgs, kubelet: &'a Args) -> [(&'static str, Component, &'a Args); 4] {
    [
        ("apiServer.extraArgs", Component::ApiServer, &args.api_server),
        ("controllerManager.extraArgs", Component::ControllerManager, &args.controller_manager),
        ("scheduler.extraArgs", Component::Scheduler, &args.scheduler),
        ("nodeRegistration.kubeletExtraArgs", Component::OwnKubelet, kubelet),
    ]
}

pub fn of_agent(kubelet: &Args) -> [(&'static str, Component, &Args); 1] {
    [("nodeRegistration.kubeletExtraArgs", Component::Kubelet, kubelet)]
}

/// Tells what is left out; what cannot be had is wrong.
pub fn check(host: &dyn Host, lists: &[(&'static str, Component, &Args)]) -> Check {
    let mut missing = Vec::new();
    for (path, component, args) in lists {
        for (name, value) in *args {
            match host.meaning(*component, name, value) {
                Meaning::Honoured => {}
                Meaning::Nothing => eprintln!("hint: --{name} of {path} has no meaning here and is left out: the control plane is one process."),
                Meaning::Missing => missing.push(format!("{path}: --{name}={value} cannot be had here")),
            }
        }
    }
    let wrong = (!missing.is_empty()).then(|| format!("{}\n\thint: without it this would not be the cluster that was asked for; leave it out, or go on without with --ignore-preflight-errors=ExtraArgs", missing.join("; ")));
    Check::Found { name: "ExtraArgs", wrong }
}
