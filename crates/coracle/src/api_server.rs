//! The options of `coracle up` that are kube-apiserver's, by their names there: limits, audit, encryption at rest, TLS.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use rustls::crypto::CryptoProvider;
use rustls::{SupportedCipherSuite, SupportedProtocolVersion};
use server::{Audit, AuditBatchOptions, AuditTruncation, AuditWebhookMode, AuditWebhookOptions, Backends, Encryption, EventRateLimit, LogFormat, LogOptions, Shutdown};

#[derive(Args, Clone)]
#[command(next_help_heading = "API server")]
pub struct ApiServerOptions {
    /// Requests that read, at a time
    #[arg(long, value_name = "COUNT", default_value_t = 400)]
    max_requests_inflight: usize,
    /// Requests that change something, at a time; priority and fairness shares out the sum of both
    #[arg(long, value_name = "COUNT", default_value_t = 200)]
    max_mutating_requests_inflight: usize,
    /// Queue and shed requests by priority levels and flows; otherwise just the two limits hold
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    enable_priority_and_fairness: bool,
    /// What a request may take that is no stream: 60s, 1m30s
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "1m0s")]
    request_timeout: Duration,
    /// How long requests are served on after a signal to stop, with /readyz failing, before nothing new is taken
    #[arg(long, value_name = "DURATION", value_parser = any_duration, default_value = "0s")]
    shutdown_delay_duration: Duration,
    /// Whether who comes while requests in flight are finished is told to come again (429), instead of finding the port closed
    #[arg(long, value_name = "BOOL", default_value_t = false, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    shutdown_send_retry_after: bool,
    /// Within which time watches are ended one after the other then; 0s: all at once
    #[arg(long, value_name = "DURATION", value_parser = any_duration, default_value = "0s")]
    shutdown_watch_termination_grace_period: Duration,
    /// What is audited (an audit.k8s.io/v1 Policy); without it nothing is
    #[arg(long, value_name = "FILE")]
    audit_policy_file: Option<PathBuf>,
    /// Where audit events are written, a line each; - is the standard output
    #[arg(long, value_name = "FILE")]
    audit_log_path: Option<PathBuf>,
    /// Days that a rotated audit log is kept; 0: as long as there are not too many
    #[arg(long, value_name = "DAYS", default_value_t = 0)]
    audit_log_maxage: u64,
    /// Rotated audit logs that are kept; 0: all
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    audit_log_maxbackup: usize,
    /// Size in megabytes at which the audit log is rotated; 0: 100
    #[arg(long, value_name = "MEGABYTES", default_value_t = 0)]
    audit_log_maxsize: u64,
    /// How audit events are written: json, or legacy for one line of text
    #[arg(long, value_name = "FORMAT", default_value = "json", value_parser = ["json", "legacy"])]
    audit_log_format: String,
    /// How events are written: batch (no request waits), blocking (what is lost is counted) or blocking-strict (the request is refused)
    #[arg(long, value_name = "MODE", default_value = "blocking", value_parser = ["batch", "blocking", "blocking-strict"])]
    audit_log_mode: String,
    /// Whether rotated audit logs are kept compressed
    #[arg(long, value_name = "BOOL", default_value_t = false, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    audit_log_compress: bool,
    /// Events that may wait to be written in batch mode; further ones are lost
    #[arg(long, value_name = "COUNT", default_value_t = 10000)]
    audit_log_batch_buffer_size: usize,
    /// Events that are written at once, at most
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    audit_log_batch_max_size: usize,
    /// How long events wait for others
    #[arg(long, value_name = "DURATION", value_parser = any_duration, default_value = "0s")]
    audit_log_batch_max_wait: Duration,
    /// Whether there is a limit of batches a second
    #[arg(long, value_name = "BOOL", default_value_t = false, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    audit_log_batch_throttle_enable: bool,
    /// Batches a second
    #[arg(long, value_name = "QPS", default_value_t = 0.0)]
    audit_log_batch_throttle_qps: f64,
    /// Batches at once, when none were written for a while
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    audit_log_batch_throttle_burst: u32,
    /// Whether events that are too large lose what was sent and answered
    #[arg(long, value_name = "BOOL", default_value_t = false, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    audit_log_truncate_enabled: bool,
    /// How large an event may be, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = TRUNCATE_EVENT)]
    audit_log_truncate_max_event_size: usize,
    /// How large a batch may be, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = TRUNCATE_BATCH)]
    audit_log_truncate_max_batch_size: usize,
    /// Whether events for the webhook that are too large lose what was sent and answered
    #[arg(long, value_name = "BOOL", default_value_t = false, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    audit_webhook_truncate_enabled: bool,
    /// How large an event for the webhook may be, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = TRUNCATE_EVENT)]
    audit_webhook_truncate_max_event_size: usize,
    /// How large a batch for the webhook may be, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = TRUNCATE_BATCH)]
    audit_webhook_truncate_max_batch_size: usize,
    /// Kubeconfig of a webhook that audit events are sent to
    #[arg(long, value_name = "FILE")]
    audit_webhook_config_file: Option<PathBuf>,
    /// How it is sent events: batch, blocking or blocking-strict
    #[arg(long, value_name = "MODE", default_value = "batch", value_parser = ["batch", "blocking", "blocking-strict"])]
    audit_webhook_mode: String,
    /// What is waited before it is tried again for the first time
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "10s")]
    audit_webhook_initial_backoff: Duration,
    /// Events that may wait to be sent; further ones are lost
    #[arg(long, value_name = "COUNT", default_value_t = 10000)]
    audit_webhook_batch_buffer_size: usize,
    /// Events that are sent at once, at most
    #[arg(long, value_name = "COUNT", default_value_t = 400)]
    audit_webhook_batch_max_size: usize,
    /// How long events wait for others
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "30s")]
    audit_webhook_batch_max_wait: Duration,
    /// Whether there is a limit of batches a second
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    audit_webhook_batch_throttle_enable: bool,
    /// Batches a second
    #[arg(long, value_name = "QPS", default_value_t = 10.0)]
    audit_webhook_batch_throttle_qps: f64,
    /// Batches at once, when none were sent for a while
    #[arg(long, value_name = "COUNT", default_value_t = 15)]
    audit_webhook_batch_throttle_burst: u32,
    /// How values are sealed where they are stored (an EncryptionConfiguration); the file is followed
    #[arg(long, value_name = "FILE")]
    encryption_provider_config: Option<PathBuf>,
    /// Whether that file is read again when it changes
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    encryption_provider_config_automatic_reload: bool,
    /// Configuration of admission plugins (an AdmissionConfiguration): EventRateLimit
    #[arg(long, value_name = "FILE")]
    admission_control_config_file: Option<PathBuf>,
    /// The oldest TLS that is spoken: VersionTLS12 or VersionTLS13
    #[arg(long, value_name = "VERSION", default_value = "VersionTLS12", value_parser = ["VersionTLS12", "VersionTLS13"])]
    tls_min_version: String,
    /// Cipher suites of TLS 1.2, by their IANA names, with commas between them; all good ones when left out
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    tls_cipher_suites: Vec<String>,
}

