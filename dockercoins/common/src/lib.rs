//! What the DockerCoins programs share. Small on purpose: threads and blocking sockets, no TLS, no async.

pub mod client;
pub mod date;
pub mod redis;
pub mod resolve;
pub mod serve;

/// The pod's name, as the original programs print it.
pub fn hostname() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}

/// The port to listen on: `PORT`, or 80.
pub fn port() -> u16 {
    std::env::var("PORT").ok().and_then(|p| p.parse().ok()).unwrap_or(80)
}

/// `DEBUG=y…`, as in the originals.
pub fn debug() -> bool {
    std::env::var("DEBUG").is_ok_and(|v| v.to_lowercase().starts_with('y'))
}
