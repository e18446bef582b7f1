//! What the key space costs in memory, history included.

use std::process::Command;

use store::{Config, Embedded, Precondition, Store, Write};

use crate::support::{object, wait};

const ALONE: &str = "STORE_MEMORY_ALONE";
const OBJECTS: usize = 30_000;

/// Without pages of files: how much of the program itself lies in memory is chance.
fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: Vec<usize> = statm.split_whitespace().map(|field| field.parse().unwrap()).collect();
    (pages[1] - pages[2]) * 4096
}

/// In a process of its own, so that no other test's memory is counted.
#[test]
fn objects_cost_at_most_two_and_a_half_times_their_size() {
    if std::env::var_os(ALONE).is_none() {
        let arguments = ["memory::objects_cost_at_most_two_and_a_half_times_their_size", "--exact"];
        // What the allocator keeps back for a thread that frees what it has just made is not what the store holds.
        let done = Command::new(std::env::current_exe().unwrap()).args(arguments).env(ALONE, "1").env("GLIBC_TUNABLES", "glibc.malloc.tcache_count=0").output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stdout));
        return;
    }
    let before = resident_bytes();
    let store = Embedded::open(Config::memory()).unwrap();
    let data = "x".repeat(940);
    let mut content = 0;
    for index in 0..OBJECTS {
        let object = object(&format!("cm-{index:06}"), &data);
        content += object.len();
        wait(store.commit(Write { key: format!("configmaps/default/cm-{index:06}"), precondition: Precondition::Any, object: Some(object) }))
            .unwrap();
    }
    assert_eq!(store.revision() - store.oldest(), OBJECTS as u64);
    let ratio = (resident_bytes() - before) as f64 / content as f64;
    assert!((0.9..=2.5).contains(&ratio), "{ratio:.2}");
}
