//! `--token-auth-file`: tokens and whose they are, a line each: `token,user,uid,"group1,group2"`.
//!
//! Mirrors apiserver/pkg/authentication/token/tokenfile.

use std::collections::HashMap;

use super::{AUTHENTICATED, User};

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StaticTokens(HashMap<String, User>);

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum StaticTokensError {
    #[error("token file must have at least 3 columns (token, user name, user uid), found {0}")]
    Columns(usize),
    #[error("line {0}: a quote is not closed")]
    Quote(usize),
}

/// The fields of one line of comma separated values, quotes taken off.
fn fields(line: &str) -> Option<Vec<String>> {
    let (mut found, mut field, mut quoted) = (Vec::new(), String::new(), false);
    let mut characters = line.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '"' if quoted && characters.peek() == Some(&'"') => {
                characters.next();
                field.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => found.push(std::mem::take(&mut field)),
            // Go's reader is told to trim what leads.
            ' ' | '\t' if !quoted && field.is_empty() => {}
            other => field.push(other),
        }
    }
    found.push(field);
    (!quoted).then_some(found)
}

impl StaticTokens {
    pub fn parse(file: &str) -> Result<Self, StaticTokensError> {
        let mut users = HashMap::new();
        for (number, line) in file.lines().enumerate().filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#')) {
            let found = fields(line).ok_or(StaticTokensError::Quote(number + 1))?;
            let [token, name, uid, rest @ ..] = found.as_slice() else { return Err(StaticTokensError::Columns(found.len())) };
            if token.is_empty() {
                tracing::warn!(line = number + 1, "empty token has been found in token file, skipped");
                continue;
            }
            let mut groups: Vec<String> = rest.first().into_iter().flat_map(|groups| groups.split(',')).filter(|group| !group.is_empty()).map(str::to_owned).collect();
            groups.push(AUTHENTICATED.into());
            users.insert(token.clone(), User { name: name.clone(), uid: uid.clone(), groups, ..User::default() });
        }
        Ok(Self(users))
    }

    pub fn authenticate(&self, token: &str) -> Option<User> {
        self.0.get(token).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files() {
        let tokens = StaticTokens::parse("t1,jane,1\n\nt2, joe ,2,\"dev,ops\"\n,nobody,3\nt4,ann,4,qa,ignored\n").unwrap();
        let told = |token: &str| tokens.authenticate(token).map(|user| format!("{}/{}/{}", user.name, user.uid, user.groups.join("+")));
        assert_eq!(told("t1").as_deref(), Some("jane/1/system:authenticated"));
        assert_eq!(told("t2").as_deref(), Some("joe /2/dev+ops+system:authenticated"));
        assert_eq!(told("t4").as_deref(), Some("ann/4/qa+system:authenticated"));
        assert_eq!(told(""), None);
        assert_eq!(StaticTokens::parse("a,b"), Err(StaticTokensError::Columns(2)));
        assert_eq!(StaticTokens::parse("a,\"b,c"), Err(StaticTokensError::Quote(1)));
    }
}