/// Upstream's, of one event and of a batch.
const TRUNCATE_EVENT: usize = 100 * 1024;
const TRUNCATE_BATCH: usize = 10 * 1024 * 1024;

fn truncation(enabled: bool, max_event_size: usize, max_batch_size: usize) -> Result<Option<AuditTruncation>> {
    if !enabled {
        return Ok(None);
    }
    if max_batch_size < max_event_size {
        bail!("maximum batch size must be greater than or equal to maximum event size");
    }
    if max_event_size == 0 {
        bail!("maximum event size must be positive");
    }
    Ok(Some(AuditTruncation { max_event_size, max_batch_size }))
}

/// A duration that may be nothing.
fn any_duration(text: &str) -> Result<Duration, String> {
    server::go_duration(text).ok_or_else(|| "want a duration, as 60s or 1m30s".into())
}

/// A flag of Go's durations.
pub fn duration(text: &str) -> Result<Duration, String> {
    server::go_duration(text).filter(|duration| !duration.is_zero()).ok_or_else(|| "want a duration, as 60s or 1m30s".into())
}

impl ApiServerOptions {
    /// What the store is to seal its values with.
    pub fn encryption(&self) -> Result<Option<Arc<Encryption>>> {
        let encryption = self.encryption_provider_config.as_deref().map(Encryption::open).transpose()?;
        if let Some(encryption) = &encryption {
            encryption.follow(self.encryption_provider_config_automatic_reload);
        }
        Ok(encryption)
    }

