//! Volumes that show objects of the API: configMap, secret, downwardAPI, projected. They follow their objects while the pod lives.
//!
//! Upstream looks every minute or so; here the watch of the object wakes the writer at once. Tokens are renewed at 80 % of their life.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use api::k8s::api::core::v1::{ConfigMap, ConfigMapProjection, DownwardAPIProjection, Secret, SecretProjection, Volume, VolumeProjection};
use client::{Changes, Informer};
use futures_util::future::select_all;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::cx::Cx;
use crate::fields::Facts;
use crate::pod;
use crate::volumes::atomic::{self, Payload, Projection};
use crate::volumes::{folder_of, fs_group, mount, payload, token};

const DEFAULT_MODE: u32 = 0o644;
/// After an update that failed, unless an object changes before.
const RETRY: Duration = Duration::from_secs(10);

/// One of them: all are projected volumes of one or more sources.
pub struct Shown {
    name: String,
    kind: &'static str,
    in_memory: bool,
    default_mode: u32,
    sources: Vec<VolumeProjection>,
}

/// Tokens by their path, and when they are to be renewed.
type Tokens = HashMap<String, (String, Instant)>;

enum Watch {
    ConfigMap(Arc<Informer<ConfigMap>>),
    Secret(Arc<Informer<Secret>>),
}

impl Shown {
    pub fn of(volume: &Volume) -> Option<Self> {
        let mode = |m: Option<i32>| m.and_then(|m| u32::try_from(m).ok()).unwrap_or(DEFAULT_MODE) & 0o777;
        let (kind, in_memory, default_mode, sources) = if let Some(source) = &volume.config_map {
            let projection = ConfigMapProjection { name: source.name.clone(), items: source.items.clone(), optional: source.optional };
            ("configmap", false, mode(source.default_mode), vec![VolumeProjection { config_map: Some(projection), ..VolumeProjection::default() }])
        } else if let Some(source) = &volume.secret {
            let name = source.secret_name.clone().unwrap_or_default();
            let projection = SecretProjection { name, items: source.items.clone(), optional: source.optional };
            ("secret", true, mode(source.default_mode), vec![VolumeProjection { secret: Some(projection), ..VolumeProjection::default() }])
        } else if let Some(source) = &volume.downward_api {
            let projection = DownwardAPIProjection { items: source.items.clone() };
            ("downward-api", true, mode(source.default_mode), vec![VolumeProjection { downward_api: Some(projection), ..VolumeProjection::default() }])
        } else if let Some(source) = &volume.projected {
            ("projected", true, mode(source.default_mode), source.sources.clone().unwrap_or_default())
        } else {
            return None;
        };
        Some(Self { name: volume.name.clone(), kind, in_memory, default_mode, sources })
    }

    pub async fn set_up(self, cx: &Cx) -> Result<(PathBuf, AbortHandle), String> {
        let path = folder_of(cx, self.kind, &self.name);
        if self.in_memory {
            mount::tmpfs(&path, 0o1777, None)?;
        }
        mount::folder(&path, 0o777)?;
        let watches = self.watches(cx);
        for watch in &watches {
            match watch {
                Watch::ConfigMap(informer) => informer.synced().await,
                Watch::Secret(informer) => informer.synced().await,
            }
        }
        let changes = watches
            .iter()
            .map(|watch| match watch {
                Watch::ConfigMap(informer) => informer.subscribe(),
                Watch::Secret(informer) => informer.subscribe(),
            })
            .collect();
        let mut tokens = Tokens::new();
        let payload = self.payload(cx, &watches, &mut tokens).await?;
        atomic::write(&path, &payload, fs_group(cx), cx.node.now()).map_err(|error| format!("{}: {error}", path.display()))?;
        let keeper = Keeper { shown: self, cx: cx.clone(), path: path.clone(), watches, changes, tokens, retry_at: None };
        Ok((path, tokio::spawn(keeper.run()).abort_handle()))
    }

    fn watches(&self, cx: &Cx) -> Vec<Watch> {
        let namespace = pod::namespace(&cx.pod);
        let objects = &cx.node.objects;
        let each = |source: &VolumeProjection| {
            let map = source.config_map.as_ref().map(|p| Watch::ConfigMap(objects.watch_config_map(namespace, &p.name)));
            map.or_else(|| source.secret.as_ref().map(|p| Watch::Secret(objects.watch_secret(namespace, &p.name))))
        };
        self.sources.iter().filter_map(each).collect()
    }

