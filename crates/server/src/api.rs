//! What every request shares: the store, the clock, chance, the rows that are served, and who asks.

use arc_swap::ArcSwap;
use client::BoxFuture;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use ::api::{Clock, Status};
use parking_lot::Mutex;
use store::Store;

use crate::admission::{EventRateLimit, Follower, Plugins};
use crate::aggregator::{Aggregator, FrontProxy};
use crate::audit::{Audit, Ids, Record};
use crate::authentication::{Anonymous, AuthenticationConfig, Fronts, Issuer, User};
use crate::authorization::{AuthorizationMode, Authorizer};
use crate::encoded::Encoded;
use crate::encryption::Encryption;
use crate::lifecycle::{Lifecycle, Phase, Shutdown};
use crate::flow_control::{self, FlowControl};
use crate::measured::Measured;
use crate::nodes::Dial;
use crate::outbound::Outbound;
use crate::reload::Followed;
use crate::rows::Serving;
use crate::special::allocation::Allocations;
use crate::tokens::TokenKey;

/// Fills a buffer with random bytes: from the machine, or from a simulation's seed.
pub type Chance = Arc<dyn Fn(&mut [u8]) + Send + Sync>;

#[derive(Clone)]
pub struct Config {
    /// `v1.36.2`: what `/version` and nodes say.
    pub git_version: String,
    /// Where clients outside reach the API server, for the `kubernetes` Service's endpoint.
    pub advertise_address: IpAddr,
    pub secure_port: u16,
    /// IPv4 first; a second one of the other family makes Services dual-stack.
    pub service_cidrs: Vec<(IpAddr, u8)>,
    pub node_port_range: (u16, u16),
    /// `https://kubernetes.default.svc.cluster.local`.
    pub service_account_issuer: String,
    pub token_key: Arc<TokenKey>,
    /// PEM of the cluster's CA, published to every namespace.
    pub ca_pem: String,
    /// None: the servers behind APIServices are not told who we are.
    pub front_proxy: Option<FrontProxy>,
    /// Requests that read, and requests that change, at a time; together the seats that priority and fairness shares out.
    pub max_requests_in_flight: usize,
    pub max_mutating_requests_in_flight: usize,
    /// Otherwise just the two limits hold.
    pub priority_and_fairness: bool,
    /// What a request that is no stream may take, when it does not say less itself.
    pub request_timeout: Duration,
    /// None: nothing is audited.
    pub audit: Option<Arc<Audit>>,
    /// What the store seals its values with: told of in metrics and health.
    pub encryption: Option<Arc<Encryption>>,
    /// Configurations that are read again when they change.
    pub followed: Vec<Arc<Followed>>,
    pub event_rate_limit: Option<Arc<EventRateLimit>>,
    /// How long a client may take to send a request's head, the first one included.
    pub head_timeout: Duration,
    pub authentication: AuthenticationConfig,
    /// The built-in admission plugins that are asked.
    pub plugins: Plugins,
    /// Whether CBOR is spoken: the gate `CBORServingAndStorage`, which is alpha. At rest everything stays JSON.
    pub cbor: bool,
    /// Who is asked what users may do, in this order.
    pub authorization: Vec<AuthorizationMode>,
    pub shutdown: Shutdown,
}

impl Config {
    pub fn new(token_key: Arc<TokenKey>, ca_pem: String) -> Self {
        Self {
            git_version: GIT_VERSION.to_owned(),
            advertise_address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            secure_port: 6443,
            service_cidrs: vec![(IpAddr::V4(Ipv4Addr::new(10, 96, 0, 0)), 12)],
            node_port_range: (30000, 32767),
            service_account_issuer: "https://kubernetes.default.svc.cluster.local".to_owned(),
            token_key,
            ca_pem,
            front_proxy: None,
            max_requests_in_flight: flow_control::MAX_REQUESTS_IN_FLIGHT,
            max_mutating_requests_in_flight: flow_control::MAX_MUTATING_REQUESTS_IN_FLIGHT,
            priority_and_fairness: true,
            request_timeout: REQUEST_TIMEOUT,
            audit: None,
            encryption: None,
            followed: Vec::new(),
            event_rate_limit: None,
            head_timeout: HEAD_TIMEOUT,
            authentication: AuthenticationConfig::default(),
            plugins: Plugins::default(),
            cbor: false,
            authorization: vec![AuthorizationMode::Node, AuthorizationMode::Rbac],
            shutdown: Shutdown::default(),
        }
    }
}

