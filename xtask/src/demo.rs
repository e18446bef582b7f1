//! `cargo xtask demo`: builds Coracle, starts a cluster of one node, and runs DockerCoins in it by the workshop's own commands.
//!
//! Shows the dashboard's address and the live hash rate until Ctrl-C, or for `--seconds N`, and then says by its exit code whether one
//! worker held its rate. Whatever ends it, the cluster is taken down and the machine left as it was found.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};

use crate::cargo;
use crate::images;
use crate::interrupt::Interrupt;
use crate::meter::{Meter, Reading};
use crate::screen::Screen;

const API_PORT: u16 = 6443;
const WEB_PORT: u16 = 30001;
/// Deployments of the lesson and the port it exposes (webui gets a node port).
const SERVICES: &[(&str, &str, Option<u16>)] = &[
    ("redis", "redis", Some(6379)),
    ("hasher", "dockercoins/hasher:v0.1", Some(80)),
    ("rng", "dockercoins/rng:v0.1", Some(80)),
    ("webui", "dockercoins/webui:v0.1", None),
    ("worker", "dockercoins/worker:v0.1", None),
];
const READY_TIMEOUT: &str = "60s";
/// The first reports of a worker may wait for its ten seconds after a failure.
const FIRST_HASH_TIMEOUT: Duration = Duration::from_secs(40);
/// What one worker makes: three steps of 0.1 s each.
const RATE: f64 = 1.0 / 0.3;
const TOLERANCE: f64 = 0.05;
/// A worker reports once in about a second: a shorter window cannot tell 5 %.
const SECONDS_MIN: u64 = 20;
/// How often the counter is looked at. A report is seen late by at most this.
const LOOK: Duration = Duration::from_millis(50);

struct Options {
    seconds: Option<u64>,
    data: PathBuf,
}

fn options(arguments: &[String]) -> Result<Options> {
    const USAGE: &str = "usage: cargo xtask demo [--seconds N] [--data-dir DIR]";
    let mut options = Options { seconds: None, data: crate::root().join("target/demo") };
    let mut words = arguments.iter().map(String::as_str);
    while let Some(word) = words.next() {
        let (flag, value) = match word.split_once('=') {
            Some((flag, value)) => (flag, value),
            None => (word, words.next().with_context(|| format!("{word} needs a value\n{USAGE}"))?),
        };
        match flag {
            "--seconds" => options.seconds = Some(value.parse().with_context(|| format!("--seconds {value}"))?),
            "--data-dir" => options.data = std::path::absolute(value)?,
            _ => bail!("no option {flag}\n{USAGE}"),
        }
    }
    if let Some(seconds) = options.seconds.filter(|s| *s < SECONDS_MIN) {
        bail!(
            "--seconds {seconds} is too short\nhint: a worker reports once a second, so that the rate can be told to 5 % only over {SECONDS_MIN} s or more"
        );
    }
    Ok(options)
}

pub fn command(arguments: &[String]) -> Result<()> {
    let options = options(arguments)?;
    ensure!(
        nix::unistd::geteuid().is_root(),
        "a cluster makes namespaces, mounts and network interfaces and needs root\nhint: sudo --preserve-env=PATH cargo xtask demo"
    );
    let interrupt = Interrupt::new()?;
    match run(&options, interrupt) {
        // Children in the foreground get Ctrl-C too, and fail of it.
        Err(_) if interrupt.came()? => Ok(()),
        outcome => outcome,
    }
}

fn run(options: &Options, interrupt: &Interrupt) -> Result<()> {
    let screen = Screen::new();
    screen.step("building Coracle");
    let coracle = cargo::build_release(&["coracle"])?.remove(0);
    screen.step("making the images");
    let archives = images::make_all(&coracle, &crate::root().join("target/images"))?;

    // What an earlier demo left behind when it was killed.
    let cluster = Cluster { coracle, data: options.data.clone() };
    if cluster.data.exists() {
        cluster.run(&["reset"])?;
    }
    free(API_PORT, "the API server")?;
    free(WEB_PORT, "the dashboard")?;

    screen.step("starting the cluster");
    std::fs::create_dir_all(&cluster.data)?;
    let cluster = Running(cluster);
    let mut import: Vec<&str> = vec!["image", "import"];
    import.extend(archives.iter().filter_map(|path| path.to_str()));
    cluster.0.run(&import)?;
    cluster.0.show(&["up", "--detach", "--node-name", "node1"])?;

    let outcome = coins(&screen, interrupt, &cluster.0, options.seconds);
    if outcome.is_err() && !interrupt.came()? {
        cluster.0.diagnose();
    }
    screen.step("taking the cluster down");
    // What is left behind is a failure too, but the rate's is told first.
    outcome.and(cluster.end())
}

/// Starts it in a fresh cluster, by the lesson's commands, and watches it mine.
fn coins(screen: &Screen, interrupt: &Interrupt, cluster: &Cluster, seconds: Option<u64>) -> Result<()> {
    screen.step("running DockerCoins");
    // Each with its Service at once, the worker last: in the lesson's order it fails first and then waits for ten seconds.
    for (name, image, port) in SERVICES {
        cluster.kubectl(&["create", "deployment", name, &format!("--image={image}")])?;
        if let Some(port) = port {
            cluster.kubectl(&["expose", "deployment", name, "--port", &port.to_string()])?;
        }
    }
    cluster.kubectl(&["create", "service", "nodeport", "webui", "--tcp=80", &format!("--node-port={WEB_PORT}")])?;
    for (name, ..) in SERVICES {
        cluster.kubectl(&["rollout", "status", &format!("deployment/{name}"), "--timeout", READY_TIMEOUT])?;
    }

    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, WEB_PORT));
    screen.step(&format!("mining: the dashboard is at http://localhost:{WEB_PORT}/"));
    screen.note(&format!("kubectl: export KUBECONFIG={}", cluster.data.join("admin.conf").display()));
    mine(screen, interrupt, address, seconds)
}

