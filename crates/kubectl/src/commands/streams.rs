//! A program in a container, joined to this terminal: stdin, stdout, stderr, the window's size and how it ended.
//!
//! Mirrors k8s.io/client-go/tools/remotecommand (v5: a channel can be closed; v4: the end is a Status) and kubectl/pkg/util/term.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::signal::unix::{SignalKind, signal};

use super::wire::{self, ERROR, Incoming, Outgoing, RESIZE, STDERR, STDIN, STDOUT};
use crate::error::{Error, Result, fail};
use crate::flags::{Flag, switch, text};
use crate::output;
use crate::session::Session;

/// Upstream's pingPeriod.
const PING_PERIOD: Duration = Duration::from_secs(5);
/// As a shell counts a death by SIGPIPE.
const BROKEN_PIPE: u8 = 141;
const CHUNK: usize = 32 * 1024;

/// Of the commands that join a container.
pub const FLAGS: &[Flag] = &[
    text("container", "", "Container name. If omitted, use the kubectl.kubernetes.io/default-container annotation for selecting the container to be attached or the first container in the pod will be chosen").short('c'),
    text("pod-running-timeout", "1m0s", "The length of time (like 5s, 2m, or 3h, higher than zero) to wait until at least one pod is running"),
    switch("quiet", "Only print output from the remote session").short('q'),
    switch("stdin", "Pass stdin to the container").short('i'),
    switch("tty", "Stdin is a TTY").short('t'),
];

/// The terminal in raw mode for as long as this lives.
pub struct Raw(Option<Termios>);

impl Raw {
    pub fn start() -> Self {
        let stdin = std::io::stdin();
        let Ok(before) = tcgetattr(&stdin) else { return Self(None) };
        let mut raw = before.clone();
        raw.make_raw();
        match tcsetattr(&stdin, OptionalActions::Now, &raw) {
            Ok(()) => Self(Some(before)),
            Err(_) => Self(None),
        }
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            // A terminal that went away needs no mode.
            let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, before);
        }
    }
}

fn window() -> Option<Vec<u8>> {
    let size = tcgetwinsize(std::io::stdout()).ok()?;
    Some(json!({"Width": size.ws_col, "Height": size.ws_row}).to_string().into_bytes())
}

/// May a terminal be asked for? Says so if it was and cannot be.
pub fn terminal(stdin: bool, tty: bool) -> bool {
    if !tty || !stdin {
        return false;
    }
    if !std::io::stdin().is_terminal() {
        output::complain("Unable to use a TTY - input is not a terminal or the right kind of file");
        return false;
    }
    true
}

pub struct Streams<I, O, E> {
    pub stdin: Option<I>,
    pub stdout: O,
    pub stderr: E,
    pub tty: bool,
}

/// This program's own three streams.
pub fn own(stdin: bool, tty: bool) -> Streams<tokio::io::Stdin, std::io::Stdout, std::io::Stderr> {
    Streams { stdin: stdin.then(tokio::io::stdin), stdout: std::io::stdout(), stderr: std::io::stderr(), tty }
}

/// Joins `streams` to what `path` starts, until it ends. Its exit code, if not 0, is the error.
pub async fn run<I: AsyncRead + Unpin, O: Write, E: Write>(session: &Session, path: &str, streams: Streams<I, O, E>) -> Result<()> {
    let (outgoing, incoming) = wire::connect(session.http()?, path).await?;
    let _raw = streams.tty.then(Raw::start);
    let Streams { stdin, stdout, stderr, tty } = streams;
    let send = sending(outgoing, stdin, tty);
    let receive = receiving(incoming, stdout, stderr);
    tokio::pin!(send, receive);
    tokio::select! {
        ended = &mut receive => ended,
        sent = &mut send => { sent?; receive.await }
    }
}