/// `--request-timeout`, when nobody says.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// Upstream's `ReadHeaderTimeout`.
const HEAD_TIMEOUT: Duration = Duration::from_secs(32);

/// The Kubernetes release whose contract is kept.
pub const GIT_VERSION: &str = "v1.36.2";

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("cannot create the cluster's first objects: {0}")]
    Bootstrap(Status),
}

pub struct Api {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) chance: Chance,
    pub(crate) config: Config,
    pub(crate) serving: Serving,
    pub(crate) authorizer: Arc<Authorizer>,
    /// Who may be nobody, and the OIDC issuers: both may change while the server runs.
    pub(crate) reloadable: ArcSwap<(Anonymous, Vec<Arc<Issuer>>)>,
    /// Whose certificates say that a proxy or a client asks; whoever serves TLS lets them in as well.
    pub fronts: tokio::sync::watch::Sender<Arc<Fronts>>,
    pub(crate) allocations: Allocations,
    pub(crate) nodes: Arc<dyn Dial>,
    pub(crate) encoded: Encoded,
    pub(crate) quota_turns: crate::admission::quota::Turns,
    /// To webhooks.
    pub(crate) outbound: Arc<Outbound>,
    pub(crate) admission: Follower,
    pub(crate) aggregator: Aggregator,
    pub(crate) flow_control: FlowControl,
    pub(crate) request_ids: Ids,
    pub(crate) requests: crate::http::Requests,
    pub(crate) lifecycle: Arc<Lifecycle>,
    pub(crate) measured: Measured,
}

/// How unknown and duplicate fields are met (`fieldValidation`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FieldValidation {
    Ignore,
    #[default]
    Warn,
    Strict,
}

/// One request: who asks and how.
#[derive(Default)]
pub struct Context {
    pub user: Arc<User>,
    pub dry_run: bool,
    pub field_manager: String,
    pub field_validation: FieldValidation,
    pub force: bool,
    /// The object comes out of server-side apply, which has noted its managers already.
    pub(crate) applied: bool,
    /// A write of the API server's own, or a part of one that was admitted as a whole: nobody outside is asked about it.
    pub(crate) exempt: bool,
    /// How the request stands in the audit log, if it does.
    pub(crate) record: Option<Arc<Record>>,
    pub(crate) warnings: Mutex<Vec<String>>,
}

impl Context {
    pub fn of(user: Arc<User>) -> Self {
        Self { user, ..Self::default() }
    }

    pub fn dry(mut self, dry_run: bool) -> Self {
        self.dry_run = dry_run;
        self
    }

    /// The same request, with no warnings of its own yet.
    pub(crate) fn like(cx: &Self) -> Self {
        Self { user: cx.user.clone(), dry_run: cx.dry_run, field_manager: cx.field_manager.clone(), field_validation: cx.field_validation, force: cx.force, exempt: cx.exempt, record: cx.record.clone(), ..Self::default() }
    }

    pub fn warn(&self, text: impl Into<String>) {
        let text = text.into();
        let mut warnings = self.warnings.lock();
        if !warnings.contains(&text) {
            warnings.push(text);
        }
    }

    /// For the audit log; the first word on a key stays.
    pub(crate) fn annotate(&self, key: &str, value: &str) {
        if let Some(record) = &self.record {
            record.annotate(key, value);
        }
    }

