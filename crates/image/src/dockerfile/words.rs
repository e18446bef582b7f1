//! Splits instruction arguments into words, quotes and escapes left in place for the expansion to read.

/// Words separated by white space outside quotes.
pub fn split_words(rest: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    let mut chars = rest.chars();
    while let Some(c) = chars.next() {
        match quote {
            Some(q) => {
                word.push(c);
                if c == q {
                    quote = None;
                } else if c == escape && q == '"' {
                    word.extend(chars.next());
                }
            }
            None if c.is_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
            }
            None => {
                word.push(c);
                if c == '"' || c == '\'' {
                    quote = Some(c);
                } else if c == escape {
                    word.extend(chars.next());
                }
            }
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// `a=1 b="2 3"`, or the old form `a the rest`. Values unexpanded. The error is docker's.
pub fn name_values(keyword: &str, rest: &str, escape: char) -> Result<Vec<(String, String)>, String> {
    let words = split_words(rest, escape);
    let Some(first) = words.first() else { return Err(format!("{keyword} requires at least one argument")) };
    if !first.contains('=') {
        return match rest.trim().split_once(char::is_whitespace) {
            Some((name, value)) => Ok(vec![(name.to_owned(), value.trim().to_owned())]),
            None => Err(format!("{keyword} must have two arguments")),
        };
    }
    words
        .iter()
        .map(|word| match word.split_once('=') {
            Some(("", _)) => Err(format!("{keyword} names can not be blank")),
            Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
            None => Err(format!(
                "Syntax error - can't find = in {word:?}. Must be of the form: name=value"
            )),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        assert_eq!(split_words(r#"a "b c" 'd e'f g\ h"#, '\\'), ["a", "\"b c\"", "'d e'f", "g\\ h"]);
        assert_eq!(split_words("", '\\'), Vec::<String>::new());
    }

    #[test]
    fn pairs() {
        let pairs = |rest| name_values("ENV", rest, '\\');
        assert_eq!(pairs(r#"a=1 b="2 3""#).unwrap(), [("a".into(), "1".into()), ("b".into(), "\"2 3\"".into())]);
        assert_eq!(pairs("a the rest = x").unwrap(), [("a".into(), "the rest = x".into())]);
        assert!(pairs("a=1 b").unwrap_err().contains("can't find ="));
        assert_eq!(pairs("a").unwrap_err(), "ENV must have two arguments");
    }
}
