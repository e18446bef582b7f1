//! Validation of what only Windows containers have. Mirrors `validateWindowsSecurityContextOptions` and `validateWindowsHostProcessPod` of
//! k8s.io/kubernetes/pkg/apis/core/validation.

use serde_json::Value;

use super::json::{child, flag, list, text};
use crate::names;
use crate::validation::{Errors, Path};

const CREDENTIAL_MAX_KIB: usize = 64;
const DOMAIN_MAX: usize = 256;
const USER_MAX: usize = 104;
const NETBIOS_MAX: usize = 15;

pub fn options(errors: &mut Errors, path: &Path, options: Option<&Value>) {
    let Some(options) = options else { return };
    let given = |name: &str| child(options, name).and_then(Value::as_str);
    if let Some(name) = given("gmsaCredentialSpecName") {
        errors.name(&path.child("gmsaCredentialSpecName"), name, names::dns_subdomain);
    }
    if let Some(spec) = given("gmsaCredentialSpec") {
        let path = path.child("gmsaCredentialSpec");
        if spec.is_empty() {
            errors.invalid(&path, spec, "gmsaCredentialSpec cannot be an empty string");
        } else if spec.len() > CREDENTIAL_MAX_KIB * 1024 {
            errors.invalid(&path, spec, &format!("gmsaCredentialSpec size must be under {CREDENTIAL_MAX_KIB} KiB"));
        }
    }
    if let Some(name) = given("runAsUserName") {
        for wrong in user_name(name) {
            errors.invalid(&path.child("runAsUserName"), name, &wrong);
        }
    }
}

/// `DOMAIN\user` or `user`.
fn user_name(name: &str) -> Vec<String> {
    let one = |text: &str| vec![text.to_owned()];
    if name.is_empty() {
        return one("runAsUserName cannot be an empty string");
    }
    if name.chars().any(|ch| ch.is_ascii_control()) {
        return one("runAsUserName cannot contain control characters");
    }
    let parts: Vec<&str> = name.split('\\').collect();
    let (domain, user) = match parts.as_slice() {
        [user] => (None, *user),
        [domain, user] => (Some(*domain), *user),
        _ => return one("runAsUserName cannot contain more than one backslash"),
    };
    let mut wrong = Vec::new();
    if let Some(domain) = domain {
        if domain.len() >= DOMAIN_MAX {
            wrong.push(format!("runAsUserName's Domain length must be under {DOMAIN_MAX} characters"));
        }
        if !is_netbios(domain) && !is_domain(domain) {
            wrong.push("runAsUserName's Domain doesn't match the NetBios nor the DNS format".to_owned());
        }
    }
    if user.is_empty() {
        wrong.push("runAsUserName's User cannot be empty".to_owned());
    } else if user.len() > USER_MAX {
        wrong.push(format!("runAsUserName's User length must not be longer than {USER_MAX} characters"));
    }
    if !user.is_empty() && user.chars().all(|ch| matches!(ch, '.' | ' ')) {
        wrong.push("runAsUserName's User cannot contain only periods or spaces".to_owned());
    }
    if user.contains(['"', '/', '\\', ':', ';', '|', '=', ',', '+', '*', '?', '<', '>', '@', '[', ']']) {
        wrong.push("runAsUserName's User cannot contain the following characters: \"/\\:;|=,+*?<>@[]".to_owned());
    }
    wrong
}

fn is_netbios(domain: &str) -> bool {
    !domain.is_empty() && domain.chars().count() <= NETBIOS_MAX && !domain.starts_with('.') && !domain.contains(['\\', '/', ':', '*', '?', '"', '<', '>', '|'])
}

fn is_domain(domain: &str) -> bool {
    domain.split('.').all(|label| {
        !label.is_empty() && !label.starts_with('-') && !label.ends_with('-') && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    })
}

/// Processes of the host: all containers of a pod, or none, and in the host's network. `path` is the pod's spec.
pub fn host_processes(errors: &mut Errors, path: &Path, spec: &Value) {
    let asked = |context: &Value| child(context, "securityContext.windowsOptions.hostProcess").and_then(Value::as_bool);
    let of_pod = asked(spec);
    let (mut all, mut of_host) = (0, 0);
    for (name, containers) in [("initContainers", list(spec, "initContainers")), ("containers", list(spec, "containers")), ("ephemeralContainers", list(spec, "ephemeralContainers"))] {
        let list_path = path.child(name);
        for (index, container) in containers.iter().enumerate() {
            all += 1;
            let own = asked(container);
            if let (Some(pod), Some(own)) = (of_pod, own)
                && pod != own
            {
                let item = list_path.index(index);
                errors.invalid(&item.child("securityContext.windowsOptions.hostProcess"), &own, &format!("pod hostProcess value must be identical if both are specified, was {pod}"));
            }
            of_host += usize::from(own.or(of_pod).unwrap_or(false));
        }
    }
    if of_host == 0 {
        return;
    }
    if of_host != all {
        errors.invalid(path, "", "If pod contains any hostProcess containers then all containers must be HostProcess containers");
    }
    if !flag(spec, "hostNetwork") {
        errors.invalid(&path.child("hostNetwork"), &false, "hostNetwork must be true if pod contains any hostProcess containers");
    }
}

