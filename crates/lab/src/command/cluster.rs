//! The cluster of a lab, made with the words a learner would type.

use std::process::{Command, Stdio};

use crate::error::{LabError, Result, io};
use crate::record::NodeRecord;
use crate::start::Lab;

/// Runs a command in a node, and shows what it says. Through this program again: going into a node needs a process with one thread.
fn command(lab: &Lab, node: &str, words: &[&str]) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe().map_err(io("find this program"))?);
    command.args(["lab", "--data-dir"]).arg(&lab.layout.folder).args(["shell", node, "--"]).args(words).stdin(Stdio::null());
    Ok(command)
}

/// What it wrote; shown only when it fails.
fn run(lab: &Lab, node: &str, words: &[&str]) -> Result<String> {
    let output = command(lab, node, words)?.output().map_err(io(format!("run {}", words.join(" "))))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    eprint!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    Err(LabError::Command { node: node.to_owned(), command: words.join(" "), code: output.status.code().unwrap_or(-1) })
}

pub fn make(lab: &Lab, _network: Option<&str>) -> Result<()> {
    let Some((first, _rest)) = lab.record.nodes.split_first() else { return Ok(()) };
    up(lab, first)
}

fn up(lab: &Lab, node: &NodeRecord) -> Result<()> {
    run(lab, &node.name, &["coracle", "up", "--detach", "--node-name", &node.name]).map(drop)
}

/// After a node was switched on: what ran there before runs again. Whether anything did.
pub fn resume(lab: &Lab, node: &str) -> Result<bool> {
    if lab.layout.node(node).root().join("var/lib/coracle/admin.conf").exists() {
        up(lab, lab.record.node(node)?)?;
        return Ok(true);
    }
    Ok(false)
}
