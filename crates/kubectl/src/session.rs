//! One run of the program: the connection, the namespace, requests and their errors.

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Duration;

use api::Status;
use client::HttpClient;
use client::http::{HttpError, Response};
use client::kubeconfig::{Config, ConfigError, Kubeconfig, Overrides};
use client::remote::status_of;
use http::Method;
use serde_json::Value;
use tokio::sync::OnceCell;

use crate::error::{Error, Result, fail};
use crate::flags::Args;
use crate::output::complain;
use crate::resources::{Mapper, Resource};

pub const VERSION: &str = "v1.36.0";
/// What we tell the server we are, and what it records as field manager by default.
pub const USER_AGENT: &str = concat!("kubectl/v1.36.0 (linux; coracle ", env!("CARGO_PKG_VERSION"), ")");

pub struct Session {
    explicit: Option<PathBuf>,
    overrides: Overrides,
    config: std::sync::OnceLock<Config>,
    http: std::sync::OnceLock<HttpClient>,
    mapper: OnceCell<Mapper>,
    request_timeout: Option<String>,
    /// What the server warned of: each is told once.
    warned: parking_lot::Mutex<HashSet<String>>,
}

impl Session {
    pub fn new(args: &Args) -> Self {
        let text = |name: &str| args.given(name).filter(|_| !args.own(name)).map(str::to_owned);
        let path = |name: &str| args.given(name).map(PathBuf::from);
        let overrides = Overrides {
            context: text("context"),
            cluster: text("cluster"),
            user: text("user"),
            server: text("server"),
            token: text("token"),
            namespace: text("namespace"),
            certificate_authority: path("certificate-authority"),
            client_certificate: path("client-certificate"),
            client_key: path("client-key"),
            insecure: args.changed("insecure-skip-tls-verify").then(|| args.on("insecure-skip-tls-verify")),
            tls_server_name: text("tls-server-name"),
            impersonate: text("as"),
            impersonate_groups: args.list("as-group").to_vec(),
            impersonate_uid: text("as-uid"),
            impersonate_extra: args.list("as-user-extra").iter().map(|extra| extra.split_once('=').map_or_else(|| (extra.clone(), String::new()), |(key, value)| (key.to_owned(), value.to_owned()))).collect(),
            basic: text("username").map(|user| (user, text("password").unwrap_or_default())),
            stdin_is_taken: args.list("filename").iter().any(|file| file == "-"),
            plugin_policy: crate::kuberc::plugin_policy(),
        };
        Self { explicit: path("kubeconfig"), overrides, request_timeout: text("request-timeout"), config: Default::default(), http: Default::default(), mapper: OnceCell::new(), warned: Default::default() }
    }

    pub fn kubeconfig(&self, create: bool) -> Result<Kubeconfig> {
        Ok(if create { Kubeconfig::load_or_new(self.explicit.as_deref())? } else { Kubeconfig::load(self.explicit.as_deref())? })
    }

    pub fn overrides(&self) -> &Overrides {
        &self.overrides
    }

    pub fn config(&self) -> Result<&Config> {
        if let Some(config) = self.config.get() {
            return Ok(config);
        }
        let config = Config::load_with(self.explicit.as_deref(), &self.overrides)?;
        Ok(self.config.get_or_init(|| config))
    }

    /// For manifests made without a server: a broken configuration is no hindrance.
    pub fn namespace_or_default(&self) -> String {
        self.config().map(|config| config.namespace.clone()).unwrap_or_else(|_| self.overrides.namespace.clone().unwrap_or_else(|| "default".to_owned()))
    }

    pub fn namespace(&self) -> Result<String> {
        Ok(self.config()?.namespace.clone())
    }

    /// Was the namespace asked for, by flag or context, rather than assumed?
    pub fn explicit_namespace(&self) -> Option<String> {
        self.overrides.namespace.clone()
    }

    pub fn http(&self) -> Result<&HttpClient> {
        if let Some(http) = self.http.get() {
            return Ok(http);
        }
        let http = HttpClient::new(self.config()?, USER_AGENT).map_err(|error| Error::Message(error.to_string()))?;
        Ok(self.http.get_or_init(|| http))
    }

