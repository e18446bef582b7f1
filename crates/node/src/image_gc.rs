//! Unused images go: those that nobody used for too long, and the longest unused first when the disk fills up. Never one in use, never one that only this machine has.
//!
//! [`Records`] decides and is pure; [`keep`] looks every five minutes. Mirrors upstream's `images/image_gc_manager.go` with its words.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use sandbox::cri::ContainerState;

use crate::configuration::ImageGc;
use crate::images::ImageInfo;
use crate::node::Node;
use crate::{machine, pod};

/// Upstream's `ImageGCPeriod`.
const PERIOD: Duration = Duration::from_secs(300);

#[derive(Debug, Clone, Copy)]
struct Record {
    detected: Timestamp,
    used: Option<Timestamp>,
    size: i64,
    pinned: bool,
}

/// When images came and were last used, as far as this process saw it.
#[derive(Debug, Default)]
pub struct Records {
    images: HashMap<String, Record>,
    since: Option<Timestamp>,
    failed_before: bool,
}

/// An image that may go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unused {
    pub id: String,
    pub size: i64,
    detected: Timestamp,
    used: Option<Timestamp>,
}

impl Records {
    /// Notes what is there, and returns what nobody uses, longest unused first.
    pub fn look(&mut self, images: &[ImageInfo], in_use: &HashSet<String>, now: Timestamp) -> Vec<Unused> {
        self.since.get_or_insert(now);
        self.images.retain(|id, _| images.iter().any(|image| image.id == *id));
        for image in images {
            let record = self.images.entry(image.id.clone()).or_insert(Record { detected: now, used: None, size: 0, pinned: false });
            if in_use.contains(&image.id) {
                record.used = Some(now);
            }
            record.size = i64::try_from(image.size).unwrap_or(i64::MAX);
            // Built or loaded here: nobody could give it back.
            record.pinned = image.repo_digests.is_empty() && !image.repo_tags.is_empty();
        }
        let free = self.images.iter().filter(|(id, record)| !record.pinned && !in_use.contains(*id));
        let mut unused: Vec<Unused> = free.map(|(id, record)| Unused { id: id.clone(), size: record.size, detected: record.detected, used: record.used }).collect();
        unused.sort_by(|a, b| (a.used, a.detected, &a.id).cmp(&(b.used, b.detected, &b.id)));
        unused
    }

    /// Those that were not used for too long; who was away does not know for how long.
    fn too_old(&self, unused: &[Unused], policy: &ImageGc, now: Timestamp) -> Vec<Unused> {
        let watched = self.since.map_or(SignedDuration::ZERO, |since| now.duration_since(since));
        if policy.maximum_age.is_zero() || watched <= policy.maximum_age {
            return Vec::new();
        }
        // One that was never used is as old as upstream's zero time.
        unused.iter().filter(|image| image.used.is_none_or(|used| now.duration_since(used) > policy.maximum_age)).cloned().collect()
    }
}

/// As many as give that many bytes; none that has only just come.
pub fn enough(unused: &[Unused], bytes: i64, policy: &ImageGc, now: Timestamp) -> Vec<Unused> {
    let mut freed = 0i64;
    let old_enough = unused.iter().filter(|image| now.duration_since(image.detected) >= policy.minimum_age);
    let wanted = old_enough.take_while(|image| {
        let more = freed < bytes;
        freed = freed.saturating_add(image.size);
        more
    });
    wanted.cloned().collect()
}

/// How many bytes of images are to go, and how full the disk is in percent; `None` while it is not too full.
fn too_full(policy: &ImageGc, capacity: i64, available: i64) -> Option<(i64, i64)> {
    let available = available.min(capacity);
    let percent = 100 - available.saturating_mul(100) / capacity.max(1);
    let to_free = capacity / 100 * (100 - i64::try_from(policy.low_percent).unwrap_or(100)) - available;
    (percent >= i64::try_from(policy.high_percent).unwrap_or(100)).then_some((to_free, percent))
}

/// `1.5 GiB`.
fn shown(bytes: i64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    let mut size = bytes as f64;
    if size < 1024.0 {
        return format!("{bytes} B");
    }
    let mut unit = "B";
    for next in UNITS {
        if size < 1024.0 {
            break;
        }
        (size, unit) = (size / 1024.0, next);
    }
    format!("{size:.1} {unit}")
}

