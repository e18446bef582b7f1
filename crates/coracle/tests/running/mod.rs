//! The program itself, running for a test: a control plane without a node.
#![allow(dead_code)]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

use linear::Recorder;
use tokio::task::JoinSet;

pub const CORACLE: &str = env!("CARGO_BIN_EXE_coracle");
/// The log line that says that the API server listens.
const LISTENS: &str = "the API server is ready";

/// Ends with the test.
pub struct Server(Child);

impl Server {
    /// Returns when it listens.
    pub fn start(data: &Path, port: u16, more: &[String]) -> Self {
        let mut up = Command::new(CORACLE);
        up.args(["up", "--no-node", "--advertise-address", "127.0.0.1", "--secure-port", &port.to_string()]).args(more).arg("--data-dir").arg(data);
        let mut child = up.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("coracle starts");
        let mut lines = BufReader::new(child.stderr.take().expect("its log")).lines();
        let mut said = Vec::new();
        loop {
            let line = lines.next().unwrap_or_else(|| panic!("coracle up ended: {said:#?}")).expect("a line");
            if line.contains(LISTENS) {
                break;
            }
            said.push(line);
        }
        // The rest is read so that the program never waits for us.
        std::thread::spawn(move || lines.for_each(drop));
        Self(child)
    }

    pub fn id(&self) -> u32 {
        self.0.id()
    }

    pub fn lives(&mut self) -> bool {
        self.0.try_wait().is_ok_and(|ended| ended.is_none())
    }

    /// As people stop it; returns when it has ended.
    pub fn stop(mut self) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.0.id() as i32), nix::sys::signal::Signal::SIGTERM).expect("it runs");
        self.0.wait().expect("it ends");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // SIGKILL: what it had acknowledged must be there all the same.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub fn free_port() -> u16 {
    std::net::TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr()).expect("a free port").port()
}

/// The clients' last answers, and that all they were told is one order of things. `asked` is how much they asked.
pub async fn linearizable(mut clients: JoinSet<Result<(), api::Status>>, recorder: &Recorder, asked: usize) {
    while let Some(done) = clients.join_next().await {
        done.expect("no panic").expect("an answer in the end");
    }
    let (history, strange) = recorder.take();
    assert!(strange.is_empty(), "{strange:#?}");
    let summary = history.check().unwrap_or_else(|violation| panic!("{violation}"));
    assert!(summary.answered > asked / 2 && summary.lists > 0, "{summary}");
    println!("{summary}");
}

/// Chance for clients: the order of requests is the machine's, so it only has to be different for each.
pub fn below() -> Box<dyn Fn(u64) -> u64 + Send + Sync> {
    let draws = AtomicU64::new(0);
    Box::new(move |limit| (draws.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 33) % limit.max(1))
}
