//! The scheduler and the controllers as Prometheus knows them: each has an HTTPS port of its own with its metrics, its health and its configuration ([ADR 20](../../../docs/adr/0020-ports-of-parts.md)).
//!
//! Ports, paths and who may ask are those of kube-scheduler and kube-controller-manager. A port that is taken is told, and no reason not to run.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use basics::histogram::head;
use basics::metrics::{CONTENT_TYPE, line, shown};
use clap::Args;
use client::Measured;
use serde_json::{Value, json};
use server::{Api, Page, Pages};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::leader::Times;

pub const SCHEDULER: &str = "kube-scheduler";
pub const CONTROLLERS: &str = "kube-controller-manager";

#[derive(Args, Clone)]
#[command(next_help_heading = "Metrics of the scheduler and the controllers")]
pub struct PartOptions {
    /// Where the scheduler serves its metrics and its health
    #[arg(long, value_name = "IP", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    scheduler_bind_address: IpAddr,
    /// Port of the scheduler; 0: none
    #[arg(long, value_name = "PORT", default_value_t = 10259)]
    scheduler_secure_port: u16,
    /// Where the controllers serve their metrics and their health
    #[arg(long, value_name = "IP", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    controllers_bind_address: IpAddr,
    /// Port of the controllers; 0: none
    #[arg(long, value_name = "PORT", default_value_t = 10257)]
    controllers_secure_port: u16,
}

impl PartOptions {
    pub fn scheduler(&self) -> SocketAddr {
        SocketAddr::new(self.scheduler_bind_address, self.scheduler_secure_port)
    }

    pub fn controllers(&self) -> SocketAddr {
        SocketAddr::new(self.controllers_bind_address, self.controllers_secure_port)
    }
}

/// One of them.
pub struct Part {
    /// Also its Lease's.
    pub name: &'static str,
    pub client: Arc<Measured>,
    /// Whether it is us who do its work.
    pub leads: Arc<AtomicBool>,
    /// What only it measures.
    pub own: Option<Arc<scheduler::Measured>>,
    pub times: Times,
}

impl Part {
    pub fn new(name: &'static str, times: Times) -> Self {
        let own = (name == SCHEDULER).then(Arc::default);
        Self { name, client: Arc::default(), leads: Arc::default(), own, times }
    }

    fn metrics(&self) -> String {
        let mut out = String::new();
        basics::version::build_info(&mut out, server::GIT_VERSION);
        head(&mut out, "leader_election_master_status", "gauge", "[ALPHA] Gauge of if the reporting system is master of the relevant lease, 0 indicates backup, 1 indicates master. 'name' is the string used to identify the lease. Please make sure to group by name.");
        line(&mut out, "leader_election_master_status", &shown([("name", self.name)]), u8::from(self.leads.load(Ordering::Relaxed)));
        if let Some(own) = &self.own {
            own.text(&mut out);
        }
        self.client.text(&mut out);
        basics::process::text(&mut out);
        out
    }

    /// What of upstream's configuration there is here.
    fn configuration(&self) -> Value {
        let election = self.times.configuration(self.name);
        if self.name == SCHEDULER {
            json!({"componentconfig": {"LeaderElection": election}})
        } else {
            json!({"kubecontrollermanager.config.k8s.io": {"Generic": {"LeaderElection": election}}})
        }
    }

    fn page(&self, path: &str) -> Option<Page> {
        const PLAIN: &str = "text/plain; charset=utf-8";
        let page = |content_type, body| Some(Page { content_type, body });
        match path.trim_end_matches('/') {
            "/metrics" => page(CONTENT_TYPE, self.metrics()),
            "/metrics/slis" => page(CONTENT_TYPE, basics::metrics::indicators()),
            "/configz" => page("application/json", self.configuration().to_string()),
            // It is in this very process that it is asked.
            "/healthz" | "/livez" | "/readyz" | "/healthz/ping" | "/livez/ping" | "/readyz/ping" => page(PLAIN, "ok".to_owned()),
            _ => None,
        }
    }

    /// Serves it, if it is to have a port and can have it.
    pub async fn serve(self: Arc<Self>, address: SocketAddr, api: &Arc<Api>, tls: &Arc<rustls::ServerConfig>, stopped: &watch::Receiver<bool>) {
        if address.port() == 0 {
            return;
        }
        match TcpListener::bind(address).await {
            Ok(listener) => {
                let pages: Pages = Arc::new(move |path| self.page(path));
                tokio::spawn(server::serve_part(api.clone(), listener, tls.clone(), pages, stopped.clone()));
            }
            Err(error) => tracing::warn!(%error, %address, part = self.name, "the port of a part of the control plane is taken: its metrics and its health cannot be asked there"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_tells_of_itself_only() {
        let part = |name| Part::new(name, Times::default());
        let scheduler = part(SCHEDULER);
        scheduler.leads.store(true, Ordering::Relaxed);
        let text = |part: &Part| part.page("/metrics").map(|page| page.body).unwrap_or_default();
        let (scheduler_text, controllers_text) = (text(&scheduler), text(&part(CONTROLLERS)));
        assert!(scheduler_text.contains("leader_election_master_status{name=\"kube-scheduler\"} 1\n") && scheduler_text.contains("\nscheduler_pending_pods{queue=\"active\"} 0\n"), "{scheduler_text}");
        assert!(controllers_text.contains("leader_election_master_status{name=\"kube-controller-manager\"} 0\n") && !controllers_text.contains("scheduler_"), "{controllers_text}");
        for text in [scheduler_text, controllers_text] {
            assert!(text.contains("kubernetes_build_info{") && text.contains("\nprocess_start_time_seconds ") && !text.contains("apiserver_"));
        }
        assert_eq!(scheduler.page("/readyz").map(|page| page.body).as_deref(), Some("ok"));
        assert_eq!(scheduler.configuration()["componentconfig"]["LeaderElection"]["LeaseDuration"], "15s");
        assert!(scheduler.page("/api").is_none());
    }
}
