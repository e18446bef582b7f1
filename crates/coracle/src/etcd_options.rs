//! The flags that name an etcd, as kube-apiserver's, and the store over it.

use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use kubeadm::{EtcdFacts, EtcdFlags, ExternalEtcd};
use store::{Remote, RemoteConfig, Sealing};

const PREFIX: &str = "/registry";
/// How long an etcd may take to say that it is there.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

#[derive(Args, Clone, Default)]
pub struct EtcdOptions {
    #[command(flatten)]
    flags: EtcdFlags,
    /// What every key in etcd starts with
    #[arg(long, value_name = "PREFIX", default_value = PREFIX)]
    pub etcd_prefix: String,
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

impl EtcdOptions {
    /// The etcd of a cluster that kubeadm made.
    pub fn of(external: &ExternalEtcd) -> Self {
        Self { flags: EtcdFlags::of(external), etcd_prefix: PREFIX.to_owned() }
    }

    /// The command line that says so again.
    pub fn words(&self) -> Vec<OsString> {
        let files = [("--etcd-cafile", &self.flags.etcd_cafile), ("--etcd-certfile", &self.flags.etcd_certfile), ("--etcd-keyfile", &self.flags.etcd_keyfile)];
        let files = files.into_iter().filter_map(|(flag, file)| Some([OsString::from(flag), file.as_ref()?.into()])).flatten();
        ["--etcd-servers".into(), self.flags.etcd_servers.join(",").into()].into_iter().chain(files).collect()
    }

    /// Whether it is there, and holds a cluster.
    pub async fn ask(&self) -> Result<EtcdFacts> {
        let client = etcd::Client::new(self.config(Sealing::default())?.client)?;
        let deadline = tokio::time::Instant::now() + ANSWER_TIMEOUT;
        let status = client.status(deadline).await?;
        let prefix = format!("{}/", self.etcd_prefix.trim_end_matches('/')).into_bytes();
        let range = etcd::Range { end: etcd::after_prefix(&prefix), key: prefix, limit: 1, keys_only: true, ..etcd::Range::default() };
        Ok(EtcdFacts { version: status.version, in_use: !client.range(&range, deadline).await?.items.is_empty() })
    }

    pub fn is_asked_for(&self) -> bool {
        !self.flags.etcd_servers.is_empty()
    }

    pub fn config(&self, sealing: Sealing) -> Result<RemoteConfig> {
        let identity = match (&self.flags.etcd_certfile, &self.flags.etcd_keyfile) {
            (Some(certificate), Some(key)) => Some((read(certificate)?, read(key)?)),
            _ => None,
        };
        let tls = match &self.flags.etcd_cafile {
            Some(authority) => Some(etcd::tls(&read(authority)?, identity.as_ref().map(|(certificate, key)| (&certificate[..], &key[..])))?),
            None if identity.is_some() => bail!("--etcd-certfile and --etcd-keyfile need --etcd-cafile"),
            None => None,
        };
        let resolve: etcd::Resolve = Arc::new(|host| Box::pin(async move { resolver::resolve(&host).await.map_err(|error| format!("dial tcp: {error}")) }));
        Ok(RemoteConfig { sealing, ..RemoteConfig::kubernetes(etcd::Config { endpoints: self.flags.etcd_servers.clone(), tls, resolve }, &self.etcd_prefix) })
    }

    pub async fn open(&self, sealing: Sealing) -> Result<Remote> {
        let store = Remote::open(self.config(sealing)?).await.context("cannot open the store")?;
        tracing::info!(target: "store", endpoints = self.flags.etcd_servers.join(","), prefix = self.etcd_prefix, "etcd is read");
        Ok(store)
    }
}
