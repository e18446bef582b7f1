//! What a pod's sandbox costs: a shim stays small. The times of each step are printed; what they have to be is the bench's business.

mod common;

use std::time::Instant;

use common::{World, within};
use sandbox::cri::*;

const ROUNDS: usize = 10;
/// What each shim has for itself; its text is that of the main binary, shared by all.
const LIMIT_PRIVATE_KIB: u64 = 512;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shim_stays_small() {
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
    assert!(private < LIMIT_PRIVATE_KIB, "{private} KiB");
    world.reset();
}
