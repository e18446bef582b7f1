//! Kubeconfig files: found, merged, overridden, and made into what a connection needs.
//!
//! Mirrors client-go's `clientcmd`: `--kubeconfig`, else the list in `KUBECONFIG`, else `~/.kube/config`, else the service account of the pod we run in. In a list the first
//! file that names a cluster, user or context wins; a file that is missing is passed over. Fields this program does not know are kept when a file is written back.

use std::path::{Path, PathBuf};

use base64::Engine;
use basics::files;
use serde_json::{Map, Value, json};

use crate::dial::Proxy;
use crate::exec_credential::{ExecPlugin, PluginPolicy};

const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Where a client without any configuration looks, as upstream's does.
pub const DEFAULT_SERVER: &str = "http://localhost:8080";

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("error loading config file \"{path}\": {cause}")]
    Load { path: String, cause: String },
    #[error("context was not found for specified context: {0}")]
    NoContext(String),
    #[error("cluster \"{0}\" does not exist")]
    NoCluster(String),
    #[error("auth info \"{0}\" does not exist")]
    NoUser(String),
    #[error("stat {0}: no such file or directory")]
    NoFile(String),
    #[error("unable to read {what} {path} for {owner} due to {cause}")]
    Unreadable { what: &'static str, path: String, owner: String, cause: String },
    #[error("invalid {what}: {cause}")]
    Invalid { what: &'static str, cause: String },
    #[error("{0}")]
    ExecPlugin(String),
    #[error("invalid 'proxy-url' {url:?} for cluster {cluster:?}: {cause}")]
    Proxy { url: String, cluster: String, cause: String },
    #[error("requesting uid, groups or user-extra for {0} without impersonating a user")]
    Impersonation(String),
    #[error("cannot write {path}: {cause}")]
    Write { path: String, cause: String },
}

/// What command-line flags put over the files.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    pub context: Option<String>,
    pub cluster: Option<String>,
    pub user: Option<String>,
    pub server: Option<String>,
    pub token: Option<String>,
    pub namespace: Option<String>,
    pub certificate_authority: Option<PathBuf>,
    pub client_certificate: Option<PathBuf>,
    pub client_key: Option<PathBuf>,
    pub insecure: Option<bool>,
    pub tls_server_name: Option<String>,
    pub impersonate: Option<String>,
    pub impersonate_groups: Vec<String>,
    pub impersonate_uid: Option<String>,
    pub impersonate_extra: Vec<(String, String)>,
    pub basic: Option<(String, String)>,
    /// The manifests come by standard input, so that no credential plugin may ask there.
    pub stdin_is_taken: bool,
    pub plugin_policy: PluginPolicy,
}

/// Everything a connection needs.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// `https://192.0.2.1:6443`, perhaps with a path.
    pub server: String,
    pub namespace: String,
    /// PEM. None: the system's roots would be asked for; there are none in a static binary, so nothing is trusted.
    pub certificate_authority: Option<Vec<u8>>,
    /// PEM of certificate chain and key.
    pub client_identity: Option<(Vec<u8>, Vec<u8>)>,
    pub token: Option<String>,
    pub basic: Option<(String, String)>,
    pub insecure: bool,
    pub tls_server_name: Option<String>,
    /// What is on the way to the server.
    pub proxy: Option<Proxy>,
    pub impersonate: Option<String>,
    pub impersonate_groups: Vec<String>,
    pub impersonate_uid: Option<String>,
    pub impersonate_extra: Vec<(String, String)>,
    /// The program that says who we are, where nothing else does.
    pub exec: Option<ExecPlugin>,
}

impl Config {
    /// The current context of `explicit`, or of the files found as upstream finds them.
    pub fn load(explicit: Option<&Path>) -> Result<Self, ConfigError> {
        Self::load_with(explicit, &Overrides::default())
    }

    pub fn load_with(explicit: Option<&Path>, overrides: &Overrides) -> Result<Self, ConfigError> {
        let files = Kubeconfig::load(explicit)?;
        if files.is_empty() && overrides.server.is_none() {
            if let Some(config) = in_cluster() {
                return Ok(Self { namespace: overrides.namespace.clone().unwrap_or(config.namespace.clone()), ..config });
            }
        }
        files.resolve(overrides)
    }
}

