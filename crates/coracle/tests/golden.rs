//! Golden command lines: one script, `golden/script`, through our kubectl and through the real one, each against a control plane of its own.
//!
//! Promise: what both print, on stdout and on stderr, and how they end, is the same, once what differs from run to run (ages, uids, times,
//! versions, random names and addresses) is levelled, and our own `hint:` lines are taken away. A real kubectl older than ours words some
//! things differently; `golden/accepted` lists these, each with its reason. Anything else fails.
//!
//! The real one is `KUBECTL_REAL`, else the `kubectl` of the PATH, which `cargo xtask test` installs.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::LazyLock;

use regex::{NoExpand, Regex};

const CORACLE: &str = env!("CARGO_BIN_EXE_coracle");
/// The script shall not shrink unnoticed.
const COMMANDS_MIN: usize = 150;
/// A line that hangs is a failure of that line (`timeout` ends with 124), not of the run.
const LINE_SECONDS_MAX: &str = "30";

/// A control plane without a node, and a folder to call kubectl in.
struct World {
    folder: tempfile::TempDir,
    port: u16,
    kubectl: PathBuf,
}

/// One command line and what came of it.
struct Said {
    line: &'static str,
    exit: Option<i32>,
    stdout: String,
    stderr: String,
}

impl World {
    fn new(kubectl: &Path) -> World {
        let folder = tempfile::Builder::new().prefix("golden").tempdir().expect("a folder");
        for made in ["bin", "home", "work"] {
            std::fs::create_dir(folder.path().join(made)).expect("a folder");
        }
        std::os::unix::fs::symlink(kubectl, folder.path().join("bin/kubectl")).expect("a link");
        let manifests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/manifests");
        for entry in std::fs::read_dir(manifests).expect("the manifests") {
            let entry = entry.expect("an entry");
            std::fs::copy(entry.path(), folder.path().join("work").join(entry.file_name())).expect("a copy");
        }
        let port = std::net::TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr()).expect("a free port").port();
        let world = World { folder, port, kubectl: kubectl.to_owned() };
        let mut up = Command::new(CORACLE);
        up.args(["up", "--no-node", "--detach", "--advertise-address", "127.0.0.1", "--secure-port", &port.to_string()]).arg("--data-dir").arg(world.data());
        let up = up.stdin(Stdio::null()).output().expect("coracle starts");
        assert!(up.status.success(), "coracle up: {}", text(&up.stderr));
        world
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        let path = format!("{}:{}", self.folder.path().join("bin").display(), std::env::var("PATH").unwrap_or_default());
        command.env_clear().env("PATH", path).env("HOME", self.folder.path().join("home")).env("KUBECONFIG", self.data().join("admin.conf"));
        command.current_dir(self.folder.path().join("work")).stdin(Stdio::null());
        command
    }

    fn shell(&self, line: &str) -> Output {
        let mut command = self.command("timeout");
        command.args([LINE_SECONDS_MAX, "bash", "-c", line]).output().expect("bash starts")
    }

    /// Awaits something, with our kubectl in both worlds: `~ wait …`, or `~first get … --watch` for the first line of a watch.
    fn awaits(&self, line: &str) -> Result<(), String> {
        let ours = format!("exec {CORACLE} kubectl ");
        if let Some(watch) = line.strip_prefix("~first ") {
            let mut child = self.command("timeout").args([LINE_SECONDS_MAX, "bash", "-c", &(ours + watch)]).stdout(Stdio::piped()).spawn().expect("bash starts");
            let mut first = String::new();
            BufReader::new(child.stdout.take().expect("its output")).read_line(&mut first).expect("a line");
            // `timeout` passes this one on to kubectl; after a SIGKILL the watch would live on.
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id() as i32), nix::sys::signal::Signal::SIGTERM);
            let _ = child.wait();
            if first.is_empty() { Err("nothing came".to_owned()) } else { Ok(()) }
        } else {
            let done = self.shell(&(ours + line.trim_start_matches("~ ")));
            if done.status.success() { Ok(()) } else { Err(text(&done.stderr)) }
        }
    }

    fn run(&self) -> Vec<Said> {
        let mut said = Vec::new();
        for line in include_str!("golden/script").lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            if line.starts_with('~') {
                if let Err(error) = self.awaits(line) {
                    panic!("{line} ({}): {error}\n{}", self.kubectl.display(), self.so_far(&said));
                }
                continue;
            }
            let output = self.shell(line);
            said.push(Said { line, exit: output.status.code(), stdout: self.levelled(&text(&output.stdout)), stderr: self.levelled(&without_hints(&text(&output.stderr))) });
        }
        said
    }

    /// The last lines before something was awaited in vain.
    fn so_far(&self, said: &[Said]) -> String {
        said.iter().rev().take(5).map(|said| format!("$ {}\n{}{}", said.line, said.stdout, said.stderr)).collect()
    }

    /// What differs from run to run becomes the same.
    fn levelled(&self, said: &str) -> String {
        let folder = self.folder.path().to_str().expect("a plain name");
        let mut out = said.replace(folder, "FOLDER").replace(&self.port.to_string(), "PORT");
        for (pattern, level) in LEVELS.iter() {
            out = pattern.replace_all(&out, *level).into_owned();
        }
        // What has no fixed width moves the columns after it.
        if FLOATING.is_match(&out) {
            out = FLOATING.replace_all(&out, "FLOATS").into_owned();
            out = GAP.replace_all(&out, "  ").into_owned();
        }
        out
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = Command::new(CORACLE).args(["down", "--data-dir"]).arg(self.data()).stdout(Stdio::null()).status();
    }
}

