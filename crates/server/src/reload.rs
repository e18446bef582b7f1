//! Configurations that are read again while the server runs: AuthenticationConfiguration, AuthorizationConfiguration, and the authorities of proxies in front and of clients.
//!
//! Mirrors kube-apiserver's reloading of `--authentication-config` and `--authorization-config`: a file that is wrong changes nothing, and is told in the log and by
//! `apiserver_…_config_controller_automatic_reloads_total{status="failure"}`. Encryption at rest follows its own file (`encryption/`).

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::watch;

use crate::api::Api;
use crate::authentication::{Anonymous, Fronts, Issuer};
use crate::authorization::AuthorizationMode;
use crate::file_changes::FileChanges;
use crate::metrics::{Counters, Gauges, hash};

/// What a file says.
pub enum Reloaded {
    Authentication { issuers: Vec<Arc<Issuer>>, anonymous: Anonymous },
    Authorization(Vec<AuthorizationMode>),
    /// The authority of proxies in front.
    Fronts(String),
    /// Authorities of clients besides the cluster's own.
    Clients(String),
}

pub type Parse = Box<dyn Fn(&[u8]) -> Result<Reloaded, String> + Send + Sync>;

/// A file, what it said at the start, and how it is read.
pub struct Followed {
    pub path: PathBuf,
    pub first: Vec<u8>,
    pub parse: Parse,
    /// Upstream counts some files only.
    pub metrics: Option<ReloadMetrics>,
}

/// How often a configuration was read again, how it went, and which one counts.
pub struct ReloadMetrics {
    total: Counters,
    last: Gauges,
    info: Gauges,
}

/// Which of several API servers says so; there is no identity here but this.
pub const SERVER: &str = "coracle";
const STATUS: &[&str] = &["status", "apiserver_id_hash"];
const INFO: &[&str] = &["apiserver_id_hash", "hash"];

macro_rules! metrics {
    ($what:literal, $total:literal, $last:literal) => {
        Self {
            total: Counters::new(concat!("apiserver_", $what, "_config_controller_automatic_reloads_total"), $total, STATUS),
            last: Gauges::new(concat!("apiserver_", $what, "_config_controller_automatic_reload_last_timestamp_seconds"), $last, STATUS),
            info: Gauges::new(concat!("apiserver_", $what, "_config_controller_last_config_info"), "Information about the last applied configuration with hash as label, split by apiserver identity.", INFO),
        }
    };
}

impl ReloadMetrics {
    pub fn authentication() -> Self {
        metrics!(
            "authentication",
            "[ALPHA] Total number of automatic reloads of authentication configuration split by status and apiserver identity.",
            "Timestamp of the last automatic reload of authentication configuration split by status and apiserver identity."
        )
    }

    pub fn authorization() -> Self {
        metrics!(
            "authorization",
            "Total number of automatic reloads of authorization configuration split by status and apiserver identity.",
            "Timestamp of the last automatic reload of authorization configuration split by status and apiserver identity."
        )
    }

    pub fn encryption() -> Self {
        metrics!(
            "encryption",
            "Total number of reload successes and failures of encryption configuration split by apiserver identity.",
            "Timestamp of the last successful or failed automatic reload of encryption configuration split by apiserver identity."
        )
    }

    /// What counts from now on, without having been read again.
    pub fn begin(&self, content: &[u8]) {
        self.info.only(&[&hash(SERVER.as_bytes()), &hash(content)], 1.0);
    }

    /// `Some`: the content that counts now.
    pub fn read(&self, outcome: Option<&[u8]>) {
        let status = if outcome.is_some() { "success" } else { "failure" };
        let server = hash(SERVER.as_bytes());
        self.total.add(&[status, &server], 1);
        self.last.now(&[status, &server]);
        if let Some(content) = outcome {
            self.begin(content);
        }
    }

    pub fn text(&self, out: &mut String) {
        self.total.text(out);
        self.last.text(out);
        self.info.text(out);
    }
}

impl Api {
    async fn take(self: &Arc<Self>, reloaded: Reloaded) {
        match reloaded {
            Reloaded::Authentication { issuers, anonymous } => self.reloadable.store(Arc::new((anonymous, issuers))),
            Reloaded::Authorization(modes) => self.authorizer.ask(modes),
            Reloaded::Fronts(authority) => self.believe(|fronts| (authority, fronts.clients_pem.clone())).await,
            Reloaded::Clients(clients) => self.believe(|fronts| (fronts.authority_pem.clone(), clients)).await,
        }
    }

    /// Other authorities of proxies and of clients, which `change` makes of those of now.
    async fn believe(self: &Arc<Self>, change: impl FnOnce(&Fronts) -> (String, String)) {
        self.fronts.send_modify(|fronts| {
            let (proxies, clients) = change(fronts);
            *fronts = Arc::new(Fronts::of(&self.config.ca_pem, proxies, clients));
        });
        loop {
            let told = self.fronts.borrow().clone();
            if let Err(error) = crate::cluster_trust::publish(self).await {
                tracing::warn!(%error, "servers behind APIServices are not told of the new authorities");
            }
            // Another file may have changed meanwhile: what is written last is what counts.
            if Arc::ptr_eq(&told, &self.fronts.borrow()) {
                return;
            }
        }
    }
}

/// Follows one file until `shutdown` becomes true or its sender is gone.
pub async fn run(api: Arc<Api>, followed: Arc<Followed>, mut shutdown: watch::Receiver<bool>) {
    let file = followed.path.display().to_string();
    let metrics = followed.metrics.as_ref();
    if let Some(metrics) = metrics {
        metrics.begin(&followed.first);
    }
    let mut changes = match FileChanges::of(&followed.path, followed.first.clone()) {
        Ok(changes) => changes,
        Err(error) => return tracing::warn!(%error, file, "a configuration is not followed: it counts from the next start"),
    };
    loop {
        tokio::select! {
            changed = changes.next() => if !changed { return },
            _ = shutdown.wait_for(|stop| *stop) => return,
        }
        match (followed.parse)(changes.content()) {
            Ok(reloaded) => {
                api.take(reloaded).await;
                if let Some(metrics) = metrics {
                    metrics.read(Some(changes.content()));
                }
                tracing::info!(file, "a configuration was read again");
            }
            Err(error) => {
                if let Some(metrics) = metrics {
                    metrics.read(None);
                }
                tracing::error!(error, file, "a configuration stays as it was");
            }
        }
    }
}
