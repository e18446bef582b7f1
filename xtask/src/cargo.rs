//! Cargo, called by xtask: builds programs and says where they are, wherever the target folder is.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    Dev,
    Release,
}

/// The cargo that runs us.
pub fn command() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(crate::root());
    command
}

/// Builds one program of each package, named as the package, and returns their paths in that order. Cargo's progress goes to stderr.
pub fn build(packages: &[&str], profile: Profile) -> Result<Vec<PathBuf>> {
    let mut command = command();
    command.args(["build", "--message-format=json-render-diagnostics"]).stderr(Stdio::inherit());
    if profile == Profile::Release {
        command.arg("--release");
    }
    packages.iter().for_each(|name| _ = command.args(["-p", name]));
    let output = command.output().context("cannot run cargo build")?;
    if !output.status.success() {
        bail!("cargo build of {} failed", packages.join(", "));
    }
    let mut programs = vec![None; packages.len()];
    for line in output.stdout.split(|b| *b == b'\n').filter(|l| !l.is_empty()) {
        let message: serde_json::Value = serde_json::from_slice(line).context("cargo's messages")?;
        let name = message["target"]["name"].as_str().unwrap_or_default();
        if let (Some(executable), Some(at)) = (message["executable"].as_str(), packages.iter().position(|p| *p == name)) {
            programs[at] = Some(PathBuf::from(executable));
        }
    }
    programs.into_iter().zip(packages).map(|(path, name)| path.with_context(|| format!("cargo did not say where {name} is"))).collect()
}
