//! The API server: HTTP, authentication, authorisation, admission, and the generic registry over the store.
//!
//! One generic path serves every kind: a request names a row of the resource table, the row names a strategy, and nothing here knows a kind by name
//! except where Kubernetes itself gives one a special life (`special/`).

mod admission;
mod aggregation;
mod aggregator;
mod api;
mod audit;
mod authentication;
mod authorization;
mod bootstrap;
mod compaction;
mod custom;
mod decode;
mod default_roles;
mod duration;
mod encode;
mod encoded;
mod encryption;
mod escalation;
mod file_changes;
mod flow_control;
mod follow;
mod health;
mod histogram;
mod http;
mod jwt;
mod local;
mod metrics;
mod nodes;
mod outbound;
mod path;
mod peers;
mod reads;
mod reconciliation;
mod references;
mod registry;
mod reload;
mod rows;
mod special;
mod ticker;
mod tokens;
mod watch;
mod webhook_metrics;

pub use admission::{AdmissionConfigError, EventRateLimit};
pub use aggregator::FrontProxy;
pub use api::{Api, Chance, Config, Context, GIT_VERSION, OpenError};
pub use audit::{Audit, AuditBatchOptions, AuditError, AuditTruncation, AuditWebhookMode, AuditWebhookOptions, Backends, LogFormat, LogOptions};
pub use duration::go_duration;
pub use encryption::{Encryption, EncryptionError, follow_encryption};
pub use decode::{Format as BodyFormat, parse as parse_body};
pub use authentication::oidc::parse as parse_authentication_configuration;
pub use authentication::{Anonymous, AuthenticationConfig, ConfigError, Fronts, Issuer, IssuerConfig, OidcFlags, RequestHeader, StaticTokens, StaticTokensError, TokenWebhook, User};
pub use admission::{Plugins, PluginsError};
pub use authorization::config::{AUTHORIZED_TTL, UNAUTHORIZED_TTL, parse as parse_authorization_configuration};
pub use authorization::{AuthorizationConfigError, AuthorizationMode, AuthorizationWebhook, WebhookConfig};
pub use reload::{Followed, Parse, ReloadMetrics, Reloaded};
pub use outbound::{Credentials as HookCredentials, Hook, OutboundError};
pub use file_changes::FileChanges;
pub use jwt::PublicKey;
pub use http::{Listener, ServeConfig, serve};
pub use local::Local;
pub use nodes::{Dial, NodeDialer, NodeStream};
pub use tokens::{TokenError, TokenKey};
