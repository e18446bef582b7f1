//! The options of `coracle up` that are kube-controller-manager's, by their names there.

use std::time::Duration;

use clap::Args;

use crate::api_server::duration;

#[derive(Args, Clone)]
#[command(next_help_heading = "Controllers")]
pub struct ControllerOptions {
    /// How long certificates are good that are signed for a CertificateSigningRequest, at most: 8760h
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "8760h0m0s")]
    cluster_signing_duration: Duration,
}

impl ControllerOptions {
    /// A certificate's life is told in whole seconds.
    pub fn signing_seconds(&self) -> i64 {
        i64::try_from(self.cluster_signing_duration.as_secs()).unwrap_or(controllers::DEFAULT_SIGNING_SECONDS).max(1)
    }
}
