//! Lines to instructions. Errors carry the line number and docker's words.

use std::collections::BTreeMap;

use super::{Dockerfile, Heredoc, Instruction, split_words};

#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ParseError {
    #[error("dockerfile parse error on line {line}: unknown instruction: {keyword}")]
    Unknown { line: usize, keyword: String },
    #[error("dockerfile parse error on line {line}: {message}")]
    Line { line: usize, message: String },
    #[error("the Dockerfile cannot be empty")]
    Empty,
    #[error("dockerfile parse error on line {line}: unterminated heredoc {name:?}")]
    Heredoc { line: usize, name: String },
}

const KEYWORDS: &[&str] = &[
    "ADD", "ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "LABEL", "MAINTAINER", "ONBUILD", "RUN",
    "SHELL", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR",
];

pub fn parse(text: &str) -> Result<Dockerfile, ParseError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lines: Vec<&str> = text.lines().collect();
    let escape = escape_directive(&lines)?;
    let mut instructions = Vec::new();
    let mut next = 0;
    while next < lines.len() {
        let line = next + 1;
        let logical = logical_line(&lines, &mut next, escape);
        if logical.trim().is_empty() {
            continue;
        }
        instructions.push(instruction(&lines, &mut next, line, logical.trim(), escape)?);
    }
    if instructions.is_empty() {
        return Err(ParseError::Empty);
    }
    Ok(Dockerfile { escape, instructions })
}

/// `# escape=` among the directives: comments of the form `# name=value` before anything else.
fn escape_directive(lines: &[&str]) -> Result<char, ParseError> {
    for (i, line) in lines.iter().enumerate() {
        let Some((name, value)) = line.trim().strip_prefix('#').and_then(|rest| rest.split_once('=')) else { break };
        let name = name.trim();
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
            break;
        }
        if name.eq_ignore_ascii_case("escape") {
            return match value.trim() {
                "\\" => Ok('\\'),
                "`" => Ok('`'),
                other => Err(ParseError::Line {
                    line: i + 1,
                    message: format!("invalid ESCAPE '{other}'. Must be ` or \\"),
                }),
            };
        }
    }
    Ok('\\')
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with('#')
}

/// Joins continuation lines; comment lines, also between continued lines, vanish.
fn logical_line(lines: &[&str], next: &mut usize, escape: char) -> String {
    let mut joined = String::new();
    let mut continued = false;
    while let Some(line) = lines.get(*next) {
        *next += 1;
        if is_comment(line) || (continued && line.trim().is_empty()) {
            if !continued {
                return String::new();
            }
            continue;
        }
        let line = if continued { line } else { line.trim_start() };
        match line.trim_end().strip_suffix(escape) {
            Some(start) => {
                joined.push_str(start);
                continued = true;
            }
            None => {
                joined.push_str(line);
                break;
            }
        }
    }
    joined
}

fn instruction(lines: &[&str], next: &mut usize, line: usize, logical: &str, escape: char) -> Result<Instruction, ParseError> {
    let (keyword, mut rest) = match logical.split_once(char::is_whitespace) {
        Some((keyword, rest)) => (keyword, rest.trim()),
        None => (logical, ""),
    };
    let keyword = keyword.to_uppercase();
    if !KEYWORDS.contains(&keyword.as_str()) {
        return Err(ParseError::Unknown { line, keyword });
    }
    if rest.is_empty() && !matches!(keyword.as_str(), "CMD" | "ENTRYPOINT") {
        return Err(ParseError::Line { line, message: format!("{keyword} requires at least one argument") });
    }
    let mut flags = BTreeMap::new();
    while let Some(flag) = rest.strip_prefix("--") {
        let (flag, after) = flag.split_once(char::is_whitespace).unwrap_or((flag, ""));
        if flag.is_empty() {
            break;
        }
        let (name, value) = flag.split_once('=').unwrap_or((flag, ""));
        flags.insert(name.to_owned(), value.to_owned());
        rest = after.trim_start();
        // What HEALTHCHECK's CMD takes is the command's own.
    }
    let mut heredocs = Vec::new();
    if matches!(keyword.as_str(), "RUN" | "COPY" | "ADD") {
        for (name, strip_tabs, expand) in heredoc_delimiters(rest, escape) {
            heredocs.push(heredoc(lines, next, line, name, strip_tabs, expand)?);
        }
    }
    Ok(Instruction { line, keyword, flags, rest: rest.to_owned(), original: logical.to_owned(), heredocs })
}