    pub fn configure(&self, config: &mut server::Config, clock: &Arc<dyn api::Clock>) -> Result<()> {
        if self.max_requests_inflight + self.max_mutating_requests_inflight == 0 && self.enable_priority_and_fairness {
            bail!("--max-requests-inflight and --max-mutating-requests-inflight must add up to something positive");
        }
        config.max_requests_in_flight = self.max_requests_inflight;
        config.max_mutating_requests_in_flight = self.max_mutating_requests_inflight;
        config.priority_and_fairness = self.enable_priority_and_fairness;
        config.request_timeout = self.request_timeout;
        config.shutdown = Shutdown { delay: self.shutdown_delay_duration, send_retry_after: self.shutdown_send_retry_after, watch_grace: self.shutdown_watch_termination_grace_period };
        let backends = self.audit_backends()?;
        config.audit = match &self.audit_policy_file {
            Some(_) if backends.log.is_none() && backends.webhook.is_none() => bail!("--audit-policy-file needs --audit-log-path or --audit-webhook-config-file"),
            Some(policy) => Some(Audit::open(policy, backends, clock.clone()).context("cannot audit")?),
            // As upstream: where to without what is no audit.
            None => None,
        };
        config.event_rate_limit = match &self.admission_control_config_file {
            Some(file) => EventRateLimit::open(file)?.map(Arc::new),
            None => None,
        };
        Ok(())
    }

    fn audit_backends(&self) -> Result<Backends> {
        let log = self.audit_log_path.as_ref().map(|path| Ok::<_, anyhow::Error>(LogOptions {
            path: path.clone(),
            max_age_days: self.audit_log_maxage,
            max_backups: self.audit_log_maxbackup,
            max_size_megabytes: self.audit_log_maxsize,
            format: if self.audit_log_format == "legacy" { LogFormat::Legacy } else { LogFormat::Json },
            strict: self.audit_log_mode == "blocking-strict",
            batch: (self.audit_log_mode == "batch").then(|| AuditBatchOptions {
                buffer_size: self.audit_log_batch_buffer_size,
                max_batch_size: self.audit_log_batch_max_size,
                max_batch_wait: self.audit_log_batch_max_wait,
                throttle_qps: self.audit_log_batch_throttle_enable.then_some(self.audit_log_batch_throttle_qps),
                throttle_burst: self.audit_log_batch_throttle_burst,
            }),
            truncation: truncation(self.audit_log_truncate_enabled, self.audit_log_truncate_max_event_size, self.audit_log_truncate_max_batch_size)?,
            compress: self.audit_log_compress,
        }));
        let webhook = |file: &PathBuf| -> Result<AuditWebhookOptions> {
            Ok(AuditWebhookOptions {
                hook: crate::user_flags::connect_file(file)?,
                mode: AuditWebhookMode::named(&self.audit_webhook_mode).unwrap_or(AuditWebhookMode::Batch),
                initial_backoff: self.audit_webhook_initial_backoff,
                batch: AuditBatchOptions {
                    buffer_size: self.audit_webhook_batch_buffer_size,
                    max_batch_size: self.audit_webhook_batch_max_size,
                    max_batch_wait: self.audit_webhook_batch_max_wait,
                    throttle_qps: self.audit_webhook_batch_throttle_enable.then_some(self.audit_webhook_batch_throttle_qps),
                    throttle_burst: self.audit_webhook_batch_throttle_burst,
                },
                truncation: truncation(self.audit_webhook_truncate_enabled, self.audit_webhook_truncate_max_event_size, self.audit_webhook_truncate_max_batch_size)?,
            })
        };
        Ok(Backends { log: log.transpose()?, webhook: self.audit_webhook_config_file.as_ref().map(webhook).transpose()? })
    }

