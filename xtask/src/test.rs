//! `cargo xtask test`: installs what the tests need from Debian, runs every test, and ends with one line of numbers.
//!
//! First `cargo test --workspace`, then the workshop end to end (`tests-e2e/`) against the binary just built, on a lab of two nodes and on one. All always run; any failure
//! fails the whole. What failed is run once more: a test that passes then raced with its machine, which is said in the last line, by name, and is a
//! defect to mend, but not one of what was just changed.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::cargo;
use crate::debian::Packages;
use crate::images;

/// A program that tests call, and Debian's package of it.
const NEEDED: &[(&str, &str)] = &[
    ("busybox", "busybox-static"),
    ("redis-server", "redis-server"),
    ("etcd", "etcd-server"),
    ("chromium", "chromium"),
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("curl", "curl"),
    ("jq", "jq"),
    ("unshare", "util-linux"),
    ("awk", "mawk"),
    ("fc-match", "fontconfig"),
];
/// Without a font the screenshot has no words.
const FONT: (&str, &str) = ("/usr/share/fonts/truetype/dejavu", "fonts-dejavu-core");
/// While this says 101, Debian's packages do not start the services they bring.
const POLICY: &str = "/usr/sbin/policy-rc.d";
/// A compiler of one of the large crates needs about this much memory.
const BYTES_PER_JOB: u64 = 2 << 30;
/// A kubectl that is not ours, for the tests that compare. Who sets it has the whole workshop run with it as well.
const REAL_KUBECTL: &str = "KUBECTL_REAL";
/// The one they are compared with otherwise: of a known version, whatever the machine has.
const DEBIANS_KUBECTL: &str = "kubernetes-client";

/// With more failures than this at once it is no race.
const MOST_RUN_AGAIN: usize = 3;
/// Two nodes instead of one: without names, all stages that a lab can have.
const LAB: &str = "--lab";

#[derive(Default)]
struct Tally {
    passed: u64,
    failed: u64,
    /// What passed only when it was run again.
    raced: Vec<String>,
}

pub fn command(arguments: &[String]) -> Result<()> {
    let (unit, stages) = match arguments.split_first() {
        None => (true, Some(&[][..])),
        Some((word, [])) if word == "--unit" => (true, None),
        Some((word, stages)) if word == "--e2e" => (false, Some(stages)),
        _ => bail!("usage: cargo xtask test [--unit | --e2e [--lab] [STAGE…]]"),
    };
    if !nix::unistd::geteuid().is_root() {
        bail!("the tests make namespaces, mounts and network interfaces and must run as root\nhint: sudo --preserve-env=PATH cargo xtask test");
    }
    install()?;
    let started = Instant::now();
    let mut tally = Tally::default();
    let mut broken = Vec::new();
    let mut part = |name: &'static str, outcome: Result<Tally>| match outcome {
        Ok(numbers) => {
            tally.passed += numbers.passed;
            tally.failed += numbers.failed;
            tally.raced.extend(numbers.raced);
            println!("{name}: {} passed, {} failed, {} s so far", numbers.passed, numbers.failed, started.elapsed().as_secs());
        }
        Err(error) => {
            println!("{name}: {error:#}");
            broken.push(name);
        }
    };
    if unit {
        part("cargo test", unit_tests());
    }
    if let Some(stages) = stages {
        if stages.is_empty() {
            part("workshop on a lab", workshop(&[LAB.to_owned()], None));
        }
        part("workshop", workshop(stages, None));
        match std::env::var_os(REAL_KUBECTL) {
            Some(kubectl) => part("workshop with the real kubectl", workshop(stages, Some(Path::new(&kubectl)))),
            None => println!("SKIPPED: the workshop with a kubectl that is not ours ({REAL_KUBECTL} names none)"),
        }
    }
    // A part that did not get to its tests is a failure too.
    if !tally.raced.is_empty() {
        println!("RACED (failed, then passed when run again; to be mended): {}", tally.raced.join("; "));
    }
    println!("{} passed, {} failed", tally.passed, tally.failed + broken.len() as u64);
    match (tally.failed, broken.as_slice()) {
        (0, []) => Ok(()),
        (0, parts) => bail!("did not run to the end: {}", parts.join(", ")),
        (failed, _) => bail!("{failed} failed"),
    }
}

