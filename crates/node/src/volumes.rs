//! The volumes of the pods on this node: set up before the sandbox, kept up to date while the pod lives, taken down when it ended.
//!
//! Paths are upstream's: `<root>/pods/<uid>/volumes/kubernetes.io~<kind>/<name>`. Errors are upstream's (`MountVolume.SetUp failed for volume …`).

mod atomic;
mod host_path;
mod mount;
mod payload;
mod shown;
mod sub_path;
mod token;

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use api::k8s::api::core::v1::{Container, ImageVolumeSource, PersistentVolume, PersistentVolumeClaim, Volume};
use parking_lot::Mutex;
use sandbox::cri::{Mount, MountPropagation};
use tokio::task::AbortHandle;

use crate::cx::Cx;
use crate::{pod, pull, quantity};

struct Task(AbortHandle);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[derive(Default)]
struct OfPod {
    /// Host paths by volume name.
    paths: HashMap<String, PathBuf>,
    /// Keep shown objects up to date.
    tasks: Vec<Task>,
    complete: bool,
}

#[derive(Default)]
pub struct Volumes {
    pods: Mutex<HashMap<String, Arc<tokio::sync::Mutex<OfPod>>>>,
    /// Of the images that are mounted, by pod.
    layers: Mutex<HashMap<String, Vec<PathBuf>>>,
}

/// The root of a volume of a kind, as upstream names it.
fn folder_of(cx: &Cx, kind: &str, name: &str) -> PathBuf {
    cx.node.config.pod_dir(pod::uid(&cx.pod)).join("volumes").join(format!("kubernetes.io~{kind}")).join(name)
}

fn fs_group(cx: &Cx) -> Option<u32> {
    pod::spec(&cx.pod).security_context.as_ref()?.fs_group.and_then(|g| u32::try_from(g).ok())
}

/// Whether containers may only read it, whatever their mounts say: as upstream, since who could change the links in it led the agent's updates to any file of the
/// machine (CVE-2017-1002102).
fn only_read(volume: &Volume) -> bool {
    let shown = volume.config_map.is_some() || volume.secret.is_some() || volume.downward_api.is_some() || volume.projected.is_some();
    shown || volume.image.is_some() || volume.persistent_volume_claim.as_ref().is_some_and(|claim| claim.read_only == Some(true))
}

impl Volumes {
    pub fn new() -> Self {
        Self::default()
    }

    fn of(&self, uid: &str) -> Arc<tokio::sync::Mutex<OfPod>> {
        self.pods.lock().entry(uid.to_owned()).or_default().clone()
    }

    /// What image volumes stand on.
    pub fn used_layers(&self) -> Vec<PathBuf> {
        self.layers.lock().values().flatten().cloned().collect()
    }

    /// Sets up what is not yet. One message per volume that cannot be.
    pub async fn ensure(&self, cx: &Cx) -> Result<(), Vec<String>> {
        let own = self.of(pod::uid(&cx.pod));
        let mut own = own.lock().await;
        if own.complete {
            return Ok(());
        }
        let mut failures = Vec::new();
        for volume in pod::spec(&cx.pod).volumes.iter().flatten() {
            if own.paths.contains_key(&volume.name) {
                continue;
            }
            match set_up(cx, volume).await {
                Ok((path, task)) => {
                    own.paths.insert(volume.name.clone(), path);
                    own.tasks.extend(task.map(Task));
                }
                Err(why) => failures.push(format!("MountVolume.SetUp failed for volume {:?} : {why}", volume.name)),
            }
        }
        own.complete = failures.is_empty();
        if failures.is_empty() { Ok(()) } else { Err(failures) }
    }

    /// A container's mounts. `env` is for `subPathExpr`.
    pub async fn mounts(&self, cx: &Cx, container: &Container, env: &[(String, String)]) -> Result<Vec<Mount>, String> {
        let own = self.of(pod::uid(&cx.pod));
        let own = own.lock().await;
        let mut out = Vec::new();
        for wanted in container.volume_mounts.iter().flatten() {
            let Some(root) = own.paths.get(&wanted.name) else {
                return Err(format!("cannot find volume {:?} to mount into container {:?}", wanted.name, container.name));
            };
            let sub = sub_path::wanted(wanted, env)?;
            let (host_path, sub_path) = if sub.is_empty() {
                (root.clone(), PathBuf::new())
            } else {
                sub_path::resolve(root, &sub).map_err(|why| format!("failed to prepare subPath for volumeMount {:?} of container {:?}: {why}", wanted.name, container.name))?
            };
            let container_path = if wanted.mount_path.starts_with('/') { wanted.mount_path.clone() } else { format!("/{}", wanted.mount_path) };
            out.push(Mount {
                container_path,
                host_path,
                sub_path,
                readonly: wanted.read_only == Some(true) || pod::spec(&cx.pod).volumes.iter().flatten().any(|volume| volume.name == wanted.name && only_read(volume)),
                propagation: match wanted.mount_propagation.as_deref() {
                    Some("HostToContainer") => MountPropagation::HostToContainer,
                    Some("Bidirectional") => MountPropagation::Bidirectional,
                    _ => MountPropagation::Private,
                },
            });
        }
        Ok(out)
    }