    /// Which TLS the API server speaks.
    pub fn tls(&self) -> Result<Tls> {
        Tls::of(self.tls_min_version == "VersionTLS13", &self.tls_cipher_suites)
    }
}

/// TLS 1.2 and later, with all suites that are good, unless it was said otherwise.
#[derive(Clone)]
pub struct Tls {
    pub provider: Arc<CryptoProvider>,
    pub versions: &'static [&'static SupportedProtocolVersion],
}

static ALL: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS13, &rustls::version::TLS12];
static NEWEST: [&SupportedProtocolVersion; 1] = [&rustls::version::TLS13];

impl Default for Tls {
    fn default() -> Self {
        Self { provider: Arc::new(rustls::crypto::ring::default_provider()), versions: &ALL }
    }
}

/// A suite's IANA name.
fn name(suite: &SupportedCipherSuite) -> String {
    let debug = format!("{:?}", suite.suite());
    debug.strip_prefix("TLS13_").map_or_else(|| debug.clone(), |rest| format!("TLS_{rest}"))
}

impl Tls {
    pub fn of(newest_only: bool, wanted: &[String]) -> Result<Self> {
        let mut provider = rustls::crypto::ring::default_provider();
        if !wanted.is_empty() {
            // Go's older names of two of them.
            let wanted: Vec<String> = wanted.iter().map(|name| if name.ends_with("_CHACHA20_POLY1305") { format!("{name}_SHA256") } else { name.clone() }).collect();
            for unknown in wanted.iter().filter(|wanted| !provider.cipher_suites.iter().any(|suite| name(suite) == **wanted)) {
                let known: Vec<String> = provider.cipher_suites.iter().map(name).collect();
                bail!("Cipher suite {unknown} not supported or doesn't exist\nhint: there are {}", known.join(", "));
            }
            // Those of TLS 1.3 are not chosen, as in upstream.
            provider.cipher_suites.retain(|suite| suite.tls13().is_some() || wanted.contains(&name(suite)));
        }
        let older = provider.cipher_suites.iter().any(|suite| suite.tls13().is_none());
        Ok(Self { provider: Arc::new(provider), versions: if newest_only || !older { &NEWEST } else { &ALL } })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suites_by_name() {
        let names = |wanted: &[&str]| Tls::of(false, &wanted.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).map(|tls| (tls.provider.cipher_suites.iter().map(name).collect::<Vec<_>>(), tls.versions.len()));
        let newest = ["TLS_AES_256_GCM_SHA384", "TLS_AES_128_GCM_SHA256", "TLS_CHACHA20_POLY1305_SHA256"];
        let (all, versions) = names(&[]).unwrap();
        assert!(newest.iter().all(|suite| all.iter().any(|known| known == suite)) && all.len() == 9 && versions == 2, "{all:?}");
        let (some, versions) = names(&["TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305"]).unwrap();
        assert_eq!((some.len(), versions), (5, 2), "{some:?}");
        assert_eq!(names(&["TLS_AES_128_GCM_SHA256"]).unwrap().1, 1);
        assert!(names(&["TLS_RSA_WITH_RC4_128_SHA"]).unwrap_err().to_string().starts_with("Cipher suite TLS_RSA_WITH_RC4_128_SHA not supported or doesn't exist"));
    }
}
