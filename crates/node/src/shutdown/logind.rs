//! logind says when the machine shuts down, and waits for who took a delay inhibitor: this node takes one, ends its pods when it is told, and then gives it back.
//!
//! Mirrors upstream's `nodeshutdown/systemd` and `nodeshutdown_manager_linux.go`, with its drop-in for a delay that is too short.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::node::Node;
use crate::shutdown::dbus::{Argument, Bus, DbusError, INTERFACE, MEMBER, Reader};

const LOGIND: &str = "org.freedesktop.login1";
const LOGIND_PATH: &str = "/org/freedesktop/login1";
const MANAGER: &str = "org.freedesktop.login1.Manager";
const DROP_IN: &str = "99-kubelet.conf";
const RECONNECT_PAUSE: Duration = Duration::from_secs(1);
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

/// Makes logind wait that long, if it would not.
async fn lengthen(bus: &mut Bus, wanted: Duration, folder: &Path) -> Result<(), LogindError> {
    if longest_delay(bus).await? >= wanted {
        return Ok(());
    }
    let file = folder.join(DROP_IN);
    let text = format!("# Kubelet logind override\n[Login]\nInhibitDelayMaxSec={}\n", wanted.as_secs());
    std::fs::create_dir_all(folder).and_then(|()| std::fs::write(&file, text)).map_err(|error| LogindError::DropIn(file.display().to_string(), error))?;
    let arguments = [Argument::Text("systemd-logind.service"), Argument::Text("all"), Argument::Int32(SIGHUP)];
    bus.call("org.freedesktop.systemd1", "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager", "KillUnit", &arguments).await?;
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
    loop {
        if let Err(error) = follow_once(&node, &socket).await {
            tracing::warn!(%error, "cannot follow logind; the pods are not ended when the machine shuts down until it can");
        }
        tokio::time::sleep(RECONNECT_PAUSE).await;
    }
}
