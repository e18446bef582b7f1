//! Credentials that a program gives: `users[].user.exec` of a kubeconfig.
//!
//! Mirrors client-go's `plugin/pkg/client/auth/exec`: the program is run when the first request needs it, told by `KUBERNETES_EXEC_INFO` what is wanted (an
//! `ExecCredential` of `client.authentication.k8s.io/v1` or `v1beta1`), and says a token, a client certificate or both. What it said counts until its
//! `expirationTimestamp`, or until the server answers 401. Requests that come meanwhile wait for the one run. The words of the errors are upstream's.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use api::Clock;
use base64::Engine;
use http::HeaderValue;
use jiff::Timestamp;
use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use rustls::sign::CertifiedKey;
use serde_json::{Map, Value, json};

use crate::kubeconfig::Config;

const GROUP: &str = "client.authentication.k8s.io";
const VERSIONS: [&str; 2] = ["client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1"];
/// Where the program finds what is asked of it.
const INFO: &str = "KUBERNETES_EXEC_INFO";
/// The key of a cluster's extension that such programs are handed.
const CLUSTER_EXTENSION: &str = "client.authentication.k8s.io/exec";
const NOT_INSTALLED: &str = "\n\nIt looks like you are trying to use a client-go credential plugin that is not installed.\n\nTo learn more about this feature, consult the documentation available at:\n      https://kubernetes.io/docs/reference/access-authn-authz/authentication/#client-go-credential-plugins";

/// Which programs may be run at all: `credentialPluginPolicy` of a kuberc.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum PluginPolicy {
    #[default]
    AllowAll,
    DenyAll,
    Allowlist(Vec<String>),
}

/// What a kubeconfig says about the program.
#[derive(Debug, Clone, Default)]
pub struct ExecPlugin {
    pub api_version: String,
    pub command: String,
    pub arguments: Vec<String>,
    pub environment: Vec<(String, String)>,
    pub install_hint: String,
    /// `Never`, `IfAvailable` or `Always`.
    pub interactive_mode: String,
    /// What the program is told of the cluster, if it asked for that.
    pub cluster: Option<Value>,
    /// The manifests come by standard input: it is not the program's.
    pub stdin_is_taken: bool,
    pub policy: PluginPolicy,
}

impl ExecPlugin {
    /// What stands under `exec:` of that user. What is wrong with it is told whole, as clientcmd does.
    pub fn of(exec: &Value, user: &str) -> Result<Self, Vec<String>> {
        let text = |key: &str| exec.get(key).and_then(Value::as_str).unwrap_or("").to_owned();
        let items = |key: &str| exec.get(key).and_then(Value::as_array).into_iter().flatten();
        let mut plugin = Self {
            api_version: text("apiVersion"),
            command: text("command"),
            arguments: items("args").filter_map(Value::as_str).map(str::to_owned).collect(),
            install_hint: text("installHint").chars().filter(|c| !c.is_control() || matches!(c, '\t'..='\r')).collect(),
            interactive_mode: text("interactiveMode"),
            ..Self::default()
        };
        let mut wrong = Vec::new();
        if plugin.command.is_empty() {
            wrong.push(format!("command must be specified for {user} to use exec authentication plugin"));
        }
        if plugin.api_version.is_empty() {
            wrong.push(format!("apiVersion must be specified for {user} to use exec authentication plugin"));
        }
        for variable in items("env") {
            let part = |key: &str| variable.get(key).and_then(Value::as_str).unwrap_or("").to_owned();
            if part("name").is_empty() {
                wrong.push(format!("env variable name must be specified for {user} to use exec authentication plugin"));
            }
            plugin.environment.push((part("name"), part("value")));
        }
        match plugin.interactive_mode.as_str() {
            "" if plugin.api_version == VERSIONS[1] || plugin.api_version == "client.authentication.k8s.io/v1alpha1" => plugin.interactive_mode = "IfAvailable".to_owned(),
            "" => wrong.push(format!("interactiveMode must be specified for {user} to use exec authentication plugin")),
            "Never" | "IfAvailable" | "Always" => {}
            other => wrong.push(format!("invalid interactiveMode for {user}: {other:?}")),
        }
        if wrong.is_empty() { Ok(plugin) } else { Err(wrong) }
    }

