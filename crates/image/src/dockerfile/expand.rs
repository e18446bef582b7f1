//! Variable expansion and quote removal, as in the Dockerfile reference ("Environment replacement").
//!
//! `$x`, `${x}`, `${x:-default}`, `${x:+alternative}`, `${x:?message}` and the forms without the colon. Single quotes keep
//! everything; double quotes expand. An unset variable is empty.

use super::split_words;

#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ExpandError {
    #[error("{name}: {message}")]
    Required { name: String, message: String },
    #[error("unexpected end of statement while looking for matching {0}")]
    Unterminated(char),
    #[error("unsupported modifier ({modifier}) in substitution of {name:?}")]
    Modifier { name: String, modifier: String },
    #[error("bad substitution")]
    BadSubstitution,
    #[error("substitutions within one another more than {DEEPEST} times")]
    TooDeep,
}

/// `${a:-${b:-…}}` within one another.
const DEEPEST: usize = 64;

type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// One word: quotes removed, variables replaced.
pub fn expand(word: &str, escape: char, lookup: Lookup<'_>) -> Result<String, ExpandError> {
    let mut scanner = Scanner { chars: word.chars().collect(), at: 0, escape, lookup, depth: 0 };
    scanner.until(None)
}

/// Splits into words, then expands each; a variable's value may itself hold several words (`EXPOSE $PORTS`).
pub fn expand_words(rest: &str, escape: char, lookup: Lookup<'_>) -> Result<Vec<String>, ExpandError> {
    let mut out = Vec::new();
    for word in split_words(rest, escape) {
        let expanded = expand(&word, escape, lookup)?;
        if word.starts_with('$') {
            out.extend(expanded.split_whitespace().map(str::to_owned));
        } else {
            out.push(expanded);
        }
    }
    Ok(out)
}

struct Scanner<'a> {
    chars: Vec<char>,
    at: usize,
    escape: char,
    lookup: Lookup<'a>,
    depth: usize,
}

impl Scanner<'_> {
    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn take(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += 1;
        Some(c)
    }

    /// Up to `stop` (which is consumed) or the end.
    fn until(&mut self, stop: Option<char>) -> Result<String, ExpandError> {
        let mut out = String::new();
        while let Some(c) = self.take() {
            match c {
                c if Some(c) == stop => return Ok(out),
                '\'' => self.single_quoted(&mut out)?,
                '"' => self.double_quoted(&mut out)?,
                '$' => out.push_str(&self.variable()?),
                c if c == self.escape => out.extend(self.take()),
                c => out.push(c),
            }
        }
        match stop {
            None => Ok(out),
            Some(stop) => Err(ExpandError::Unterminated(stop)),
        }
    }

    fn single_quoted(&mut self, out: &mut String) -> Result<(), ExpandError> {
        loop {
            match self.take() {
                Some('\'') => return Ok(()),
                Some(c) => out.push(c),
                None => return Err(ExpandError::Unterminated('\'')),
            }
        }
    }

    fn double_quoted(&mut self, out: &mut String) -> Result<(), ExpandError> {
        loop {
            match self.take() {
                Some('"') => return Ok(()),
                Some('$') => out.push_str(&self.variable()?),
                Some(c) if c == self.escape => match self.peek() {
                    Some(next) if next == '"' || next == '$' || next == self.escape => {
                        out.push(next);
                        self.at += 1;
                    }
                    _ => out.push(c),
                },
                Some(c) => out.push(c),
                None => return Err(ExpandError::Unterminated('"')),
            }
        }
    }

    fn name(&mut self) -> String {
        let mut name = String::new();
        while let Some(c) = self.peek() {
            let digit_first = name.is_empty() && c.is_ascii_digit();
            if !(c == '_' || c.is_ascii_alphanumeric()) {
                break;
            }
            name.push(c);
            self.at += 1;
            if digit_first {
                break;
            }
        }
        name
    }

    fn variable(&mut self) -> Result<String, ExpandError> {
        if self.peek() != Some('{') {
            let name = self.name();
            return Ok(if name.is_empty() { "$".to_owned() } else { (self.lookup)(&name).unwrap_or_default() });
        }
        self.at += 1;
        let name = self.name();
        if name.is_empty() {
            return Err(ExpandError::BadSubstitution);
        }
        let value = (self.lookup)(&name);
        let mut operator = match self.take() {
            Some('}') => return Ok(value.unwrap_or_default()),
            Some(c) => c,
            None => return Err(ExpandError::Unterminated('}')),
        };
        let mut set = value.is_some();
        if operator == ':' {
            set = value.as_ref().is_some_and(|v| !v.is_empty());
            operator = self.take().ok_or(ExpandError::Unterminated('}'))?;
        }
        // The word is read in every case, so that its own errors show.
        if self.depth >= DEEPEST {
            return Err(ExpandError::TooDeep);
        }
        self.depth += 1;
        let word = self.until(Some('}'))?;
        self.depth -= 1;
        match operator {
            '-' => Ok(if set { value.unwrap_or_default() } else { word }),
            '+' => Ok(if set { word } else { String::new() }),
            '?' if set => Ok(value.unwrap_or_default()),
            '?' => Err(ExpandError::Required {
                name,
                message: if word.is_empty() { "is not allowed to be unset".to_owned() } else { word },
            }),
            other => Err(ExpandError::Modifier { name, modifier: other.to_string() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nesting_has_an_end() {
        assert_eq!(expand(&"${a:-".repeat(5000), '\\', &lookup), Err(ExpandError::TooDeep));
    }

    fn lookup(name: &str) -> Option<String> {
        match name {
            "x" => Some("value".into()),
            "empty" => Some(String::new()),
            "many" => Some("80 443/udp".into()),
            _ => None,
        }
    }

    #[test]
    fn table() {
        for (word, want) in [
            ("$x", "value"),
            ("a${x}b", "avalueb"),
            ("$nope", ""),
            ("${nope:-d}", "d"),
            ("${empty:-d}", "d"),
            ("${empty-d}", ""),
            ("${x:+yes}", "yes"),
            ("${nope+yes}", ""),
            ("${nope:-${x}-$x}", "value-value"),
            ("\\$x", "$x"),
            ("'$x'", "$x"),
            ("\"$x y\"", "value y"),
            ("\"\\\"\\n\"", "\"\\n"),
            ("a\\ b", "a b"),
            ("$", "$"),
            ("cost: $5.00", "cost: .00"),
            ("${x:?must}", "value"),
        ] {
            assert_eq!(expand(word, '\\', &lookup).unwrap_or_else(|e| panic!("{word}: {e}")), want, "{word}");
        }
        for word in ["'open", "\"open", "${x", "${nope:?must be set}", "${}", "${x#y}"] {
            assert!(expand(word, '\\', &lookup).is_err(), "{word}");
        }
        assert_eq!(expand_words("$many 22", '\\', &lookup).unwrap(), ["80", "443/udp", "22"]);
    }
}
