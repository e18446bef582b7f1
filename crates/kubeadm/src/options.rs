//! A command's options by themselves: their defaults, and lines of them.

use std::ffi::OsString;

use clap::{Args, Parser};

#[derive(Parser)]
#[command(no_binary_name = true)]
struct Line<O: Args> {
    #[command(flatten)]
    options: O,
}

/// What nobody said anything of.
pub fn defaults<O: Args>() -> Result<O, clap::Error> {
    of_words(Vec::<OsString>::new())
}

fn of_words<O: Args>(words: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> Result<O, clap::Error> {
    Line::try_parse_from(words).map(|line| line.options)
}

#[cfg(test)]
pub fn of_line<O: Args>(line: &str) -> Result<O, clap::Error> {
    of_words(line.split_whitespace())
}
