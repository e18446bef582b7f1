//! Exec and attach: a runtime's streams joined to a client's channels.
//!
//! Mirrors k8s.io/cri-streaming/pkg/streaming/remotecommand: exec.go, attach.go.

use std::sync::Arc;

use api::{Cause, Reason, Status};
use bytes::Bytes;
use sandbox::cri::{RuntimeError, Streams, TerminalSize};
use serde::Deserialize;
use tokio::sync::mpsc;

use crate::channels::{Channels, ERROR, Frame, RESIZE, STDERR, STDIN, STDOUT};
use crate::fd::Fd;

const CHUNK: usize = 32 * 1024;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Size {
    width: u16,
    height: u16,
}

/// How a session ended, for the error channel.
pub fn outcome(result: Result<i32, RuntimeError>, command: &[String]) -> Status {
    match result {
        Ok(0) => Status::success(),
        Ok(code) => {
            let message = format!("command terminated with non-zero exit code: error executing command {command:?}, exit code {code}").replace("\", \"", " ").replace(['"'], "");
            let mut status = Status::failure(0, Reason::Other("NonZeroExitCode".into()), message);
            status.details.causes.push(Cause { reason: "ExitCode".into(), message: code.to_string(), field: String::new() });
            status
        }
        Err(error) => Status::internal(format!("error executing command in container: {error}")),
    }
}

/// The bytes of that status on the error channel. Older protocols have text, and nothing for success.
fn encoded(as_status: bool, status: &Status) -> Option<Bytes> {
    let failed = status.status != "Success";
    if !as_status {
        return failed.then(|| Bytes::from(status.message.clone()));
    }
    Some(Bytes::from(serde_json::to_vec(status).unwrap_or_default()))
}

/// Until the process ended or the client is gone.
pub async fn run(channels: Channels, streams: Result<Streams, RuntimeError>, command: Vec<String>) {
    let Channels { incoming, outgoing, status: as_status } = channels;
    let streams = match streams {
        Ok(streams) => streams,
        Err(error) => {
            finish(as_status, &outgoing, &outcome(Err(error), &command)).await;
            return;
        }
    };
    let fd = |fd: Option<std::os::fd::OwnedFd>| fd.map(Fd::new).transpose().ok().flatten();
    let (stdin, stdout, stderr) = (fd(streams.stdin), fd(streams.stdout), fd(streams.stderr));
    let input = tokio::spawn(feed(incoming, stdin, streams.resize.map(Arc::from)));
    let output = async {
        tokio::join!(drain(stdout, STDOUT, &outgoing), drain(stderr, STDERR, &outgoing));
    };
    tokio::pin!(output);
    let mut exit = streams.exit;
    let mut drained = false;
    // Output first: the status comes after the last byte. A child that holds the pipe open after the end must not hold us.
    let result = loop {
        tokio::select! {
            () = &mut output, if !drained => drained = true,
            result = &mut exit => break Some(result),
            () = outgoing.closed() => break None,
        }
    };
    if let Some(result) = result {
        if !drained {
            let _ = tokio::time::timeout(DRAIN, &mut output).await;
        }
        finish(as_status, &outgoing, &outcome(result, &command)).await;
    }
    input.abort();
}

/// How long output is still read after the process ended.
const DRAIN: std::time::Duration = std::time::Duration::from_secs(1);

async fn finish(as_status: bool, outgoing: &mpsc::Sender<Frame>, status: &Status) {
    if let Some(bytes) = encoded(as_status, status) {
        let _ = outgoing.send(Frame::Data(ERROR, bytes)).await;
    }
}

async fn drain(stream: Option<Fd>, channel: u8, outgoing: &mpsc::Sender<Frame>) {
    let Some(stream) = stream else { return };
    let mut buffer = vec![0; CHUNK];
    loop {
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(length) => {
                if outgoing.send(Frame::Data(channel, Bytes::copy_from_slice(&buffer[..length]))).await.is_err() {
                    return;
                }
            }
        }
    }
}

async fn feed(mut incoming: mpsc::Receiver<Frame>, mut stdin: Option<Fd>, resize: Option<Arc<dyn Fn(TerminalSize) + Send + Sync>>) {
    while let Some(frame) = incoming.recv().await {
        match frame {
            Frame::Data(STDIN, data) => {
                if let Some(fd) = &stdin
                    && fd.write_all(&data).await.is_err()
                {
                    stdin = None;
                }
            }
            // End of file for the process.
            Frame::Close(STDIN) => stdin = None,
            Frame::Data(RESIZE, data) => {
                if let (Some(resize), Ok(size)) = (&resize, serde_json::from_slice::<Size>(&data)) {
                    resize(TerminalSize { width: size.width, height: size.height });
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_channel_says_the_exit_code() {
        let text = |result, as_status: bool| encoded(as_status, &outcome(result, &["sh".to_owned(), "-c".to_owned()])).map(|b| String::from_utf8_lossy(&b).into_owned());
        let failed: serde_json::Value = serde_json::from_str(&text(Ok(5), true).unwrap()).unwrap();
        assert_eq!((failed["status"].as_str(), failed["reason"].as_str()), (Some("Failure"), Some("NonZeroExitCode")));
        assert_eq!(failed["details"]["causes"][0], serde_json::json!({"reason": "ExitCode", "message": "5"}));
        assert_eq!(failed["message"], "command terminated with non-zero exit code: error executing command [sh -c], exit code 5");
        assert!(text(Ok(0), true).unwrap().contains("\"status\":\"Success\""));
        assert_eq!(text(Ok(0), false), None);
    }
}
