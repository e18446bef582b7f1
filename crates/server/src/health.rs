//! `/version`, `/healthz`, `/livez`, `/readyz`, `/metrics`: what tools ask before anything else.
//!
//! https://kubernetes.io/docs/reference/using-api/health-checks/

use serde_json::{Value, json};

use crate::api::Api;
use crate::lifecycle::Phase;

pub fn version(api: &Api) -> Value {
    let git = &api.config.git_version;
    let mut numbers = git.trim_start_matches('v').split('.');
    json!({
        "major": numbers.next().unwrap_or("1"),
        "minor": numbers.next().unwrap_or("0"),
        "emulationMajor": "1", "emulationMinor": "36", "minCompatibilityMajor": "1", "minCompatibilityMinor": "35",
        "gitVersion": git,
        "gitCommit": option_env!("CORACLE_COMMIT").unwrap_or("unknown"),
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "none",
        "compiler": "rustc",
        "platform": concat!("linux/", "amd64"),
    })
}

/// The endpoint that says whether requests are welcome; the others say whether anything is broken.
const READINESS: &str = "readyz";

/// The checks of an endpoint, with why each one fails.
fn checks(api: &Api, endpoint: &str) -> Vec<(&'static str, Result<(), String>)> {
    let bootstrapped = if api.store.get("/registry/namespaces/default").is_some() { Ok(()) } else { Err("the first objects are not there yet".to_owned()) };
    let mut checks = vec![("ping", Ok(())), ("log", Ok(())), ("etcd", Ok(())), ("poststarthook/bootstrap", bootstrapped)];
    if let Some(encryption) = api.config.encryption.as_ref().filter(|encryption| encryption.has_kms()) {
        checks.push(("kms-providers", encryption.health()));
    }
    if endpoint == READINESS {
        checks.push(("shutdown", if api.lifecycle.phase() == Phase::Serving { Ok(()) } else { Err("process is shutting down".to_owned()) }));
    }
    checks
}

const ENDPOINTS: [&str; 3] = ["healthz", "livez", READINESS];

/// Whether the path is that of a health endpoint or of one of its checks.
pub fn is_asked(path: &str) -> bool {
    let first = path.trim_start_matches('/').split('/').next().unwrap_or("");
    ENDPOINTS.contains(&first)
}

/// Each check by itself: `/readyz/ping`.
pub fn paths(api: &Api) -> Vec<String> {
    ENDPOINTS.iter().flat_map(|endpoint| checks(api, endpoint).into_iter().map(move |(name, _)| format!("/{endpoint}/{name}"))).collect()
}

/// Status code and body; none for a check that is none.
pub fn answer(api: &Api, path: &str, verbose: bool) -> Option<(u16, String)> {
    let path = path.strip_prefix('/')?;
    let Some((endpoint, wanted)) = path.split_once('/') else { return Some(report(api, path, verbose)) };
    let (_, outcome) = checks(api, endpoint).into_iter().find(|(name, _)| *name == wanted)?;
    Some(match outcome {
        Ok(()) => (200, "ok".into()),
        Err(why) => (500, format!("internal server error: {endpoint} check {wanted}: {why}\n")),
    })
}

/// Status code and body.
fn report(api: &Api, endpoint: &str, verbose: bool) -> (u16, String) {
    let checks = checks(api, endpoint);
    let failed = checks.iter().any(|(_, outcome)| outcome.is_err());
    if !failed && !verbose {
        return (200, "ok".into());
    }
    let mut text = String::new();
    for (name, outcome) in &checks {
        match outcome {
            Ok(()) => text.push_str(&format!("[+]{name} ok\n")),
            Err(_) => text.push_str(&format!("[-]{name} failed: reason withheld\n")),
        }
    }
    let verdict = if failed { "failed" } else { "passed" };
    text.push_str(&format!("{endpoint} check {verdict}\n"));
    (if failed { 500 } else { 200 }, text)
}

/// Prometheus text: what the store knows of itself.
pub fn metrics(api: &Api) -> String {
    let mut text = String::new();
    text.push_str("# HELP apiserver_storage_objects Number of stored objects at the time of last check split by kind.\n# TYPE apiserver_storage_objects gauge\n");
    let mut seen = std::collections::BTreeSet::new();
    for row in api.serving.rows().all().iter().filter(|row| row.allows(::api::Verb::List)) {
        if seen.insert(row.prefix.clone()) {
            text.push_str(&format!("apiserver_storage_objects{{resource=\"{}\"}} {}\n", row.qualified(), api.store.count(&row.prefix)));
        }
    }
    let version = version(api);
    let label = |name: &str| version[name].as_str().unwrap_or_default().to_owned();
    text.push_str(&format!(
        "# HELP kubernetes_build_info A metric with a constant '1' value labeled by major, minor, git version, git commit, git tree state, build date, Go version, and compiler from which Kubernetes was built, and platform on which it is running.\n# TYPE kubernetes_build_info gauge\nkubernetes_build_info{{build_date=\"{}\",compiler=\"{}\",git_commit=\"{}\",git_tree_state=\"{}\",git_version=\"{}\",go_version=\"{}\",major=\"{}\",minor=\"{}\",platform=\"{}\"}} 1\n",
        label("buildDate"), label("compiler"), label("gitCommit"), label("gitTreeState"), label("gitVersion"), label("goVersion"), label("major"), label("minor"), label("platform")
    ));
    api.requests.text(&mut text);
    text.push_str(&api.flow_control.metrics());
    if let Some(audit) = &api.config.audit {
        audit.text(&mut text);
    }
    if let Some(encryption) = &api.config.encryption {
        encryption.metrics.text(&mut text);
    }
    for followed in &api.config.followed {
        if let Some(metrics) = &followed.metrics {
            metrics.text(&mut text);
        }
    }
    api.outbound.metrics.text(&mut text);
    text.push_str(&format!("# HELP coracle_store_revision The newest revision of the key space.\n# TYPE coracle_store_revision counter\ncoracle_store_revision {}\n", api.store.revision()));
    text
}
