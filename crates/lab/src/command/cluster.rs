//! The cluster of a lab, made with the words a learner would type.

use std::process::{Command, Stdio};

use crate::error::{LabError, Result, io};
use crate::record::NodeRecord;
use crate::start::Lab;

/// How long all nodes may take to be ready; on an idle machine it is a second.
const READY_TIMEOUT: &str = "--timeout=60s";

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

/// `kubeadm init` on the first node, `kubeadm join` on the others at once. A small cluster: the control plane's node takes pods too.
/// `flags` are further ones of `kubeadm init`; without a network, nobody waits for the nodes to be ready.
pub fn make(lab: &Lab, flags: &[String], network: bool) -> Result<()> {
    let Some((first, others)) = lab.record.nodes.split_first() else { return Ok(()) };
    // A cluster of the other family is reached by it too.
    let ipv6 = flags.iter().any(|flag| flag.strip_prefix("--service-cidr=").is_some_and(|range| range.split('/').next().is_some_and(|base| base.contains(':'))));
    let address = if ipv6 { first.ipv6().to_string() } else { first.address.to_string() };
    let mut words = vec!["kubeadm", "init", "--apiserver-advertise-address", &address];
    words.extend(flags.iter().map(String::as_str));
    let said = run(lab, &first.name, &words)?;
    let join = join_command(&said).ok_or_else(|| LabError::Invalid(format!("`kubeadm init` on {} named no `kubeadm join`", first.name)))?;
    let join: Vec<&str> = join.iter().map(String::as_str).collect();
    let join_one = |node: &NodeRecord| run(lab, &node.name, &join).map(drop);
    std::thread::scope(|scope| {
        let joins: Vec<_> = others.iter().map(|node| scope.spawn(|| join_one(node))).collect();
        joins.into_iter().try_for_each(|join| join.join().unwrap_or_else(|_| Err(LabError::Invalid("joining failed".into()))))
    })?;
    // Fails where there is no taint, which is as well.
    let _ = command(lab, &first.name, &["kubectl", "taint", "nodes", &first.name, "node-role.kubernetes.io/control-plane:NoSchedule-"])?.output();
    if network {
        run(lab, &first.name, &["kubectl", "wait", "--for=condition=Ready", "nodes", "--all", READY_TIMEOUT])?;
    }
    Ok(())
}

/// One more machine joins, by the line that its control plane prints; returns when it is ready.
pub fn join(lab: &Lab, node: &NodeRecord, network: bool) -> Result<()> {
    let Some(first) = lab.record.nodes.first() else { return Ok(()) };
    let said = run(lab, &first.name, &["kubeadm", "token", "create", "--print-join-command"])?;
    let join = join_command(&said).ok_or_else(|| LabError::Invalid(format!("`kubeadm token create` on {} named no `kubeadm join`", first.name)))?;
    run(lab, &node.name, &join.iter().map(String::as_str).collect::<Vec<_>>())?;
    if network {
        run(lab, &first.name, &["kubectl", "wait", "--for=condition=Ready", &format!("node/{}", node.name), READY_TIMEOUT])?;
    }
    Ok(())
}

/// Takes a node out of the cluster, as far as there is one that answers: the machine goes in any case.
pub fn forget(lab: &Lab, node: &str) {
    let Some(first) = lab.record.nodes.first().filter(|first| lab.running(&first.name).is_some()) else { return };
    let words = ["kubectl", "delete", "node", node, "--ignore-not-found", "--request-timeout=10s"];
    let done = command(lab, &first.name, &words).and_then(|mut command| command.output().map_err(io("run kubectl")));
    if !lab.record.bare && !done.is_ok_and(|output| output.status.success()) {
        eprintln!("warning: its cluster was not told that {node} is gone: `kubectl delete node {node}` on {}", first.name);
    }
}

/// The words of the line that `kubeadm init` ends with; it is folded with backslashes.
fn join_command(said: &str) -> Option<Vec<String>> {
    let from = said.lines().position(|line| line.trim_start().starts_with("kubeadm join"))?;
    let mut words = Vec::new();
    for line in said.lines().skip(from) {
        let (line, more) = line.trim_end().strip_suffix('\\').map_or((line, false), |line| (line, true));
        words.extend(line.split_whitespace().map(str::to_owned));
        if !more {
            break;
        }
    }
    Some(words)
}

/// Ends the pods of whatever cluster's part runs there. Returns when they have ended.
pub fn shut_down(lab: &Lab, node: &str) -> Result<()> {
    run(lab, node, &["coracle", "down", "--node-shutdown"]).map(drop)
}

/// After a node was switched on: what kubeadm had started there is started again, by the note it left. Whether there was anything.
pub fn resume(lab: &Lab, node: &str) -> Result<bool> {
    #[derive(serde::Deserialize)]
    struct Note {
        arguments: Vec<String>,
    }
    let note = lab.layout.node(node).root().join("var/lib/coracle/kubeadm.json");
    let Ok(bytes) = std::fs::read(&note) else { return Ok(false) };
    let note: Note = serde_json::from_slice(&bytes).map_err(|error| LabError::Io { what: format!("read {}", note.display()), source: error.into() })?;
    let words: Vec<&str> = std::iter::once("coracle").chain(note.arguments.iter().map(String::as_str)).chain(std::iter::once("--detach")).collect();
    run(lab, node, &words)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::join_command;

    #[test]
    fn the_last_words_of_init() {
        let said = "Then you can join any number of worker nodes by running the following on each as root:\n\nkubeadm join 192.168.0.11:6443 --token abcdef.0123456789abcdef \\\n\t--discovery-token-ca-cert-hash sha256:12 \nbye\n";
        assert_eq!(join_command(said).unwrap(), ["kubeadm", "join", "192.168.0.11:6443", "--token", "abcdef.0123456789abcdef", "--discovery-token-ca-cert-hash", "sha256:12"]);
        assert_eq!(join_command("nothing"), None);
    }
}
