//! logind says when the machine shuts down, and waits for who took a delay inhibitor: this node takes one, ends its pods when it is told, and then gives it back.
//!
//! Mirrors upstream's `nodeshutdown/systemd` and `nodeshutdown_manager_linux.go`, with its drop-in for a delay that is too short.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::node::Node;
use crate::shutdown::dbus::{Argument, Bus, DbusError, INTERFACE, MEMBER, Reader};

const LOGIND: &str = "org.freedesktop.login1";
const LOGIND_PATH: &str = "/org/freedesktop/login1";
const MANAGER: &str = "org.freedesktop.login1.Manager";
/// Where logind looks for more configuration.
pub const CONF_DIR: &str = "/etc/systemd/logind.conf.d";
const DROP_IN: &str = "99-kubelet.conf";
/// Upstream's, and by whom: a kubelet of others may have left one here, which is not ours to take away.
const HEAD: &str = "# Kubelet logind override\n# coracle's: its reset removes this file\n";
/// Doubled each time: one that will not wait as long as wanted is not to be told to read its configuration anew every second.
const RECONNECT_PAUSE: Duration = Duration::from_secs(1);
const RECONNECT_PAUSE_MAX: Duration = Duration::from_secs(60);
/// logind reads its configuration anew a moment after it is asked to.
const RELOAD_PAUSE: Duration = Duration::from_millis(100);
const RELOAD_ATTEMPTS: u32 = 5;
const SIGHUP: i32 = 1;

