//! Static pods: what lies in the folder of manifests runs here, whatever the API says. Mirrors upstream's `pkg/kubelet/config/file.go`, `file_linux.go` and `common.go`.
//!
//! A pod's UID is a hash of what its file says, so a changed file is another pod, and a restart finds what runs. A file that cannot be read as a pod changes nothing.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use api::Typed as _;
use api::k8s::api::core::v1::Pod;
use api::world::rfc3339_micro;
use jiff::Timestamp;
use rustix::fs::inotify;
use serde_json::{Value, json};

use crate::fd::Fd;

pub const SOURCE: &str = "kubernetes.io/config.source";
pub const HASH: &str = "kubernetes.io/config.hash";
const SEEN: &str = "kubernetes.io/config.seen";
const FROM_FILE: &str = "file";
/// Upstream's `maxConfigLength`.
const MAX_FILE_BYTES: u64 = 10 << 20;
/// Room for a good number of events at once.
const EVENTS_BYTES: usize = 4096;

/// Whether the pod, or the mirror of it, comes from a file.
pub fn is_of_file(pod: &Pod) -> bool {
    annotation(pod, SOURCE) == Some(FROM_FILE)
}

pub fn annotation<'a>(pod: &'a Pod, name: &str) -> Option<&'a str> {
    pod.metadata.annotations.as_ref()?.get(name).map(String::as_str)
}

/// FNV-1a of 128 bits, in hexadecimal: as upstream's, which no one is to be kept from guessing.
fn hash(parts: &[&str]) -> String {
    const OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    let bytes = parts.iter().flat_map(|part| part.bytes());
    format!("{:032x}", bytes.fold(OFFSET, |hash, byte| (hash ^ u128::from(byte)).wrapping_mul(PRIME)))
}

/// The pod that a file makes on this node.
pub fn parse(text: &str, path: &Path, node: &str, now: Timestamp) -> Result<Pod, String> {
    let mut value: Value = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
    if value["apiVersion"] != "v1" || value["kind"] != "Pod" {
        return Err(format!("it is no v1 Pod but {} {}", value["apiVersion"], value["kind"]));
    }
    let name = value.pointer("/metadata/name").and_then(Value::as_str).filter(|name| !name.is_empty()).ok_or("metadata.name: Required value: name or generateName is required")?.to_lowercase();
    if !value["spec"].is_object() {
        return Err("spec: Required value".into());
    }
    let uid = match value.pointer("/metadata/uid").and_then(Value::as_str) {
        Some(uid) if !uid.is_empty() => uid.to_owned(),
        _ => hash(&[&value.to_string(), "host:", node, "file:", &path.display().to_string()]),
    };
    value["metadata"]["uid"] = uid.as_str().into();
    value["metadata"]["name"] = format!("{name}-{}", node.to_lowercase()).into();
    if value.pointer("/metadata/namespace").and_then(Value::as_str).is_none_or(str::is_empty) {
        value["metadata"]["namespace"] = "default".into();
    }
    if !value["metadata"]["annotations"].is_object() {
        value["metadata"]["annotations"] = json!({});
    }
    for (key, text) in [(HASH, uid.as_str()), (SOURCE, FROM_FILE), (SEEN, &rfc3339_micro(now))] {
        value["metadata"]["annotations"][key] = text.into();
    }
    value["spec"]["nodeName"] = node.into();
    // It runs wherever its file lies.
    let toleration = json!({"operator": "Exists", "effect": "NoExecute"});
    match value["spec"]["tolerations"].as_array_mut() {
        Some(list) if list.contains(&toleration) => {}
        Some(list) => list.push(toleration),
        None => value["spec"]["tolerations"] = json!([toleration]),
    }
    let strategy = api::kinds::strategy("", "pods");
    strategy.default(&mut value);
    let causes: Vec<String> = strategy.validate(&value).into_iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect();
    if !causes.is_empty() {
        return Err(causes.join(", "));
    }
    value["status"] = json!({"phase": "Pending"});
    Pod::from_value(&value).map_err(|error| error.to_string())
}

/// What a file said when it was read last.
struct File {
    content: Vec<u8>,
    pod: Option<Arc<Pod>>,
}

/// The folder, followed.
pub struct StaticPods {
    folder: PathBuf,
    node: String,
    files: BTreeMap<PathBuf, File>,
    events: Fd,
}

