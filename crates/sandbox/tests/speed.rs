//! The promise on speed: a pod's sandbox and container are up well within the 100 ms the whole product has for them, and a shim stays small.

mod common;

use std::time::{Duration, Instant};

use common::{World, within};
use sandbox::cri::*;

const ROUNDS: usize = 30;
/// Ours of the product's 100 ms, with room for an unoptimised build on a busy machine; a release build takes a fraction.
const LIMIT_P50: Duration = Duration::from_millis(50);
/// What each shim has for itself; its text is that of the main binary, shared by all.
const LIMIT_PRIVATE_KIB: u64 = 512;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_is_up_in_no_time() {
    let world = World::new();
    let (mut up, mut sandboxes, mut starts, mut stopped, mut down) = (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut pss, mut private) = (0, 0);
    for round in 0..ROUNDS {
        let begun = Instant::now();
        let sandbox = world.sandbox(&format!("pod{round}")).await;
        sandboxes.push(begun.elapsed());
        let starting = Instant::now();
        let id = world.start(&sandbox, world.container(&["sleep", "1000"])).await;
        starts.push(starting.elapsed());
        up.push(begun.elapsed());
        let pid = world.runtime.container_status(&id).await.unwrap().pid;
        let parent: i32 = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap().rsplit(") ").next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let rollup = std::fs::read_to_string(format!("/proc/{parent}/smaps_rollup")).unwrap();
        let kib = |name: &str| rollup.lines().find_map(|line| line.strip_prefix(name)?.trim().strip_suffix(" kB")?.parse::<u64>().ok()).unwrap();
        (pss, private) = (kib("Pss:"), kib("Pss_Anon:"));
        let ending = Instant::now();
        within(world.runtime.stop_pod_sandbox(&sandbox)).await.expect("stop");
        stopped.push(ending.elapsed());
        let ending = Instant::now();
        within(world.runtime.remove_pod_sandbox(&sandbox)).await.expect("remove");
        down.push(ending.elapsed());
    }
    for (name, times) in [("sandbox", &mut sandboxes), ("container", &mut starts), ("up", &mut up), ("stopped", &mut stopped), ("removed", &mut down)] {
        times.sort();
        println!("{name}: p50 {:?} p90 {:?} max {:?}", times[ROUNDS / 2], times[ROUNDS * 9 / 10], times[ROUNDS - 1]);
    }
    println!("shim: PSS {pss} KiB, of its own {private} KiB");
    assert!(up[ROUNDS / 2] < LIMIT_P50, "p50 {:?}", up[ROUNDS / 2]);
    assert!(private < LIMIT_PRIVATE_KIB, "{private} KiB");
    world.reset();
}