static LEVELS: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
    [
        (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "UID"),
        (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "TIME"),
        (r"(Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d [A-Z][a-z][a-z] \d{4} \d\d:\d\d:\d\d \+0000", "TIME"),
        (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \+0000 UTC", "TIME"),
        // What client-go logs, with its own times and process id.
        (r"(?m)^[EWI]\d{4} \d\d:\d\d:\d\d\.\d+ .*\n", ""),
        (r#"(?i)(resource ?version"?: +"?)\d+"#, "${1}VERSION"),
        // The five letters of generateName.
        (r"-[bcdfghjklmnpqrstvwxz2456789]{5}\b", "-xxxxx"),
        (r"\b(event|[a-z-]+)\.[0-9a-f]{16}\b", "$1.EVENT"),
    ]
    .map(|(pattern, level)| (Regex::new(pattern).expect("a pattern"), level))
    .into()
});
/// Ages, and addresses of Services that were not asked for.
static FLOATING: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"(?m)<invalid>|\b(\d+[smhd])+( ago)?\b|\b10\.(9[6-9]|10\d|11[01])\.([1-9]\d*\.\d+|0\.([2-9]|\d\d+))\b").expect("a pattern"));
static GAP: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"  +|\t+").expect("a pattern"));

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn without_hints(said: &str) -> String {
    said.split_inclusive('\n').filter(|line| !line.starts_with("hint: ")).collect()
}

/// A difference that is right: our wording is 1.36's.
#[derive(Default)]
struct Accepted {
    why: String,
    /// The first minor version that words it as we do.
    until: u32,
    command: Option<Regex>,
    /// What the real one says, and what to read instead.
    real: Option<Regex>,
    /// The same for ours, where it says more than the real one.
    ours: Option<Regex>,
    reads: String,
    any_exit: bool,
}

