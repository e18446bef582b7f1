//! How a command tells that it failed: `error:` with every cause once, then what to do about it, a `hint:` a line.
//!
//! A hint may stand in any of the causes, after a line's end; it is told after all of them.

use std::io::ErrorKind;

const HINT: &str = "\nhint: ";

pub fn told(error: &anyhow::Error) -> String {
    let mut text = String::new();
    let mut hints = Vec::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        let mut parts = cause.split(HINT);
        let head = parts.next().unwrap_or_default();
        hints.extend(parts.map(str::to_owned));
        // Many errors tell their cause themselves.
        if text.is_empty() {
            text = head.to_owned();
        } else if !text.ends_with(head) {
            text = format!("{text}: {head}");
        }
    }
    if !nix::unistd::geteuid().is_root() && error.chain().any(is_refused) {
        hints.push("this needs root: try again with sudo".to_owned());
    }
    hints.into_iter().fold(format!("error: {text}"), |text, hint| text + HINT + &hint)
}

fn is_refused(cause: &(dyn std::error::Error + 'static)) -> bool {
    cause.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == ErrorKind::PermissionDenied)
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn causes_once_and_hints_last() {
        let io = || std::io::Error::from(ErrorKind::AddrInUse);
        let error = Err::<(), _>(io()).context("cannot listen on port 1\nhint: choose another").unwrap_err();
        assert_eq!(told(&error), format!("error: cannot listen on port 1: {}\nhint: choose another", io()));
        let error = Err::<(), _>(io()).context(format!("cannot open x: {}", io())).context("no store").unwrap_err();
        assert_eq!(told(&error), format!("error: no store: cannot open x: {}", io()));
    }
}
