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
fn a_start_that_fails_says_why_and_what_to_do() {
    let folder = tempfile::tempdir().expect("a folder");
    let taken = std::net::TcpListener::bind(("::", 0)).expect("a port");
    let port = taken.local_addr().expect("an address").port().to_string();
    let data = |name: &str| folder.path().join(name).to_str().expect("a plain name").to_owned();
    for more in [&[][..], &["--detach"]] {
        let up = coracle(&[&["up", "--no-node", "--secure-port", &port, "--data-dir", &data("a")], more].concat());
        let said = text(&up.stderr);
        let error = said.lines().skip_while(|line| !line.starts_with("error: ")).collect::<Vec<_>>();
        assert_eq!(up.status.code(), Some(1), "{said}");
        assert!(error[0].starts_with(&format!("error: cannot listen on port {port}: ")), "{said}");
        assert_eq!(error[1], "hint: another cluster may run; --secure-port chooses another port", "{said}");
        assert_eq!(error.len(), 2 + more.len(), "{said}");
    }
    std::fs::write(data("file"), "").expect("a file");
    let up = coracle(&["up", "--no-node", "--secure-port", &port, "--data-dir", &data("file/below")]);
    assert!(text(&up.stderr).contains("Not a directory") && text(&up.stderr).matches("os error").count() == 1, "{}", text(&up.stderr));
    let up = coracle(&["up", "--no-node", "--secure-port", &port, "--data-dir", &data("b"), "--kubelet-config", &data("none")]);
    assert!(text(&up.stderr).starts_with("error: cannot read "), "{}", text(&up.stderr));
    assert!(!folder.path().join("b").exists());
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