fn accepted(minor: u32) -> Vec<Accepted> {
    let mut rules = Vec::new();
    for block in include_str!("golden/accepted").split("\n\n") {
        let mut rule = Accepted::default();
        for line in block.lines().filter(|line| !line.starts_with('#')) {
            let (key, value) = line.split_once(": ").unwrap_or((line.trim_end_matches(':'), ""));
            let pattern = || Some(Regex::new(value).unwrap_or_else(|error| panic!("golden/accepted: {line}: {error}")));
            match key {
                "why" => rule.why = value.into(),
                "until" => rule.until = value.strip_prefix("1.").and_then(|minor| minor.parse().ok()).expect("a version"),
                "command" => rule.command = pattern(),
                "real" => rule.real = pattern(),
                "ours" => rule.ours = pattern(),
                "reads" => rule.reads = value.replace("\\n", "\n"),
                "exit" => rule.any_exit = value == "any",
                _ => panic!("golden/accepted: {line}"),
            }
        }
        if rule.until != 0 {
            assert!(!rule.why.is_empty(), "golden/accepted: a difference without a reason:\n{block}");
            rules.push(rule);
        }
    }
    rules.retain(|rule| minor < rule.until);
    rules
}

/// The real one's minor version.
fn minor(kubectl: &Path) -> u32 {
    let output = Command::new(kubectl).args(["version", "--client", "-o", "json"]).output().unwrap_or_else(|error| {
        panic!("{}: {error}; cargo xtask test installs one (Debian's kubernetes-client), KUBECTL_REAL names another", kubectl.display())
    });
    let version: serde_json::Value = serde_json::from_slice(&output.stdout).expect("kubectl version says JSON");
    let minor = version["clientVersion"]["minor"].as_str().expect("a minor version");
    minor.trim_end_matches('+').parse().expect("a number")
}

#[test]
fn the_same_script_through_ours_and_the_real_one() {
    let real = std::env::var_os("KUBECTL_REAL").map_or_else(|| PathBuf::from("kubectl"), PathBuf::from);
    let real = if real.components().count() == 1 {
        let path = std::env::var("PATH").unwrap_or_default();
        path.split(':').map(|folder| Path::new(folder).join(&real)).find(|file| file.exists()).unwrap_or(real)
    } else {
        real
    };
    let minor = minor(&real);
    let rules = accepted(minor);
    let run = |kubectl: PathBuf| std::thread::spawn(move || World::new(&kubectl).run());
    let (ours, theirs) = (run(CORACLE.into()), run(real));
    let (ours, theirs) = (ours.join().expect("our run"), theirs.join().expect("the real run"));
    assert!(ours.len() >= COMMANDS_MIN, "only {} commands", ours.len());
    let mut differences = String::new();
    let mut count = 0;
    for (mut ours, mut theirs) in ours.into_iter().zip(theirs) {
        for rule in rules.iter().filter(|rule| rule.command.as_ref().is_none_or(|command| command.is_match(ours.line))) {
            let as_said = |said: &mut Said, pattern: &Option<Regex>| {
                for stream in [&mut said.stdout, &mut said.stderr] {
                    if let Some(pattern) = pattern {
                        *stream = if rule.reads.contains('$') { pattern.replace_all(stream, rule.reads.as_str()) } else { pattern.replace_all(stream, NoExpand(&rule.reads)) }.into_owned();
                    }
                }
            };
            as_said(&mut ours, &rule.ours);
            as_said(&mut theirs, &rule.real);
            if rule.any_exit {
                theirs.exit = ours.exit;
            }
        }
        let mut different = String::new();
        for (name, ours, theirs) in [("stdout", &ours.stdout, &theirs.stdout), ("stderr", &ours.stderr, &theirs.stderr)] {
            if ours != theirs {
                let _ = writeln!(different, "--- {name}: - real, + ours");
                let diff = similar::TextDiff::from_lines(theirs.as_str(), ours.as_str());
                let _ = write!(different, "{}", diff.unified_diff().context_radius(1));
            }
        }
        if ours.exit != theirs.exit {
            let _ = writeln!(different, "--- exit: real {:?}, ours {:?}", theirs.exit, ours.exit);
        }
        if !different.is_empty() {
            count += 1;
            let _ = writeln!(differences, "\n$ {}\n{different}", ours.line);
        }
    }
    assert!(count == 0, "{count} command lines differ from kubectl 1.{minor}'s; golden/accepted is for its own, older words only\n{differences}");
}
