//! A container's security context as the runtime wants it: the container's own settings over the pod's over the image's.
//!
//! Mirrors upstream's securitycontext helpers and `verifyRunAsNonRoot`.

use std::path::{Path, PathBuf};

use api::k8s::api::core::v1::{Container, Pod, SeccompProfile as ApiProfile};
use sandbox::cri::{Capabilities, SeccompProfile, SecurityContext, User};

use crate::pod;

pub fn of_container(pod: &Pod, container: &Container, image_user: &str, root_dir: &Path, seccomp_default: bool) -> Result<SecurityContext, String> {
    let spec = pod::spec(pod);
    let of_pod = spec.security_context.clone().unwrap_or_default();
    let own = container.security_context.clone().unwrap_or_default();
    let run_as_user = own.run_as_user.or(of_pod.run_as_user);
    let run_as_group = own.run_as_group.or(of_pod.run_as_group);
    if own.run_as_non_root.or(of_pod.run_as_non_root) == Some(true) {
        not_root(pod, container, run_as_user, image_user)?;
    }
    let mut groups: Vec<i64> = of_pod.fs_group.into_iter().collect();
    for group in of_pod.supplemental_groups.iter().flatten() {
        if !groups.contains(group) {
            groups.push(*group);
        }
    }
    let privileged = own.privileged == Some(true);
    let user = match run_as_user {
        Some(uid) => User { uid: Some(uid), gid: run_as_group, username: None, supplemental_groups: groups },
        None => {
            let username = (!image_user.is_empty()).then(|| image_user.to_owned());
            User { uid: None, gid: run_as_group, username, supplemental_groups: groups }
        }
    };
    let capabilities = own.capabilities.map(|c| Capabilities { add: c.add.unwrap_or_default(), drop: c.drop.unwrap_or_default() }).unwrap_or_default();
    let profile = own.seccomp_profile.as_ref().or(of_pod.seccomp_profile.as_ref());
    Ok(SecurityContext {
        privileged,
        user,
        readonly_rootfs: own.read_only_root_filesystem == Some(true),
        no_new_privs: own.allow_privilege_escalation == Some(false),
        capabilities,
        seccomp: match profile {
            None if seccomp_default && !privileged => SeccompProfile::RuntimeDefault,
            profile => seccomp(profile, root_dir)?,
        },
        unmasked_proc: privileged || own.proc_mount.as_deref() == Some("Unmasked"),
    })
}

fn seccomp(profile: Option<&ApiProfile>, root_dir: &Path) -> Result<SeccompProfile, String> {
    let Some(profile) = profile else { return Ok(SeccompProfile::Unconfined) };
    Ok(match profile.type_.as_str() {
        "RuntimeDefault" => SeccompProfile::RuntimeDefault,
        "Localhost" => {
            let name = profile.localhost_profile.as_deref().filter(|p| !p.is_empty()).ok_or("localhostProfile must be set if seccompProfile type is Localhost.")?;
            SeccompProfile::Localhost(root_dir.join("seccomp").join(PathBuf::from(name)))
        }
        _ => SeccompProfile::Unconfined,
    })
}

fn not_root(pod: &Pod, container: &Container, run_as_user: Option<i64>, image_user: &str) -> Result<(), String> {
    let whose = format!("(pod: {:?}, container: {})", pod::full(pod), container.name);
    if let Some(uid) = run_as_user {
        return if uid == 0 { Err(format!("container's runAsUser breaks non-root policy {whose}")) } else { Ok(()) };
    }
    let name = image_user.split(':').next().unwrap_or_default();
    if name.is_empty() {
        return Err(format!("container has runAsNonRoot and image will run as root {whose}"));
    }
    match name.parse::<i64>() {
        Ok(0) => Err(format!("container has runAsNonRoot and image will run as root {whose}")),
        Ok(_) => Ok(()),
        Err(_) => Err(format!("container has runAsNonRoot and image has non-numeric user ({name}), cannot verify user is non-root {whose}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(pod_context: serde_json::Value, own: serde_json::Value, image_user: &str) -> Result<SecurityContext, String> {
        let pod = pod::from_json(json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"},
            "spec": {"securityContext": pod_context, "containers": [{"name": "c", "securityContext": own}]}}));
        of_container(&pod, &pod::containers(&pod)[0], image_user, Path::new("/r"), false)
    }

    #[test]
    fn the_containers_own_wins() {
        let made = of(json!({"runAsUser": 1, "fsGroup": 5, "supplementalGroups": [5, 6], "seccompProfile": {"type": "RuntimeDefault"}}),
            json!({"runAsUser": 2, "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}), "app").unwrap();
        assert_eq!((made.user.uid, made.user.username, made.no_new_privs), (Some(2), None, true));
        assert_eq!(made.user.supplemental_groups, [5, 6]);
        assert_eq!(made.seccomp, SeccompProfile::RuntimeDefault);
        assert_eq!(of(json!({}), json!({}), "app:grp").unwrap().user.username.as_deref(), Some("app:grp"));
    }

    #[test]
    fn non_root_in_upstreams_words() {
        let refuse = |own: serde_json::Value, user: &str| of(json!({"runAsNonRoot": true}), own, user).unwrap_err();
        assert_eq!(refuse(json!({}), ""), "container has runAsNonRoot and image will run as root (pod: \"p_n(u)\", container: c)");
        assert_eq!(refuse(json!({"runAsUser": 0}), "1"), "container's runAsUser breaks non-root policy (pod: \"p_n(u)\", container: c)");
        assert!(refuse(json!({}), "www").contains("non-numeric user (www)"));
        assert!(of(json!({"runAsNonRoot": true}), json!({}), "1000:1000").is_ok());
    }
}
