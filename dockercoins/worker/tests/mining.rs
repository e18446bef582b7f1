//! The four programs and a real redis-server (Debian's, which xtask installs) on loopback: the contract of the workshop.
//! They are built by this test, as a test of one package builds only that package's program.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Once;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use dockercoins_common::redis::{Redis, Reply};
use sha2::{Digest, Sha256};

const PATIENCE: Duration = Duration::from_secs(20);

/// A program of ours with its output as lines; killed when dropped.
struct Program {
    child: Child,
    lines: Receiver<String>,
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Program {
    fn start(command: &mut Command) -> Program {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("program starts");
        let (sender, lines) = channel();
        let (out, err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        for reader in [Box::new(out) as Box<dyn Read + Send>, Box::new(err)] {
            let sender = sender.clone();
            std::thread::spawn(move || BufReader::new(reader).lines().map_while(Result::ok).try_for_each(|l| sender.send(l)));
        }
        Program { child, lines }
    }

    /// Waits for a line that contains `text`.
    fn expect(&self, text: &str) -> String {
        let end = Instant::now() + PATIENCE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left).unwrap_or_else(|_| panic!("no line with {text:?}"));
            if line.contains(text) {
                return line;
            }
        }
    }

    fn signal(&self, signal: &str) {
        assert!(Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap().success());
    }
}

/// A program of the workspace, beside this test's own; the others are built once.
fn built(name: &str) -> PathBuf {
    static OTHERS: Once = Once::new();
    let worker = PathBuf::from(env!("CARGO_BIN_EXE_worker"));
    OTHERS.call_once(|| {
        let target = worker.ancestors().nth(3).unwrap();
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "-p", "rng", "-p", "hasher", "-p", "webui", "--target-dir"]).arg(target);
        assert!(cargo.status().unwrap().success(), "building the other programs");
    });
    worker.with_file_name(name)
}

fn port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn http(port: u16, request: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut response = Vec::new();
    stream.read_to_end(&mut response).unwrap();
    String::from_utf8_lossy(&response).into_owned()
}

