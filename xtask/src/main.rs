//! Chores of the project: `cargo xtask <command>`. One file per command; this one only knows their names.

mod cargo;
mod debian;
mod demo;
mod elf;
mod fuzz;
mod r#gen;
mod images;
mod interrupt;
mod meter;
mod screen;
mod test;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;

struct Command {
    name: &'static str,
    usage: &'static str,
    about: &'static str,
    run: fn(&[String]) -> Result<()>,
}

const COMMANDS: &[Command] = &[
    Command {
        name: "demo",
        usage: "[--seconds N] [--data-dir DIR]",
        about: "build Coracle, start a cluster, run DockerCoins in it",
        run: demo::command,
    },
    Command { name: "test", usage: "[--unit | --e2e [STAGE…]]", about: "install what the tests need and run them all", run: test::command },
    Command {
        name: "images",
        usage: "[--out DIR]",
        about: "make the base images and DockerCoins as archives (default target/images)",
        run: images::command,
    },
    Command { name: "fuzz", usage: "NAME|all|api [--seconds N] [--seed N]", about: "fuzz a decoder, all of them, or the API", run: fuzz::command },
    Command { name: "gen", usage: "", about: "regenerate the schema facts of the API", run: |_| r#gen::run() },
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some((name, rest)) = arguments.split_first() else {
        eprint!("{}", usage());
        return ExitCode::from(2);
    };
    let Some(command) = COMMANDS.iter().find(|c| c.name == name) else {
        eprint!("error: no command {name:?}\n\n{}", usage());
        return ExitCode::from(2);
    };
    match (command.run)(rest) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn usage() -> String {
    let lines: String = COMMANDS.iter().map(|c| format!("  cargo xtask {:<37} {}\n", format!("{} {}", c.name, c.usage), c.about)).collect();
    format!("usage:\n{lines}")
}

/// The workspace.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("/")).to_owned()
}
