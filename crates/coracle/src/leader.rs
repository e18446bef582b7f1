//! Who runs the controllers and the scheduler when several processes serve one etcd: whoever holds the Lease in `kube-system`.
//!
//! Mirrors client-go's leaderelection, with its times by kube-controller-manager's flags. Who waits is woken by the
//! Lease's own events; time only tells that a holder is gone. On one process with a store of its own there is nobody to elect.
//! Who loses the Lease ends its work before another one may begin; upstream ends the process, which here is the last resort only: it is an API server too.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Result as Checked, bail};
use api::k8s::api::coordination::v1::Lease;
use api::world::rfc3339_micro;
use api::{Clock, Status};
use basics::tasks::lasting;
use clap::Args;
use client::{Client, EventStream, WatchOptions};
use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

use crate::api_server::duration;

const NAMESPACE: &str = "kube-system";
/// A renewal must come so much before the end that clocks may differ (client-go's `JitterFactor`).
const JITTER_FACTOR: f64 = 1.2;

#[derive(Args, Clone, Copy)]
#[command(next_help_heading = "Several processes on one etcd")]
pub struct Times {
    /// How long those who wait believe in a leader that does not renew: whole seconds
    #[arg(long = "leader-elect-lease-duration", value_name = "DURATION", value_parser = duration, default_value = "15s")]
    lease: Duration,
    /// How long a leader tries to renew before it gives up
    #[arg(long = "leader-elect-renew-deadline", value_name = "DURATION", value_parser = duration, default_value = "10s")]
    renew: Duration,
    /// Between two tries
    #[arg(long = "leader-elect-retry-period", value_name = "DURATION", value_parser = duration, default_value = "2s")]
    retry: Duration,
}

impl Default for Times {
    fn default() -> Self {
        Self { lease: Duration::from_secs(15), renew: Duration::from_secs(10), retry: Duration::from_secs(2) }
    }
}

impl Times {
    /// As `/configz` shows it.
    pub fn configuration(&self, lease: &str) -> Value {
        let text = |duration: Duration| format!("{duration:?}");
        json!({"LeaderElect": true, "LeaseDuration": text(self.lease), "RenewDeadline": text(self.renew), "RetryPeriod": text(self.retry), "ResourceLock": "leases", "ResourceName": lease, "ResourceNamespace": NAMESPACE})
    }

    /// In the words of client-go's NewLeaderElector.
    pub fn check(&self) -> Checked<()> {
        if self.lease <= self.renew {
            bail!("leaseDuration must be greater than renewDeadline");
        }
        if self.renew <= self.retry.mul_f64(JITTER_FACTOR) {
            bail!("renewDeadline must be greater than retryPeriod*JitterFactor");
        }
        if self.lease.as_secs() == 0 {
            bail!("leaseDuration must be at least a second");
        }
        Ok(())
    }
}

impl Times {
    /// Who has lost the Lease has twice this until another one may hold it: to end by itself, and then to be ended.
    fn parting(&self) -> Duration {
        (self.lease - self.renew) / 2
    }
}

/// Ends what `running` runs, which was told to, by force after `grace`: false if that is not possible. `gone` is closed when nothing of it is left.
async fn parted(mut running: JoinHandle<()>, mut gone: mpsc::Receiver<Infallible>, grace: Duration, force: Duration) -> bool {
    match timeout(grace, &mut running).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::error!(target: "leader", %error, "the work ended badly"),
        Err(_) => {
            tracing::warn!(target: "leader", ?grace, "the work does not end by itself");
            running.abort();
        }
    }
    timeout(force, gone.recv()).await.is_ok()
}

/// What we saw of the Lease, and when by our own clock: nobody else's clock is believed.
struct Seen {
    version: String,
    at: Instant,
}