    /// Ends the updates, unmounts, and removes what the volumes held.
    pub async fn tear_down(&self, uid: &str, pod_dir: PathBuf) {
        self.layers.lock().remove(uid);
        let own = self.pods.lock().remove(uid);
        if let Some(own) = own {
            own.lock().await.tasks.clear();
        }
        let removed = tokio::task::spawn_blocking(move || remove(&pod_dir.join("volumes"))).await;
        match removed {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(uid, %error, "cannot take down the pod's volumes"),
            Err(error) => tracing::warn!(uid, %error, "taking down the pod's volumes failed"),
        }
    }
}

fn remove(folder: &Path) -> std::io::Result<()> {
    for kind in fs::read_dir(folder).into_iter().flatten().flatten() {
        for volume in fs::read_dir(kind.path()).into_iter().flatten().flatten() {
            mount::unmount(&volume.path())?;
        }
    }
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The volume's host path, and the task that keeps it up to date, if it shows objects.
async fn set_up(cx: &Cx, volume: &Volume) -> Result<(PathBuf, Option<AbortHandle>), String> {
    let name = &volume.name;
    if let Some(source) = &volume.empty_dir {
        let path = folder_of(cx, "empty-dir", name);
        let in_memory = source.medium.as_deref() == Some("Memory");
        // One that this agent's forerunner made is its containers' by now.
        let is_new = if in_memory { !mount::is_mount_point(&path) } else { !path.exists() };
        if in_memory {
            mount::tmpfs(&path, 0o1777, source.size_limit.as_ref().and_then(quantity::value))?;
        }
        if is_new {
            mount::folder(&path, 0o777)?;
        }
        if let Some(group) = fs_group(cx) {
            mount::give_once_to_group(&path, group)?;
        }
        return Ok((path, None));
    }
    if let Some(source) = &volume.image {
        return image(cx, name, source).await.map(|path| (path, None));
    }
    if let Some(source) = &volume.host_path {
        host_path::check(source)?;
        return Ok((PathBuf::from(&source.path), None));
    }
    if let Some(source) = &volume.persistent_volume_claim {
        return claim(cx, &source.claim_name).await.map(|path| (path, None));
    }
    if volume.ephemeral.is_some() {
        return claim(cx, &format!("{}-{name}", pod::name(&cx.pod))).await.map(|path| (path, None));
    }
    if let Some(shown) = shown::Shown::of(volume) {
        return shown.set_up(cx).await.map(|(path, task)| (path, Some(task)));
    }
    Err("this kind of volume is not supported by this node".to_owned())
}

/// An image's files, read-only (KEP-4639). Pulled by the rules and in the words of a container's image.
async fn image(cx: &Cx, name: &str, source: &ImageVolumeSource) -> Result<PathBuf, String> {
    let as_container = Container { name: name.to_owned(), image: source.reference.clone(), image_pull_policy: source.pull_policy.clone(), ..Container::default() };
    let found = pull::ensure(cx, &as_container).await.map_err(|failure| format!("{}: {}", failure.reason.reason, failure.reason.message))?;
    let path = folder_of(cx, "image", name);
    // Before they are mounted: nobody is to take them away in between.
    cx.node.volumes.layers.lock().entry(pod::uid(&cx.pod).to_owned()).or_default().extend(found.layers.iter().cloned());
    mount::layers(&path, &found.layers)?;
    Ok(path)
}

/// A claim bound to a volume that is a folder of this machine.
async fn claim(cx: &Cx, name: &str) -> Result<PathBuf, String> {
    let namespace = pod::namespace(&cx.pod);
    let objects = &cx.node.objects;
    let found = objects.get::<PersistentVolumeClaim>(Some(namespace), name).await?;
    let claim = found.ok_or_else(|| format!("persistentvolumeclaim {name:?} not found"))?;
    let bound = claim.status.as_ref().is_some_and(|s| s.phase.as_deref() == Some("Bound"));
    let volume_name = claim.spec.as_ref().and_then(|s| s.volume_name.clone()).filter(|v| bound && !v.is_empty());
    let volume_name = volume_name.ok_or_else(|| format!("PVC {namespace}/{name} is not bound"))?;
    let volume = objects.get::<PersistentVolume>(None, &volume_name).await?.ok_or_else(|| format!("persistentvolume {volume_name:?} not found"))?;
    let spec = volume.spec.as_ref().ok_or("the persistent volume has no spec")?;
    let path = if let Some(source) = &spec.host_path {
        host_path::check(source)?;
        PathBuf::from(&source.path)
    } else if let Some(local) = &spec.local {
        let path = PathBuf::from(&local.path);
        if !path.exists() {
            return Err(format!("path {:?} does not exist", local.path));
        }
        path
    } else {
        return Err("this kind of persistent volume is not supported by this node".to_owned());
    };
    if let Some(group) = fs_group(cx)
        && spec.local.is_some()
    {
        mount::give_to_group(&path, group)?;
    }
    cx.shared.lock().claims.insert(name.to_owned(), path.clone());
    Ok(path)
}