    /// With the cluster's side of the connection, for programs that `provideClusterInfo`.
    pub fn about(mut self, exec: &Value, cluster: &Map<String, Value>, config: &Config) -> Self {
        if exec.get("provideClusterInfo").and_then(Value::as_bool) != Some(true) {
            return self;
        }
        let mut about = json!({"server": config.server});
        if let Some(name) = &config.tls_server_name {
            about["tls-server-name"] = name.as_str().into();
        }
        if let Some(proxy) = &config.proxy {
            about["proxy-url"] = proxy.url.as_str().into();
        }
        if config.insecure {
            about["insecure-skip-tls-verify"] = true.into();
        }
        if let Some(authority) = &config.certificate_authority {
            about["certificate-authority-data"] = base64::engine::general_purpose::STANDARD.encode(authority).into();
        }
        let extensions = cluster.get("extensions").and_then(Value::as_array).into_iter().flatten();
        // What has no such extension is told null, as upstream does.
        about["config"] = extensions.filter(|extension| extension["name"] == CLUSTER_EXTENSION).find_map(|extension| extension.get("extension")).cloned().unwrap_or(Value::Null);
        self.cluster = Some(about);
        self
    }

    fn interactive(&self) -> Result<bool, String> {
        let terminal = std::io::stdin().is_terminal();
        match self.interactive_mode.as_str() {
            "Never" => Ok(false),
            "Always" if !terminal => Err("exec plugin cannot support interactive mode: standard input is not a terminal".to_owned()),
            "Always" if self.stdin_is_taken => Err("exec plugin cannot support interactive mode: standard input is unavailable: used by stdin resource manifest reader".to_owned()),
            "Always" => Ok(true),
            _ => Ok(terminal && !self.stdin_is_taken),
        }
    }

    /// Where the program is; None if it is nowhere in `PATH`.
    fn program(&self) -> Option<PathBuf> {
        if self.command.contains('/') {
            return Some(PathBuf::from(&self.command));
        }
        lookup(&self.command)
    }

    fn allowed(&self, program: &Path) -> Result<(), String> {
        match &self.policy {
            PluginPolicy::AllowAll => Ok(()),
            PluginPolicy::DenyAll => Err(format!("plugin {:?} not allowed: policy set to \"DenyAll\"", self.command)),
            PluginPolicy::Allowlist(entries) => {
                let found = entries.iter().any(|entry| *entry == self.command || Path::new(entry) == program || (!entry.contains('/') && lookup(entry).as_deref() == Some(program)));
                if found { Ok(()) } else { Err(format!("plugin path {:?} is not permitted by the credential plugin allowlist", program.display().to_string())) }
            }
        }
    }

    /// Runs it. Blocks until it has ended.
    fn run(&self) -> Result<Said, String> {
        let interactive = self.interactive()?;
        let mut spec = json!({"interactive": interactive});
        if let Some(cluster) = &self.cluster {
            spec["cluster"] = cluster.clone();
        }
        let info = json!({"kind": "ExecCredential", "apiVersion": self.api_version, "spec": spec}).to_string();
        let Some(program) = self.program() else {
            let hint = if self.install_hint.is_empty() { String::new() } else { format!("\n\n{}", self.install_hint) };
            return Err(format!("exec: executable {} not found{NOT_INSTALLED}{hint}", self.command));
        };
        self.allowed(&program)?;
        let mut command = Command::new(&program);
        command.args(&self.arguments).envs(self.environment.iter().map(|(name, value)| (name, value))).env(INFO, info);
        command.stdin(if interactive { Stdio::inherit() } else { Stdio::null() }).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let output = command.spawn().and_then(std::process::Child::wait_with_output).map_err(|error| format!("exec: fork/exec {}: {}", program.display(), go_words(&error)))?;
        if !output.status.success() {
            return Err(format!("exec: executable {} failed with exit code {}", self.command, output.status.code().unwrap_or(-1)));
        }
        self.read(&output.stdout)
    }

