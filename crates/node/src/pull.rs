//! Makes a container's image be here: pull policy, back-off, events and errors in upstream's words (images/image_manager.go).

use api::k8s::api::core::v1::{Container, Secret};
use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

use crate::backoff::go_duration;
use crate::configuration::Settings;
use crate::cx::Cx;
use crate::images::{Credentials, ImageError, ImageInfo};
use crate::pod;
use crate::status::Reason;

/// `ErrImagePull` is shown this long before it becomes `ImagePullBackOff`, which upstream's next sync does.
const ERROR_SHOWN: SignedDuration = SignedDuration::from_secs(2);

/// Nothing but a change of the pod (which is tried at once) makes a bad name good.
const INVALID_NAME_RETRY_SECONDS: i64 = 300;

/// How many images are pulled at a time and in a second, as configured.
pub struct Pulls {
    turns: Option<Semaphore>,
    /// Pulls a second, the most at once, and what is left of them.
    rate: Option<(f64, f64, Mutex<(f64, Instant)>)>,
}

impl Pulls {
    pub fn new(settings: &Settings) -> Self {
        Self {
            turns: settings.parallel_pulls.map(Semaphore::new),
            rate: settings.pull_rate.map(|(rate, burst)| (f64::from(rate), f64::from(burst), Mutex::new((f64::from(burst), Instant::now())))),
        }
    }

    /// Whether another pull may begin now.
    fn admits(&self) -> bool {
        let Some((rate, burst, left)) = &self.rate else { return true };
        let mut left = left.lock();
        let now = Instant::now();
        let tokens = (left.0 + rate * now.duration_since(left.1).as_secs_f64()).min(*burst);
        *left = (if tokens >= 1.0 { tokens - 1.0 } else { tokens }, now);
        tokens >= 1.0
    }

    async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        // Never closed.
        self.turns.as_ref()?.acquire().await.ok()
    }
}

pub struct Failure {
    pub reason: Reason,
    pub retry_at: Option<Timestamp>,
}

fn failure(reason: &str, message: String, retry_at: Option<Timestamp>) -> Failure {
    Failure { reason: Reason { reason: reason.to_owned(), message }, retry_at }
}

/// `IfNotPresent` unless said otherwise or the tag is `latest`.
fn policy(container: &Container) -> &str {
    container.image_pull_policy.as_deref().filter(|p| !p.is_empty()).unwrap_or("IfNotPresent")
}

pub async fn ensure(cx: &Cx, container: &Container) -> Result<ImageInfo, Failure> {
    let image = container.image.clone().unwrap_or_default();
    let about = cx.about(Some(&container.name));
    let events = &cx.node.events;
    // Not while one is being removed: what is found here stays, as this pod is known to whoever looks for unused ones.
    let found = {
        let _turn = cx.node.image_turn.lock().await;
        cx.node.images.find(&image).await
    };
    let here = match found {
        Ok(here) => here,
        Err(ImageError::Invalid(why)) => {
            let message = format!("Failed to apply default image tag {image:?}: {why}");
            events.warning(&about, "InspectFailed", &message);
            return Err(failure("InvalidImageName", message, cx.later(INVALID_NAME_RETRY_SECONDS)));
        }
        Err(ImageError::Failed(why)) => {
            let message = format!("Failed to inspect image {image:?}: {why}");
            events.warning(&about, "InspectFailed", &message);
            return Err(failure("ImageInspectError", message, cx.later(10)));
        }
    };
    match (policy(container), here) {
        ("Never", None) => {
            let message = format!("Container image {image:?} is not present with pull policy of Never");
            events.warning(&about, "ErrImageNeverPull", &message);
            Err(failure("ErrImageNeverPull", message, cx.later(10)))
        }
        ("Never" | "IfNotPresent", Some(found)) => {
            events.normal(&about, "Pulled", format!("Container image {image:?} already present on machine and can be accessed by the pod"));
            Ok(found)
        }
        // Built or loaded here: no registry knows it, so there is nothing newer to ask for (one image store, no push and no load).
        (_, Some(found)) if found.repo_digests.is_empty() => {
            events.normal(&about, "Pulled", format!("Container image {image:?} already present on machine and can be accessed by the pod"));
            Ok(found)
        }
        _ => pull(cx, container, &image).await,
    }
}

