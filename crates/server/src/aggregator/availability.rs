//! Whether the servers behind APIServices are there: their `Available` condition, and what they say they serve.
//!
//! Watches: APIServices, Services, EndpointSlices. Writes: APIServices' status. Asks again every half minute, sooner after a failure: another server's health has no event.
//! Mirrors kube-aggregator/pkg/controllers/status/remote, reason for reason.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::{Notify, watch};

use super::onward::fetch;
use super::{PREFIX, Remote, Said, remotes};
use crate::api::{Api, Context};
use crate::authentication::User;
use crate::follow::follow;
use crate::registry::{Part, metadata, text};
use crate::special::pods::set_condition;

const FOLLOWED: [&str; 3] = [PREFIX, "/registry/services/specs/", "/registry/endpointslices/"];
const RESYNC: Duration = Duration::from_secs(30);
const FIRST_RETRY: Duration = Duration::from_secs(1);
const ASK_TIMEOUT: Duration = Duration::from_secs(5);

/// Until `shutdown` becomes true or its sender is gone.
pub async fn run(api: &Arc<Api>, mut shutdown: watch::Receiver<bool>) {
    let news = Notify::new();
    let listening = futures_util::future::join_all(FOLLOWED.iter().map(|prefix| listen(api, prefix, &news, shutdown.clone())));
    let ask = async {
        let mut retry = FIRST_RETRY;
        loop {
            let well = pass(api).await;
            retry = if well { FIRST_RETRY } else { (retry * 2).min(RESYNC) };
            let wait = if well { RESYNC } else { retry };
            tokio::select! {
                () = news.notified() => {}
                () = tokio::time::sleep(wait), if !remotes(api).remotes.is_empty() => {}
                _ = shutdown.wait_for(|stop| *stop) => return,
            }
        }
    };
    tokio::join!(listening, ask);
}

async fn listen(api: &Api, prefix: &'static str, news: &Notify, shutdown: watch::Receiver<bool>) {
    let mut written = follow(&api.store, prefix, shutdown);
    while written.next().await.is_some() {
        if prefix == PREFIX {
            api.aggregator.changed();
        }
        // Services and their endpoints concern only those who are behind one.
        if prefix == PREFIX || !remotes(api).remotes.is_empty() {
            news.notify_one();
        }
    }
}

/// Asks everybody; true when everybody is well.
async fn pass(api: &Api) -> bool {
    let index = remotes(api);
    api.aggregator.said.lock().retain(|name, _| index.remotes.iter().any(|remote| remote.name == *name));
    futures_util::future::join_all(index.remotes.iter().map(|remote| check(api, remote))).await.into_iter().all(|well| well)
}

async fn check(api: &Api, remote: &Remote) -> bool {
    let outcome = match reachable(api, remote) {
        Ok(()) => ask(api, remote).await,
        Err(outcome) => Err(outcome),
    };
    let (status, reason, message) = match &outcome {
        Ok(()) => ("True", "Passed", "all checks passed"),
        Err((reason, message)) => ("False", *reason, message.as_str()),
    };
    write(api, remote, status, reason, message).await;
    outcome.is_ok()
}