fn in_cluster() -> Option<Config> {
    let host = std::env::var("KUBERNETES_SERVICE_HOST").ok()?;
    let port = std::env::var("KUBERNETES_SERVICE_PORT").ok()?;
    let token = std::fs::read_to_string(format!("{SERVICE_ACCOUNT}/token")).ok()?;
    let host = if host.contains(':') { format!("[{host}]") } else { host };
    Some(Config {
        server: format!("https://{host}:{port}"),
        namespace: std::fs::read_to_string(format!("{SERVICE_ACCOUNT}/namespace")).map(|text| text.trim().to_owned()).unwrap_or_else(|_| "default".to_owned()),
        certificate_authority: std::fs::read(format!("{SERVICE_ACCOUNT}/ca.crt")).ok(),
        token: Some(token.trim().to_owned()),
        ..Config::default()
    })
}

/// The files as they are, and their merged view.
#[derive(Debug, Clone)]
pub struct Kubeconfig {
    files: Vec<(PathBuf, Value)>,
    /// Where changes go that no file claims.
    default_path: PathBuf,
}

fn empty() -> Value {
    json!({"apiVersion": "v1", "kind": "Config", "clusters": [], "contexts": [], "users": [], "current-context": ""})
}

impl Kubeconfig {
    pub fn load(explicit: Option<&Path>) -> Result<Self, ConfigError> {
        let paths: Vec<PathBuf> = match (explicit, std::env::var_os("KUBECONFIG").filter(|list| !list.is_empty())) {
            (Some(path), _) => {
                if !path.exists() {
                    return Err(ConfigError::NoFile(path.display().to_string()));
                }
                vec![path.to_owned()]
            }
            (None, Some(list)) => std::env::split_paths(&list).filter(|path| !path.as_os_str().is_empty()).collect(),
            (None, None) => vec![std::env::home_dir().unwrap_or_else(|| "/root".into()).join(".kube/config")],
        };
        let default_path = paths.iter().find(|path| path.exists()).or(paths.last()).cloned().unwrap_or_default();
        Self::of(&paths, default_path)
    }

    /// For commands that may make the file.
    pub fn load_or_new(explicit: Option<&Path>) -> Result<Self, ConfigError> {
        match explicit {
            Some(path) if !path.exists() => Ok(Self { files: Vec::new(), default_path: path.to_owned() }),
            _ => Self::load(explicit),
        }
    }

    fn of(paths: &[PathBuf], default_path: PathBuf) -> Result<Self, ConfigError> {
        let mut files = Vec::new();
        for path in paths {
            let text = match std::fs::read_to_string(path) {
                Ok(text) => text,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(ConfigError::Load { path: path.display().to_string(), cause: error.to_string() }),
            };
            if text.trim().is_empty() {
                continue;
            }
            let value: Value = serde_saphyr::from_str(&text).map_err(|error| ConfigError::Load { path: path.display().to_string(), cause: error.to_string() })?;
            files.push((path.clone(), value));
        }
        Ok(Self { files, default_path })
    }

    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    pub fn path(&self) -> &Path {
        &self.default_path
    }

    /// All files as one; relative file names made absolute.
    pub fn merged(&self) -> Value {
        let mut merged = empty();
        for (path, file) in &self.files {
            let folder = path.parent().unwrap_or(Path::new("/"));
            for list in ["clusters", "contexts", "users"] {
                for entry in file.get(list).and_then(Value::as_array).into_iter().flatten() {
                    let name = name_of(entry);
                    let Some(known) = merged[list].as_array_mut() else { continue };
                    if known.iter().all(|other| name_of(other) != name) {
                        let mut entry = entry.clone();
                        absolute(&mut entry, folder);
                        known.push(entry);
                    }
                }
            }
            if merged["current-context"] == "" {
                if let Some(current) = file.get("current-context").filter(|current| current.is_string()) {
                    merged["current-context"] = current.clone();
                }
            }
        }
        merged
    }

    pub fn current_context(&self) -> String {
        self.merged()["current-context"].as_str().unwrap_or("").to_owned()
    }