async fn sending<I: AsyncRead + Unpin>(mut outgoing: Outgoing, stdin: Option<I>, tty: bool) -> Result<()> {
    let mut resized = signal(SignalKind::window_change())?;
    if tty && let Some(size) = window() {
        outgoing.send(RESIZE, &size).await?;
    }
    let mut stdin = stdin;
    let mut buffer = vec![0; CHUNK];
    let mut signs = tokio::time::interval_at(tokio::time::Instant::now() + PING_PERIOD, PING_PERIOD);
    loop {
        tokio::select! {
            read = read(&mut stdin, &mut buffer), if stdin.is_some() => match read {
                Ok(0) | Err(_) => {
                    stdin = None;
                    outgoing.finish(STDIN).await?;
                }
                // The program may have ended without reading: the other side tells how.
                Ok(length) => if outgoing.send(STDIN, &buffer[..length]).await.is_err() { return Ok(()) },
            },
            _ = resized.recv(), if tty => if let Some(size) = window() { outgoing.send(RESIZE, &size).await? },
            // Who does not take it any more will soon be seen to be gone.
            _ = signs.tick() => drop(outgoing.ping().await),
        }
    }
}

async fn read<I: AsyncRead + Unpin>(stdin: &mut Option<I>, buffer: &mut [u8]) -> std::io::Result<usize> {
    match stdin {
        Some(stdin) => stdin.read(buffer).await,
        None => std::future::pending().await,
    }
}

async fn receiving(mut incoming: Incoming, mut stdout: impl Write, mut stderr: impl Write) -> Result<()> {
    let mut outcome = None;
    while let Some(message) = incoming.next().await {
        let (channel, data) = match message {
            Ok(message) => message,
            // After the outcome, how the connection goes down says nothing.
            Err(_) if outcome.is_some() => break,
            Err(error) => return Err(error),
        };
        match channel {
            STDOUT => stdout.write_all(&data).and_then(|()| stdout.flush()).map_err(unread)?,
            STDERR => stderr.write_all(&data).and_then(|()| stderr.flush()).map_err(unread)?,
            ERROR if !data.is_empty() => {
                outcome = Some(ended(&data));
                if matches!(outcome, Some(Ok(()))) { continue } else { break }
            }
            _ => {}
        }
    }
    outcome.unwrap_or(Ok(()))
}

/// A reader that went away (`| head -1`) is no failure to tell of.
fn unread(error: std::io::Error) -> Error {
    if error.kind() == std::io::ErrorKind::BrokenPipe { Error::Silent(BROKEN_PIPE) } else { error.into() }
}

/// What the last message, a Status, says.
fn ended(data: &[u8]) -> Result<()> {
    let Ok(status) = serde_json::from_slice::<Value>(data) else { return fail(String::from_utf8_lossy(data).trim().to_owned()) };
    if status["status"] == "Success" {
        return Ok(());
    }
    let message = status["message"].as_str().unwrap_or("").to_owned();
    if status["reason"] == "NonZeroExitCode" {
        let causes = status.pointer("/details/causes").and_then(Value::as_array).into_iter().flatten();
        let code = causes.filter(|cause| cause["reason"] == "ExitCode").find_map(|cause| cause["message"].as_str()?.parse::<i64>().ok());
        return Err(match code {
            Some(code) => Error::Exit((code & 0xff) as u8),
            None => Error::Message(format!("error stream protocol error: missing {message}")),
        });
    }
    fail(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endings() {
        for (data, want) in [
            (r#"{"status":"Success"}"#, None),
            (r#"{"status":"Failure","reason":"NonZeroExitCode","message":"command terminated with non-zero exit code: 3","details":{"causes":[{"reason":"ExitCode","message":"3"}]}}"#, Some("command terminated with exit code 3\n")),
            (r#"{"status":"Failure","reason":"InternalError","message":"no such file","code":500}"#, Some("error: no such file\n")),
            ("plain text\n", Some("error: plain text\n")),
        ] {
            assert_eq!(ended(data.as_bytes()).err().map(|error| error.told()).as_deref(), want, "{data}");
        }
    }
}