impl StaticPods {
    /// The folder is made if it is not there.
    pub fn open(folder: &Path, node: &str) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let events: OwnedFd = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC)?;
        let flags = inotify::WatchFlags::CLOSE_WRITE | inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO | inotify::WatchFlags::MOVED_FROM | inotify::WatchFlags::DELETE;
        inotify::add_watch(&events, folder, flags)?;
        Ok(Self { folder: folder.to_owned(), node: node.to_owned(), files: BTreeMap::new(), events: Fd::new(events)? })
    }

    /// Waits until something in the folder changes. Cancel-safe: what is there is read, not what happened.
    pub async fn changed(&self) -> io::Result<()> {
        let mut buffer = [0; EVENTS_BYTES];
        self.events.read(&mut buffer).await.map(drop)
    }

    /// The pods of all files. Of two of one name the first file's counts.
    pub fn read(&mut self, now: Timestamp) -> Vec<Arc<Pod>> {
        let mut there = BTreeMap::new();
        for entry in std::fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let path = entry.path();
            // Editors leave such behind.
            let hidden = entry.file_name().to_string_lossy().starts_with('.');
            let Ok(facts) = std::fs::metadata(&path) else { continue };
            if hidden || !facts.is_file() || facts.len() > MAX_FILE_BYTES {
                continue;
            }
            let before = self.files.remove(&path);
            let Ok(content) = std::fs::read(&path) else {
                there.extend(before.map(|file| (path, file)));
                continue;
            };
            let file = match before {
                Some(file) if file.content == content => file,
                before => {
                    let pod = match parse(&String::from_utf8_lossy(&content), &path, &self.node, now) {
                        Ok(pod) => Some(Arc::new(pod)),
                        Err(error) => {
                            tracing::error!(file = %path.display(), error, "cannot be read as a static pod");
                            before.and_then(|file| file.pod)
                        }
                    };
                    File { content, pod }
                }
            };
            there.insert(path, file);
        }
        self.files = there;
        let mut pods: Vec<Arc<Pod>> = Vec::new();
        for pod in self.files.values().filter_map(|file| file.pod.clone()) {
            let same = |other: &Arc<Pod>| other.metadata.name == pod.metadata.name && other.metadata.namespace == pod.metadata.namespace;
            if pods.iter().any(same) {
                tracing::error!(pod = crate::pod::full(&pod), "two files make a static pod of one name");
            } else {
                pods.push(pod);
            }
        }
        pods
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POD: &str = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: Web\nspec:\n  containers:\n  - name: c\n    image: busybox\n";

    fn of(text: &str) -> Result<Pod, String> {
        parse(text, Path::new("/m/web.yaml"), "node1", "2026-01-01T00:00:00Z".parse().unwrap())
    }

    #[test]
    fn a_file_is_a_pod() {
        let pod = of(POD).unwrap();
        assert_eq!((crate::pod::name(&pod), crate::pod::namespace(&pod), pod.metadata.uid.as_ref().unwrap().len()), ("web-node1", "default", 32));
        assert!(is_of_file(&pod) && annotation(&pod, HASH) == pod.metadata.uid.as_deref() && annotation(&pod, SEEN).unwrap().starts_with("2026-01-01T00:00:00"));
        let spec = pod.spec.as_ref().unwrap();
        assert_eq!((spec.node_name.as_deref(), spec.restart_policy.as_deref(), spec.containers[0].image_pull_policy.as_deref()), (Some("node1"), Some("Always"), Some("Always")));
        assert_eq!(spec.tolerations.as_ref().unwrap()[0].effect.as_deref(), Some("NoExecute"));
        // The same file is the same pod, another one is another.
        assert_eq!(of(POD).unwrap().metadata.uid, pod.metadata.uid);
        assert_ne!(of(&POD.replace("busybox", "other")).unwrap().metadata.uid, pod.metadata.uid);
        for (text, part) in [("a: [", ""), ("kind: Pod", "no v1 Pod"), ("apiVersion: v1\nkind: Pod\nmetadata: {}", "metadata.name"), ("apiVersion: v1\nkind: Pod\nmetadata: {name: a}", "spec: Required"), (&POD.replace("    image: busybox\n", "    image: busybox\n    restartPolicy: Sometimes\n"), "restartPolicy"), (&POD.replace("- name: c", "- name: C!"), "spec.containers[0].name")] {
            assert!(of(text).unwrap_err().contains(part), "{text}: {:?}", of(text));
        }
    }

    #[tokio::test]
    async fn a_folder_is_followed() {
        let folder = tempfile::tempdir().unwrap();
        let mut pods = StaticPods::open(&folder.path().join("manifests"), "n").unwrap();
        let path = folder.path().join("manifests/a.yaml");
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        assert!(pods.read(now).is_empty());
        std::fs::write(&path, POD).unwrap();
        std::fs::write(path.with_file_name("b.yaml"), POD).unwrap();
        std::fs::write(path.with_file_name(".c.yaml"), POD.replace("Web", "c")).unwrap();
        pods.changed().await.unwrap();
        let first = pods.read(now);
        assert_eq!(first.len(), 1, "one of a name, none of a hidden file");
        // Half a file is no news.
        std::fs::write(&path, "apiVersion: v1\nkind: P").unwrap();
        pods.changed().await.unwrap();
        assert_eq!(pods.read(now), first);
        std::fs::remove_file(path.with_file_name("b.yaml")).unwrap();
        std::fs::remove_file(&path).unwrap();
        pods.changed().await.unwrap();
        assert!(pods.read(now).is_empty());
    }
}
