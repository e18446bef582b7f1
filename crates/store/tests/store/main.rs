//! The store from outside: the contract on each engine, and the embedded one against a model, against crashes, damage and full disks.

mod basics;
mod crash;
mod damage;
#[path = "../../../etcd/testing/mod.rs"]
mod etcd_process;
mod faults;
mod memory;
mod migrate;
mod model;
mod remote;
mod soak;
mod support;