    fn read(&self, output: &[u8]) -> Result<Said, String> {
        let said: Value = match serde_json::from_slice(output) {
            Ok(said) => said,
            Err(error) => serde_saphyr::from_slice(output).map_err(|_| format!("decoding stdout: couldn't get version/kind; json parse error: {error}"))?,
        };
        let of = |key: &str| said.get(key).and_then(Value::as_str).unwrap_or("");
        let (version, kind) = (of("apiVersion"), of("kind"));
        if kind.is_empty() {
            return Err(format!("decoding stdout: Object 'Kind' is missing in '{}'", String::from_utf8_lossy(output).trim_end()));
        }
        if kind != "ExecCredential" || version.split('/').next() != Some(GROUP) {
            return Err(format!("decoding stdout: no kind {kind:?} is registered for version {version:?}"));
        }
        if version != self.api_version {
            return Err(format!("exec plugin is configured to use API version {}, plugin returned version {version}", self.api_version));
        }
        let Some(status) = said.get("status").filter(|status| status.is_object()) else { return Err("exec plugin didn't return a status field".to_owned()) };
        let of = |key: &str| status.get(key).and_then(Value::as_str).unwrap_or("");
        let (token, certificate, key) = (of("token"), of("clientCertificateData"), of("clientKeyData"));
        if token.is_empty() && certificate.is_empty() && key.is_empty() {
            return Err("exec plugin didn't return a token or cert/key pair".to_owned());
        }
        if certificate.is_empty() != key.is_empty() {
            return Err("exec plugin returned only certificate or key, not both".to_owned());
        }
        let expires = match of("expirationTimestamp") {
            "" => None,
            time => Some(time.parse::<Timestamp>().map_err(|error| format!("decoding stdout: {error}"))?),
        };
        let authorization = match token {
            "" => None,
            token => Some(HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| "net/http: invalid header field value for \"Authorization\"".to_owned())?),
        };
        let identity = if certificate.is_empty() { None } else { Some(Arc::new(identity(certificate, key).map_err(|why| format!("failed parsing client key/certificate: {why}"))?)) };
        Ok(Said { authorization, identity, expires })
    }
}

fn lookup(name: &str) -> Option<PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    let folders = std::env::var_os("PATH").unwrap_or_else(OsString::new);
    let runs = |path: &Path| std::fs::metadata(path).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0);
    std::env::split_paths(&folders).map(|folder| folder.join(name)).find(|path| runs(path))
}

fn go_words(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "no such file or directory".to_owned(),
        std::io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => error.to_string(),
    }
}

fn identity(certificate: &str, key: &str) -> Result<CertifiedKey, String> {
    let chain = CertificateDer::pem_slice_iter(certificate.as_bytes()).collect::<Result<Vec<_>, _>>().map_err(|error| error.to_string())?;
    if chain.is_empty() {
        return Err("tls: failed to find any PEM data in certificate input".to_owned());
    }
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|_| "tls: failed to find any PEM data in key input".to_owned())?;
    CertifiedKey::from_der(chain, key, &rustls::crypto::ring::default_provider()).map_err(|error| error.to_string())
}

/// What the program said last.
#[derive(Debug)]
pub struct Said {
    pub authorization: Option<HeaderValue>,
    identity: Option<Arc<CertifiedKey>>,
    expires: Option<Timestamp>,
}

/// One program's credentials: run when they are needed, kept while they hold.
pub struct ExecCredentials {
    plugin: ExecPlugin,
    clock: Arc<dyn Clock>,
    /// Held while the program runs: it may ask its user, so there is one at a time.
    said: tokio::sync::Mutex<Option<Arc<Said>>>,
    /// For handshakes, which cannot wait.
    identity: parking_lot::RwLock<Option<Arc<CertifiedKey>>>,
}

impl ExecCredentials {
    pub fn new(plugin: &ExecPlugin, clock: Arc<dyn Clock>) -> Result<Self, String> {
        if !VERSIONS.contains(&plugin.api_version.as_str()) {
            return Err(format!("exec plugin: invalid apiVersion {:?}", plugin.api_version));
        }
        Ok(Self { plugin: plugin.clone(), clock, said: tokio::sync::Mutex::default(), identity: parking_lot::RwLock::default() })
    }

    /// What holds now, and whether connections that were made before are another's.
    pub async fn get(&self) -> Result<(Arc<Said>, bool), String> {
        let mut last = self.said.lock().await;
        if let Some(said) = last.as_ref().filter(|said| said.expires.is_none_or(|expires| self.clock.now() <= expires)) {
            return Ok((said.clone(), false));
        }
        self.renew(&mut last).await
    }

    /// The server did not take these: others, unless there are some already.
    pub async fn refused(&self, used: &Arc<Said>) -> Result<bool, String> {
        let mut last = self.said.lock().await;
        if last.as_ref().is_none_or(|said| !Arc::ptr_eq(said, used)) {
            return Ok(false);
        }
        self.renew(&mut last).await.map(|(_, other)| other)
    }

    async fn renew(&self, last: &mut Option<Arc<Said>>) -> Result<(Arc<Said>, bool), String> {
        let plugin = self.plugin.clone();
        let said = Arc::new(tokio::task::spawn_blocking(move || plugin.run()).await.map_err(|error| format!("exec: {error}"))??);
        let chain = |identity: &Option<Arc<CertifiedKey>>| identity.as_ref().map(|identity| identity.cert.clone());
        let before = std::mem::replace(&mut *self.identity.write(), said.identity.clone());
        let other = last.is_some() && chain(&before) != chain(&said.identity);
        *last = Some(said.clone());
        Ok((said, other))
    }
}

