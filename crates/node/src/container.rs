//! A container as the runtime is asked for it: image and pod merged. Mirrors kuberuntime's `generateContainerConfig`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use api::k8s::api::core::v1::{Container, Pod};
use sandbox::cri::{ContainerConfig, ContainerMetadata, Mount, RootFs};

use crate::cx::Cx;
use crate::expand::expand;
use crate::images::ImageInfo;
use crate::pod::{self, Sort};
use crate::sandbox_config::labels;
use crate::{dns, resources, security};

pub const LABEL_CONTAINER_NAME: &str = "io.kubernetes.container.name";
pub const ANNOTATION_RESTART_COUNT: &str = "io.kubernetes.container.restartCount";
pub const ANNOTATION_MESSAGE_PATH: &str = "io.kubernetes.container.terminationMessagePath";
pub const ANNOTATION_MESSAGE_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";
pub const ANNOTATION_POD_GRACE: &str = "io.kubernetes.pod.terminationGracePeriod";
/// Where the termination message lies on the host.
pub const ANNOTATION_MESSAGE_FILE: &str = "io.coracle.container.terminationMessageFile";

const DEFAULT_MESSAGE_PATH: &str = "/dev/termination-log";
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const HOSTS: &str = "/etc/hosts";

/// `<container>/<restart>.log`, below the pod's log folder.
pub fn log_path(container: &str, attempt: u32) -> PathBuf {
    Path::new(container).join(format!("{attempt}.log"))
}

/// Entrypoint and arguments of image and pod together: the pod's command replaces both of the image's, its args only the image's args.
pub fn arguments(container: &Container, image: &ImageInfo, env: &[(String, String)]) -> Vec<String> {
    let lookup = |name: &str| env.iter().find(|(k, _)| k == name).map(|(_, v)| v.clone());
    let expanded = |list: &Option<Vec<String>>| -> Vec<String> { list.iter().flatten().map(|text| expand(text, &lookup)).collect() };
    let (command, args) = (expanded(&container.command), expanded(&container.args));
    let mut out = match (command.is_empty(), args.is_empty()) {
        (false, _) => command,
        (true, false) => image.config.entrypoint.clone(),
        (true, true) => image.config.entrypoint.iter().chain(&image.config.cmd).cloned().collect(),
    };
    out.extend(args);
    out
}

/// The image's variables first; the pod's replace them.
fn environment(image: &ImageInfo, env: Vec<(String, String)>, hostname: &str, tty: bool) -> Vec<(String, String)> {
    let mut out: Vec<(String, String)> = vec![("PATH".into(), DEFAULT_PATH.into()), ("HOSTNAME".into(), hostname.to_owned())];
    if tty {
        out.push(("TERM".into(), "xterm".into()));
    }
    let of_image = image.config.env.iter().filter_map(|entry| entry.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned()));
    for (name, value) in of_image.chain(env) {
        match out.iter_mut().find(|(known, _)| *known == name) {
            Some(entry) => entry.1 = value,
            None => out.push((name, value)),
        }
    }
    out
}

fn hosts_mount(cx: &Cx, mounts: &mut Vec<Mount>) -> Result<(), String> {
    if mounts.iter().any(|m| m.container_path == HOSTS) {
        return Ok(());
    }
    let path = cx.node.config.pod_dir(pod::uid(&cx.pod)).join("etc-hosts");
    let host = if pod::host_network(&cx.pod) { fs::read_to_string(HOSTS).unwrap_or_default() } else { String::new() };
    let text = dns::hosts_file(&cx.pod, &cx.pod_ips(), &cx.node.config.cluster_domain, &host);
    // Written in place: it may be mounted already.
    let write = || {
        fs::create_dir_all(path.parent().unwrap_or(Path::new("/")))?;
        if fs::read_to_string(&path).ok().as_deref() == Some(&text) { Ok(()) } else { fs::write(&path, &text) }
    };
    write().map_err(|error: std::io::Error| format!("cannot write {}: {error}", path.display()))?;
    mounts.push(Mount { container_path: HOSTS.to_owned(), host_path: path, readonly: false, ..Mount::default() });
    Ok(())
}

fn message_mount(cx: &Cx, container: &Container, attempt: u32, mounts: &mut Vec<Mount>) -> Result<PathBuf, String> {
    let inside = container.termination_message_path.clone().filter(|p| !p.is_empty()).unwrap_or_else(|| DEFAULT_MESSAGE_PATH.to_owned());
    let folder = cx.node.config.pod_dir(pod::uid(&cx.pod)).join("containers").join(&container.name);
    let path = folder.join(format!("termination-{attempt}"));
    let write = || {
        use std::os::unix::fs::PermissionsExt;
        fs::create_dir_all(&folder)?;
        fs::write(&path, "")?;
        // Whoever the container runs as may write here.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666))
    };
    write().map_err(|error: std::io::Error| format!("cannot write {}: {error}", path.display()))?;
    mounts.push(Mount { container_path: inside, host_path: path.clone(), ..Mount::default() });
    Ok(path)
}