    /// `entry("clusters", "kubernetes")` is what stands under that name's `cluster:`.
    pub fn entry(&self, list: &str, name: &str) -> Option<Map<String, Value>> {
        let merged = self.merged();
        let inner = inner_key(list);
        merged[list].as_array()?.iter().find(|entry| name_of(entry) == name).map(|entry| entry.get(inner).and_then(Value::as_object).cloned().unwrap_or_default())
    }

    pub fn names(&self, list: &str) -> Vec<String> {
        self.merged()[list].as_array().into_iter().flatten().map(|entry| name_of(entry).to_owned()).collect()
    }

    fn file_of(&mut self, list: &str, name: &str) -> usize {
        if let Some(at) = self.files.iter().position(|(_, file)| file.get(list).and_then(Value::as_array).is_some_and(|entries| entries.iter().any(|entry| name_of(entry) == name))) {
            return at;
        }
        self.default_file()
    }

    fn default_file(&mut self) -> usize {
        match self.files.iter().position(|(path, _)| *path == self.default_path) {
            Some(at) => at,
            None => {
                self.files.push((self.default_path.clone(), empty()));
                self.files.len() - 1
            }
        }
    }

    /// Puts or replaces one entry and writes its file.
    pub fn set(&mut self, list: &str, name: &str, inner: Map<String, Value>) -> Result<(), ConfigError> {
        let at = self.file_of(list, name);
        let entry = json!({"name": name, inner_key(list): inner});
        let file = &mut self.files[at].1;
        if !file[list].is_array() {
            file[list] = json!([]);
        }
        if let Some(entries) = file[list].as_array_mut() {
            match entries.iter_mut().find(|entry| name_of(entry) == name) {
                Some(known) => *known = entry,
                None => entries.push(entry),
            }
        }
        self.write(at)
    }

    pub fn remove(&mut self, list: &str, name: &str) -> Result<(), ConfigError> {
        let at = self.file_of(list, name);
        if let Some(entries) = self.files[at].1[list].as_array_mut() {
            entries.retain(|entry| name_of(entry) != name);
        }
        self.write(at)
    }

    pub fn set_current_context(&mut self, name: &str) -> Result<(), ConfigError> {
        let at = match self.files.iter().position(|(_, file)| file.get("current-context").and_then(Value::as_str).is_some_and(|current| !current.is_empty())) {
            Some(at) => at,
            None => self.default_file(),
        };
        self.files[at].1["current-context"] = name.into();
        self.write(at)
    }

