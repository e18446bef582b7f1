//! The embedded store from outside: against a model, against crashes, damage and full disks.

mod basics;
mod crash;
mod damage;
mod faults;
mod memory;
mod model;
mod soak;
mod support;
