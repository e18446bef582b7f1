//! `fuzz NAME [--seconds N] [--seed N]`: a decoder, `all` of them, or the `api` of a control plane (`--program CORACLE`, or any by `--kubeconfig FILE`).

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use fuzz::engine::{self, Target};
use fuzz::targets::ALL;

const USAGE: &str = "usage: fuzz NAME|all|api [--seconds N] [--seed N] [--program CORACLE | --kubeconfig FILE]";
/// As the threads that serve requests have it, and more where nothing is optimised.
const STACK_BYTES: usize = if cfg!(debug_assertions) { 8 << 20 } else { 2 << 20 };
/// After a finding the same decoder goes on with another seed, so often.
const MOST_FINDINGS: u64 = 8;

struct Options {
    name: String,
    seconds: u64,
    seed: u64,
    program: Option<PathBuf>,
    kubeconfig: Option<PathBuf>,
}

fn options() -> Result<Options> {
    let mut words = std::env::args().skip(1);
    let fresh = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let mut options = Options { name: words.next().context(USAGE)?, seconds: 60, seed: fresh, program: None, kubeconfig: None };
    while let Some(word) = words.next() {
        let value = words.next().context(USAGE)?;
        match word.as_str() {
            "--seconds" => options.seconds = value.parse().context(USAGE)?,
            "--seed" => options.seed = value.parse().context(USAGE)?,
            "--program" => options.program = Some(value.into()),
            "--kubeconfig" => options.kubeconfig = Some(value.into()),
            _ => bail!(USAGE),
        }
    }
    Ok(options)
}

/// True if nothing was found.
fn decoder(target: &'static Target, options: &Options) -> Result<bool> {
    let deadline = Instant::now() + Duration::from_secs(options.seconds);
    // In memory: it is written anew with each input.
    let folder = Some(PathBuf::from("/dev/shm")).filter(|folder| folder.is_dir()).unwrap_or_else(std::env::temp_dir);
    let trace = folder.join(format!("fuzz-{}-{}", target.name, std::process::id()));
    println!("{}: {} (seed {}; should the process end, the input is in {})", target.name, target.about, options.seed, trace.display());
    let mut clean = true;
    for round in 0..MOST_FINDINGS {
        let (seed, trace) = (options.seed.wrapping_add(round), trace.clone());
        let thread = std::thread::Builder::new().stack_size(STACK_BYTES).spawn(move || engine::fuzz(target, seed, deadline, Some(&trace)))?;
        match thread.join() {
            Ok(Ok(report)) => {
                println!("{}: {} inputs, {} outcomes", target.name, report.inputs, report.outcomes);
                break;
            }
            Ok(Err(finding)) => {
                clean = false;
                println!("FOUND {finding}\n");
            }
            Err(_) => bail!("the engine panicked"),
        }
    }
    let _ = std::fs::remove_file(&trace);
    Ok(clean)
}

struct Up(Child);

impl Drop for Up {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn up(program: &Path, data: &Path) -> Result<Up> {
    use std::io::BufRead;
    let port = std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
    let mut command = Command::new(program);
    command.args(["up", "--no-node", "--advertise-address", "127.0.0.1", "--secure-port", &port.to_string()]).arg("--data-dir").arg(data);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().context("starting coracle")?;
    let mut lines = std::io::BufReader::new(child.stderr.take().context("its log")?).lines();
    for line in lines.by_ref() {
        if line?.contains("the API server is ready") {
            // What it says of panics is worth seeing.
            std::thread::spawn(move || lines.map_while(Result::ok).filter(|line| line.contains("panicked")).for_each(|line| eprintln!("{line}")));
            return Ok(Up(child));
        }
    }
    bail!("coracle ended before it was ready")
}

fn api(options: &Options) -> Result<bool> {
    let folder = tempfile::tempdir()?;
    let (mut server, kubeconfig) = match (&options.kubeconfig, &options.program) {
        (Some(file), _) => (None, file.clone()),
        (None, Some(program)) => (Some(up(program, folder.path())?), folder.path().join("admin.conf")),
        _ => bail!(USAGE),
    };
    let config = client::kubeconfig::Config::load(Some(&kubeconfig))?;
    println!("api: {} (seed {})", config.server, options.seed);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let report = runtime.block_on(fuzz::api::run(&config, options.seed, Instant::now() + Duration::from_secs(options.seconds)))?;
    println!("{report}");
    let alive = match &mut server {
        Some(server) => server.0.try_wait()?.is_none(),
        None => true,
    };
    if !alive {
        println!("the server has ended");
    }
    Ok(alive && report.findings.is_empty())
}

fn run() -> Result<bool> {
    let options = options()?;
    if options.name == "api" {
        return api(&options);
    }
    let targets: Vec<&'static Target> = ALL.iter().filter(|target| options.name == "all" || options.name == target.name).collect();
    if targets.is_empty() {
        bail!("no decoder {:?}; there are: {}", options.name, ALL.iter().map(|target| target.name).collect::<Vec<_>>().join(" "));
    }
    let mut clean = true;
    for target in targets {
        clean &= decoder(target, &options)?;
    }
    Ok(clean)
}

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}