/// What can be seen without asking: the Service, its port, its endpoints.
fn reachable(api: &Api, remote: &Remote) -> Result<(), (&'static str, String)> {
    let place = format!("service/{} in {:?}", remote.service, remote.service_namespace);
    let service = api.store.get(&format!("/registry/services/specs/{}/{}", remote.service_namespace, remote.service)).and_then(|object| object.value().ok());
    let service = service.ok_or_else(|| ("ServiceNotFound", format!("{place} is not present")))?;
    if text(&service, "/spec/type") != "ClusterIP" {
        return Ok(());
    }
    let ports = service.pointer("/spec/ports").and_then(Value::as_array);
    let port = ports.into_iter().flatten().find(|port| port.get("port").and_then(Value::as_u64) == Some(u64::from(remote.port)));
    let port_name = text(port.ok_or_else(|| ("ServicePortError", format!("{place} is not listening on port {}", remote.port)))?, "/name");
    let page = api.store.list(&format!("/registry/endpointslices/{}/", remote.service_namespace), None, None, 0);
    let page = page.map_err(|error| ("EndpointsAccessError", format!("{place} cannot be checked due to: {error}")))?;
    let slices: Vec<Value> = page.items.iter().filter(|(_, slice)| slice.meta().labels.get("kubernetes.io/service-name") == Some(&remote.service)).filter_map(|(_, slice)| slice.value().ok()).collect();
    if slices.is_empty() {
        return Err(("EndpointsNotFound", format!("cannot find endpointslices for {place}")));
    }
    let array = |value: &Value, name: &str| value.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
    let serves = |slice: &Value| {
        array(slice, "endpoints").iter().any(|endpoint| endpoint.pointer("/conditions/ready").and_then(Value::as_bool).unwrap_or(true))
            && array(slice, "ports").iter().any(|port| text(port, "/name") == port_name && port.get("port").is_some_and(Value::is_number))
    };
    if slices.iter().any(serves) { Ok(()) } else { Err(("MissingEndpoints", format!("endpointslices for {place} have no addresses with port name {port_name:?}"))) }
}

/// The group version's own document is what such a server has to serve.
async fn ask(api: &Api, remote: &Remote) -> Result<(), (&'static str, String)> {
    let url = format!("https://{}:{}{}", remote.host(), remote.port, remote.path());
    let failed = |why: String| ("FailedDiscoveryCheck", format!("failing or missing response from {url}: {why}"));
    let asked = tokio::time::timeout(ASK_TIMEOUT, fetch(api, remote, &remote.path(), "application/json")).await;
    let (code, body) = asked.map_err(|_| failed(format!("Get {url:?}: context deadline exceeded")))?.map_err(|why| failed(format!("Get {url:?}: {why}")))?;
    if !(200..300).contains(&code) {
        return Err(failed(format!("bad status from {url}: {code}")));
    }
    let resources: Value = serde_json::from_slice(&body).unwrap_or_default();
    let known = api.aggregator.said.lock().get(&remote.name).is_some_and(|said| said.resources == resources && said.openapi_v3.is_some());
    if !known {
        let document = async |path: &str| {
            let (code, body) = tokio::time::timeout(ASK_TIMEOUT, fetch(api, remote, path, "application/json")).await.ok()?.ok()?;
            (code == 200).then(|| serde_json::from_slice::<Value>(&body).ok()).flatten()
        };
        let said = Said { resources, openapi_v2: document("/openapi/v2").await.map(Arc::new), openapi_v3: document("/openapi/v3").await };
        api.aggregator.said.lock().insert(remote.name.clone(), said);
    }
    Ok(())
}

async fn write(api: &Api, remote: &Remote, status: &str, reason: &str, message: &str) {
    let Some(row) = api.serving.rows().find(super::GROUP, "v1", "apiservices") else { return };
    let cx = Context { field_manager: "kube-apiserver".into(), exempt: true, ..Context::of(Arc::new(User::component("system:apiserver"))) };
    let now = api.now();
    let changed = api.change(&row, None, &remote.name, Part::Status, &cx, |old| {
        let known = old.pointer("/status/conditions").and_then(Value::as_array).into_iter().flatten().find(|condition| text(condition, "/type") == "Available");
        let mut new = old.clone();
        metadata(&mut new).remove("resourceVersion");
        if known.is_some_and(|known| text(known, "/status") == status && text(known, "/reason") == reason && text(known, "/message") == message) {
            return Ok(new);
        }
        let since = known.filter(|known| text(known, "/status") == status).map_or(&*now, |known| text(known, "/lastTransitionTime"));
        set_condition(&mut new, json!({"type": "Available", "status": status, "reason": reason, "message": message, "lastTransitionTime": since}));
        Ok(new)
    });
    if status == "False" {
        api.measured.unavailable.add(&[&remote.name, reason], 1);
    }
    if let Err(error) = changed.await
        && !error.is_not_found()
    {
        tracing::warn!(%error, service = remote.name, "cannot write whether an aggregated API is available");
    }
}
