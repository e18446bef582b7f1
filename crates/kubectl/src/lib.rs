//! The command line: get, describe, apply and the rest, word for word as upstream's

mod describe;
mod explain;