async fn pull(cx: &Cx, container: &Container, image: &str) -> Result<ImageInfo, Failure> {
    let about = cx.about(Some(&container.name));
    let events = &cx.node.events;
    let key = format!("image {image}");
    let waiting = cx.shared.lock().backoff.waiting_since_attempt(&key, cx.node.now());
    if let Some(waiting) = waiting {
        let last = cx.shared.lock().pull_errors.get(image).cloned().unwrap_or_default();
        let base = format!("Back-off pulling image {image:?}");
        events.normal(&about, "BackOff", &base);
        let message = if last.is_empty() { base } else { format!("{base}: ErrImagePull: {last}") };
        return Err(failure("ImagePullBackOff", message, Some(waiting.until)));
    }
    events.normal(&about, "Pulling", format!("Pulling image {image:?}"));
    // That may take long: who waits for it shall see it.
    cx.shared.lock().replacing.clear();
    cx.shared.wake.notify_one();
    let began = cx.node.now();
    let credentials = credentials(cx).await;
    let pulled = if cx.node.pulls.admits() {
        let _turn = cx.node.pulls.turn().await;
        cx.node.images.pull(image, &credentials).await
    } else {
        Err(ImageError::Failed("pull QPS exceeded".to_owned()))
    };
    match pulled {
        Ok(found) => {
            let took = go_duration(round(cx.node.now().duration_since(began)));
            events.normal(&about, "Pulled", format!("Successfully pulled image {image:?} in {took} ({took} including waiting). Image size: {} bytes.", found.size));
            let mut shared = cx.shared.lock();
            shared.backoff.reset(&key);
            shared.pull_errors.remove(image);
            drop(shared);
            cx.node.status_changed.notify_one();
            Ok(found)
        }
        Err(error) => {
            let why = error.to_string();
            events.warning(&about, "Failed", format!("Failed to pull image {image:?}: {why}"));
            let now = cx.node.now();
            let mut shared = cx.shared.lock();
            shared.backoff.next(&key, now, now);
            shared.pull_errors.insert(image.to_owned(), why.clone());
            drop(shared);
            Err(failure("ErrImagePull", why, now.checked_add(ERROR_SHOWN).ok()))
        }
    }
}

/// Upstream prints whole milliseconds.
fn round(duration: SignedDuration) -> SignedDuration {
    SignedDuration::from_millis(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX))
}

/// From the pod's `imagePullSecrets`. A secret that is missing or unreadable is left out, as upstream does.
async fn credentials(cx: &Cx) -> Vec<Credentials> {
    let mut out = Vec::new();
    for reference in pod::spec(&cx.pod).image_pull_secrets.iter().flatten() {
        match cx.node.client.of::<Secret>(Some(pod::namespace(&cx.pod))).get(&reference.name).await {
            Ok(secret) => out.extend(of_secret(&secret)),
            Err(error) => tracing::warn!(secret = reference.name, %error, "image pull secret left out"),
        }
    }
    out
}

fn of_secret(secret: &Secret) -> Vec<Credentials> {
    let data = secret.data.clone().unwrap_or_default();
    let auths = match (data.get(".dockerconfigjson"), data.get(".dockercfg")) {
        (Some(bytes), _) => serde_json::from_slice::<serde_json::Value>(&bytes.0).ok().map(|v| v["auths"].clone()),
        (None, Some(bytes)) => serde_json::from_slice(&bytes.0).ok(),
        (None, None) => None,
    };
    let Some(serde_json::Value::Object(auths)) = auths else { return Vec::new() };
    auths
        .into_iter()
        .filter_map(|(registry, entry)| {
            let text = |key: &str| entry[key].as_str().filter(|s| !s.is_empty()).map(str::to_owned);
            let (username, password) = match (text("username"), text("password")) {
                (Some(username), Some(password)) => (username, password),
                _ => {
                    use base64::Engine;
                    let decoded = base64::engine::general_purpose::STANDARD.decode(text("auth")?).ok()?;
                    let (username, password) = std::str::from_utf8(&decoded).ok()?.split_once(':')?;
                    (username.to_owned(), password.to_owned())
                }
            };
            Some(Credentials { registry, username, password })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn pull_secrets() {
        let config = r#"{"auths":{"r.example":{"auth":"dXNlcjpwYXNz"},"s.example":{"username":"a","password":"b"},"bad":{"auth":"!"}}}"#;
        use base64::Engine;
        let encoded = base64::engine::general_purpose::STANDARD.encode(config);
        let secret: Secret = serde_json::from_value(json!({"metadata": {"name": "s"}, "data": {".dockerconfigjson": encoded}})).unwrap();
        let found: Vec<String> = of_secret(&secret).into_iter().map(|c| format!("{} {} {}", c.registry, c.username, c.password)).collect();
        assert_eq!(found, ["r.example user pass", "s.example a b"]);
    }
}