fn unit_tests() -> Result<Tally> {
    let (jobs, kubectl) = (jobs()?.to_string(), real_kubectl()?);
    let run = |targets: &[&str]| {
        let mut command = cargo::command();
        command.args(["test", "--no-fail-fast", "--jobs", &jobs]).args(targets).env(REAL_KUBECTL, &kubectl);
        // `test result: ok. 12 passed; 0 failed; 0 ignored; …`
        counted(command, |line| line.strip_prefix("test result: ")?.split_once(". ").map(|(_, numbers)| numbers))
    };
    let mut all = run(&["--workspace"])?;
    if !all.success && (1..=MOST_RUN_AGAIN).contains(&all.red.len()) {
        let first = std::mem::take(&mut all.tally.failed);
        all.success = true;
        for target in &all.red {
            println!("once more: cargo test {target}");
            let again = run(&target.split(' ').collect::<Vec<_>>())?;
            all.tally.failed += again.tally.failed;
            match again.success {
                true => all.tally.raced.push(format!("cargo test {target}")),
                false => all.success = false,
            }
        }
        all.tally.passed += first.saturating_sub(all.tally.failed);
    }
    if !all.success && all.tally.failed == 0 {
        bail!("cargo test failed before or between the tests; see above");
    }
    Ok(all.tally)
}

fn workshop(stages: &[String], kubectl: Option<&Path>) -> Result<Tally> {
    let images = crate::root().join("target/images");
    let coracle = cargo::build_with_tests(&["coracle"], jobs()?)?.remove(0);
    images::make_all(&coracle, &images).context("making the images")?;
    let real = real_kubectl()?;
    let run = || {
        let mut command = Command::new(crate::root().join("tests-e2e/run.sh"));
        command.args(stages).env("CORACLE", &coracle).env("IMAGES", &images).env("ARTIFACTS", artifacts()).env(REAL_KUBECTL, &real);
        if let Some(kubectl) = kubectl {
            command.env("KUBECTL", kubectl);
        }
        counted(command, |line| line.strip_prefix("workshop: "))
    };
    let mut all = run()?;
    if !all.success && all.tally.failed as usize <= MOST_RUN_AGAIN {
        println!("once more: the workshop");
        all = run()?;
        if all.success {
            all.tally.raced.push("the workshop".into());
        }
    }
    if !all.success && all.tally.failed == 0 {
        bail!("tests-e2e/run.sh failed before or between the checks; see above");
    }
    Ok(all.tally)
}

fn real_kubectl() -> Result<PathBuf> {
    if let Some(named) = std::env::var_os(REAL_KUBECTL) {
        return Ok(named.into());
    }
    let mut packages = Packages::new(&crate::root().join("target/kubectl"))?;
    packages.add(&[DEBIANS_KUBECTL.to_owned()])?;
    Ok(packages.root.join("usr/bin/kubectl"))
}

/// Where screenshots and logs are kept.
fn artifacts() -> PathBuf {
    crate::root().join("artifacts")
}

struct Counted {
    success: bool,
    tally: Tally,
    /// The targets of cargo that failed, as the arguments that run them again.
    red: Vec<String>,
}

/// Runs a command, shows its output as it comes, and adds up the lines `numbers` picks: `12 passed, 0 failed` or `12 passed; 0 failed`.
fn counted(mut command: Command, numbers: impl Fn(&str) -> Option<&str>) -> Result<Counted> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().with_context(|| format!("cannot run {command:?}"))?;
    let (out, err) = (child.stdout.take().context("no output")?, child.stderr.take().context("no output")?);
    let mut tally = Tally::default();
    let mut seen = false;
    let red = std::thread::scope(|scope| {
        let red = scope.spawn(|| {
            let mut red = Vec::new();
            shown(err, std::io::stderr(), |line| red.extend(red_target(line)))?;
            std::io::Result::Ok(red)
        });
        shown(out, std::io::stdout(), |line| {
            if let Some(found) = numbers(line).and_then(tally_of) {
                tally.passed += found.passed;
                tally.failed += found.failed;
                seen = true;
            }
        })?;
        red.join().expect("reading lines does not panic")
    })?;
    let success = child.wait()?.success();
    if success && !seen && red.is_empty() && !command.get_args().any(|argument| argument == "-p") {
        bail!("{command:?} said no numbers");
    }
    Ok(Counted { success, tally, red })
}