    pub fn take_warnings(&self) -> Vec<String> {
        std::mem::take(&mut self.warnings.lock())
    }
}

impl Api {
    /// Opens the API over `store`; creates what every cluster has from the start.
    pub fn open(store: Arc<dyn Store>, clock: Arc<dyn Clock>, chance: Chance, config: Config, nodes: Arc<dyn Dial>) -> BoxFuture<'static, Result<Arc<Self>, OpenError>> {
        Box::pin(Self::opened(store, clock, chance, config, nodes))
    }

    async fn opened(store: Arc<dyn Store>, clock: Arc<dyn Clock>, chance: Chance, config: Config, nodes: Arc<dyn Dial>) -> Result<Arc<Self>, OpenError> {
        let allocations = Allocations::new(&config);
        let lifecycle = Lifecycle::new(config.shutdown.clone());
        let outbound = Arc::new(Outbound::new(store.clone()));
        let (flow_control, request_ids) = (FlowControl::new(&config), Ids::new(&chance));
        let authorizer = Arc::new(Authorizer::new(config.authorization.clone(), outbound.clone(), clock.clone()));
        if let Some(audit) = &config.audit {
            audit.attach(&outbound);
        }
        let reloadable = ArcSwap::from_pointee((config.authentication.anonymous.clone(), config.authentication.issuers.clone()));
        let authority = config.authentication.request_header.as_ref().map(|front| front.authority_pem.clone()).unwrap_or_default();
        let fronts = tokio::sync::watch::Sender::new(Arc::new(Fronts::of(&config.ca_pem, authority, config.authentication.client_ca_pem.clone())));
        let api = Arc::new(Self { reloadable, fronts, store, clock, chance, config, serving: Serving::built_in(), authorizer, allocations, nodes, encoded: Encoded::default(), quota_turns: Default::default(), outbound, admission: Follower::default(), aggregator: Aggregator::default(), flow_control, request_ids, requests: Default::default(), lifecycle, measured: Measured::default() });
        crate::custom::load(&api);
        crate::bootstrap::run(&api).await.map_err(OpenError::Bootstrap)?;
        Ok(api)
    }

    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// Returns when the server, told to end, takes nothing new any more: what only served its requests may end too.
    pub async fn refuses(&self) {
        self.lifecycle.reached(Phase::Refusing).await;
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    pub(crate) fn now(&self) -> String {
        ::api::world::rfc3339(self.clock.now())
    }

    /// Writes, and measures how long that took; `operation` is `create`, `update` or `delete`.
    pub(crate) async fn commit(&self, row: &::api::Resource, operation: &str, write: store::Write) -> Result<Arc<::api::Object>, store::CommitError> {
        let begun = std::time::Instant::now();
        let outcome = self.store.commit(write).await;
        self.measured.stored(row, operation, &outcome, begun.elapsed());
        outcome
    }

    /// A version 4 UUID.
    pub(crate) fn uid(&self) -> String {
        let mut raw = [0u8; 16];
        (self.chance)(&mut raw);
        raw[6] = (raw[6] & 0x0f) | 0x40;
        raw[8] = (raw[8] & 0x3f) | 0x80;
        let mut text = String::with_capacity(36);
        for (index, byte) in raw.iter().enumerate() {
            if matches!(index, 4 | 6 | 8 | 10) {
                text.push('-');
            }
            text.push(char::from_digit(u32::from(byte >> 4), 16).unwrap_or('0'));
            text.push(char::from_digit(u32::from(byte & 15), 16).unwrap_or('0'));
        }
        text
    }

    /// What `generateName` appends: five of the letters that spell no words.
    pub(crate) fn suffix(&self) -> String {
        const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
        let mut raw = [0u8; 5];
        (self.chance)(&mut raw);
        raw.iter().map(|byte| char::from(LETTERS[usize::from(*byte) % LETTERS.len()])).collect()
    }
}