    fn write(&self, at: usize) -> Result<(), ConfigError> {
        let (path, value) = &self.files[at];
        let fail = |cause: String| ConfigError::Write { path: path.display().to_string(), cause };
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(|error| fail(error.to_string()))?;
        }
        let text = serde_saphyr::to_string(value).map_err(|error| fail(error.to_string()))?;
        files::replace_durably(path, text.as_bytes(), files::OWNER_ONLY).map_err(|error| fail(error.to_string()))
    }

    /// What the current context, under `overrides`, says about a connection.
    pub fn resolve(&self, overrides: &Overrides) -> Result<Config, ConfigError> {
        let context_name = overrides.context.clone().unwrap_or_else(|| self.current_context());
        let context = match self.entry("contexts", &context_name) {
            Some(context) => context,
            None if overrides.context.is_some() => return Err(ConfigError::NoContext(context_name)),
            None => Map::new(),
        };
        let cluster_name = overrides.cluster.clone().unwrap_or_else(|| text(&context, "cluster"));
        let cluster = match self.entry("clusters", &cluster_name) {
            Some(cluster) => cluster,
            None if overrides.cluster.is_some() => return Err(ConfigError::NoCluster(cluster_name)),
            None => Map::new(),
        };
        let user_name = overrides.user.clone().unwrap_or_else(|| text(&context, "user"));
        let user = match self.entry("users", &user_name) {
            Some(user) => user,
            None if overrides.user.is_some() => return Err(ConfigError::NoUser(user_name)),
            None => Map::new(),
        };
        let plugin = match user.get("exec").filter(|exec| !exec.is_null()) {
            Some(exec) => Some((exec, ExecPlugin::of(exec, &user_name).map_err(|wrong| ConfigError::ExecPlugin(aggregate(&wrong)))?)),
            None => None,
        };
        let ca = match &overrides.certificate_authority {
            Some(path) => Some(read("certificate-authority", path, &cluster_name)?),
            None => data_or_file(&cluster, "certificate-authority", &cluster_name)?,
        };
        let certificate = match &overrides.client_certificate {
            Some(path) => Some(read("client-cert", path, &user_name)?),
            None => data_or_file(&user, "client-certificate", &user_name)?,
        };
        let key = match &overrides.client_key {
            Some(path) => Some(read("client-key", path, &user_name)?),
            None => data_or_file(&user, "client-key", &user_name)?,
        };
        let mut token = overrides.token.clone().or_else(|| Some(text(&user, "token")).filter(|token| !token.is_empty()));
        if token.is_none() {
            let file = text(&user, "tokenFile");
            if !file.is_empty() {
                token = Some(String::from_utf8_lossy(&read("token", Path::new(&file), &user_name)?).trim().to_owned());
            }
        }
        let (username, password) = overrides.basic.clone().unwrap_or_else(|| (text(&user, "username"), text(&user, "password")));
        let server = overrides.server.clone().unwrap_or_else(|| text(&cluster, "server"));
        let server = match server {
            server if server.is_empty() => DEFAULT_SERVER.to_owned(),
            server if server.contains("://") => server.trim_end_matches('/').to_owned(),
            server if ca.is_some() || certificate.is_some() => format!("https://{server}"),
            server => format!("http://{server}"),
        };
        let proxy = match text(&cluster, "proxy-url") {
            url if url.is_empty() => None,
            url => Some(Proxy::parse(&url).map_err(|cause| ConfigError::Proxy { url, cluster: cluster_name.clone(), cause })?),
        };
        let mut config = Config {
            server,
            proxy,
            namespace: overrides.namespace.clone().filter(|name| !name.is_empty()).or_else(|| Some(text(&context, "namespace")).filter(|name| !name.is_empty())).unwrap_or_else(|| "default".to_owned()),
            certificate_authority: ca,
            client_identity: certificate.zip(key),
            token,
            basic: Some((username, password)).filter(|(username, _)| !username.is_empty()),
            insecure: overrides.insecure.unwrap_or_else(|| cluster.get("insecure-skip-tls-verify").and_then(Value::as_bool).unwrap_or(false)),
            tls_server_name: overrides.tls_server_name.clone().or_else(|| Some(text(&cluster, "tls-server-name")).filter(|name| !name.is_empty())),
            impersonate: overrides.impersonate.clone().or_else(|| Some(text(&user, "as")).filter(|name| !name.is_empty())),
            impersonate_groups: if overrides.impersonate_groups.is_empty() { texts(user.get("as-groups")) } else { overrides.impersonate_groups.clone() },
            impersonate_uid: overrides.impersonate_uid.clone().or_else(|| Some(text(&user, "as-uid")).filter(|uid| !uid.is_empty())),
            impersonate_extra: if overrides.impersonate_extra.is_empty() {
                let extra = user.get("as-user-extra").and_then(Value::as_object).into_iter().flatten();
                extra.flat_map(|(key, values)| texts(Some(values)).into_iter().map(move |value| (key.clone(), value))).collect()
            } else {
                overrides.impersonate_extra.clone()
            },
            exec: None,
        };
        if config.impersonate.is_none() && (config.impersonate_uid.is_some() || !config.impersonate_groups.is_empty() || !config.impersonate_extra.is_empty()) {
            return Err(ConfigError::Impersonation(user_name));
        }
        // Who has said already who they are is believed.
        if let Some((exec, plugin)) = plugin.filter(|_| config.token.is_none() && config.basic.is_none() && config.client_identity.is_none()) {
            let plugin = ExecPlugin { stdin_is_taken: overrides.stdin_is_taken, policy: overrides.plugin_policy.clone(), ..plugin };
            config.exec = Some(plugin.about(exec, &cluster, &config));
        }
        Ok(config)
    }
}