pub struct Election {
    pub client: Client,
    /// The Lease's: `kube-scheduler`.
    pub name: &'static str,
    /// Ours among the candidates: host and a random part.
    pub identity: String,
    pub clock: Arc<dyn Clock>,
    pub times: Times,
    /// Another one may lead, and our work cannot be ended: the process must not go on.
    pub lost: fn(&'static str),
    /// Whether it is we who lead.
    pub leads: Arc<AtomicBool>,
}

impl Election {
    /// Runs `work` for as long as we hold the Lease, again whenever we do, until `stopped`. `work` ends when its own signal says so.
    pub async fn run<W: Future<Output = ()> + Send + 'static>(self, mut stopped: watch::Receiver<bool>, work: impl Fn(watch::Receiver<bool>) -> W + Send + Sync + 'static) {
        let work = Arc::new(work);
        loop {
            tokio::select! {
                () = self.acquire() => {}
                _ = stopped.wait_for(|stop| *stop) => return,
            }
            tracing::info!(target: "leader", lease = self.name, identity = self.identity, "we lead");
            self.leads.store(true, Ordering::Relaxed);
            let (end, ended) = watch::channel(false);
            // Else we would hold the Lease, and nobody would do the work.
            let (alive, gone) = mpsc::channel(1);
            let running = tokio::spawn({
                let (work, ended) = (work.clone(), ended.clone());
                lasting(self.name, ended.clone(), move || {
                    let (work, alive) = (work(ended.clone()), alive.clone());
                    async move {
                        work.await;
                        drop(alive);
                    }
                })
            });
            let stop = tokio::select! {
                () = self.hold() => false,
                _ = stopped.wait_for(|stop| *stop) => true,
            };
            self.leads.store(false, Ordering::Relaxed);
            let _ = end.send(true);
            if !parted(running, gone, self.times.parting(), self.times.parting()).await {
                return (self.lost)(self.name);
            }
            if stop {
                self.release().await;
                return;
            }
            tracing::warn!(target: "leader", lease = self.name, "another one leads, or we could not say that we do");
        }
    }

    /// Until the Lease is ours.
    async fn acquire(&self) {
        let mut seen: Option<Seen> = None;
        loop {
            let until = match self.look(&mut seen).await {
                Ok(Some(until)) => until,
                Ok(None) => return,
                Err(error) => {
                    tracing::debug!(target: "leader", %error, lease = self.name, "cannot look at the lease");
                    Instant::now() + self.times.retry
                }
            };
            match self.changes().await {
                // The first event is the present state.
                Ok(mut changes) => drop(timeout_at(until, async { (changes.next().await, changes.next().await) }).await),
                Err(_) => sleep_until(until.min(Instant::now() + self.times.retry)).await,
            }
        }
    }

    async fn changes(&self) -> Result<EventStream, Status> {
        let options = WatchOptions { field_selector: format!("metadata.name={}", self.name), ..WatchOptions::default() };
        self.client.of::<Lease>(Some(NAMESPACE)).watch(&options).await
    }

    /// Takes it if it is free: then `None`; else when it will be, as far as one knows.
    async fn look(&self, seen: &mut Option<Seen>) -> Result<Option<Instant>, Status> {
        let leases = self.client.of::<Lease>(Some(NAMESPACE));
        let lease = match leases.get(self.name).await {
            Ok(lease) => lease,
            Err(error) if error.is_not_found() => {
                let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": self.name, "namespace": NAMESPACE}, "spec": self.spec(None)});
                return leases.create(&serde_json::from_value(lease).map_err(Status::internal)?).await.map(|_| None);
            }
            Err(error) => return Err(error),
        };
        let version = lease.metadata.resource_version.clone().unwrap_or_default();
        if seen.as_ref().is_none_or(|seen| seen.version != version) {
            *seen = Some(Seen { version, at: Instant::now() });
        }
        let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default();
        let since = seen.as_ref().map_or_else(Instant::now, |seen| seen.at);
        // The holder says for how long: its flags may be other ones than ours.
        let lasts = lease.spec.as_ref().and_then(|spec| u64::try_from(spec.lease_duration_seconds?).ok()).map_or(self.times.lease, Duration::from_secs);
        if !holder.is_empty() && holder != self.identity && since + lasts > Instant::now() {
            return Ok(Some(since + lasts));
        }
        self.take(&lease).await.map(|()| None)
    }

