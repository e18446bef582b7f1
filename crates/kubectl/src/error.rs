//! What goes wrong, and how it is told: upstream's words first, a `hint:` line after them where a learner would be stuck.
//!
//! Mirrors `checkErr` of k8s.io/kubectl/pkg/cmd/util/helpers.go.

use api::{Reason, Status};
use client::http::HttpError;
use client::kubeconfig::ConfigError;
use client::websocket::WebSocketError;

pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0}")]
    Message(String),
    /// The command line is wrong: how to get help is told too.
    #[error("{message}\nSee '{command} --help' for usage.")]
    Usage { message: String, command: String },
    #[error("{}", .status.message)]
    Server { status: Box<Status>, context: Option<String> },
    #[error("{cause}")]
    Reach { cause: Box<HttpError>, server: String },
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("command terminated with exit code {0}")]
    Exit(u8),
    /// Already told; only the exit code is left.
    #[error("")]
    Silent(u8),
    #[error("several errors")]
    Many(Vec<Error>),
    #[error("{error}")]
    Hinted { error: Box<Error>, hint: String },
}

pub fn fail<T>(message: impl Into<String>) -> Result<T> {
    Err(Error::Message(message.into()))
}

pub fn usage<T>(command: &str, message: impl Into<String>) -> Result<T> {
    Err(Error::Usage { message: message.into(), command: command.to_owned() })
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        Error::Server { status: Box::new(status), context: None }
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        Error::Message(error.to_string())
    }
}

impl From<WebSocketError> for Error {
    fn from(error: WebSocketError) -> Self {
        match error {
            WebSocketError::Http(cause) => Error::Message(cause.to_string()),
            WebSocketError::Refused(status) => Error::Server { status, context: None },
            WebSocketError::Upgrade(_) => Error::Message(error.to_string()),
            WebSocketError::Protocol(cause) => Error::Message(cause),
        }
    }
}

impl Error {
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Error::Hinted { error: Box::new(self), hint: hint.into() }
    }

    /// `error when creating "rng.yml": …`, as upstream's AddSourceToErr.
    pub fn source(self, verb: &str, source: &str) -> Self {
        if source.is_empty() {
            return self;
        }
        let context = format!("error when {verb} {source:?}: ");
        match self {
            Error::Server { status, .. } => Error::Server { status, context: Some(context) },
            Error::Message(message) => Error::Message(format!("{context}{message}")),
            other => other,
        }
    }

    pub fn status(&self) -> Option<&Status> {
        match self {
            Error::Server { status, .. } => Some(status),
            Error::Hinted { error, .. } => error.status(),
            _ => None,
        }
    }

    pub fn is_not_found(&self) -> bool {
        self.status().is_some_and(Status::is_not_found)
    }

    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Exit(code) | Error::Silent(code) => *code,
            Error::Hinted { error, .. } => error.exit_code(),
            _ => 1,
        }
    }

    /// Everything that is written to stderr, with its line ends.
    pub fn told(&self) -> String {
        match self {
            Error::Silent(_) => String::new(),
            Error::Exit(_) => format!("{self}\n"),
            Error::Many(errors) => errors.iter().map(Error::told).collect(),
            Error::Hinted { error, hint } => {
                let lines: String = hint.lines().map(|line| format!("hint: {line}\n")).collect();
                format!("{}{lines}", error.told())
            }
            Error::Server { status, context } => format!("{}\n", server(status, context.as_deref().unwrap_or(""))),
            Error::Reach { cause, server } => match &**cause {
                HttpError::Refused { .. } => format!("The connection to the server {server} was refused - did you specify the right host or port?\n"),
                other => format!("Unable to connect to the server: {other}\n"),
            },
            Error::Config(error @ ConfigError::NoContext(_)) => format!("Error in configuration: {error}\n"),
            Error::Config(error @ (ConfigError::NoCluster(_) | ConfigError::NoUser(_))) => format!("error: {error}\n"),
            other => format!("error: {other}\n"),
        }
    }
}

fn reason(status: &Status) -> String {
    if matches!(status.reason, Reason::Other(_)) {
        return String::new();
    }
    serde_json::to_value(&status.reason).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

fn server(status: &Status, context: &str) -> String {
    if status.reason == Reason::Invalid {
        let details = &status.details;
        let mut text = "The request is invalid".to_owned();
        if !details.kind.is_empty() || !details.name.is_empty() {
            text = format!("The {} \"{}\" is invalid", details.kind, details.name);
        } else if !status.message.is_empty() && details.causes.is_empty() {
            text = format!("{text}: {}", status.message);
        }
        let mut causes: Vec<String> = Vec::new();
        for cause in &details.causes {
            let text = if cause.field.is_empty() { cause.message.clone() } else { format!("{}: {}", cause.field, cause.message) };
            // The server looks at some fields more than once, and says so each time.
            if !causes.contains(&text) {
                causes.push(text);
            }
        }
        return match causes.as_slice() {
            [] => text,
            [one] => format!("{text}: {one}"),
            many => format!("{text}: \n{}", many.iter().map(|cause| format!("* {cause}")).collect::<Vec<_>>().join("\n")),
        };
    }
    if status.reason == Reason::Unauthorized {
        return format!("error: You must be logged in to the server ({})", status.message);
    }
    match reason(status) {
        reason if reason.is_empty() => format!("Error from server: {context}{}", status.message),
        reason => format!("Error from server ({reason}): {context}{}", status.message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::Cause;

    #[test]
    fn words_are_upstreams() {
        let cause = |field: &str| Cause { field: field.into(), message: "Required value".into(), ..Cause::default() };
        let cases = [
            (Error::from(Status::not_found("apps", "deployments", "x")), "Error from server (NotFound): deployments.apps \"x\" not found\n"),
            (Error::from(Status::bad_request("no")).source("creating", "rng.yml"), "Error from server (BadRequest): error when creating \"rng.yml\": no\n"),
            (Error::from(Status::invalid("", "Service", "x", vec![cause("spec.ports")])), "The Service \"x\" is invalid: spec.ports: Required value\n"),
            (Error::from(Status::invalid("", "Service", "x", vec![cause("a"), cause("b")])), "The Service \"x\" is invalid: \n* a: Required value\n* b: Required value\n"),
            (Error::from(Status::invalid("", "Service", "x", vec![cause("a"), cause("a")])), "The Service \"x\" is invalid: a: Required value\n"),
            (Error::Usage { message: "unknown flag: --export".into(), command: "kubectl get".into() }, "error: unknown flag: --export\nSee 'kubectl get --help' for usage.\n"),
            (Error::Message("a".into()).hint("b"), "error: a\nhint: b\n"),
        ];
        for (error, want) in cases {
            assert_eq!(error.told(), want);
        }
    }
}
