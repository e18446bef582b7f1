//! PodSecurity: pods keep to the level that their namespace's labels ask for; templates of pods are warned about.
//!
//! Mirrors k8s.io/pod-security-admission: https://kubernetes.io/docs/concepts/security/pod-security-admission/. Nothing is exempt; without labels all is allowed.

mod checks;

use std::collections::BTreeMap;
use std::fmt;

use ::api::{Cause, Resource, Status};
use serde_json::Value;

use super::{is_pods, shown_name};
use crate::api::{Api, Context};
use crate::registry::text;
use checks::{Finding, evaluate};

/// So many pods are looked at when a namespace becomes stricter.
const MAX_PODS_TO_CHECK: usize = 3000;
/// Of the newest policies that there are.
const NEWEST_MINOR: u32 = 36;
const PREFIX: &str = "pod-security.kubernetes.io/";
const LEVEL_WORDS: &str = "must be one of privileged, baseline, restricted";
const VERSION_WORDS: &str = "must be \"latest\" or \"v1.x\"";

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Privileged,
    Baseline,
    Restricted,
}

/// A level as of a minor release of Kubernetes; none is the newest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mode {
    level: Level,
    minor: Option<u32>,
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Level::Privileged => "privileged",
            Level::Baseline => "baseline",
            Level::Restricted => "restricted",
        }
    }
}

impl Mode {
    /// What is counted of it: a version that is none yet is `future`, and what allows everything has none.
    fn count(&self, api: &Api, allowed: bool, mode: &str, of: [&str; 3]) {
        let written;
        let version = match self.minor.filter(|_| self.level != Level::Privileged) {
            None => "latest",
            Some(minor) if minor <= NEWEST_MINOR => {
                written = format!("v1.{minor}");
                &written
            }
            Some(_) => "future",
        };
        api.measured.pod_security(allowed, mode, (self.level.name(), version), of);
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = self.level.name();
        match self.minor {
            Some(minor) => write!(f, "{level}:v1.{minor}"),
            None => write!(f, "{level}:latest"),
        }
    }
}

struct Policy {
    enforce: Mode,
    audit: Mode,
    warn: Mode,
    errors: Vec<Cause>,
}

fn level(text: &str) -> Option<Level> {
    Some(match text {
        "privileged" => Level::Privileged,
        "baseline" => Level::Baseline,
        "restricted" => Level::Restricted,
        _ => return None,
    })
}

/// `Some(None)` is the latest.
fn version(text: &str) -> Option<Option<u32>> {
    if text == "latest" {
        return Some(None);
    }
    let minor = text.strip_prefix("v1.")?;
    let canonical = minor == "0" || !minor.starts_with('0');
    (canonical && minor.bytes().all(|byte| byte.is_ascii_digit())).then(|| minor.parse().ok().map(Some))?
}

/// `PolicyToEvaluate`: a level that is not understood enforces the strictest, and neither audits nor warns.
fn policy(namespace: &Value) -> Policy {
    let open = Mode { level: Level::Privileged, minor: None };
    let mut errors = Vec::new();
    let label = |name: &str| namespace.pointer("/metadata/labels").and_then(|labels| labels.get(format!("{PREFIX}{name}"))).and_then(Value::as_str);
    let mut read = |mode: &str, fallback: Level| {
        let mut read = open;
        let mut wrong = |name: &str, value: &str, words: &str| {
            errors.push(Cause { reason: "FieldValueInvalid".into(), message: format!("Invalid value: {value:?}: {words}"), field: format!("metadata.labels[{PREFIX}{name}]") });
        };
        let (mut known, mut has_version) = (None, false);
        if let Some(value) = label(mode) {
            known = level(value);
            read.level = known.unwrap_or(fallback);
            if known.is_none() {
                wrong(mode, value, LEVEL_WORDS);
            }
        }
        let name = format!("{mode}-version");
        if let Some(value) = label(&name) {
            has_version = true;
            match version(value) {
                Some(minor) => read.minor = minor,
                None => wrong(&name, value, VERSION_WORDS),
            }
        }
        (read, known, has_version)
    };
    let (enforce, known, _) = read("enforce", Level::Restricted);
    // What is audited goes to the audit log, not to the client.
    let (audit, _, _) = read("audit", Level::Privileged);
    let (mut warn, _, warns_as_of) = read("warn", Level::Privileged);
    if label("warn").is_none() && known.is_some() && enforce.level > warn.level {
        warn.level = enforce.level;
        if !warns_as_of {
            warn.minor = enforce.minor;
        }
    }
    Policy { enforce, audit, warn, errors }
}

