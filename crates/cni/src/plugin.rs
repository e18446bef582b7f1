//! One execution of one plugin: environment and configuration in, JSON out. Mirrors section 2 of the specification, and libcni's words for what fails.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};

/// The kubelet's own patience with its runtime; a DHCP lease takes seconds.
const TIMEOUT: Duration = Duration::from_secs(120);
/// Of what a plugin says, as much is shown.
const SAID_BYTES_MAX: usize = 4096;
/// Another thread that starts a process holds a program that was just written open for a moment.
const BUSY_TRIES: u32 = 20;
const BUSY_PAUSE: Duration = Duration::from_millis(10);

/// What ended up in a plugin's error.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PluginFailure {
    /// From 100 on the plugin's own; 0 when it said none.
    pub code: u64,
    pub message: String,
    pub details: String,
}

impl std::fmt::Display for PluginFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)?;
        if self.details.is_empty() { Ok(()) } else { write!(f, "; {}", self.details) }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum PluginError {
    #[error("failed to find plugin {0:?} in path [{1}]")]
    NotFound(String, String),
    #[error("{0}")]
    Failed(PluginFailure),
    #[error("netplugin failed with no error message: {0}")]
    Io(#[from] io::Error),
    #[error("netplugin did not end within {} s", TIMEOUT.as_secs())]
    Timeout,
    #[error("netplugin answered no JSON: {0}")]
    Answer(serde_json::Error),
}

/// `CNI_…` without the command, the same for all plugins of a list.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    pub container_id: String,
    pub netns: OsString,
    pub if_name: String,
    pub args: String,
}

pub async fn run(folders: &[PathBuf], kind: &str, command: &str, environment: &Environment, config: &Map<String, Value>) -> Result<Value, PluginError> {
    let shown = || folders.iter().map(|folder| folder.display().to_string()).collect::<Vec<_>>().join(" ");
    let program = folders.iter().map(|folder| folder.join(kind)).find(|path| path.is_file()).ok_or_else(|| PluginError::NotFound(kind.to_owned(), shown()))?;
    let input = serde_json::to_vec(config).map_err(PluginError::Answer)?;
    let path = std::env::join_paths(folders).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    let mut prepared = Command::new(&program);
    prepared
        .env("CNI_COMMAND", command)
        .env("CNI_CONTAINERID", &environment.container_id)
        .env("CNI_NETNS", &environment.netns)
        .env("CNI_IFNAME", &environment.if_name)
        .env("CNI_ARGS", &environment.args)
        .env("CNI_PATH", path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let output = tokio::time::timeout(TIMEOUT, converse(&mut prepared, &input)).await.map_err(|_| PluginError::Timeout)??;
    answer(&output, &program)
}

async fn converse(command: &mut Command, input: &[u8]) -> io::Result<Output> {
    let mut child = spawn(command).await?;
    if let Some(mut stdin) = child.stdin.take() {
        match stdin.write_all(input).await {
            // It need not read what it does not care for.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error),
            _ => {}
        }
    }
    child.wait_with_output().await
}

async fn spawn(command: &mut Command) -> io::Result<Child> {
    let mut tries = 0;
    loop {
        match command.spawn() {
            Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy && tries < BUSY_TRIES => {
                tries += 1;
                tokio::time::sleep(BUSY_PAUSE).await;
            }
            spawned => return spawned,
        }
    }
}

fn answer(output: &Output, program: &Path) -> Result<Value, PluginError> {
    let said = |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(SAID_BYTES_MAX)]).trim().to_owned();
    if output.status.success() {
        if !output.stderr.is_empty() {
            tracing::debug!(program = %program.display(), said = said(&output.stderr), "a network plugin speaks");
        }
        let empty = output.stdout.iter().all(u8::is_ascii_whitespace);
        return if empty { Ok(Value::Null) } else { serde_json::from_slice(&output.stdout).map_err(PluginError::Answer) };
    }
    let failure = match serde_json::from_slice::<Value>(&output.stdout) {
        Ok(value) if value["msg"].is_string() => {
            let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
            PluginFailure { code: value["code"].as_u64().unwrap_or(0), message: text("msg"), details: text("details") }
        }
        _ => {
            let (out, err) = (said(&output.stdout), said(&output.stderr));
            let message = match (out.is_empty(), err.is_empty()) {
                (true, true) => format!("netplugin failed with no error message: {}", output.status),
                (_, false) => format!("netplugin failed: {err:?}"),
                (false, true) => format!("netplugin failed but error parsing its diagnostic message {out:?}"),
            };
            PluginFailure { message, ..PluginFailure::default() }
        }
    };
    Err(PluginError::Failed(failure))
}
