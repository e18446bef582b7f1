//! The cases, one after the other in one cluster. Their order counts: some look at what those before them left.

mod lives;
mod own;
mod streams;
mod survival;
mod volumes;

use std::time::{Duration, Instant};

use api::k8s::api::core::v1::Pod;
use serde_json::json;

use crate::{logind, shortage};
use crate::world::{PATIENCE, World};

macro_rules! cases {
    ($($file:ident::$name:ident),* $(,)?) => {
        pub async fn run(filters: &[String]) -> bool {
            let mut world = World::new().await;
            $(
                if filters.is_empty() || filters.iter().any(|f| stringify!($name).contains(f.as_str())) {
                    let begun = Instant::now();
                    // A panic fails the whole run; which case it was is said before.
                    eprint!("case {} ... ", stringify!($name));
                    $file::$name(&mut world).await;
                    eprintln!("ok ({:?})", begun.elapsed());
                }
            )*
            world.end();
            false
        }
    };
}

cases!(
    own::registers, own::speaks_up, own::moves, own::mirrors, own::static_pods, lives::exact_grace, lives::refused,
    volumes::image_volume, lives::resized, lives::runs_and_ends, lives::env_and_restart, lives::succeeds,
    volumes::init_and_volumes, lives::probes, lives::images, lives::config_errors, streams::logs, streams::exec,
    streams::forwards, streams::over_spdy, lives::hooks_and_grace, lives::sidecars, lives::deadline, lives::limits,
    volumes::secrets, lives::many, survival::adopted, survival::sandbox_dies, survival::deleted_too_early, survival::cannot_be_stopped, survival::panic_at_start, shortage::over_limits,
    shortage::short_of_disk, logind::shuts_down, survival::leaves_nothing,
);

pub fn sh(script: &str) -> serde_json::Value {
    json!({"name": "c", "image": "busybox", "command": ["sh", "-c", script]})
}

/// Until the log of container `c` ends so. Files tell nobody when they grow.
async fn logged(world: &World, pod: &Pod, end: &str) {
    let begun = Instant::now();
    while !world.log(pod, "c", 0).ends_with(end) {
        assert!(begun.elapsed() < PATIENCE, "{}", world.log(pod, "c", 0));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