    /// Fails if it was changed since.
    async fn take(&self, lease: &Lease) -> Result<(), Status> {
        let mut wanted = lease.clone();
        wanted.spec = serde_json::from_value(self.spec(Some(lease))).map_err(Status::internal)?;
        self.client.of::<Lease>(Some(NAMESPACE)).update(self.name, &wanted).await.map(drop)
    }

    fn spec(&self, before: Option<&Lease>) -> Value {
        let now = rfc3339_micro(self.clock.now());
        let before = before.and_then(|lease| serde_json::to_value(&lease.spec).ok()).unwrap_or_default();
        let held = before["holderIdentity"] == self.identity.as_str();
        let acquired = if held { before["acquireTime"].clone() } else { now.as_str().into() };
        let transitions = before["leaseTransitions"].as_i64().unwrap_or(0) + i64::from(!held && before.is_object());
        json!({"holderIdentity": self.identity, "leaseDurationSeconds": self.times.lease.as_secs(), "acquireTime": acquired, "renewTime": now, "leaseTransitions": transitions})
    }

    /// Renews it until it is lost.
    async fn hold(&self) {
        let leases = self.client.of::<Lease>(Some(NAMESPACE));
        let mut renewed = Instant::now();
        loop {
            sleep(self.times.retry).await;
            let renew = async {
                let lease = leases.get(self.name).await?;
                let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.clone());
                if holder.as_deref() != Some(self.identity.as_str()) {
                    return Ok(false);
                }
                self.take(&lease).await.map(|()| true)
            };
            match timeout_at(renewed + self.times.renew, renew).await {
                Ok(Ok(true)) => renewed = Instant::now(),
                Ok(Ok(false)) | Err(_) => return,
                Ok(Err::<bool, Status>(error)) => {
                    tracing::debug!(target: "leader", %error, lease = self.name, "cannot renew the lease");
                    if Instant::now() >= renewed + self.times.renew {
                        return;
                    }
                }
            }
        }
    }

    /// So that the next one need not wait for it to end.
    async fn release(&self) {
        let leases = self.client.of::<Lease>(Some(NAMESPACE));
        let Ok(lease) = leases.get(self.name).await else { return };
        let mut free = (*lease).clone();
        if let Some(spec) = free.spec.as_mut().filter(|spec| spec.holder_identity.as_deref() == Some(self.identity.as_str())) {
            spec.holder_identity = None;
            if let Err(error) = leases.update(self.name, &free).await {
                tracing::debug!(target: "leader", %error, lease = self.name, "the lease ends by itself");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(10);
    const LONG: Duration = Duration::from_secs(60);

    /// Work as `run` begins it, in a task within a task.
    fn begin<W: Future<Output = ()> + Send + 'static>(work: W) -> (JoinHandle<()>, mpsc::Receiver<Infallible>) {
        let (alive, gone) = mpsc::channel(1);
        let running = tokio::spawn(async move {
            let mut inner = tokio::task::JoinSet::new();
            inner.spawn(async move {
                work.await;
                drop(alive);
            });
            inner.join_next().await;
        });
        (running, gone)
    }

    #[tokio::test]
    async fn work_that_does_not_end_is_ended() {
        let (running, gone) = begin(async {});
        assert!(parted(running, gone, LONG, LONG).await);
        let (held, mut dropped) = mpsc::channel::<()>(1);
        let (running, gone) = begin(async move {
            let _held = held;
            std::future::pending().await
        });
        assert!(parted(running, gone, SHORT, LONG).await);
        assert_eq!(dropped.recv().await, None);
        // What nobody can end is told of.
        let (alive, gone) = mpsc::channel(1);
        assert!(!parted(tokio::spawn(std::future::pending()), gone, SHORT, SHORT).await);
        drop(alive);
    }
}
