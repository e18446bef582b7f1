//! EventRateLimit: events are refused when too many come: of all, of a namespace, of a user, or about one thing from one source.
//!
//! Mirrors plugin/pkg/admission/eventratelimit and its configuration, `eventratelimit.admission.k8s.io/v1alpha1`; it runs when `--admission-control-config-file` configures it.
//! Token buckets, the least recently used forgotten; pure but for the lock around them.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use ::api::{Reason, Status};
use parking_lot::Mutex;
use serde_json::Value;

use crate::api::Context;
use crate::decode;
use crate::registry::text;

const DEFAULT_CACHE_SIZE: usize = 4096;
const NAME: &str = "EventRateLimit";

#[derive(Debug, thiserror::Error)]
pub enum AdmissionConfigError {
    #[error("unable to read admission control configuration from {path:?} [{error}]")]
    Read { path: PathBuf, error: std::io::Error },
    #[error("{path:?}: {why}")]
    Config { path: PathBuf, why: String },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Server,
    Namespace,
    User,
    SourceAndObject,
}

impl Kind {
    const ALL: [(&'static str, Self); 4] = [("Namespace", Self::Namespace), ("Server", Self::Server), ("SourceAndObject", Self::SourceAndObject), ("User", Self::User)];

    fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(_, kind)| *kind == self).map_or("", |(name, _)| name)
    }
}

struct Bucket {
    tokens: f64,
    filled: f64,
    used: u64,
}

/// Buckets by key.
struct Limit {
    kind: Kind,
    per_second: f64,
    burst: f64,
    most: usize,
    buckets: HashMap<String, Bucket>,
    /// By when they were used.
    order: BTreeMap<u64, String>,
    uses: u64,
}

impl Limit {
    fn accept(&mut self, key: String, now: f64) -> bool {
        self.uses += 1;
        let bucket = self.buckets.entry(key.clone()).or_insert(Bucket { tokens: self.burst, filled: now, used: 0 });
        self.order.remove(&bucket.used);
        self.order.insert(self.uses, key);
        bucket.used = self.uses;
        bucket.tokens = (bucket.tokens + (now - bucket.filled).max(0.0) * self.per_second).min(self.burst);
        bucket.filled = now;
        let accepted = bucket.tokens >= 1.0;
        if accepted {
            bucket.tokens -= 1.0;
        }
        while self.buckets.len() > self.most
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.buckets.remove(&oldest);
        }
        accepted
    }
}

pub struct EventRateLimit(Mutex<Vec<Limit>>);

impl EventRateLimit {
    /// Of an `AdmissionConfiguration`; `None` when it says nothing of events.
    pub fn open(path: &Path) -> Result<Option<Self>, AdmissionConfigError> {
        let read = |path: &Path| {
            let text = std::fs::read_to_string(path).map_err(|error| AdmissionConfigError::Read { path: path.into(), error })?;
            decode::yaml(&text).map_err(|why| AdmissionConfigError::Config { path: path.into(), why })
        };
        let wrong = |why: String| AdmissionConfigError::Config { path: path.into(), why };
        let config = read(path)?;
        if text(&config, "/kind") != "AdmissionConfiguration" || !text(&config, "/apiVersion").starts_with("apiserver.config.k8s.io/") {
            return Err(wrong(format!("no kind {:?} is registered for version {:?}", text(&config, "/kind"), text(&config, "/apiVersion"))));
        }
        let mut found = None;
        for plugin in config.get("plugins").and_then(Value::as_array).into_iter().flatten() {
            match text(plugin, "/name") {
                NAME => {
                    let own = match (plugin.get("configuration").filter(|own| own.is_object()), text(plugin, "/path")) {
                        (Some(own), _) => own.clone(),
                        (None, "") => return Err(wrong("limits: Invalid value: null: must not be empty".into())),
                        // Beside the file that names it.
                        (None, file) => read(&path.parent().unwrap_or(Path::new("")).join(file))?,
                    };
                    found = Some(Self::of(&own).map_err(wrong)?);
                }
                // What is configured must not be thought to hold.
                other => return Err(wrong(format!("admission plugin {other:?} takes no configuration here"))),
            }
        }
        Ok(found)
    }