/// What a pod for Windows cannot have, and what its containers cannot.
const NOT_OF_WINDOWS: [&str; 15] = [
    "securityContext.appArmorProfile", "securityContext.seLinuxOptions", "hostUsers", "hostPID", "hostIPC", "securityContext.seccompProfile", "securityContext.fsGroup",
    "securityContext.fsGroupChangePolicy", "securityContext.sysctls", "shareProcessNamespace", "securityContext.runAsUser", "securityContext.runAsGroup", "securityContext.supplementalGroups",
    "securityContext.supplementalGroupsPolicy", "securityContext.seLinuxChangePolicy",
];
const NOT_OF_WINDOWS_CONTAINERS: [&str; 10] = [
    "securityContext.appArmorProfile", "securityContext.seLinuxOptions", "securityContext.seccompProfile", "securityContext.capabilities", "securityContext.readOnlyRootFilesystem",
    "securityContext.privileged", "securityContext.allowPrivilegeEscalation", "securityContext.procMount", "securityContext.runAsUser", "securityContext.runAsGroup",
];

/// `validateLinux` and `validateWindows`: nothing of the one in a pod that says it is for the other.
pub fn of_the_other_system(errors: &mut Errors, path: &Path, spec: &Value) {
    let (of_pod, of_containers, why): (&[&str], &[&str], _) = match text(spec, "os.name") {
        "linux" => (&["securityContext.windowsOptions"], &["securityContext.windowsOptions"], "windows options cannot be set for a linux pod"),
        "windows" => (&NOT_OF_WINDOWS, &NOT_OF_WINDOWS_CONTAINERS, "cannot be set for a windows pod"),
        _ => return,
    };
    // Flags of the pod that are no pointers upstream count only when they are true.
    let there = |value: &Value, name: &str| match child(value, name) {
        Some(Value::Bool(false)) if matches!(name, "hostPID" | "hostIPC") => false,
        Some(Value::Array(list)) if name.ends_with("sysctls") => !list.is_empty(),
        found => found.is_some(),
    };
    for name in of_pod.iter().filter(|name| there(spec, name)) {
        errors.forbidden(&path.child(name), why);
    }
    for (name, containers) in [("initContainers", list(spec, "initContainers")), ("containers", list(spec, "containers")), ("ephemeralContainers", list(spec, "ephemeralContainers"))] {
        let list_path = path.child(name);
        for (index, container) in containers.iter().enumerate() {
            for name in of_containers.iter().filter(|name| there(container, name)) {
                errors.forbidden(&list_path.index(index).child(name), why);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::tests::{create, lines};

    fn pod(options: Value, spec: Value) -> Vec<String> {
        let mut pod = json!({"metadata": {"name": "p", "namespace": "n"}, "spec": {"containers": [{"name": "c", "image": "i"}], "securityContext": {"windowsOptions": options}}});
        for (name, value) in spec.as_object().into_iter().flatten() {
            pod["spec"][name] = value.clone();
        }
        lines(&create("", "pods", pod).1)
    }

    #[test]
    fn users_of_windows() {
        for (name, wrong) in [
            ("", Some("runAsUserName cannot be an empty string")),
            ("ContainerUser", None),
            ("corp.example.com\\me", None),
            (". .", Some("runAsUserName's User cannot contain only periods or spaces")),
            ("a\\b\\c", Some("runAsUserName cannot contain more than one backslash")),
            ("a/b", Some("runAsUserName's User cannot contain the following characters: \"/\\:;|=,+*?<>@[]")),
            ("-bad*\\me", Some("runAsUserName's Domain doesn't match the NetBios nor the DNS format")),
        ] {
            assert_eq!(super::user_name(name).first().map(String::as_str), wrong, "{name}");
        }
    }

    #[test]
    fn what_is_for_windows_only() {
        assert_eq!(pod(json!({"gmsaCredentialSpec": ""}), json!({})), ["spec.securityContext.windowsOptions.gmsaCredentialSpec: Invalid value: \"\": gmsaCredentialSpec cannot be an empty string"]);
        assert_eq!(pod(json!({"hostProcess": true}), json!({})), ["spec.hostNetwork: Invalid value: false: hostNetwork must be true if pod contains any hostProcess containers"]);
        assert_eq!(pod(json!({}), json!({"os": {"name": "linux"}})), ["spec.securityContext.windowsOptions: Forbidden: windows options cannot be set for a linux pod"]);
    }
}
