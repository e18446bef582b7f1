//! What can go wrong: issues of a compilation, in cel-go's form, and the ways an evaluation fails. Both refuse: neither yields a value.

use std::fmt;

/// One remark of the parser or checker. Line and column count from one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issue {
    pub line: u32,
    pub column: u32,
    pub message: String,
}

/// Why an expression does not compile. Prints as cel-go's `Issues.String()`: each issue with the line it is on and a caret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompileErrors {
    pub issues: Vec<Issue>,
    source: String,
}

impl std::error::Error for CompileErrors {}

/// How a remark begins that upstream makes only when it builds the program.
pub const INSTANTIATION_FAILED: &str = "program instantiation failed: ";

/// cel-go shows at most this many and counts the rest.
const SHOWN_ISSUES: usize = 100;

impl CompileErrors {
    /// `found` are (character offset, message) pairs; `None` is a remark on the whole.
    pub(crate) fn new(source: &str, mut found: Vec<(Option<u32>, String)>) -> Self {
        let place = |offset: Option<u32>| match offset {
            None => (0, 0),
            Some(offset) => {
                let (mut line, mut column) = (1, 1);
                for character in source.chars().take(offset as usize) {
                    if character == '\n' {
                        (line, column) = (line + 1, 1);
                    } else {
                        column += 1;
                    }
                }
                (line, column)
            }
        };
        found.sort_by_key(|(offset, _)| *offset);
        let mut issues: Vec<Issue> = found
            .into_iter()
            .map(|(offset, message)| {
                let (line, column) = place(offset);
                Issue { line, column, message }
            })
            .collect();
        issues.dedup();
        Self { issues, source: source.to_owned() }
    }
}

impl CompileErrors {
    /// As Kubernetes puts it: `compilation failed: ERROR: …`, or `program instantiation failed: …`.
    pub fn detail(&self) -> String {
        match &self.issues[..] {
            [only] if only.message.starts_with(INSTANTIATION_FAILED) => only.message.clone(),
            _ => format!("compilation failed: {self}"),
        }
    }
}

impl fmt::Display for CompileErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<&str> = self.source.split('\n').collect();
        for (index, issue) in self.issues.iter().take(SHOWN_ISSUES).enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            if issue.line == 0 {
                write!(f, "ERROR: <input>:-1:0: {}", issue.message)?;
                continue;
            }
            write!(f, "ERROR: <input>:{}:{}: {}", issue.line, issue.column, issue.message)?;
            let Some(line) = lines.get(issue.line as usize - 1) else { continue };
            let line = line.replace('\t', " ");
            write!(f, "\n | {line}\n | ")?;
            let before = issue.column as usize - 1;
            for character in line.chars().take(before) {
                f.write_str(if character.len_utf8() > 1 { "．" } else { "." })?;
            }
            let wide = line.chars().nth(before).is_some_and(|character| character.len_utf8() > 1);
            f.write_str(if wide { "＾" } else { "^" })?;
        }
        if self.issues.len() > SHOWN_ISSUES {
            write!(f, "\n{} more errors were truncated", self.issues.len() - SHOWN_ISSUES)?;
        }
        Ok(())
    }
}

/// Why an evaluation gives no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EvalError {
    /// This one evaluation costs more than the limit per call.
    #[error("operation cancelled: actual cost limit exceeded")]
    CallLimit,
    /// The budget it shares with others is used up.
    #[error("validation failed due to running out of cost budget, no further validation rules will be run")]
    OutOfBudget,
    #[error("{0}")]
    Failed(String),
}

impl EvalError {
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self::Failed(message.into())
    }

    pub(crate) fn no_such_overload() -> Self {
        Self::Failed("no such overload".to_owned())
    }

    pub(crate) fn no_such_key(key: impl fmt::Display) -> Self {
        Self::Failed(format!("no such key: {key}"))
    }

    /// May `&&`, `||`, `all` and `exists` look past it? Never past a limit.
    pub(crate) fn is_absorbable(&self) -> bool {
        matches!(self, Self::Failed(_))
    }
}
