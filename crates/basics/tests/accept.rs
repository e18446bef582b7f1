//! A listener in a process without descriptors. A test binary of its own: limits are the process's.

use std::time::Duration;

use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage, setrlimit};
use nix::sys::time::TimeValLike;

fn used() -> i64 {
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("usage");
    usage.user_time().num_milliseconds() + usage.system_time().num_milliseconds()
}

#[tokio::test]
async fn no_descriptors_cost_no_core() {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.expect("a listener");
    let _client = tokio::net::TcpStream::connect(listener.local_addr().expect("an address")).await.expect("connected");
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    setrlimit(Resource::RLIMIT_NOFILE, 3, hard).expect("none left");
    let before = used();
    let accepted = tokio::time::timeout(Duration::from_millis(600), basics::listen::accept(&listener, "test")).await;
    let took = used() - before;
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard).expect("as before");
    assert!(accepted.is_err(), "{accepted:?}");
    // Of the processor's time, not the clock's: a loop that spins uses nearly all of it.
    assert!(took < 300, "{took} ms");
    basics::listen::accept(&listener, "test").await;
}
