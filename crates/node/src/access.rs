//! Who may use the kubelet's API from other machines: a client certificate of the cluster's or a token (TokenReview) says who asks, and the API server says whether they may
//! (SubjectAccessReview). Nobody gets in without a name.
//!
//! Mirrors upstream's `pkg/kubelet/server/auth.go` (with fine-grained authorization, KEP-2862), `InstallAuthFilter`, and the times for which answers are believed.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use api::Status;
use client::{Body, Client, Target, WriteOptions};
use http::header::AUTHORIZATION;
use http::{Method, StatusCode, request};
use parking_lot::Mutex;
use rustls::pki_types::CertificateDer;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::http::{Answer, full};

/// As upstream's defaults: `authentication.webhook.cacheTTL`, `authorization.webhook.cacheAuthorizedTTL` and `cacheUnauthorizedTTL`.
const TOKEN_BELIEVED: Duration = Duration::from_secs(120);
const YES_BELIEVED: Duration = Duration::from_secs(300);
const NO_BELIEVED: Duration = Duration::from_secs(30);
/// Answers that are kept.
const MAX_ANSWERS: usize = 1024;
/// Longer ones are nobody's.
const MAX_TOKEN_BYTES: usize = 16 << 10;

/// Somebody with a name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Who {
    pub name: String,
    pub uid: String,
    pub groups: Vec<String>,
    pub extra: BTreeMap<String, Vec<String>>,
}

/// Whom a verified certificate names.
pub type Identify = Arc<dyn Fn(&CertificateDer<'_>) -> Option<Who> + Send + Sync>;
/// Whose right needs no question: the API server must get through when it cannot be asked.
pub type Trusted = Arc<dyn Fn(&Who) -> bool + Send + Sync>;

type Question = (Who, &'static str, &'static str);

pub struct Access {
    client: Client,
    node: String,
    identify: Identify,
    trusted: Trusted,
    tokens: Mutex<HashMap<String, (Instant, Option<Who>)>>,
    answers: Mutex<HashMap<Question, (Instant, bool)>>,
}

/// `path` is `folder` or below it.
fn within(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// What of the node a path is, the finer first: any of them is enough.
fn subresources(path: &str) -> &'static [&'static str] {
    let table: [(&str, &[&str]); 10] = [
        ("/pods", &["pods", "proxy"]),
        ("/runningpods", &["pods", "proxy"]),
        ("/healthz", &["healthz", "proxy"]),
        ("/configz", &["configz", "proxy"]),
        ("/stats", &["stats"]),
        ("/metrics", &["metrics"]),
        ("/logs", &["log"]),
        ("/checkpoint", &["checkpoint"]),
        ("/statusz", &["statusz"]),
        ("/flagz", &["configz"]),
    ];
    table.into_iter().find(|(folder, _)| within(path, folder)).map_or(&["proxy"], |(_, names)| names)
}

fn verb(method: &Method) -> &'static str {
    match *method {
        Method::POST => "create",
        Method::GET => "get",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "",
    }
}

fn bearer(head: &request::Parts) -> Option<&str> {
    let (scheme, token) = head.headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() && token.len() <= MAX_TOKEN_BYTES).then_some(token)
}

/// Keeps an answer; when there are too many, those that are believed no more go, or all.
fn keep<K: std::hash::Hash + Eq, V>(kept: &Mutex<HashMap<K, (Instant, V)>>, key: K, until: Instant, value: V) {
    let mut kept = kept.lock();
    if kept.len() >= MAX_ANSWERS {
        let now = Instant::now();
        kept.retain(|_, (until, _)| *until > now);
        if kept.len() >= MAX_ANSWERS {
            kept.clear();
        }
    }
    kept.insert(key, (until, value));
}

fn plain(status: StatusCode, text: impl Into<bytes::Bytes>) -> Answer {
    full(status, "text/plain; charset=utf-8", text)
}

impl Access {
    pub fn new(client: Client, node: &str, identify: Identify, trusted: Trusted) -> Self {
        Self { client, node: node.to_owned(), identify, trusted, tokens: Mutex::default(), answers: Mutex::default() }
    }