/// What keeps a pod from a level, as it is told to people.
fn details(findings: &[Finding]) -> String {
    findings.iter().map(|finding| if finding.detail.is_empty() { finding.reason.clone() } else { format!("{} ({})", finding.reason, finding.detail) }).collect::<Vec<_>>().join(", ")
}

/// Where the kinds that make pods keep their template.
fn template(row: &Resource) -> Option<&'static str> {
    Some(match (&*row.group, &*row.plural) {
        ("", "podtemplates") => "/template",
        ("", "replicationcontrollers") | ("apps", "replicasets" | "deployments" | "statefulsets" | "daemonsets") | ("batch", "jobs") => "/spec/template",
        ("batch", "cronjobs") => "/spec/jobTemplate/spec/template",
        _ => return None,
    })
}

fn namespace_of(api: &Api, namespace: &str) -> Option<Value> {
    api.store.get(&format!("/registry/namespaces/{namespace}"))?.value().ok()
}

/// Every create and update, but of subresources that change nothing of a pod's spec.
pub fn check(api: &Api, row: &Resource, subresource: &str, namespace: Option<&str>, new: &Value, old: Option<&Value>, cx: &Context) -> Result<(), Status> {
    if row.group.is_empty() && row.plural == "namespaces" && subresource.is_empty() {
        return namespace_change(api, new, old, cx);
    }
    if is_pods(row) && !matches!(subresource, "" | "ephemeralcontainers" | "resize") || !is_pods(row) && (!subresource.is_empty() || template(row).is_none()) {
        return Ok(());
    }
    let Some(space) = namespace.and_then(|namespace| namespace_of(api, namespace)) else { return Ok(()) };
    let policy = policy(&space);
    let enforced = is_pods(row);
    if enforced {
        cx.annotate("pod-security.kubernetes.io/enforce-policy", &policy.enforce.to_string());
    }
    let of = [if old.is_some() { "update" } else { "create" }, if enforced { "pod" } else { "controller" }, subresource];
    if !policy.errors.is_empty() {
        api.measured.pod_security_failed(of);
    }
    if [policy.enforce, policy.audit, policy.warn].iter().all(|mode| mode.level == Level::Privileged) {
        policy.enforce.count(api, true, "enforce", of);
        return Ok(());
    }
    if enforced && old.is_some_and(|old| !matters(new, old)) {
        return Ok(());
    }
    let pod = match template(row) {
        Some(path) => match new.pointer(path) {
            Some(template) => template,
            None => return Ok(()),
        },
        None => new,
    };
    if cx.record.is_some() {
        let findings = evaluate(policy.audit.level == Level::Restricted, policy.audit.level != Level::Privileged, policy.audit.minor, pod);
        if !findings.is_empty() {
            policy.audit.count(api, false, "audit", of);
            cx.annotate("pod-security.kubernetes.io/audit-violations", &format!("would violate PodSecurity \"{}\": {}", policy.audit, details(&findings)));
        }
    }
    if enforced {
        let findings = evaluate(policy.enforce.level == Level::Restricted, policy.enforce.level != Level::Privileged, policy.enforce.minor, pod);
        policy.enforce.count(api, findings.is_empty(), "enforce", of);
        if !findings.is_empty() {
            return Err(Status::forbidden(&row.group, &row.plural, shown_name(new), &format!("violates PodSecurity \"{}\": {}", policy.enforce, details(&findings))));
        }
    }
    let findings = evaluate(policy.warn.level == Level::Restricted, policy.warn.level != Level::Privileged, policy.warn.minor, pod);
    if !findings.is_empty() {
        policy.warn.count(api, false, "warn", of);
        cx.warn(format!("would violate PodSecurity \"{}\": {}", policy.warn, details(&findings)));
    }
    Ok(())
}

/// Whether an update of a pod brings in containers or images.
fn matters(new: &Value, old: &Value) -> bool {
    let images = |pod: &Value, list: &str| -> Vec<(String, String)> {
        pod.pointer(&format!("/spec/{list}")).and_then(Value::as_array).into_iter().flatten().map(|one| (text(one, "/name").to_owned(), text(one, "/image").to_owned())).collect()
    };
    ["containers", "initContainers"].into_iter().any(|list| images(new, list) != images(old, list)) || {
        let known = images(old, "ephemeralContainers");
        images(new, "ephemeralContainers").iter().any(|one| !known.contains(one))
    }
}

