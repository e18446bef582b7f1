//! Cargo, called by xtask: builds programs and says where they are, wherever the target folder is.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// The cargo that runs us.
pub fn command() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(crate::root());
    command
}

/// Builds one program of each package for release, named as the package, and returns their paths in that order. Cargo's progress goes to stderr.
pub fn build_release(packages: &[&str]) -> Result<Vec<PathBuf>> {
    let mut arguments = vec!["build", "--release"];
    packages.iter().for_each(|name| arguments.extend(["-p", name]));
    programs(&arguments, packages)
}

/// Builds one program of each package quickly, to be used once.
pub fn build(packages: &[&str]) -> Result<Vec<PathBuf>> {
    let mut arguments = vec!["build"];
    packages.iter().for_each(|name| arguments.extend(["-p", name]));
    programs(&arguments, packages)
}

/// The programs as the tests of the whole workspace use them: built with what those are built with, so that nothing is compiled twice.
pub fn build_with_tests(names: &[&str], jobs: u64) -> Result<Vec<PathBuf>> {
    programs(&["test", "--workspace", "--no-run", "--jobs", &jobs.to_string()], names)
}

fn programs(arguments: &[&str], names: &[&str]) -> Result<Vec<PathBuf>> {
    let output = command()
        .args(arguments)
        .arg("--message-format=json-render-diagnostics")
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot run cargo {}", arguments[0]))?;
    if !output.status.success() {
        bail!("cargo {} of {} failed", arguments[0], names.join(", "));
    }
    let mut found = vec![None; names.len()];
    for line in output.stdout.split(|b| *b == b'\n').filter(|l| !l.is_empty()) {
        let message: serde_json::Value = serde_json::from_slice(line).context("cargo's messages")?;
        // The program itself, not its tests.
        if message["target"]["kind"][0] != "bin" || message["profile"]["test"] == true {
            continue;
        }
        let name = message["target"]["name"].as_str().unwrap_or_default();
        if let (Some(executable), Some(at)) = (message["executable"].as_str(), names.iter().position(|n| *n == name)) {
            found[at] = Some(PathBuf::from(executable));
        }
    }
    found.into_iter().zip(names).map(|(path, name)| path.with_context(|| format!("cargo did not say where {name} is"))).collect()
}
