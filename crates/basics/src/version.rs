//! Which version this is, as Kubernetes' components tell it: in `/version`, and in `kubernetes_build_info`.

use crate::histogram::head;
use crate::metrics::{line, shown};

/// By their names in metrics and in JSON.
pub fn facts(git_version: &str) -> [(&'static str, &'static str, String); 9] {
    let mut numbers = git_version.trim_start_matches('v').split('.');
    let (major, minor) = (numbers.next().unwrap_or("1"), numbers.next().unwrap_or("0"));
    [
        ("build_date", "buildDate", "1970-01-01T00:00:00Z"),
        ("compiler", "compiler", "rustc"),
        ("git_commit", "gitCommit", option_env!("CORACLE_COMMIT").unwrap_or("unknown")),
        ("git_tree_state", "gitTreeState", "clean"),
        ("git_version", "gitVersion", git_version),
        ("go_version", "goVersion", "none"),
        ("major", "major", major),
        ("minor", "minor", minor),
        ("platform", "platform", concat!("linux/", "amd64")),
    ]
    .map(|(label, key, fact)| (label, key, fact.to_owned()))
}

pub fn build_info(out: &mut String, git_version: &str) {
    head(out, "kubernetes_build_info", "gauge", "[BETA] A metric with a constant '1' value labeled by major, minor, git version, git commit, git tree state, build date, Go version, and compiler from which Kubernetes was built, and platform on which it is running.");
    let facts = facts(git_version);
    line(out, "kubernetes_build_info", &shown(facts.iter().map(|(label, _, fact)| (*label, &**fact))), 1);
}
