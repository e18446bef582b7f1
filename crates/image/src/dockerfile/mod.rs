//! Dockerfiles: text to instructions.
//!
//! Mirrors docs.docker.com/reference/dockerfile: parser directives, comments, line continuation, heredocs, flags, and
//! the JSON (exec) and shell forms. Variables are expanded later, step by step (`expand`).

mod expand;
mod parse;
mod words;

pub use expand::{ExpandError, expand, expand_words};
pub use parse::{ParseError, parse};
pub use words::{name_values, split_words};

use std::collections::BTreeMap;

/// A whole file: what comes before the first FROM is only ARG.
#[derive(Debug, Clone, PartialEq)]
pub struct Dockerfile {
    pub escape: char,
    pub instructions: Vec<Instruction>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Instruction {
    /// Line it starts on, from 1.
    pub line: usize,
    /// Upper case: `RUN`.
    pub keyword: String,
    /// `--from=build` → `from: build`. A flag may repeat; one without a value is empty.
    pub flags: BTreeMap<String, String>,
    /// Everything after keyword and flags, continuation lines joined.
    pub rest: String,
    /// The whole line as it is shown: `COPY --from=build /x /y`.
    pub original: String,
    pub heredocs: Vec<Heredoc>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Heredoc {
    pub name: String,
    pub content: String,
    /// False when the delimiter was quoted.
    pub expand: bool,
}

/// `["a","b"]` or a command line for the shell.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    Exec(Vec<String>),
    Shell(String),
}

impl Command {
    pub fn parse(rest: &str) -> Command {
        match json_list(rest) {
            Some(words) => Command::Exec(words),
            None => Command::Shell(rest.trim().to_owned()),
        }
    }

    /// The argument vector, given the shell in force.
    pub fn args(self, shell: &[String]) -> Vec<String> {
        match self {
            Command::Exec(words) => words,
            Command::Shell(line) if line.is_empty() => Vec::new(),
            Command::Shell(line) => shell.iter().cloned().chain([line]).collect(),
        }
    }
}

/// The JSON form of an instruction's arguments, if it is that.
pub fn json_list(rest: &str) -> Option<Vec<String>> {
    if !rest.trim_start().starts_with('[') {
        return None;
    }
    serde_json::from_str(rest.trim()).ok()
}