/// Images of containers, running or not, and of pods that are about to have some.
async fn in_use(node: &Arc<Node>) -> Result<HashSet<String>, String> {
    let containers = node.runtime.list_containers(None).await.map_err(|error| error.to_string())?;
    let mut used: HashSet<String> = containers.into_iter().map(|container| container.image_id).collect();
    for cx in node.all() {
        if cx.shared.lock().ended {
            continue;
        }
        let of_containers = pod::init_containers(&cx.pod).iter().chain(pod::containers(&cx.pod)).filter_map(|container| container.image.clone());
        let of_containers = of_containers.chain(pod::ephemeral_containers(&cx.pod).iter().filter_map(|container| container.image.clone()));
        let of_volumes = pod::spec(&cx.pod).volumes.iter().flatten().filter_map(|volume| volume.image.as_ref()?.reference.clone()).collect::<Vec<_>>();
        for reference in of_containers.chain(of_volumes) {
            if let Ok(Some(image)) = node.images.find(&reference).await {
                used.insert(image.id);
            }
        }
    }
    Ok(used)
}

/// Removes them; says how many bytes they had.
async fn remove(node: &Arc<Node>, unused: &[Unused]) -> Result<i64, String> {
    let (mut freed, mut errors) = (0i64, Vec::new());
    for image in unused {
        // Looked at once more, as a pod may have come since. One that comes from now on finds the image when it is gone, or asks for it again.
        let _turn = node.image_turn.lock().await;
        match in_use(node).await {
            Ok(used) if !used.contains(&image.id) => {}
            Ok(_) => continue,
            Err(error) => {
                errors.push(error);
                continue;
            }
        }
        tracing::info!(image = image.id, bytes = image.size, "removing an image that nobody uses");
        match node.images.remove(&image.id, node.runtime.used_layers().into_iter().chain(node.volumes.used_layers()).collect()).await {
            Ok(()) => freed = freed.saturating_add(image.size),
            Err(error) => errors.push(error.to_string()),
        }
    }
    if !unused.is_empty() {
        node.status_changed.notify_one();
    }
    if errors.is_empty() { Ok(freed) } else { Err(format!("wanted to free {} images, but freed {freed} bytes space with errors in image deletion: {}", unused.len(), errors.join(", "))) }
}

async fn unused(node: &Arc<Node>) -> Result<Vec<Unused>, String> {
    let used = in_use(node).await?;
    let images = node.images.list().await;
    Ok(node.image_records.lock().look(&images, &used, node.now()))
}

/// All that nobody uses: the disk is short.
pub async fn remove_unused(node: &Arc<Node>) -> Result<(), String> {
    let unused = unused(node).await?;
    remove(node, &enough(&unused, i64::MAX, &node.config.settings.image_gc, node.now())).await.map(drop)
}

pub async fn collect(node: &Arc<Node>) -> Result<(), String> {
    let (policy, now) = (node.config.settings.image_gc, node.now());
    let mut unused = unused(node).await?;
    let old = node.image_records.lock().too_old(&unused, &policy, now);
    unused.retain(|image| !old.contains(image));
    remove(node, &old).await?;
    let (capacity, available) = machine::disk(&node.config.images_dir());
    let (capacity, available) = (i64::try_from(capacity).unwrap_or(i64::MAX), i64::try_from(available).unwrap_or(i64::MAX));
    if capacity == 0 {
        let why = "invalid capacity 0 on image filesystem";
        node.events.warning(&node.reference(), "InvalidDiskCapacity", why);
        return Err(why.to_owned());
    }
    let Some((wanted, percent)) = too_full(&policy, capacity, available) else { return Ok(()) };
    let freed = remove(node, &enough(&unused, wanted, &policy, now)).await?;
    if freed < wanted {
        let message = format!(
            "Insufficient free disk space on the node's image filesystem ({percent}% of {} used). Failed to free sufficient space by deleting unused images (freed {freed} bytes). Investigate disk usage, as it could be used by active images, logs, volumes, or other data.",
            shown(capacity)
        );
        node.events.warning(&node.reference(), "FreeDiskSpaceFailed", &message);
        return Err(message);
    }
    Ok(())
}