fn get(port: u16, path: &str) -> String {
    http(port, &format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"))
}

fn body(response: &str) -> &str {
    response.split_once("\r\n\r\n").unwrap().1
}

struct Stack {
    rng: Program,
    hasher: Program,
    webui: Program,
    redis: Program,
    ports: [u16; 4],
    _dir: tempfile::TempDir,
}

impl Stack {
    fn start() -> Stack {
        let dir = tempfile::tempdir().unwrap();
        let ports = [port(), port(), port(), port()];
        let [rng, hasher, webui, redis] = ports;
        let service = |name: &str, port: u16| {
            let mut command = Command::new(built(name));
            command.env("PORT", port.to_string()).env("REDIS_URL", format!("127.0.0.1:{redis}"));
            command.env("FILES", concat!(env!("CARGO_MANIFEST_DIR"), "/../webui/files"));
            Program::start(&mut command)
        };
        let mut server = Command::new("redis-server");
        server.args(["--port", &redis.to_string(), "--save", "", "--bind", "127.0.0.1"]).current_dir(dir.path());
        let stack = Stack {
            rng: service("rng", rng),
            hasher: service("hasher", hasher),
            webui: service("webui", webui),
            redis: Program::start(&mut server),
            ports,
            _dir: dir,
        };
        stack.redis.expect("Ready to accept connections");
        stack.rng.expect("Running on http://0.0.0.0:");
        assert!(stack.hasher.expect("== Sinatra").ends_with("for development with backup from Thin"));
        assert_eq!(stack.webui.expect("WEBUI"), format!("WEBUI running on port {webui}"));
        stack
    }

    fn worker(&self) -> Program {
        let [rng, hasher, _, redis] = self.ports;
        let mut command = Command::new(built("worker"));
        command.env("RNG_URL", format!("http://127.0.0.1:{rng}")).env("HASHER_URL", format!("http://127.0.0.1:{hasher}"));
        Program::start(command.env("REDIS_URL", format!("127.0.0.1:{redis}")))
    }

    fn hashes(&self) -> f64 {
        let response = get(self.ports[2], "/json");
        let text = body(&response);
        text.split("\"hashes\":\"").nth(1).and_then(|t| t.split('"').next()).map_or(0.0, |n| n.parse().unwrap())
    }

    /// Hashes a second over so many of the worker's own updates.
    fn rate(&self, worker: &Program, updates: u32) -> f64 {
        worker.expect("units of work done");
        let (start, before) = (Instant::now(), self.hashes());
        (0..updates).for_each(|_| _ = worker.expect("units of work done"));
        (self.hashes() - before) / start.elapsed().as_secs_f64()
    }
}

#[test]
fn services_keep_the_contract() {
    let stack = Stack::start();
    let [rng, hasher, webui, _] = stack.ports;
    assert!(body(&get(rng, "/")).starts_with("RNG running on "));
    let start = Instant::now();
    let response = get(rng, "/32");
    assert!(response.starts_with("HTTP/1.0 200 OK\r\nContent-Type: application/octet-stream\r\n") && response.contains("Content-Length: 32"));
    assert!(start.elapsed() >= Duration::from_millis(100));
    assert!(get(rng, "/abc").starts_with("HTTP/1.0 404"));
    stack.rng.expect("\"GET / HTTP/1.1\" 200 -");
    let line = stack.rng.expect("GET /32");
    assert!(line.starts_with("127.0.0.1 - - [") && line.ends_with("] \"GET /32 HTTP/1.1\" 200 -"), "{line}");

    let hash = http(hasher, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc");
    let want: String = Sha256::digest(b"abc").iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(body(&hash), want);
    assert!(hash.contains("Content-Type: text/plain"));
    assert!(body(&get(hasher, "/")).starts_with("HASHER running on "));
    let line = stack.hasher.expect("POST");
    assert!(line.contains(" +0000] \"POST / HTTP/1.1\" 200 64 0.1"), "{line}");

    // rng serves one at a time, hasher all at once.
    for (port, request, least, most) in [
        (rng, "GET /1 HTTP/1.1\r\n\r\n", 0.4, 5.0),
        (hasher, "POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n", 0.1, 0.35),
    ] {
        let start = Instant::now();
        std::thread::scope(|scope| (0..4).for_each(|_| _ = scope.spawn(|| http(port, request))));
        let seconds = start.elapsed().as_secs_f64();
        assert!((least..most).contains(&seconds), "four requests took {seconds} s");
    }

    let redirect = get(webui, "/");
    assert!(redirect.starts_with("HTTP/1.1 302 Found\r\n") && redirect.contains("\r\nLocation: /index.html\r\n"));
    assert!(get(webui, "/index.html").contains("<title>DockerCoin Miner WebUI</title>"));
    for file in ["jquery.js", "d3.min.js", "rickshaw.min.js", "rickshaw.min.css"] {
        assert!(get(webui, &format!("/{file}")).starts_with("HTTP/1.1 200 OK"), "{file}");
    }
    assert!(body(&get(webui, "/json")).starts_with("{\"coins\":0,\"hashes\":null,\"now\":"));
    for bad in ["nonsense\r\n\r\n", "GET / HTTP/1.1\r\nbroken\r\n\r\n", "", "POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n"] {
        let mut stream = TcpStream::connect(("127.0.0.1", rng)).unwrap();
        stream.write_all(bad.as_bytes()).unwrap();
    }
    assert!(get(rng, "/").contains("200 OK"), "still there after nonsense");
}

#[test]
fn mines_at_the_expected_rates() {
    let stack = Stack::start();
    let one = stack.worker();
    assert_eq!(one.expect("units"), "INFO:__main__:0 units of work done, updating hash counter");
    let rate = stack.rate(&one, 3);
    assert!((3.16..=3.5).contains(&rate), "one worker: {rate} hashes/s");
    let more: Vec<Program> = (1..10).map(|_| stack.worker()).collect();
    // What rng served: the workers report in lumps, which a short window shows as noise.
    more.iter().for_each(|worker| _ = worker.expect("units of work done"));
    while stack.rng.lines.try_recv().is_ok() {}
    stack.rng.expect("GET /32");
    let start = Instant::now();
    (0..30).for_each(|_| _ = stack.rng.expect("GET /32"));
    let rate = 30.0 / start.elapsed().as_secs_f64();
    assert!((9.5..=10.05).contains(&rate), "ten workers: {rate} hashes/s");
    drop(more);
    let coin = one.expect("Coin found: 0");
    assert!(coin.starts_with("INFO:__main__:Coin found: 0") && coin.ends_with("...") && coin.len() == "INFO:__main__:Coin found: ".len() + 11);

    let mut redis = Redis::new(&format!("127.0.0.1:{}", stack.ports[3]));
    assert_eq!(redis.command(&[b"TYPE", b"hashes"]).unwrap(), Reply::Simple("string".into()));
    assert_eq!(redis.command(&[b"TYPE", b"wallet"]).unwrap(), Reply::Simple("hash".into()));
    let coins = redis.number(&[b"HLEN", b"wallet"]).unwrap();
    assert!(coins > 0);
    let response = get(stack.ports[2], "/json");
    assert!(body(&response).contains("\"hashes\":\""), "{response}");
}

#[test]
fn trouble_is_told_and_survived() {
    let mut stack = Stack::start();
    let [rng, hasher, webui, _] = stack.ports;
    let mut lost = Command::new(built("worker"));
    lost.env("RNG_URL", format!("http://127.0.0.1:{rng}")).env("HASHER_URL", format!("http://127.0.0.1:{hasher}"));
    let lost = Program::start(lost.env("REDIS_URL", format!("127.0.0.1:{}", port())));
    lost.expect("INFO:__main__:0 units of work done, updating hash counter");
    assert_eq!(lost.expect("In work loop"), "ERROR:__main__:In work loop:");
    assert_eq!(lost.expect("Traceback"), "Traceback (most recent call last):");
    lost.expect("ConnectionError: connect to 127.0.0.1:");
    assert_eq!(lost.expect("Waiting"), "ERROR:__main__:Waiting 10s and restarting.");

    // SIGTERM: what is in the queue is still served, then the service ends by itself.
    let queued: Vec<_> = (0..3).map(|_| std::thread::spawn(move || get(rng, "/8"))).collect();
    stack.rng.expect("GET /8");
    stack.rng.signal("-TERM");
    assert!(queued.into_iter().all(|q| q.join().unwrap().contains("200 OK")));
    assert!(stack.rng.child.wait().unwrap().success());

    stack.redis.child.kill().unwrap();
    stack.redis.child.wait().unwrap();
    assert!(get(webui, "/json").starts_with("HTTP/1.1 500"));
    stack.webui.expect("Redis error ");
}