fn namespace_change(api: &Api, new: &Value, old: Option<&Value>, cx: &Context) -> Result<(), Status> {
    let wanted = policy(new);
    let name = text(new, "/metadata/name");
    let before = old.map(policy);
    if !wanted.errors.is_empty() && before.as_ref().is_none_or(|before| before.errors != wanted.errors) {
        return Err(Status::invalid("", "Namespace", name, wanted.errors));
    }
    let Some(before) = before else { return Ok(()) };
    let (enforce, was) = (wanted.enforce, before.enforce);
    if enforce == was || enforce.level == Level::Privileged || enforce.minor == was.minor && enforce.level <= was.level {
        return Ok(());
    }
    pods_in(api, name, enforce)?.into_iter().for_each(|warning| cx.warn(warning));
    Ok(())
}

/// Warnings about the pods that are there already.
fn pods_in(api: &Api, namespace: &str, enforce: Mode) -> Result<Vec<String>, Status> {
    let page = api.store.list(&format!("/registry/pods/{namespace}/"), None, None, MAX_PODS_TO_CHECK).map_err(Status::internal)?;
    let mut warnings = Vec::new();
    if page.more {
        let all = page.items.len() as u64 + page.remaining;
        warnings.push(format!("new PodSecurity enforce level only checked against the first {} of {all} existing pods", page.items.len()));
    }
    // By what is wrong: who is first, and how many.
    let mut wrong: BTreeMap<String, (String, usize)> = BTreeMap::new();
    for pod in page.items.iter().filter_map(|(_, object)| object.value().ok()) {
        let findings = evaluate(enforce.level == Level::Restricted, true, enforce.minor, &pod);
        if findings.is_empty() {
            continue;
        }
        let reasons = findings.into_iter().map(|finding| finding.reason).collect::<Vec<_>>().join(", ");
        wrong.entry(reasons).or_insert_with(|| (text(&pod, "/metadata/name").to_owned(), 0)).1 += 1;
    }
    if !wrong.is_empty() {
        warnings.push(format!("existing pods in namespace {namespace:?} violate the new PodSecurity enforce level \"{enforce}\""));
    }
    let mut lines: Vec<String> = wrong
        .into_iter()
        .map(|(reasons, (first, count))| match count {
            1 => format!("{first}: {reasons}"),
            2 => format!("{first} (and 1 other pod): {reasons}"),
            _ => format!("{first} (and {} other pods): {reasons}", count - 1),
        })
        .collect();
    lines.sort();
    warnings.append(&mut lines);
    Ok(warnings)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn labels() {
        let of = |labels: &[(&str, &str)]| {
            let labels: serde_json::Map<String, Value> = labels.iter().map(|(name, value)| (format!("{PREFIX}{name}"), json!(value))).collect();
            let policy = policy(&json!({"metadata": {"labels": labels}}));
            let errors: Vec<String> = policy.errors.iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect();
            format!("{} {} {}", policy.enforce, policy.warn, errors.join("; ")).trim_end().to_owned()
        };
        assert_eq!(of(&[]), "privileged:latest privileged:latest");
        assert_eq!(of(&[("enforce", "baseline"), ("enforce-version", "v1.24")]), "baseline:v1.24 baseline:v1.24");
        assert_eq!(of(&[("enforce", "baseline"), ("warn", "restricted"), ("warn-version", "latest")]), "baseline:latest restricted:latest");
        assert_eq!(
            of(&[("enforce", "tight"), ("warn-version", "v1.01")]),
            "restricted:latest privileged:latest metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: \"tight\": must be one of privileged, baseline, restricted; metadata.labels[pod-security.kubernetes.io/warn-version]: Invalid value: \"v1.01\": must be \"latest\" or \"v1.x\""
        );
    }

    #[test]
    fn only_new_images_matter() {
        let pod = |image: &str| json!({"spec": {"containers": [{"name": "c", "image": image}]}});
        assert!(!matters(&pod("a"), &pod("a")));
        assert!(matters(&pod("a"), &pod("b")));
    }
}