/// Never ends. As upstream, 100 percent switches the collection by disk off, with no oldest age the whole of it.
pub async fn keep(node: Arc<Node>) {
    let policy = node.config.settings.image_gc;
    if policy.high_percent == 100 && policy.maximum_age.is_zero() {
        return;
    }
    loop {
        let outcome = collect(&node).await;
        let failed_before = std::mem::replace(&mut node.image_records.lock().failed_before, outcome.is_err());
        if let Err(error) = outcome {
            tracing::warn!(error, "images cannot be collected");
            // The first time may only be too early.
            if failed_before {
                node.events.warning(&node.reference(), "ImageGCFailed", error);
            }
        }
        tokio::time::sleep(PERIOD).await;
    }
}

/// Of pods that are over and known to be: what their containers wrote and logged. Of others, what was before what was before.
pub async fn remove_dead_containers(node: &Arc<Node>) {
    for cx in node.all() {
        let dead: Vec<(String, std::path::PathBuf)> = {
            let memory = cx.shared.lock();
            let goes = |c: &&sandbox::cri::ContainerStatus| {
                let newest = memory.runtime.latest(&c.metadata.name).is_some_and(|newest| newest.id == c.id);
                c.state == ContainerState::Exited && ((memory.ended && memory.told) || !newest)
            };
            memory.runtime.containers.iter().filter(goes).map(|c| (c.id.clone(), c.log_path.clone())).collect()
        };
        for (id, log) in dead {
            match node.runtime.remove_container(&id).await {
                Ok(()) => {
                    cx.shared.lock().runtime.containers.retain(|c| c.id != id);
                    let _ = std::fs::remove_file(log);
                }
                Err(error) => tracing::warn!(container = id, %error, "cannot remove a dead container"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).unwrap()
    }

    fn image(id: &str, size: u64, pulled: bool) -> ImageInfo {
        ImageInfo { id: id.into(), size, repo_tags: vec![format!("{id}:latest")], repo_digests: if pulled { vec![format!("{id}@sha256:0")] } else { vec![] }, ..ImageInfo::default() }
    }

    const POLICY: ImageGc = ImageGc { high_percent: 85, low_percent: 80, minimum_age: SignedDuration::from_secs(120), maximum_age: SignedDuration::ZERO };

    #[test]
    fn longest_unused_first_and_never_what_is_used_young_or_only_here() {
        let mut records = Records::default();
        let images = [image("a", 10, true), image("b", 20, true), image("c", 30, true), image("own", 40, false)];
        let used = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<HashSet<_>>();
        records.look(&images, &used(&["a", "b"]), at(0));
        records.look(&images, &used(&["a"]), at(100));
        let unused = records.look(&images, &used(&["c"]), at(200));
        let ids = |list: &[Unused]| list.iter().map(|image| image.id.clone()).collect::<Vec<_>>();
        assert_eq!(ids(&unused), ["b", "a"]);
        assert_eq!(ids(&enough(&unused, 1, &POLICY, at(200))), ["b"]);
        assert_eq!(ids(&enough(&unused, 21, &POLICY, at(200))), ["b", "a"]);
        assert_eq!(ids(&enough(&unused, 21, &POLICY, at(119))), Vec::<String>::new());
        let week = ImageGc { maximum_age: SignedDuration::from_secs(150), ..POLICY };
        assert_eq!(ids(&records.too_old(&unused, &week, at(200))), ["b"]);
        assert_eq!(ids(&records.too_old(&unused, &week, at(150))), Vec::<String>::new(), "not watched for long enough");
        assert_eq!(records.look(&[], &used(&[]), at(300)), []);
    }

    #[test]
    fn how_much() {
        assert_eq!(too_full(&POLICY, 1000, 160), None);
        assert_eq!(too_full(&POLICY, 1000, 150), Some((50, 85)));
        assert_eq!([shown(5), shown(1536), shown(3 << 30)], ["5 B", "1.5 KiB", "3.0 GiB"]);
    }
}
