//! Runs fixed seeds and a fresh one through every scenario, each in a process of its own, so that a run is the same alone and among others.
//!
//! `SIM_SEED` runs one seed, `SIM_RUNS` that many fresh ones; an argument names the scenarios.

use std::process::{Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use sim::{Plan, Scenario, simulate};

const FIXED_SEEDS: [u64; 2] = [1, 7];
const NODES: usize = 4;
const STEPS: usize = 60;
const AT_ONCE: usize = 2;
/// Wall time of one run; a simulation that turns in a circle never gets on.
const LONGEST: Duration = Duration::from_secs(120);
/// Set for the process of a single run.
const SINGLE: &str = "SIM_SINGLE";

fn single(seed: u64, scenario: Scenario) -> ExitCode {
    if let Ok(filter) = std::env::var("SIM_LOG") {
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).without_time().init();
    }
    std::thread::spawn(|| {
        std::thread::sleep(LONGEST);
        eprintln!("no end after {LONGEST:?}");
        std::process::exit(2);
    });
    match simulate(Plan { seed, scenario, nodes: NODES, steps: STEPS }) {
        Ok(report) => {
            println!("revision {}, {:?} of virtual time, settled after {:?}", report.revision, report.virtual_time, report.settled_after);
            ExitCode::SUCCESS
        }
        Err(failure) => {
            println!("{failure}");
            ExitCode::FAILURE
        }
    }
}

fn spawn(seed: u64, scenario: Scenario) -> Result<String, String> {
    let started = Instant::now();
    let exe = std::env::current_exe().map_err(|error| error.to_string())?;
    let output = Command::new(exe).arg(scenario.name()).env(SINGLE, seed.to_string()).stderr(Stdio::inherit()).output().map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() { Ok(format!("{} in {:.1?}", text.trim(), started.elapsed())) } else { Err(text) }
}

fn main() -> ExitCode {
    let named: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let scenarios: Vec<Scenario> = Scenario::ALL.into_iter().filter(|scenario| named.is_empty() || named.iter().any(|name| name == scenario.name())).collect();
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    if let (Some(seed), Some(scenario)) = (number(SINGLE), scenarios.first()) {
        return single(seed, *scenario);
    }
    // A fresh seed a run: what is red once is printed and can be had again.
    let fresh = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let seeds: Vec<u64> = match (number("SIM_SEED"), number("SIM_RUNS")) {
        (Some(seed), _) => vec![seed],
        (None, Some(runs)) => (0..runs).map(|run| fresh.wrapping_mul(1000) + run).collect(),
        (None, None) => FIXED_SEEDS.into_iter().chain([fresh]).collect(),
    };
    let mut plans: Vec<(u64, Scenario)> = seeds.iter().flat_map(|seed| scenarios.iter().map(|scenario| (*seed, *scenario))).collect();
    plans.reverse();
    let (plans, red) = (Mutex::new(plans), Mutex::new(0));
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let Some((seed, scenario)) = plans.lock().ok().and_then(|mut plans| plans.pop()) else { return };
                    let name = scenario.name();
                    match spawn(seed, scenario) {
                        Ok(text) => println!("simulation {name} seed {seed} ... ok: {text}"),
                        Err(text) => {
                            println!("simulation {name} seed {seed} ... FAILED\n{text}\nagain: SIM_SEED={seed} cargo test -p sim -- {name}\n");
                            if let Ok(mut red) = red.lock() {
                                *red += 1;
                            }
                        }
                    }
                }
            });
        }
    });
    match red.into_inner() {
        Ok(0) => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}
