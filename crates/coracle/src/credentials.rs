//! The cluster's keys and certificates on disk, and the kubeconfig made of them.
//!
//! Files are kubeadm's: `pki/ca.crt`, `pki/apiserver.crt`, `pki/sa.key`, `admin.conf`.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use kubeadm::{FRONT_PROXY_CLIENT, Login, Names, PkiFolder};
use pki::{Authority, Identity, Pki};
use server::{Api, FrontProxy, TokenKey};

use crate::renewal;
use crate::tls::Shown;

const API_SERVER: &str = "apiserver";

pub struct Credentials {
    pub folder: PkiFolder,
    pub authority: Authority,
    pub admin: Identity,
    pub token_key: Arc<TokenKey>,
    /// Who we are to the servers behind APIServices.
    pub front_proxy: FrontProxy,
}

/// How often it is looked whether a certificate ends soon: they are renewed a month before.
const LOOK_PERIOD: Duration = Duration::from_secs(12 * 3600);
/// When one could not be made.
const RETRY_PERIOD: Duration = Duration::from_secs(60);

/// Shows the API server's certificate anew when somebody renews it (`kubeadm certs renew`).
pub async fn follow(folder: PkiFolder, shown: Arc<Shown>) {
    follow_one(folder, API_SERVER, |identity| shown.exchange(&identity)).await;
}

/// The same for who the API server is to the servers behind APIServices.
pub async fn follow_front_proxy(folder: PkiFolder, api: Arc<Api>) {
    let exchange = |identity| {
        api.exchange_front_proxy(identity);
        Ok(())
    };
    follow_one(folder, FRONT_PROXY_CLIENT, exchange).await;
}

async fn follow_one(folder: PkiFolder, name: &str, exchange: impl Fn(Identity) -> Result<()>) {
    let path = folder.certificate(name);
    let known = std::fs::read(&path).unwrap_or_default();
    let mut changes = match server::FileChanges::of(&path, known) {
        Ok(changes) => changes,
        Err(error) => return tracing::warn!(%error, file = %path.display(), "a certificate is not followed: a new one counts from the next start"),
    };
    // The key is written first.
    while changes.next().await {
        let exchanged = folder.identity(name).map_err(anyhow::Error::from).and_then(&exchange);
        match exchanged {
            Ok(()) => tracing::info!(target: "server", file = %path.display(), "the API server shows a new certificate"),
            Err(error) => tracing::error!(error = %format_args!("{error:#}"), file = %path.display(), "the API server's new certificate is not used"),
        }
    }
}

/// Renews the control plane's certificates before they end.
pub async fn keep(folder: PkiFolder, names: Names, clock: Arc<dyn api::Clock>) {
    loop {
        tokio::time::sleep(LOOK_PERIOD).await;
        if let Err(error) = folder.ensure(&names, clock.now().as_second(), &mut |line| tracing::debug!("{line}")) {
            tracing::error!(%error, "the control plane's certificates are not kept");
        }
    }
}

/// Shows the certificate of this machine's own agent anew when most of its life is over, as other machines' agents do: nobody else would renew it.
pub async fn keep_agent(shown: Arc<Shown>, mut identity: Identity, clock: Arc<dyn api::Clock>, issue: impl Fn() -> Result<Identity>) {
    loop {
        let now = clock.now().as_second();
        // What cannot be read is renewed as soon as can be.
        let kept = pki::Certificate::read(identity.certificate_pem.as_bytes()).map_or(0, |facts| renewal::kept_if_new(&facts, now));
        let due = now.saturating_add(i64::try_from(kept).unwrap_or(i64::MAX));
        // Looked at now and then: clocks are set, and machines sleep.
        while let Some(left) = u64::try_from(due - clock.now().as_second()).ok().filter(|left| *left > 0) {
            tokio::time::sleep(Duration::from_secs(left).min(LOOK_PERIOD)).await;
        }
        let renewed = issue().and_then(|next| shown.exchange(&next).map(|()| next));
        match renewed {
            Ok(next) => {
                tracing::info!("the certificate of this machine's agent is a new one");
                identity = next;
            }
            Err(error) => {
                tracing::error!(error = %format_args!("{error:#}"), "the certificate of this machine's agent is not kept");
                tokio::time::sleep(RETRY_PERIOD).await;
            }
        }
    }
}

/// Writes so that others never see half a file, and only the owner can read it.
pub fn write_private(path: &Path, contents: &[u8]) -> Result<()> {
    kubeadm::write_private(path, contents).with_context(|| format!("cannot write {}", path.display()))
}

impl Credentials {
    /// Loads what is there and makes what is missing, or no longer fits: addresses change.
    pub fn open(pki: &Path, names: &Names, now_seconds: i64) -> Result<Self> {
        let folder = PkiFolder(pki.to_owned());
        folder.ensure(names, now_seconds, &mut |line| tracing::debug!("{line}"))?;
        let authority = folder.authority("ca").context("`coracle reset` starts over")?;
        // An authority of its own: who is believed to speak for others must not be mistaken for a client, nor the other way round.
        let front_proxy = FrontProxy { authority_pem: folder.identity("front-proxy-ca")?.certificate_pem, identity: folder.identity(FRONT_PROXY_CLIENT)? };
        let token_key = Arc::new(TokenKey::from_pkcs8(&folder.token_key()?)?);
        let admin = authority.issue(&Pki::Client { user: "kubernetes-admin", groups: &["system:masters"] }, now_seconds)?;
        Ok(Self { folder, authority, admin, token_key, front_proxy })
    }

    /// The API server's own.
    pub fn api_server(&self) -> Result<Identity> {
        Ok(self.folder.identity(API_SERVER)?)
    }

    /// `admin.conf` for `server` (`https://192.0.2.1:6443`).
    pub fn kubeconfig(&self, server: &str) -> String {
        kubeadm::kubeconfig(server, &self.authority.identity.certificate_pem, "kubernetes-admin", &Login::Certificate(&self.admin))
    }
}