/// `cluster` in `clusters`, `context` in `contexts`, `user` in `users`.
fn inner_key(list: &str) -> &str {
    list.strip_suffix('s').unwrap_or(list)
}

/// As apimachinery shows several errors.
fn aggregate(errors: &[String]) -> String {
    match errors {
        [one] => one.clone(),
        several => format!("[{}]", several.join(", ")),
    }
}

fn name_of(entry: &Value) -> &str {
    entry.get("name").and_then(Value::as_str).unwrap_or("")
}

fn text(map: &Map<String, Value>, key: &str) -> String {
    map.get(key).and_then(Value::as_str).unwrap_or("").to_owned()
}

fn texts(list: Option<&Value>) -> Vec<String> {
    list.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn absolute(entry: &mut Value, folder: &Path) {
    for inner in ["cluster", "user"] {
        for key in ["certificate-authority", "client-certificate", "client-key", "tokenFile"] {
            if let Some(Value::String(path)) = entry.get_mut(inner).and_then(|inner| inner.get_mut(key)) {
                if !path.is_empty() && !path.starts_with('/') {
                    *path = folder.join(&*path).display().to_string();
                }
            }
        }
    }
    // A program by its bare name is found in PATH, by a path from where the file is.
    if let Some(Value::String(command)) = entry.pointer_mut("/user/exec/command") {
        if command.contains('/') && !command.starts_with('/') {
            *command = folder.join(&*command).components().collect::<PathBuf>().display().to_string();
        }
    }
}

fn read(what: &'static str, path: &Path, owner: &str) -> Result<Vec<u8>, ConfigError> {
    std::fs::read(path).map_err(|error| {
        let cause = if error.kind() == std::io::ErrorKind::NotFound { format!("open {}: no such file or directory", path.display()) } else { error.to_string() };
        ConfigError::Unreadable { what, path: path.display().to_string(), owner: owner.to_owned(), cause }
    })
}

fn data_or_file(map: &Map<String, Value>, key: &'static str, owner: &str) -> Result<Option<Vec<u8>>, ConfigError> {
    let data = text(map, &format!("{key}-data"));
    if !data.is_empty() {
        let compact: String = data.chars().filter(|c| !c.is_whitespace()).collect();
        return base64::engine::general_purpose::STANDARD.decode(compact).map(Some).map_err(|error| ConfigError::Invalid { what: key, cause: error.to_string() });
    }
    let path = text(map, key);
    if path.is_empty() { Ok(None) } else { read(key, Path::new(&path), owner).map(Some) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Value {
        serde_saphyr::from_str(text).unwrap()
    }

    #[test]
    fn the_first_file_that_names_a_thing_wins() {
        let one = config("current-context: a\ncontexts: [{name: a, context: {cluster: x, user: u}}]\nclusters: [{name: x, cluster: {server: 'https://one:1', certificate-authority: ''}}]");
        let two = config("current-context: b\ncontexts: [{name: b, context: {cluster: x, namespace: blue}}]\nclusters: [{name: x, cluster: {server: 'https://two:2'}}]\nusers: [{name: u, user: {token: t}}]");
        let files = Kubeconfig { files: vec![("/one".into(), one), ("/two".into(), two)], default_path: "/one".into() };
        let now = files.resolve(&Overrides::default()).unwrap();
        assert_eq!((now.server.as_str(), now.namespace.as_str(), now.token.as_deref()), ("https://one:1", "default", Some("t")));
        let other = files.resolve(&Overrides { context: Some("b".into()), ..Overrides::default() }).unwrap();
        assert_eq!((other.server.as_str(), other.namespace.as_str(), other.token), ("https://one:1", "blue", None));
        let missing = files.resolve(&Overrides { context: Some("c".into()), ..Overrides::default() }).unwrap_err();
        assert_eq!(missing.to_string(), "context was not found for specified context: c");
    }

    #[test]
    fn without_files_the_old_default_remains() {
        let files = Kubeconfig { files: Vec::new(), default_path: "/none".into() };
        assert_eq!(files.resolve(&Overrides::default()).unwrap().server, DEFAULT_SERVER);
    }
}
