//! Chores of the project: `cargo xtask demo|test|gen`.

fn main() {}