    fn of(config: &Value) -> Result<Self, String> {
        if text(config, "/kind") != "Configuration" || text(config, "/apiVersion") != "eventratelimit.admission.k8s.io/v1alpha1" {
            return Err(format!("no kind {:?} is registered for version {:?}", text(config, "/kind"), text(config, "/apiVersion")));
        }
        let mut errors = Vec::new();
        let mut limits = Vec::new();
        let given = config.get("limits").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        if given.is_empty() {
            errors.push("limits: Invalid value: []: must not be empty".to_owned());
        }
        for (index, limit) in given.iter().enumerate() {
            let number = |field: &str| limit.get(field).and_then(Value::as_i64).unwrap_or(0);
            let kind = Kind::ALL.iter().find(|(name, _)| *name == text(limit, "/type")).map(|(_, kind)| *kind);
            if kind.is_none() {
                let known: Vec<String> = Kind::ALL.iter().map(|(name, _)| format!("{name:?}")).collect();
                errors.push(format!("limits[{index}].type: Unsupported value: {:?}: supported values: {}", text(limit, "/type"), known.join(", ")));
            }
            for field in ["burst", "qps"] {
                if number(field) <= 0 {
                    errors.push(format!("limits[{index}].{field}: Invalid value: {}: must be positive", number(field)));
                }
            }
            if kind != Some(Kind::Server) && number("cacheSize") < 0 {
                errors.push(format!("limits[{index}].cacheSize: Invalid value: {}: must not be negative", number("cacheSize")));
            }
            let most = usize::try_from(number("cacheSize")).ok().filter(|size| *size > 0).unwrap_or(DEFAULT_CACHE_SIZE);
            let Some(kind) = kind else { continue };
            limits.push(Limit { kind, per_second: number("qps") as f64, burst: number("burst") as f64, most, buckets: HashMap::new(), order: BTreeMap::new(), uses: 0 });
        }
        match errors.as_slice() {
            [] => Ok(Self(Mutex::new(limits))),
            [one] => Err(one.clone()),
            several => Err(format!("[{}]", several.join(", "))),
        }
    }

    /// Every limit counts the event, whichever refuses it.
    pub fn check(&self, namespace: &str, event: &Value, cx: &Context, now: f64) -> Result<(), Status> {
        if cx.dry_run {
            return Ok(());
        }
        let mut reached = Vec::new();
        for limit in &mut *self.0.lock() {
            let key = match limit.kind {
                Kind::Server => String::new(),
                Kind::Namespace => namespace.to_owned(),
                Kind::User => cx.user.name.clone(),
                Kind::SourceAndObject => {
                    ["/source/component", "/source/host", "/involvedObject/kind", "/involvedObject/namespace", "/involvedObject/name", "/involvedObject/uid", "/involvedObject/apiVersion"].map(|pointer| text(event, pointer)).concat()
                }
            };
            if !limit.accept(key.clone(), now) {
                reached.push(format!("limit reached on type {} for key {key}", limit.kind.as_str()));
            }
        }
        let why = match reached.as_slice() {
            [] => return Ok(()),
            [one] => one.clone(),
            several => format!("[{}]", several.join(", ")),
        };
        Err(Status::failure(429, Reason::TooManyRequests, format!("Too many requests: {why}")))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::authentication::User;

    fn limits(limits: Value) -> Result<EventRateLimit, String> {
        EventRateLimit::of(&json!({"apiVersion": "eventratelimit.admission.k8s.io/v1alpha1", "kind": "Configuration", "limits": limits}))
    }

    #[test]
    fn buckets_run_dry_and_fill_again() {
        let limit = limits(json!([{"type": "Namespace", "qps": 2, "burst": 3}, {"type": "Server", "qps": 100, "burst": 8}])).unwrap();
        let cx = Context::of(Arc::new(User::component("a")));
        let check = |namespace: &str, now: f64| limit.check(namespace, &json!({}), &cx, now).map_err(|status| status.message);
        for _ in 0..3 {
            assert_eq!(check("a", 0.0), Ok(()));
        }
        assert_eq!(check("a", 0.0), Err("Too many requests: limit reached on type Namespace for key a".into()));
        assert_eq!(check("b", 0.0), Ok(()));
        assert_eq!((check("a", 0.4).is_err(), check("a", 0.5)), (true, Ok(())));
        for namespace in ["c", "d", "e", "f", "g", "h", "i", "j"] {
            let _ = check(namespace, 0.5);
        }
        for _ in 0..3 {
            let _ = check("a", 0.5);
        }
        assert_eq!(check("a", 0.5), Err("Too many requests: [limit reached on type Namespace for key a, limit reached on type Server for key ]".into()));
        assert_eq!(limit.check("a", &json!({}), &Context::of(Arc::default()).dry(true), 0.5).err().map(|status| status.code), None);
    }

    #[test]
    fn the_least_recently_used_is_forgotten() {
        let limit = limits(json!([{"type": "User", "qps": 1, "burst": 1, "cacheSize": 2}])).unwrap();
        let check = |user: &str| limit.check("", &json!({}), &Context::of(Arc::new(User::component(user))), 0.0).is_ok();
        assert!(check("a") && check("b") && !check("a") && check("c"));
        assert!(!check("a"), "a was used after b");
        assert!(check("b"), "b was forgotten");
    }

    #[test]
    fn what_is_wrong_is_told() {
        let wrong = |given: Value| limits(given).err().unwrap();
        assert_eq!(wrong(json!([])), "limits: Invalid value: []: must not be empty");
        assert_eq!(wrong(json!([{"type": "All", "qps": 1, "burst": 1}])), "limits[0].type: Unsupported value: \"All\": supported values: \"Namespace\", \"Server\", \"SourceAndObject\", \"User\"");
        assert_eq!(wrong(json!([{"type": "User", "qps": 0, "burst": 1, "cacheSize": -1}])), "[limits[0].qps: Invalid value: 0: must be positive, limits[0].cacheSize: Invalid value: -1: must not be negative]");
    }
}
