//! Validation of probes and lifecycle hooks.

use serde_json::Value;

use super::container::{Pod, port_number_or_name};
use super::json::{child, list, number, text};
use crate::names::regex_error;
use crate::validation::{Errors, Path};

/// Lifecycle, liveness, readiness and startup probe of a container that keeps running.
pub fn hooks_and_probes(errors: &mut Errors, path: &Path, container: &Value, pod: &Pod) {
    if let Some(lifecycle) = child(container, "lifecycle") {
        let path = path.child("lifecycle");
        for name in ["postStart", "preStop"] {
            if let Some(hook) = child(lifecycle, name) {
                handler(errors, &path.child(name), hook, pod.grace_seconds);
            }
        }
        if let Some(signal) = child(lifecycle, "stopSignal").and_then(Value::as_str) {
            stop_signal(errors, &path.child("stopSignal"), signal, pod.os);
        }
    }
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let Some(probe_value) = child(container, name) else { continue };
        let path = path.child(name);
        probe(errors, &path, probe_value, pod.grace_seconds);
        if name == "readinessProbe" {
            if let Some(seconds) = number(probe_value, "terminationGracePeriodSeconds") {
                errors.invalid(&path.child("terminationGracePeriodSeconds"), &seconds, "must not be set for readinessProbes");
            }
        } else if let threshold = number(probe_value, "successThreshold").unwrap_or(0)
            && threshold != 1
        {
            errors.invalid(&path.child("successThreshold"), &threshold, "must be 1");
        }
    }
}

/// Containers that run to their end have neither hooks nor probes.
pub fn forbid(errors: &mut Errors, path: &Path, container: &Value) {
    for name in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
        if child(container, name).is_some() {
            errors.forbidden(&path.child(name), "may not be set for init containers without restartPolicy=Always");
        }
    }
}

fn probe(errors: &mut Errors, path: &Path, probe: &Value, grace_seconds: Option<i64>) {
    handler(errors, path, probe, grace_seconds);
    for name in ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"] {
        errors.not_negative(&path.child(name), number(probe, name));
    }
    if let Some(seconds) = number(probe, "terminationGracePeriodSeconds").filter(|seconds| *seconds <= 0) {
        errors.invalid(&path.child("terminationGracePeriodSeconds"), &seconds, "must be greater than 0");
    }
}

fn handler(errors: &mut Errors, path: &Path, handler: &Value, grace_seconds: Option<i64>) {
    let mut found = false;
    for name in ["exec", "httpGet", "tcpSocket", "grpc", "sleep"] {
        let Some(action) = child(handler, name) else { continue };
        let path = path.child(name);
        if found {
            errors.forbidden(&path, "may not specify more than 1 handler type");
            continue;
        }
        found = true;
        match name {
            "exec" if list(action, "command").is_empty() => errors.required(&path.child("command"), ""),
            "exec" => {}
            "httpGet" => http_get(errors, &path, action),
            "sleep" => {
                let seconds = number(action, "seconds").unwrap_or(0);
                if let Some(grace) = grace_seconds.filter(|grace| seconds < 0 || seconds > *grace) {
                    errors.invalid(&path, &seconds, &format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})"));
                }
            }
            _ => port_number_or_name(errors, &path.child("port"), child(action, "port")),
        }
    }
    if !found {
        errors.required(path, "must specify a handler type");
    }
}

fn http_get(errors: &mut Errors, path: &Path, action: &Value) {
    if text(action, "path").is_empty() {
        errors.required(&path.child("path"), "");
    }
    port_number_or_name(errors, &path.child("port"), child(action, "port"));
    let scheme = text(action, "scheme");
    if !matches!(scheme, "HTTP" | "HTTPS") {
        errors.not_supported(&path.child("scheme"), scheme, &["HTTP", "HTTPS"]);
    }
    for header in list(action, "httpHeaders") {
        let name = text(header, "name");
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
            errors.invalid(&path.child("httpHeaders"), name, &regex_error("a valid HTTP header must consist of alphanumeric characters or '-'", "[-A-Za-z0-9]+", &["X-Header-Name"]));
        }
    }
}

fn stop_signal(errors: &mut Errors, path: &Path, signal: &str, os: Option<&str>) {
    const PLAIN: [&str; 36] = [
        "SIGABRT", "SIGALRM", "SIGBUS", "SIGCHLD", "SIGCLD", "SIGCONT", "SIGFPE", "SIGHUP", "SIGILL", "SIGINT", "SIGIO", "SIGIOT", "SIGKILL", "SIGPIPE", "SIGPOLL", "SIGPROF", "SIGPWR", "SIGQUIT",
        "SIGSEGV", "SIGSTKFLT", "SIGSTOP", "SIGSYS", "SIGTERM", "SIGTRAP", "SIGTSTP", "SIGTTIN", "SIGTTOU", "SIGURG", "SIGUSR1", "SIGUSR2", "SIGVTALRM", "SIGWINCH", "SIGXCPU", "SIGXFSZ", "SIGRTMIN",
        "SIGRTMAX",
    ];
    let real_time = |prefix: &str, max: u8| signal.strip_prefix(prefix).and_then(|rest| rest.parse::<u8>().ok()).is_some_and(|n| (1..=max).contains(&n));
    match os {
        None => errors.forbidden(path, "may not be set for containers with empty `spec.os.name`"),
        Some("windows") if !matches!(signal, "SIGKILL" | "SIGTERM") => errors.not_supported(path, signal, &["SIGKILL", "SIGTERM"]),
        Some("linux") if !PLAIN.contains(&signal) && !real_time("SIGRTMIN+", 15) && !real_time("SIGRTMAX-", 14) => errors.not_supported(path, signal, &PLAIN),
        Some(_) => {}
    }
}
