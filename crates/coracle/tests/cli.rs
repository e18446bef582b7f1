//! The program as a person calls it, where no cluster runs: what it says, and how it ends.
//!
//! A running cluster is the business of `tests-e2e/`.

use std::os::unix::process::CommandExt;
use std::process::{Command, Output};

fn coracle(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_coracle")).args(arguments).output().expect("the program starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn help_names_every_command() {
    let help = coracle(&["--help"]);
    assert!(help.status.success());
    let help = text(&help.stdout);
    for command in ["up", "down", "status", "reset", "build", "image", "kubectl"] {
        assert!(help.lines().any(|line| line.trim_start().starts_with(&format!("{command} "))), "{command} is missing in\n{help}");
    }
}

#[test]
fn without_a_cluster() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("none");
    let data = data.to_str().expect("a plain name");
    let status = coracle(&["status", "--data-dir", data]);
    assert_eq!(status.status.code(), Some(1));
    let said = text(&status.stderr);
    assert!(said.starts_with("error: no cluster runs in "), "{said}");
    assert!(said.contains("\nhint: "), "{said}");
    let down = coracle(&["down", "--data-dir", data]);
    assert!(down.status.success());
    assert!(text(&down.stdout).starts_with("no cluster runs in "));
    let reset = coracle(&["reset", "--data-dir", data]);
    assert!(reset.status.success());
    assert!(text(&reset.stdout).starts_with("nothing to remove"));
    assert!(!folder.path().join("none").exists());
}

#[test]
fn a_wrong_option_is_refused_before_anything_is_made() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("none");
    let up = coracle(&["up", "--pod-network-cidr", "10.244.0.0/33", "--data-dir", data.to_str().expect("a plain name")]);
    assert_eq!(up.status.code(), Some(2));
    assert!(text(&up.stderr).contains("prefix length 33 is too long"), "{}", text(&up.stderr));
    assert!(!data.exists());
}

#[test]
fn by_the_name_kubectl_it_is_kubectl() {
    let called = Command::new(env!("CARGO_BIN_EXE_coracle")).arg0("kubectl").arg("get").env("KUBECONFIG", "/nonexistent").output().expect("the program starts");
    assert_eq!(called.status.code(), Some(1));
    let said = text(&called.stderr);
    assert!(said.contains("You must specify the type of resource to get. Use \"kubectl api-resources\""), "{said}");
    let inside = coracle(&["kubectl", "get"]);
    assert_eq!(text(&inside.stderr), said);
}
