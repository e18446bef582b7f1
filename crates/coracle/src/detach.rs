//! `up --detach`: the same command once more, in a session of its own, with its output in the log file.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::paths::Paths;

/// How long the cluster may take to become ready before `--detach` gives up waiting.
const READY_TIMEOUT: Duration = Duration::from_secs(30);
/// How a program's last words begin, and how many there are at most.
const ERROR: &str = "error: ";
const LAST_WORDS_BYTES: u64 = 16 << 10;
/// The child says over this descriptor that it is ready; its end closes it.
pub const READY_VARIABLE: &str = "CORACLE_READY_FD";

/// Returns when the child says it is ready.
pub fn start(paths: &Paths, arguments: Vec<std::ffi::OsString>) -> Result<()> {
    std::fs::create_dir_all(&paths.data).with_context(|| format!("cannot make {}", paths.data.display()))?;
    let log_path = paths.log_file();
    let log = std::fs::OpenOptions::new().create(true).append(true).open(&log_path).with_context(|| format!("cannot write {}", log_path.display()))?;
    let before = log.metadata()?.len();
    let (reader, writer) = std::io::pipe()?;
    let mut command = Command::new(std::env::current_exe()?);
    // Whatever this program is called on the disk.
    command.arg0("coracle");
    command.args(arguments).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    let ready = nix::unistd::dup(&writer)?;
    command.env(READY_VARIABLE, std::os::fd::AsRawFd::as_raw_fd(&ready).to_string());
    // SAFETY: between fork and exec only the async-signal-safe setsid is called.
    unsafe {
        command.pre_exec(|| {
            nix::unistd::setsid().map_err(std::io::Error::from)?;
            Ok(())
        });
    }
    let mut child = command.spawn().context("cannot start the cluster in the background")?;
    drop(writer);
    drop(ready);
    let until = Instant::now() + READY_TIMEOUT;
    use std::os::fd::AsFd;
    let left = until.saturating_duration_since(Instant::now()).as_millis().min(u128::from(u16::MAX)) as u16;
    let spoke = nix::poll::poll(&mut [nix::poll::PollFd::new(reader.as_fd(), nix::poll::PollFlags::POLLIN)], nix::poll::PollTimeout::from(left))? > 0;
    let mut line = String::new();
    if spoke {
        std::io::BufRead::read_line(&mut std::io::BufReader::new(reader), &mut line)?;
    }
    if line.trim() == "ready" {
        return Ok(());
    }
    if spoke {
        // It said nothing and its end of the pipe is closed: it ends, or has.
        let status = child.wait()?;
        let log = format!("its log is {}", log_path.display());
        match last_words(&log_path, before) {
            Some(words) => bail!("{words}\nhint: {log}"),
            None => bail!("the cluster ended while starting ({status}); {log}"),
        }
    }
    bail!("the cluster is not ready after {} s; its log is {}", READY_TIMEOUT.as_secs(), log_path.display())
}

/// The error with which the child ended, and its hints, as they stand at the end of its log.
fn last_words(log: &Path, from: u64) -> Option<String> {
    let mut file = File::open(log).ok()?;
    let start = file.metadata().ok()?.len().saturating_sub(LAST_WORDS_BYTES).max(from);
    file.seek(SeekFrom::Start(start)).ok()?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let at = if text.starts_with(ERROR) { 0 } else { text.rfind(&format!("\n{ERROR}"))? + 1 };
    Some(text[at + ERROR.len()..].trim_end().to_owned())
}

/// In the child: tells the parent that the cluster is ready.
pub fn say_ready() {
    let Some(descriptor) = std::env::var(READY_VARIABLE).ok().and_then(|text| text.parse::<i32>().ok()) else { return };
    // SAFETY: the parent made this descriptor for us and nobody else in this process knows it.
    let mut writer = unsafe { <std::fs::File as std::os::fd::FromRawFd>::from_raw_fd(descriptor) };
    // The parent may have given up waiting.
    let _ = std::io::Write::write_all(&mut writer, b"ready\n");
}
