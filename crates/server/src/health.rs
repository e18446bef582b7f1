//! `/version`, `/healthz`, `/livez`, `/readyz`: what tools ask before anything else.
//!
//! https://kubernetes.io/docs/reference/using-api/health-checks/

use serde_json::{Value, json};

use crate::api::Api;
use crate::lifecycle::Phase;

pub fn version(api: &Api) -> Value {
    let mut version = json!({"emulationMajor": "1", "emulationMinor": "36", "minCompatibilityMajor": "1", "minCompatibilityMinor": "35"});
    for (_, key, fact) in basics::version::facts(&api.config.git_version) {
        version[key] = fact.into();
    }
    version
}

/// The endpoint that says whether requests are welcome; the others say whether anything is broken.
const READINESS: &str = "readyz";

/// The checks of an endpoint, with why each one fails.
pub fn checks(api: &Api, endpoint: &str) -> Vec<(&'static str, Result<(), String>)> {
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

pub const ENDPOINTS: [&str; 3] = ["healthz", "livez", READINESS];

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
