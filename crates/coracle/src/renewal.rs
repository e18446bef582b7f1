//! A certificate that is renewed before it ends: read from its file, or signed by the cluster, and again when most of its life is over.
//!
//! Mirrors client-go's certificate manager: a new one at 70 to 90 % of its life. One so short that this is over before it was signed (it begins five minutes before that)
//! is renewed at half of what is left; client-go does it every second.

use std::path::PathBuf;
use std::time::Duration;

use client::Client;
use jiff::Timestamp;
use kubeadm::{IdentityFile, Wish, sign};
use pki::{Certificate, Identity};

use crate::agent_login;

/// How long somebody may take to approve and sign.
pub const SIGNING_PATIENCE: Duration = Duration::from_secs(300);
/// Between attempts that failed.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(60);

pub struct Renewal {
    pub file: IdentityFile,
    pub wish: Wish,
    /// A kubeconfig by which a new certificate is asked for once the one that is there has ended: none but who shows a good one is heard otherwise.
    pub bootstrap: Option<PathBuf>,
}

/// After how many seconds of its life it is renewed; `chance` of 0 to 255 spreads the many nodes of a cluster.
fn due(facts: &Certificate, chance: u8) -> i64 {
    let life = facts.not_after.saturating_sub(facts.not_before).max(0);
    facts.not_before + life * 7 / 10 + life * 2 / 10 * i64::from(chance) / 255
}

/// How many seconds it is kept: until it is due; of one that was just signed, at least half of what is left.
fn kept(facts: &Certificate, chance: u8, now: i64, just_signed: bool) -> u64 {
    let least = if just_signed { (facts.not_after - now) / 2 } else { 0 };
    (due(facts, chance) - now).max(least).max(0).unsigned_abs()
}

/// The same for one that was just signed, whoever else renews how.
pub fn kept_if_new(facts: &Certificate, now: i64) -> u64 {
    kept(facts, 0, now, true).max(1)
}

impl Renewal {
    /// That in the file while it is good and fits, else a new one, however long that takes.
    pub async fn first(&self, client: &Client) -> Identity {
        let now = Timestamp::now().as_second();
        match self.file.load() {
            Ok((identity, facts)) if facts.not_after > now => identity,
            _ => self.renewed(client).await,
        }
    }

    /// Of whoever has been cut off for longer than its certificate was good.
    fn by_bootstrap(&self) -> Option<Client> {
        let path = self.bootstrap.as_deref()?;
        let ended = self.file.load().is_ok_and(|(_, facts)| facts.not_after <= Timestamp::now().as_second());
        match ended.then(|| agent_login::bootstrap_client(path))? {
            Ok(client) => Some(client),
            Err(error) => {
                tracing::error!(error = %format_args!("{error:#}"), "the certificate has ended");
                None
            }
        }
    }

    async fn renewed(&self, client: &Client) -> Identity {
        let mut pause = RETRY_PAUSE;
        loop {
            let bootstrap = self.by_bootstrap();
            let outcome = match sign(bootstrap.as_ref().unwrap_or(client), &self.wish).await {
                Ok(identity) => self.file.store(&identity, Timestamp::now()).map(|()| identity).map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            };
            match outcome {
                Ok(identity) => {
                    tracing::info!(signer = self.wish.signer, "a new certificate");
                    return identity;
                }
                Err(error) => tracing::warn!(%error, signer = self.wish.signer, "no new certificate yet"),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY_PAUSE_MAX);
        }
    }

    /// Renews the one in the file whenever it is due, and tells of each new one. Never ends.
    pub async fn keep(&self, client: &Client, mut exchange: impl FnMut(&Identity)) {
        let mut chance = [0u8];
        // Without chance all nodes are early: no harm.
        let _ = getrandom::fill(&mut chance);
        let mut just_signed = false;
        loop {
            let kept = self.file.load().map_or(0, |(_, facts)| kept(&facts, chance[0], Timestamp::now().as_second(), just_signed));
            tokio::time::sleep(Duration::from_secs(kept).max(if just_signed { RETRY_PAUSE } else { Duration::ZERO })).await;
            exchange(&self.renewed(client).await);
            just_signed = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn due_between_seven_and_nine_tenths() {
        let authority = pki::Authority::generate("kubernetes", 1_800_000_000).unwrap();
        let identity = authority.issue(&pki::Pki::Client { user: "a", groups: &[] }, 1_800_000_000).unwrap();
        let facts = Certificate::read(identity.certificate_pem.as_bytes()).unwrap();
        let life = facts.not_after - facts.not_before;
        assert_eq!(due(&facts, 0), facts.not_before + life * 7 / 10);
        assert!((due(&facts, 255) - facts.not_before - life * 9 / 10).abs() < 2);
        let now = 1_800_000_000;
        assert_eq!((kept(&facts, 0, now, true), kept(&facts, 0, now, false)), ((due(&facts, 0) - now).unsigned_abs(), (due(&facts, 0) - now).unsigned_abs()));
        // Twenty seconds, five minutes of them gone at the start.
        let short = Certificate { not_before: now - 300, not_after: now + 20, ..facts };
        assert_eq!((kept(&short, 255, now, true), kept(&short, 255, now, false), kept(&short, 0, now + 30, true)), (10, 0, 0));
    }
}
