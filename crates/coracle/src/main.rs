//! The coracle binary: argument parsing and wiring only.

fn main() {}