    /// Nothing if the request may go on.
    pub async fn refusal(&self, head: &request::Parts, certificate: Option<&CertificateDer<'_>>) -> Option<Answer> {
        let who = match certificate.and_then(|leaf| (self.identify)(leaf)) {
            Some(who) => Ok(Some(who)),
            None => match bearer(head) {
                Some(token) => self.holder(token).await,
                None => Ok(None),
            },
        };
        let who = match who {
            Ok(Some(who)) => who,
            Ok(None) => return Some(plain(StatusCode::UNAUTHORIZED, "Unauthorized")),
            Err(error) => {
                tracing::warn!(%error, "cannot authenticate who asks for the kubelet's API");
                return Some(plain(StatusCode::UNAUTHORIZED, "Unauthorized"));
            }
        };
        if (self.trusted)(&who) {
            return None;
        }
        let (verb, subresources) = (verb(&head.method), subresources(head.uri.path()));
        for subresource in subresources {
            match self.may(&who, verb, subresource).await {
                Ok(true) => return None,
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(%error, user = who.name, "cannot authorize who asks for the kubelet's API");
                    return Some(plain(StatusCode::INTERNAL_SERVER_ERROR, format!("Authorization error (user={}, verb={verb}, resource=nodes, subresource={subresource})", who.name)));
                }
            }
        }
        Some(plain(StatusCode::FORBIDDEN, format!("Forbidden (user={}, verb={verb}, resource=nodes, subresource(s)=[{}])\n", who.name, subresources.join(" "))))
    }

    /// A review, as the API server fills it in.
    async fn ask(&self, group: &str, kind: &str, plural: &str, spec: Value) -> Result<Value, Status> {
        let target = Target { group: group.into(), version: "v1".into(), plural: plural.into(), namespace: None, name: None, subresource: None };
        let review = json!({"apiVersion": format!("{group}/v1"), "kind": kind, "metadata": {}, "spec": spec});
        self.client.transport().create(&target, Body::Value(review), &WriteOptions::default()).await?.value().map_err(Status::internal)
    }

    /// Whose token it is.
    async fn holder(&self, token: &str) -> Result<Option<Who>, Status> {
        if let Some((until, who)) = self.tokens.lock().get(token)
            && *until > Instant::now()
        {
            return Ok(who.clone());
        }
        let answer = self.ask("authentication.k8s.io", "TokenReview", "tokenreviews", json!({"token": token})).await?;
        let texts = |value: &Value| value.as_array().into_iter().flatten().filter_map(|text| text.as_str().map(str::to_owned)).collect::<Vec<_>>();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let user = &answer["status"]["user"];
        let who = (answer["status"]["authenticated"] == true).then(|| Who {
            name: text(&user["username"]),
            uid: text(&user["uid"]),
            groups: texts(&user["groups"]),
            extra: user["extra"].as_object().into_iter().flatten().map(|(key, values)| (key.clone(), texts(values))).collect(),
        });
        keep(&self.tokens, token.to_owned(), Instant::now() + TOKEN_BELIEVED, who.clone());
        Ok(who)
    }

    async fn may(&self, who: &Who, verb: &'static str, subresource: &'static str) -> Result<bool, Status> {
        let question = (who.clone(), verb, subresource);
        if let Some((until, allowed)) = self.answers.lock().get(&question)
            && *until > Instant::now()
        {
            return Ok(*allowed);
        }
        let attributes = json!({"verb": verb, "version": "v1", "resource": "nodes", "subresource": subresource, "name": self.node});
        let spec = json!({"user": who.name, "uid": who.uid, "groups": who.groups, "extra": who.extra, "resourceAttributes": attributes});
        let answer = self.ask("authorization.k8s.io", "SubjectAccessReview", "subjectaccessreviews", spec).await?;
        let allowed = answer["status"]["allowed"] == true;
        keep(&self.answers, question, Instant::now() + if allowed { YES_BELIEVED } else { NO_BELIEVED }, allowed);
        Ok(allowed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_of_the_node_a_path_is() {
        for (path, names) in [
            ("/pods", "pods proxy"),
            ("/pods/", "pods proxy"),
            ("/podsandmore", "proxy"),
            ("/runningpods/", "pods proxy"),
            ("/healthz/syncloop", "healthz proxy"),
            ("/configz", "configz proxy"),
            ("/stats/summary", "stats"),
            ("/metrics/cadvisor", "metrics"),
            ("/logs/a", "log"),
            ("/checkpoint/a/b/c", "checkpoint"),
            ("/exec/a/b/c", "proxy"),
            ("/containerLogs/a/b/c", "proxy"),
            ("/", "proxy"),
        ] {
            assert_eq!(subresources(path).join(" "), names, "{path}");
        }
        assert_eq!((verb(&Method::GET), verb(&Method::POST), verb(&Method::HEAD)), ("get", "create", ""));
    }

    #[test]
    fn tokens_and_room() {
        let of = |text: &str| {
            let (head, ()) = http::Request::builder().header(AUTHORIZATION, text).body(()).unwrap().into_parts();
            bearer(&head).map(str::to_owned)
        };
        assert_eq!(of("Bearer abc").as_deref(), Some("abc"));
        assert_eq!((of("Basic abc"), of("Bearer "), of(&format!("Bearer {}", "a".repeat(MAX_TOKEN_BYTES + 1)))), (None, None, None));
        let kept = Mutex::new(HashMap::new());
        let soon = Instant::now() + NO_BELIEVED;
        (0..MAX_ANSWERS * 2).for_each(|number| keep(&kept, number, soon, ()));
        assert!(kept.lock().len() <= MAX_ANSWERS);
    }
}
