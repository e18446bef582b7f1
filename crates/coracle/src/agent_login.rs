//! Who an agent is when it starts: by its certificate while that is good, else by a bootstrap kubeconfig, with which it asks for a new one.
//!
//! Mirrors the kubelet's `certificate/bootstrap`: a certificate that ended while the agent was off is no end, if there is a `bootstrap-kubelet.conf` whose token is good. Unlike there,
//! a certificate inside of the kubeconfig is taken whenever the one of the folder is none: that is what `kubeadm kubeconfig user` on a control plane mends a node with.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use client::kubeconfig::Config;
use client::{Client, HttpClient, HttpTransport};
use jiff::Timestamp;
use kubeadm::{IdentityFile, Login, SigningError, Wish, kubeconfig, sign, write_private};
use pki::{Certificate, Identity};

use crate::kubelet::{RETRY_PAUSE, RETRY_PAUSE_MAX};

pub struct AgentLogin<'a> {
    pub kubeconfig: &'a Path,
    pub bootstrap: &'a Path,
    pub file: &'a IdentityFile,
    pub wish: &'a Wish,
}

/// Where the API server is, and who to be there.
pub type Found = (Config, Identity);

/// As the token, or whoever else is in that kubeconfig.
pub fn bootstrap_client(path: &Path) -> Result<Client> {
    let config = Config::load(Some(path)).context("unable to load bootstrap kubeconfig")?;
    Ok(Client::new(Arc::new(HttpTransport::new(HttpClient::new(&config, "kubelet")?)), "kubelet"))
}

impl AgentLogin<'_> {
    /// The newest that is good, of the folder or of the kubeconfig; else when the newest ended, if there was one.
    fn current(&self, now: Timestamp) -> Result<Result<Found, Option<i64>>> {
        let config = match Config::load(Some(self.kubeconfig)) {
            Ok(config) => config,
            // The folder with the certificate that it names is empty, or it was never written.
            Err(error) if self.bootstrap.exists() => {
                tracing::warn!(%error, "the kubeconfig is not used");
                return Ok(Err(None));
            }
            Err(error) => return Err(error).context("this machine has not joined a cluster\nhint: `kubeadm join`"),
        };
        let given = config.client_identity.as_ref().and_then(|(certificate, key)| {
            let facts = Certificate::read(certificate).ok()?;
            Some((Identity { certificate_pem: String::from_utf8_lossy(certificate).into_owned(), key_pem: String::from_utf8_lossy(key).into_owned() }, facts))
        });
        let stored = self.file.load();
        let best = stored.ok().into_iter().chain(given).max_by_key(|(_, facts)| facts.not_after);
        Ok(match best {
            Some((identity, facts)) if facts.not_after > now.as_second() => Ok((config, identity)),
            ended => Err(ended.map(|(_, facts)| facts.not_after)),
        })
    }

    /// Returns when there is one that is good.
    pub async fn find(&self) -> Result<Found> {
        let now = Timestamp::now();
        let ended = match self.current(now)? {
            Ok((config, identity)) => {
                // From a kubeconfig: it is renewed like any other.
                if self.file.load().map_or(true, |(stored, _)| stored.certificate_pem != identity.certificate_pem) {
                    self.file.store(&identity, now)?;
                }
                return Ok((config, identity));
            }
            Err(ended) => ended.and_then(|at| Timestamp::from_second(at).ok()),
        };
        let why = ended.map_or_else(|| "this node has no client certificate".to_owned(), |at| format!("this node's client certificate ended at {}, and it was not there to have it renewed", api::world::rfc3339(at)));
        if !self.bootstrap.exists() {
            bail!(
                "{why}: unable to load bootstrap kubeconfig: stat {}: no such file or directory\nhint: on a control plane, `kubeadm kubeconfig user --org system:nodes --client-name system:node:{} >kubelet.conf`; put that file here in place of {}, and `coracle up --detach`",
                self.bootstrap.display(),
                self.wish.node_name,
                self.kubeconfig.display()
            );
        }
        tracing::warn!(bootstrap = %self.bootstrap.display(), "{why}: a new one is asked for");
        let config = Config::load(Some(self.bootstrap)).context("unable to load bootstrap kubeconfig")?;
        let identity = self.sign(&bootstrap_client(self.bootstrap)?).await?;
        self.file.store(&identity, now)?;
        let ca = config.certificate_authority.as_deref().map(String::from_utf8_lossy).context("the bootstrap kubeconfig names no certificate authority")?;
        let current = self.file.current().display().to_string();
        let text = kubeconfig(&config.server, &ca, &format!("system:node:{}", self.wish.node_name), &Login::File(&current));
        write_private(self.kubeconfig, text.as_bytes()).with_context(|| format!("cannot write {}", self.kubeconfig.display()))?;
        Ok((Config { token: None, ..config }, identity))
    }

    async fn sign(&self, client: &Client) -> Result<Identity> {
        let mut pause = RETRY_PAUSE;
        loop {
            match sign(client, self.wish).await {
                Ok(identity) => return Ok(identity),
                Err(SigningError::Api(status)) if matches!(status.code, 401 | 403) => bail!(
                    "failed to run Kubelet: cannot create certificate signing request: {}\nhint: the token in {} is over, or none of this cluster's: `kubeadm token create` on a control plane makes one",
                    status.message,
                    self.bootstrap.display()
                ),
                Err(error) => tracing::warn!(%error, "no certificate yet"),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY_PAUSE_MAX);
        }
    }
}