fn annotations(pod: &Pod, container: &Container, attempt: u32, message_file: &Path) -> BTreeMap<String, String> {
    let mut out = BTreeMap::from([
        (ANNOTATION_RESTART_COUNT.to_owned(), attempt.to_string()),
        (ANNOTATION_MESSAGE_PATH.to_owned(), container.termination_message_path.clone().unwrap_or_else(|| DEFAULT_MESSAGE_PATH.to_owned())),
        (ANNOTATION_MESSAGE_POLICY.to_owned(), container.termination_message_policy.clone().unwrap_or_else(|| "File".to_owned())),
        (ANNOTATION_MESSAGE_FILE.to_owned(), message_file.to_string_lossy().into_owned()),
    ]);
    if let Some(grace) = pod.spec.as_ref().and_then(|s| s.termination_grace_period_seconds) {
        out.insert(ANNOTATION_POD_GRACE.to_owned(), grace.to_string());
    }
    out
}

pub fn configure(
    cx: &Cx,
    container: &Container,
    sort: Sort,
    attempt: u32,
    image: &ImageInfo,
    env: Vec<(String, String)>,
    mut mounts: Vec<Mount>,
) -> Result<ContainerConfig, String> {
    let pod = &*cx.pod;
    let node = &cx.node;
    let security = security::of_container(pod, container, &image.config.user, &node.config.root_dir, node.config.settings.seccomp_default)?;
    let args = arguments(container, image, &env);
    if args.is_empty() {
        return Err("no command specified".to_owned());
    }
    hosts_mount(cx, &mut mounts)?;
    let message_file = message_mount(cx, container, attempt, &mut mounts)?;
    let tty = container.tty == Some(true);
    let hostname = dns::uts_hostname(pod, &node.config.cluster_domain, node.config.hostname());
    let mut labels = labels(pod);
    labels.insert(LABEL_CONTAINER_NAME.to_owned(), container.name.clone());
    let log_path = log_path(&container.name, attempt);
    let log_folder = node.config.log_dir.join(pod::log_folder(pod::namespace(pod), pod::name(pod), pod::uid(pod))).join(&container.name);
    fs::create_dir_all(&log_folder).map_err(|error| format!("create container log directory for container {} failed: {error}", container.name))?;
    let stop_signal = container.lifecycle.as_ref().and_then(|l| l.stop_signal.clone()).unwrap_or_else(|| image.config.stop_signal.clone());
    Ok(ContainerConfig {
        metadata: ContainerMetadata { name: container.name.clone(), attempt },
        image: container.image.clone().unwrap_or_default(),
        image_id: image.id.clone(),
        rootfs: RootFs { layers: image.layers.clone() },
        args,
        working_dir: container.working_dir.clone().filter(|d| !d.is_empty()).unwrap_or_else(|| image.config.working_dir.clone()),
        env: environment(image, env, &hostname, tty),
        mounts,
        devices: Vec::new(),
        labels,
        annotations: annotations(pod, container, attempt, &message_file),
        log_path,
        stdin: container.stdin == Some(true),
        stdin_once: container.stdin_once == Some(true),
        tty,
        resources: resources::of_container(pod, container, sort, i64::try_from(node.machine.memory_bytes).unwrap_or(i64::MAX)),
        security,
        stop_signal,
        pid_of: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::RunConfig;
    use serde_json::json;

    #[test]
    fn commands_as_documented() {
        let image = ImageInfo { config: RunConfig { entrypoint: vec!["/ep".into()], cmd: vec!["cmd".into()], ..RunConfig::default() }, ..ImageInfo::default() };
        let env = [("A".to_owned(), "1".to_owned())];
        let of = |value: serde_json::Value| arguments(&serde_json::from_value(value).unwrap(), &image, &env).join(" ");
        assert_eq!(of(json!({"name": "c"})), "/ep cmd");
        assert_eq!(of(json!({"name": "c", "command": ["x"]})), "x");
        assert_eq!(of(json!({"name": "c", "args": ["y", "$(A)"]})), "/ep y 1");
        assert_eq!(of(json!({"name": "c", "command": ["x"], "args": ["$$(A)", "$(B)"]})), "x $(A) $(B)");
    }

    #[test]
    fn the_pods_variables_win() {
        let image = ImageInfo { config: RunConfig { env: vec!["PATH=/x".into(), "V=image".into()], ..RunConfig::default() }, ..ImageInfo::default() };
        let env = environment(&image, vec![("V".into(), "pod".into())], "h", false);
        assert_eq!(env, [("PATH".to_owned(), "/x".to_owned()), ("HOSTNAME".into(), "h".into()), ("V".into(), "pod".into())]);
    }
}