/// The `<<EOF`, `<<-EOF`, `<<"EOF"` words of a line.
fn heredoc_delimiters(rest: &str, escape: char) -> Vec<(String, bool, bool)> {
    let mut found = Vec::new();
    for word in split_words(rest, escape) {
        // `0<<EOF` and the like: a file descriptor may come first.
        let Some(word) = word.trim_start_matches(|c: char| c.is_ascii_digit()).strip_prefix("<<") else { continue };
        if word.starts_with('<') {
            continue; // here-string
        }
        let (strip_tabs, word) = match word.strip_prefix('-') {
            Some(word) => (true, word),
            None => (false, word),
        };
        let bare = word.trim_matches(['"', '\'']);
        if !bare.is_empty() && bare.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-')) {
            found.push((bare.to_owned(), strip_tabs, bare == word));
        }
    }
    found
}

fn heredoc(lines: &[&str], next: &mut usize, line: usize, name: String, strip_tabs: bool, expand: bool) -> Result<Heredoc, ParseError> {
    let mut content = String::new();
    while let Some(text) = lines.get(*next) {
        *next += 1;
        let text = if strip_tabs { text.trim_start_matches('\t') } else { text };
        if text == name {
            return Ok(Heredoc { name, content, expand });
        }
        content.push_str(text);
        content.push('\n');
    }
    Err(ParseError::Heredoc { line, name })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        parse(text).unwrap().instructions.into_iter().map(|i| format!("{} {}|{}", i.line, i.keyword, i.rest)).collect()
    }

    #[test]
    fn comments_continuations_and_directives() {
        let text = "# syntax=docker/dockerfile:1\n# a comment\nfrom alpine\n\nRUN echo a \\\n  # not shown\n\n  && echo b # kept\nCMD\n";
        assert_eq!(lines(text), ["3 FROM|alpine", "5 RUN|echo a   && echo b # kept", "9 CMD|"]);
        assert_eq!(lines("# escape=`\nFROM a\nRUN c:\\ `\n d"), ["2 FROM|a", "3 RUN|c:\\  d"]);
        assert_eq!(lines("FROM a\r\nRUN x\r\n"), ["1 FROM|a", "2 RUN|x"]);
        assert_eq!(lines("\u{feff}FROM a\nRUN x \\"), ["1 FROM|a", "2 RUN|x"]);
    }

    #[test]
    fn flags() {
        let file = parse("FROM a\nCOPY --from=build --chown=1:2 /x /y\nHEALTHCHECK --interval=1s CMD curl --fail x").unwrap();
        assert_eq!(file.instructions[1].flags["from"], "build");
        assert_eq!(file.instructions[1].rest, "/x /y");
        assert_eq!(file.instructions[2].rest, "CMD curl --fail x");
        assert_eq!(file.instructions[2].flags.len(), 1);
    }

    #[test]
    fn heredocs() {
        let file = parse("FROM a\nRUN <<EOF\necho $x\n# kept\nEOF\nCOPY <<-'A' <<B /to/\n\tone\nA\ntwo\nB\nCMD x").unwrap();
        assert_eq!(file.instructions[1].heredocs[0].content, "echo $x\n# kept\n");
        let copy = &file.instructions[2].heredocs;
        assert_eq!((copy[0].content.as_str(), copy[0].expand), ("one\n", false));
        assert_eq!((copy[1].content.as_str(), copy[1].expand), ("two\n", true));
        assert_eq!(file.instructions[3].keyword, "CMD");
        assert!(matches!(parse("FROM a\nRUN <<EOF\nx"), Err(ParseError::Heredoc { line: 2, .. })));
    }

    #[test]
    fn refuses() {
        let error = |text: &str| parse(text).unwrap_err().to_string();
        assert_eq!(error("FROM a\nFOO bar"), "dockerfile parse error on line 2: unknown instruction: FOO");
        assert_eq!(error("# only\n\n"), "the Dockerfile cannot be empty");
        assert_eq!(error("FROM"), "dockerfile parse error on line 1: FROM requires at least one argument");
        assert_eq!(error("#escape=x\nFROM a"), "dockerfile parse error on line 1: invalid ESCAPE 'x'. Must be ` or \\");
    }
}
