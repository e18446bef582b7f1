//! The flags that name an etcd, as kube-apiserver's, and the store over it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use clap::Args;
use store::{Remote, RemoteConfig, Sealing};

#[derive(Args, Clone, Default)]
pub struct EtcdOptions {
    /// Keep the cluster's objects in this etcd (URLs, comma separated) instead of the data folder; several API servers may share it
    #[arg(long, value_name = "URLS", value_delimiter = ',')]
    pub etcd_servers: Vec<String>,
    /// The authority of etcd's certificates
    #[arg(long, value_name = "FILE")]
    etcd_cafile: Option<PathBuf>,
    /// The certificate by which etcd knows this cluster
    #[arg(long, value_name = "FILE", requires = "etcd_keyfile")]
    etcd_certfile: Option<PathBuf>,
    /// Its key
    #[arg(long, value_name = "FILE", requires = "etcd_certfile")]
    etcd_keyfile: Option<PathBuf>,
    /// What every key in etcd starts with
    #[arg(long, value_name = "PREFIX", default_value = "/registry")]
    etcd_prefix: String,
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

impl EtcdOptions {
    pub fn is_asked_for(&self) -> bool {
        !self.etcd_servers.is_empty()
    }

    pub fn config(&self, sealing: Sealing) -> Result<RemoteConfig> {
        let identity = match (&self.etcd_certfile, &self.etcd_keyfile) {
            (Some(certificate), Some(key)) => Some((read(certificate)?, read(key)?)),
            _ => None,
        };
        let tls = match &self.etcd_cafile {
            Some(authority) => Some(etcd::tls(&read(authority)?, identity.as_ref().map(|(certificate, key)| (&certificate[..], &key[..])))?),
            None if identity.is_some() => bail!("--etcd-certfile and --etcd-keyfile need --etcd-cafile"),
            None => None,
        };
        let resolve: etcd::Resolve = Arc::new(|host| Box::pin(async move { resolver::resolve(&host).await.map_err(|error| format!("dial tcp: {error}")) }));
        Ok(RemoteConfig { sealing, ..RemoteConfig::kubernetes(etcd::Config { endpoints: self.etcd_servers.clone(), tls, resolve }, &self.etcd_prefix) })
    }

    pub async fn open(&self, sealing: Sealing) -> Result<Remote> {
        let store = Remote::open(self.config(sealing)?).await.context("cannot open the store")?;
        tracing::info!(target: "store", endpoints = self.etcd_servers.join(","), prefix = self.etcd_prefix, "etcd is read");
        Ok(store)
    }
}