    /// The files as they should be now. Tokens that are due are renewed.
    async fn payload(&self, cx: &Cx, watches: &[Watch], tokens: &mut Tokens) -> Result<Payload, String> {
        let namespace = pod::namespace(&cx.pod);
        let mut watches = watches.iter();
        let mut out = Payload::new();
        for source in &self.sources {
            if let Some(projection) = &source.config_map {
                let optional = projection.optional == Some(true);
                let cached = match watches.next() {
                    Some(Watch::ConfigMap(informer)) => informer.cache().get(namespace, &projection.name),
                    _ => None,
                };
                let found = match cached {
                    Some(found) => Some(found),
                    // Just created, perhaps: the watch may not have told yet.
                    None => cx.node.objects.config_map(namespace, &projection.name).await?,
                };
                match found {
                    Some(map) => out.extend(payload::config_map(&map, projection.items.as_ref(), self.default_mode, optional)?),
                    None if optional => {}
                    None => return Err(format!("configmap {:?} not found", projection.name)),
                }
            } else if let Some(projection) = &source.secret {
                let optional = projection.optional == Some(true);
                let cached = match watches.next() {
                    Some(Watch::Secret(informer)) => informer.cache().get(namespace, &projection.name),
                    _ => None,
                };
                let found = match cached {
                    Some(found) => Some(found),
                    None => cx.node.objects.secret(namespace, &projection.name).await?,
                };
                match found {
                    Some(secret) => out.extend(payload::secret(&secret, projection.items.as_ref(), self.default_mode, optional)?),
                    None if optional => {}
                    None => return Err(format!("secret {:?} not found", projection.name)),
                }
            } else if let Some(projection) = &source.downward_api {
                let facts = Facts { host_ip: cx.node.node_ip(), pod_ips: cx.pod_ips(), allocatable: cx.node.allocatable.clone() };
                // The pod as it is now: labels and annotations change.
                let now = cx.node.find(namespace, pod::name(&cx.pod), Some(pod::uid(&cx.pod))).map_or_else(|| cx.pod.clone(), |found| found.pod);
                out.extend(payload::downward_api(&now, &facts, projection.items.as_deref().unwrap_or_default(), self.default_mode)?);
            } else if let Some(projection) = &source.service_account_token {
                let known = tokens.get(&projection.path).filter(|(_, until)| *until > Instant::now()).map(|(text, _)| text.clone());
                let text = match known {
                    Some(text) => text,
                    None => {
                        let token = token::request(cx, projection).await?;
                        tokens.insert(projection.path.clone(), (token.text.clone(), Instant::now() + token.refresh_in));
                        token.text
                    }
                };
                let uid = common_user(cx);
                // Only its user (and group) may read a token, where they are known.
                let mode = if uid.is_some() || fs_group(cx).is_some() { 0o600 } else { self.default_mode };
                out.insert(projection.path.clone(), Projection { data: text.into_bytes(), mode, uid });
            } else {
                return Err("this kind of projection is not supported by this node".to_owned());
            }
        }
        Ok(out)
    }

    fn follows_pod(&self) -> bool {
        self.sources.iter().any(|s| s.downward_api.is_some())
    }
}

/// The user all containers of the pod run as, if it is one.
fn common_user(cx: &Cx) -> Option<u32> {
    let spec = pod::spec(&cx.pod);
    let of_pod = spec.security_context.as_ref().and_then(|c| c.run_as_user);
    let mut users = pod::init_containers(&cx.pod).iter().chain(pod::containers(&cx.pod)).map(|c| c.security_context.as_ref().and_then(|s| s.run_as_user).or(of_pod));
    let first = users.next()??;
    users.all(|user| user == Some(first)).then(|| u32::try_from(first).ok())?
}

struct Keeper {
    shown: Shown,
    cx: Cx,
    path: PathBuf,
    watches: Vec<Watch>,
    changes: Vec<Changes>,
    tokens: Tokens,
    retry_at: Option<Instant>,
}

impl Keeper {
    async fn run(mut self) {
        // What was there when we subscribed has been written.
        for changes in &mut self.changes {
            while changes.try_next().is_some() {}
        }
        loop {
            let shared = self.cx.shared.clone();
            let updated = shared.updated.notified();
            let follows_pod = self.shown.follows_pod();
            let wake_at = self.tokens.values().map(|(_, at)| *at).chain(self.retry_at).min();
            let changes = &mut self.changes;
            tokio::select! {
                () = async { if changes.is_empty() { std::future::pending().await } else { drop(select_all(changes.iter_mut().map(|c| Box::pin(c.next()))).await) } } => {}
                () = updated, if follows_pod => {}
                () = async { match wake_at { Some(at) => tokio::time::sleep_until(at).await, None => std::future::pending().await } } => {}
            }
            self.retry_at = None;
            let written = match self.shown.payload(&self.cx, &self.watches, &mut self.tokens).await {
                Ok(payload) => atomic::write(&self.path, &payload, fs_group(&self.cx), self.cx.node.now()).map(drop).map_err(|error| error.to_string()),
                Err(error) => Err(error),
            };
            // What was shown stays; upstream keeps trying too.
            if let Err(error) = written {
                tracing::debug!(path = %self.path.display(), error, "the volume cannot be brought up to date");
                self.retry_at = Some(Instant::now() + RETRY);
                let due = Instant::now();
                // A token that could not be renewed is tried again with the rest, not at once.
                self.tokens.values_mut().filter(|(_, at)| *at <= due).for_each(|(_, at)| *at = due + RETRY);
            }
        }
    }
}