fn shown(from: impl std::io::Read, mut to: impl Write, mut each: impl FnMut(&str)) -> std::io::Result<()> {
    let mut lines = BufReader::new(from);
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line)? > 0 {
        to.write_all(&line)?;
        to.flush()?;
        each(&String::from_utf8_lossy(&line));
        line.clear();
    }
    Ok(())
}

/// error: test failed, to rerun pass `-p node --test pods`
fn red_target(line: &str) -> Option<String> {
    line.strip_prefix("error: test failed, to rerun pass `")?.trim_end().strip_suffix('`').map(str::to_owned)
}

fn tally_of(text: &str) -> Option<Tally> {
    let number = |word: &str| text.split([',', ';']).find_map(|part| part.trim().strip_suffix(word)?.trim().parse().ok());
    Some(Tally { passed: number("passed")?, failed: number("failed")?, raced: Vec::new() })
}

/// As many compilers at once as there are cores and memory for.
fn jobs() -> Result<u64> {
    let cores = std::thread::available_parallelism()?.get() as u64;
    let text = std::fs::read_to_string("/proc/meminfo")?;
    let kib =
        text.lines().find_map(|line| line.strip_prefix("MemAvailable:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok()).context("/proc/meminfo")?;
    Ok((kib * 1024 / BYTES_PER_JOB).clamp(1, cores))
}

fn install() -> Result<()> {
    let path = std::env::var("PATH").unwrap_or_default();
    let folders: Vec<&Path> = path.split(':').chain(["/usr/sbin", "/sbin"]).map(Path::new).collect();
    let mut missing: Vec<&str> =
        NEEDED.iter().filter(|(program, _)| !folders.iter().any(|folder| folder.join(program).exists())).map(|(_, package)| *package).collect();
    if !Path::new(FONT.0).exists() {
        missing.push(FONT.1);
    }
    if missing.is_empty() {
        return Ok(());
    }
    println!("installing {} from Debian", missing.join(", "));
    let _guard = NoServices::begin()?;
    let apt = |arguments: &[&str]| -> Result<bool> {
        let mut command = Command::new("apt-get");
        command.arg("-qq").args(arguments).env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null()).stdout(Stdio::null());
        Ok(command.status().context("cannot run apt-get")?.success())
    };
    let install = || {
        let mut arguments = vec!["install", "-y", "--no-install-recommends"];
        arguments.extend(&missing);
        apt(&arguments)
    };
    // A fresh machine has no package lists, an old one has lists of packages that are gone.
    if install()? || (apt(&["update"])? && install()?) {
        return Ok(());
    }
    bail!("apt-get cannot install {}\nhint: see its message above", missing.join(", "))
}

/// Keeps packages from starting their services, unless the machine has a policy of its own.
struct NoServices {
    ours: bool,
}

impl NoServices {
    fn begin() -> Result<NoServices> {
        let ours = !Path::new(POLICY).exists();
        if ours {
            std::fs::write(POLICY, "#!/bin/sh\nexit 101\n").with_context(|| format!("cannot write {POLICY}"))?;
            std::fs::set_permissions(POLICY, std::fs::Permissions::from_mode(0o755))?;
        }
        Ok(NoServices { ours })
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if self.ours {
            let _ = std::fs::remove_file(POLICY);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_both_runners() {
        for (text, expected) in [
            ("12 passed; 3 failed; 0 ignored; 0 measured; 1 filtered out; finished in 0.01s", Some((12, 3))),
            ("35 passed, 0 failed", Some((35, 0))),
            ("all good", None),
            ("x passed, 0 failed", None),
        ] {
            assert_eq!(tally_of(text).map(|t| (t.passed, t.failed)), expected, "{text}");
        }
    }
}
