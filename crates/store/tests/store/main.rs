//! The embedded store from outside: against a model, against crashes, damage and full disks.

mod basics;
mod support;
