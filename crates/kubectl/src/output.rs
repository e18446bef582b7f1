//! Writing to stdout and stderr: a reader that went away (`| head -1`) ends the program quietly.

use std::io::Write;

/// As a shell counts a death by SIGPIPE.
const BROKEN_PIPE_EXIT_CODE: i32 = 141;

pub fn write(bytes: &[u8]) {
    let mut out = std::io::stdout().lock();
    if out.write_all(bytes).and_then(|()| out.flush()).is_err() {
        std::process::exit(BROKEN_PIPE_EXIT_CODE);
    }
}

pub fn line(text: impl AsRef<str>) {
    let mut text = text.as_ref().to_owned();
    text.push('\n');
    write(text.as_bytes());
}

pub fn complain(text: impl AsRef<str>) {
    let mut text = text.as_ref().to_owned();
    text.push('\n');
    // Nobody listens: nothing is left to tell.
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}
