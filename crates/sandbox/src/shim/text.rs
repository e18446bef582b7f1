//! Error texts as Go programs print them, because users know them from containerd and runc and search for them.

use std::io;

/// The kernel's reason in lower case and without Rust's `(os error 2)`.
pub fn reason(error: &io::Error) -> String {
    let text = match error.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code).to_string(),
        None => error.to_string(),
    };
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    match letters.next() {
        Some(first) => first.to_lowercase().chain(letters).collect(),
        None => String::new(),
    }
}

pub fn errno(error: rustix::io::Errno) -> String {
    reason(&error.into())
}

#[cfg(test)]
mod tests {
    #[test]
    fn reads_like_go() {
        assert_eq!(super::errno(rustix::io::Errno::NOENT), "no such file or directory");
        assert_eq!(super::reason(&std::io::Error::other("own words")), "own words");
    }
}