/// Shows the rate until Ctrl-C, or measures for `seconds` and judges.
fn mine(screen: &Screen, interrupt: &Interrupt, address: SocketAddr, seconds: Option<u64>) -> Result<()> {
    let mut meter = Meter::new(address);
    let began = Instant::now();
    let mut next_line = began + Duration::from_secs(1);
    loop {
        if interrupt.wait(LOOK)? {
            screen.end();
            return Ok(());
        }
        let reading = meter.look();
        if let Some(seconds) = seconds
            && let Some(mean) = reading.finished(seconds)
        {
            screen.end();
            let verdict = format!("{mean:.2} hashes/s over {:.1} s; one worker makes {RATE:.2} (±{:.0} %)", reading.seconds, TOLERANCE * 100.0);
            ensure!((mean / RATE - 1.0).abs() <= TOLERANCE, "{verdict}\nhint: a machine that is busy with other work slows the worker down");
            screen.step(&format!("held: {verdict}"));
            return Ok(());
        }
        if let Some(seconds) = seconds
            && began.elapsed() > FIRST_HASH_TIMEOUT + Duration::from_secs(seconds)
        {
            screen.end();
            bail!("the worker does not mine: {}", meter.trouble());
        }
        if Instant::now() >= next_line {
            next_line += Duration::from_secs(1);
            screen.line(&describe(&reading, seconds));
        }
    }
}

fn describe(reading: &Reading, seconds: Option<u64>) -> String {
    let Some(mean) = reading.mean else {
        return "waiting for the first hashes".to_owned();
    };
    let bar = match seconds {
        Some(seconds) => {
            let done = ((reading.seconds / seconds as f64).min(1.0) * 20.0) as usize;
            format!("  [{}{}] {:.0} of {seconds} s", "#".repeat(done), ".".repeat(20 - done), reading.seconds.min(seconds as f64))
        }
        None => "  Ctrl-C ends it".to_owned(),
    };
    let now = reading.now.unwrap_or(mean);
    format!("{now:.1} hashes/s now, {mean:.2} since the start, {} coins{bar}", reading.coins)
}

/// A clear word before something fails in the middle.
fn free(port: u16, whose: &str) -> Result<()> {
    let taken = TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)), Duration::from_secs(1)).is_ok();
    ensure!(
        !taken,
        "port {port}, which {whose} needs, is taken\nhint: `ss -ltnp sport = :{port}` shows by whom; another cluster ends with `coracle down`"
    );
    Ok(())
}

struct Cluster {
    coracle: PathBuf,
    data: PathBuf,
}

impl Cluster {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.coracle);
        command.args(arguments).arg("--data-dir").arg(&self.data).stdin(Stdio::null());
        command
    }

    /// Quiet, unless it fails.
    fn run(&self, arguments: &[&str]) -> Result<()> {
        self.run_to(arguments, Stdio::piped())
    }

    fn show(&self, arguments: &[&str]) -> Result<()> {
        self.run_to(arguments, Stdio::inherit())
    }

    fn run_to(&self, arguments: &[&str], out: Stdio) -> Result<()> {
        let output = self.command(arguments).stdout(out).output().context("cannot run coracle")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "coracle {}: {}", arguments[0], said.trim().trim_start_matches("error: "));
        Ok(())
    }

    /// Shows the command as the lesson has it, and its output.
    fn kubectl(&self, arguments: &[&str]) -> Result<()> {
        println!("$ kubectl {}", arguments.join(" "));
        let status = self.kubectl_command().args(arguments).status().context("cannot run coracle kubectl")?;
        ensure!(status.success(), "kubectl {} failed", arguments[0]);
        Ok(())
    }

    fn kubectl_command(&self) -> Command {
        let mut command = Command::new(&self.coracle);
        command.arg("kubectl").env("KUBECONFIG", self.data.join("admin.conf")).stdin(Stdio::null());
        command
    }

    /// What a person would look at first.
    fn diagnose(&self) {
        for arguments in [&["get", "pods", "-o", "wide"][..], &["get", "events"], &["logs", "deploy/worker", "--tail", "10"]] {
            println!("$ kubectl {}", arguments.join(" "));
            let _ = self.kubectl_command().args(arguments).status();
        }
        println!("the cluster's log: {}", tail(&self.data.join("coracle.log")));
    }
}

fn tail(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().rev().take(15).collect();
    lines.into_iter().rev().map(|line| format!("\n  {line}")).collect()
}

/// A started cluster: gone when dropped, with everything it made.
struct Running(Cluster);

impl Running {
    fn end(self) -> Result<()> {
        let ended = self.reset();
        // Its drop would only try the same again.
        std::mem::forget(self);
        ended
    }

    fn reset(&self) -> Result<()> {
        self.0.run(&["reset"]).map_err(|error| anyhow!("{error:#}\nhint: coracle reset --data-dir {}", self.0.data.display()))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Err(error) = self.reset() {
            eprintln!("error: {error:#}");
        }
    }
}