impl std::fmt::Debug for ExecCredentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ExecCredentials")
    }
}

impl ResolvesClientCert for ExecCredentials {
    fn resolve(&self, _authorities: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.identity.read().clone()
    }

    fn has_certs(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plugin(script: &str) -> ExecPlugin {
        let exec = json!({"apiVersion": "client.authentication.k8s.io/v1", "command": "/bin/sh", "args": ["-c", script], "interactiveMode": "Never", "env": [{"name": "WORD", "value": "w"}]});
        ExecPlugin::of(&exec, "u").unwrap()
    }

    #[test]
    fn what_is_wrong_is_told_whole() {
        let of = |exec: Value| ExecPlugin::of(&exec, "u").map(|plugin| plugin.interactive_mode).map_err(|wrong| wrong.join("; "));
        for (exec, told) in [
            (json!({"command": "c", "apiVersion": "client.authentication.k8s.io/v1beta1"}), Ok("IfAvailable")),
            (json!({"command": "c", "apiVersion": "client.authentication.k8s.io/v1"}), Err("interactiveMode must be specified for u to use exec authentication plugin")),
            (json!({"command": "c", "apiVersion": "client.authentication.k8s.io/v1", "interactiveMode": "Now"}), Err("invalid interactiveMode for u: \"Now\"")),
            (
                json!({"interactiveMode": "Never", "env": [{"value": "x"}]}),
                Err("command must be specified for u to use exec authentication plugin; apiVersion must be specified for u to use exec authentication plugin; env variable name must be specified for u to use exec authentication plugin"),
            ),
        ] {
            assert_eq!(of(exec.clone()).as_deref().map_err(String::as_str), told, "{exec}");
        }
    }

    #[test]
    fn what_the_program_says_is_read_and_what_it_fails_with_is_told() {
        let credential = |status: &str| format!(r#"echo '{{"kind":"ExecCredential","apiVersion":"client.authentication.k8s.io/v1","status":{status}}}'"#);
        for (script, told) in [
            (credential(r#"{"token":"t"}"#), Ok("Bearer t")),
            (r#"case "$KUBERNETES_EXEC_INFO" in *'"interactive":false'*) echo "{apiVersion: client.authentication.k8s.io/v1, kind: ExecCredential, status: {token: $WORD}}";; esac"#.to_owned(), Ok("Bearer w")),
            (credential("{}"), Err("exec plugin didn't return a token or cert/key pair")),
            (credential("null"), Err("exec plugin didn't return a status field")),
            (credential(r#"{"clientKeyData":"k"}"#), Err("exec plugin returned only certificate or key, not both")),
            (credential(r#"{"clientKeyData":"k","clientCertificateData":"c"}"#), Err("failed parsing client key/certificate: tls: failed to find any PEM data in certificate input")),
            ("exit 7".to_owned(), Err("exec: executable /bin/sh failed with exit code 7")),
            (
                credential("{}").replace("/v1\"", "/v1beta1\""),
                Err("exec plugin is configured to use API version client.authentication.k8s.io/v1, plugin returned version client.authentication.k8s.io/v1beta1"),
            ),
        ] {
            let said = plugin(&script).run().map(|said| said.authorization.unwrap().to_str().unwrap().to_owned());
            assert_eq!(said.as_deref().map_err(String::as_str), told, "{script}");
        }
        let missing = ExecPlugin { command: "no-such-program-here".into(), install_hint: "get it".into(), ..plugin("") };
        let told = missing.run().unwrap_err();
        assert!(told.starts_with("exec: executable no-such-program-here not found\n\nIt looks like") && told.ends_with("\n\nget it"), "{told}");
    }

    #[test]
    fn only_programs_that_may_are_run() {
        let run = |policy| ExecPlugin { policy, ..plugin("exit 3") }.run().unwrap_err();
        assert_eq!(run(PluginPolicy::DenyAll), "plugin \"/bin/sh\" not allowed: policy set to \"DenyAll\"");
        assert_eq!(run(PluginPolicy::Allowlist(vec!["/bin/other".into()])), "plugin path \"/bin/sh\" is not permitted by the credential plugin allowlist");
        assert_eq!(run(PluginPolicy::Allowlist(vec!["/bin/sh".into()])), "exec: executable /bin/sh failed with exit code 3");
    }
}