#[derive(Debug, thiserror::Error)]
pub enum LogindError {
    #[error(transparent)]
    Bus(#[from] DbusError),
    #[error("cannot write {0}: {1}")]
    DropIn(String, io::Error),
    #[error("logind delays a shutdown by {current:?} at most, {wanted:?} are wanted")]
    TooShort { current: Duration, wanted: Duration },
    #[error("logind gave no inhibitor")]
    NoInhibitor,
}

async fn longest_delay(bus: &mut Bus) -> Result<Duration, DbusError> {
    let arguments = [Argument::Text(MANAGER), Argument::Text("InhibitDelayMaxUSec")];
    let answer = bus.call(LOGIND, LOGIND_PATH, "org.freedesktop.DBus.Properties", "Get", &arguments).await?;
    let mut reader = Reader::new(&answer.body);
    match reader.signature()? {
        "t" => Ok(Duration::from_micros(reader.u64()?)),
        _ => Err(DbusError::Malformed),
    }
}

async fn inhibit(bus: &mut Bus) -> Result<OwnedFd, LogindError> {
    let arguments = ["shutdown", "kubelet", "Kubelet needs time to handle node shutdown", "delay"].map(Argument::Text);
    let answer = bus.call(LOGIND, LOGIND_PATH, MANAGER, "Inhibit", &arguments).await?;
    let index = Reader::new(&answer.body).u32()? as usize;
    answer.fds.into_iter().nth(index).ok_or(LogindError::NoInhibitor)
}

/// Has it read its configuration anew.
async fn reload(bus: &mut Bus) -> Result<(), DbusError> {
    let arguments = [Argument::Text("systemd-logind.service"), Argument::Text("all"), Argument::Int32(SIGHUP)];
    bus.call("org.freedesktop.systemd1", "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager", "KillUnit", &arguments).await.map(drop)
}

/// Makes logind wait that long, if it would not.
async fn lengthen(bus: &mut Bus, wanted: Duration, folder: &Path) -> Result<(), LogindError> {
    if longest_delay(bus).await? >= wanted {
        return Ok(());
    }
    let file = folder.join(DROP_IN);
    let text = format!("{HEAD}[Login]\nInhibitDelayMaxSec={}\n", wanted.as_secs());
    std::fs::create_dir_all(folder).and_then(|()| std::fs::write(&file, text)).map_err(|error| LogindError::DropIn(file.display().to_string(), error))?;
    reload(bus).await?;
    let mut pause = RELOAD_PAUSE;
    let mut current = Duration::ZERO;
    for _ in 0..RELOAD_ATTEMPTS {
        current = longest_delay(bus).await?;
        if current >= wanted {
            return Ok(());
        }
        // It tells nobody when it has.
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
    Err(LogindError::TooShort { current, wanted })
}

/// Takes away what was written there for logind. Whether there was something.
fn forget_in(folder: &Path) -> io::Result<bool> {
    let file = folder.join(DROP_IN);
    match std::fs::read_to_string(&file) {
        Ok(text) if text.starts_with(HEAD) => std::fs::remove_file(&file)?,
        Ok(_) => return Ok(false),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(false),
        Err(error) => return Err(error),
    }
    // Fails while others' files are in it, and should.
    let _ = std::fs::remove_dir(folder);
    Ok(true)
}

/// The node is no more: logind is to wait no longer than it did before. Upstream's kubelet leaves its file.
pub fn forget() -> io::Result<()> {
    if !forget_in(Path::new(CONF_DIR))? {
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let reloaded: Result<(), DbusError> = runtime.block_on(async { reload(&mut Bus::connect(&crate::config::system_bus()).await?).await });
    // Where it does not run it reads its configuration when it starts.
    if let Err(error) = reloaded {
        tracing::debug!(%error, "logind is not told");
    }
    Ok(())
}

/// Until the bus is gone.
async fn follow_once(node: &Arc<Node>, socket: &Path) -> Result<(), LogindError> {
    let mut bus = Bus::connect(socket).await?;
    lengthen(&mut bus, node.shutdown_patience(), &node.config.logind_conf_dir).await?;
    let mut held = Some(inhibit(&mut bus).await?);
    let rule = format!("type='signal',interface='{MANAGER}',member='PrepareForShutdown',path='{LOGIND_PATH}'");
    bus.call("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "AddMatch", &[Argument::Text(&rule)]).await?;
    tracing::info!(patience = ?node.shutdown_patience(), "logind waits for the pods when the machine shuts down");
    loop {
        let signal = bus.signal().await?;
        if signal.text(INTERFACE) != MANAGER || signal.text(MEMBER) != "PrepareForShutdown" {
            continue;
        }
        if Reader::new(&signal.body).u32()? != 0 {
            node.end_pods(&node.config.settings.shutdown).await;
            // Goes on without us.
            drop(held.take());
        } else {
            node.shutdown_cancelled();
            held = Some(inhibit(&mut bus).await?);
        }
    }
}

/// Never ends, unless there is no logind at all.
pub async fn follow(node: Arc<Node>) {
    let socket = node.config.system_bus.clone();
    if !socket.exists() {
        tracing::info!(bus = %socket.display(), "no system bus here: who shuts this machine down says so by SIGPWR or `coracle down --node-shutdown`");
        return;
    }
    let mut pause = RECONNECT_PAUSE;
    loop {
        let begun = Instant::now();
        if let Err(error) = follow_once(&node, &socket).await {
            tracing::warn!(%error, "cannot follow logind; the pods are not ended when the machine shuts down until it can");
        }
        if begun.elapsed() > RECONNECT_PAUSE_MAX {
            pause = RECONNECT_PAUSE;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(RECONNECT_PAUSE_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_is_taken_away() {
        let above = tempfile::tempdir().unwrap();
        let folder = above.path().join("logind.conf.d");
        assert!(!forget_in(&folder).unwrap());
        std::fs::create_dir(&folder).unwrap();
        let (file, other) = (folder.join(DROP_IN), folder.join("10-other.conf"));
        std::fs::write(&file, "# Kubelet logind override\n[Login]\nInhibitDelayMaxSec=1\n").unwrap();
        assert!(!forget_in(&folder).unwrap() && file.exists());
        std::fs::write(&other, "").unwrap();
        std::fs::write(&file, format!("{HEAD}[Login]\n")).unwrap();
        assert!(forget_in(&folder).unwrap() && !file.exists() && other.exists());
        std::fs::remove_file(&other).unwrap();
        std::fs::write(&file, HEAD).unwrap();
        assert!(forget_in(&folder).unwrap() && !folder.exists());
    }
}
