//! A lab of bare machines for a test, as root. Ends with it.
#![allow(dead_code)]

use std::process::{Command, Output, Stdio};

pub struct Lab(tempfile::TempDir, usize);

impl Lab {
    pub fn up(nodes: usize) -> Self {
        let lab = Self(tempfile::tempdir().expect("tempdir"), nodes);
        let output = lab.run(&["up", "--nodes", &nodes.to_string(), "--bare"]);
        assert!(output.status.success(), "a lab of {nodes}: {output:?}");
        lab
    }

    pub fn run(&self, words: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_coracle"));
        command.args(["lab", "--data-dir"]).arg(self.0.path().join("lab")).args(words).stdin(Stdio::null());
        command.output().expect("coracle")
    }

    pub fn try_on(&self, node: &str, script: &str) -> Output {
        self.run(&["shell", node, "--", "sh", "-c", &format!("export KUBECONFIG=/etc/kubernetes/admin.conf; {script}")])
    }

    pub fn on(&self, node: &str, script: &str) -> String {
        let output = self.try_on(node, script);
        assert!(output.status.success(), "{script}: {output:?}\n{}", self.logs());
        String::from_utf8(output.stdout).expect("text")
    }

    /// A file of a node, whole or not there.
    pub fn write(&self, node: &str, path: &str, contents: &str) {
        self.on(node, &format!("mkdir -p $(dirname {path}) && cat >{path}.new <<'END' && mv {path}.new {path}\n{}\nEND\n", contents.trim_end()));
    }

    pub fn refused(&self, node: &str, script: &str, why: &str) {
        let output = self.try_on(node, script);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(why), "{script}: {output:?}");
    }

    /// Nothing of a cluster lies on the machine.
    pub fn is_clean(&self, node: &str) {
        assert_eq!(self.on(node, "ls -A /etc/kubernetes /var/lib/kubelet /var/lib/coracle 2>/dev/null | grep -v ':$' | grep . ; true"), "");
    }

    pub fn logs(&self) -> String {
        let log = |node| String::from_utf8_lossy(&self.try_on(&format!("node{node}"), "tail -n 30 /var/lib/coracle/coracle.log").stdout).into_owned();
        (1..=self.1).map(log).collect::<Vec<_>>().join("\n---\n")
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if self.0.path().join("lab").exists() {
            self.run(&["down"]);
        }
    }
}