    fn reach(&self, cause: HttpError) -> Error {
        let server = self.http().map(HttpClient::authority).unwrap_or_default();
        let hint = matches!(cause, HttpError::Refused { .. }).then(|| match self.kubeconfig(false) {
            Ok(files) if files.is_empty() => format!("no kubeconfig was found ({} does not exist); is the cluster up (coracle up), and KUBECONFIG set?", files.path().display()),
            Ok(_) | Err(_) => "is the cluster up? try: coracle status".to_owned(),
        });
        let error = Error::Reach { cause: Box::new(cause), server };
        match hint {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }

    /// Any answer, whatever its code.
    pub async fn answer(&self, method: Method, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Result<Response> {
        let limit = self.request_timeout()?;
        let asked = self.http()?.request(method, path, headers, body);
        let response = within(limit, " (Client.Timeout exceeded while awaiting headers)", asked).await.map_err(|cause| self.reach(cause))?;
        for value in response.headers.get_all("warning") {
            if let Some(text) = value.to_str().ok().and_then(warning) {
                if self.warned.lock().insert(text.clone()) {
                    complain(format!("Warning: {text}"));
                }
            }
        }
        Ok(response)
    }

    /// How many different warnings the server gave.
    pub fn warnings(&self) -> usize {
        self.warned.lock().len()
    }

    /// `--request-timeout`, which a request may take; None: as long as it likes.
    fn request_timeout(&self) -> Result<Option<Duration>> {
        let Some(text) = &self.request_timeout else { return Ok(None) };
        let seconds = text.parse::<u64>().ok().map(|seconds| seconds as f64).or_else(|| crate::flags::seconds(text));
        match seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()) {
            Some(limit) => Ok(Some(limit).filter(|limit| !limit.is_zero())),
            None => fail("Invalid timeout value. Timeout must be a single integer in seconds, or an integer followed by a corresponding time unit (e.g. 1s | 2m | 3h)"),
        }
    }

    /// A success with its body unread; failures as errors.
    pub async fn open(&self, method: Method, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Result<Response> {
        let response = self.answer(method, path, headers, body).await?;
        if response.status < 300 {
            return Ok(response);
        }
        let code = response.status;
        let bytes = response.bytes().await.map_err(|cause| self.reach(cause))?;
        Err(status_of(code, &bytes).into())
    }

    pub async fn read(&self, response: Response) -> Result<Value> {
        let bytes = within(self.request_timeout()?, " (Client.Timeout or context cancellation while reading body)", response.bytes()).await.map_err(|cause| self.reach(cause))?;
        serde_json::from_slice(&bytes).map_err(|error| Status::internal(error).into())
    }

    pub async fn get(&self, path: &str) -> Result<Value> {
        self.get_as(path, "application/json").await
    }

    pub async fn get_as(&self, path: &str, accept: &str) -> Result<Value> {
        let response = self.open(Method::GET, path, &[("accept", accept)], Vec::new()).await?;
        self.read(response).await
    }

    pub async fn text(&self, path: &str) -> Result<Vec<u8>> {
        let response = self.open(Method::GET, path, &[], Vec::new()).await?;
        Ok(response.bytes().await.map_err(|cause| self.reach(cause))?.to_vec())
    }

    pub async fn send(&self, method: Method, path: &str, content_type: &str, body: &Value) -> Result<Value> {
        let response = self.open(method, path, &[("accept", "application/json"), ("content-type", content_type)], body.to_string().into_bytes()).await?;
        self.read(response).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Result<Value> {
        self.send(Method::POST, path, "application/json", body).await
    }

    pub async fn put(&self, path: &str, body: &Value) -> Result<Value> {
        self.send(Method::PUT, path, "application/json", body).await
    }

    pub async fn patch(&self, path: &str, content_type: &str, body: &Value) -> Result<Value> {
        self.send(Method::PATCH, path, content_type, body).await
    }

    pub async fn delete(&self, path: &str, options: &Value) -> Result<Value> {
        self.send(Method::DELETE, path, "application/json", options).await
    }

    pub async fn mapper(&self) -> Result<&Mapper> {
        self.mapper.get_or_try_init(|| Mapper::discover(self)).await
    }

    /// The resource by any of its names.
    pub async fn resource(&self, name: &str) -> Result<Resource> {
        self.mapper().await?.find(name)
    }
}

/// In Go's words if it takes longer.
async fn within<T>(limit: Option<Duration>, when: &str, work: impl Future<Output = std::result::Result<T, HttpError>>) -> std::result::Result<T, HttpError> {
    let Some(limit) = limit else { return work.await };
    tokio::time::timeout(limit, work).await.unwrap_or_else(|_| Err(HttpError::Http(format!("context deadline exceeded{when}"))))
}

/// `299 - "text"`, and nothing else, as client-go.
fn warning(value: &str) -> Option<String> {
    let quoted = value.strip_prefix("299 ")?.split_once(' ')?.1;
    let inner = quoted.strip_prefix('"')?.strip_suffix('"').unwrap_or(quoted);
    Some(inner.replace("\\\"", "\"").replace("\\\\", "\\"))
}

/// A path's query, escaped.
pub struct Query(String);

impl Query {
    pub fn of(path: impl Into<String>) -> Self {
        Self(path.into())
    }

    /// Nothing for an empty value.
    pub fn with(mut self, key: &str, value: &str) -> Self {
        if !value.is_empty() {
            self.0.push(if self.0.contains('?') { '&' } else { '?' });
            self.0.push_str(key);
            self.0.push('=');
            self.0.extend(percent_encoding::utf8_percent_encode(value, percent_encoding::NON_ALPHANUMERIC));
        }
        self
    }

    pub fn end(self) -> String {
        self.0
    }
}

impl From<ConfigError> for Box<Error> {
    fn from(error: ConfigError) -> Self {
        Box::new(Error::Config(error))
    }
}
