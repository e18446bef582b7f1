//! The command line: get, describe, apply and the rest, word for word as upstream's.
//!
//! [`main`] is the program. One file a command under `commands`; `session` talks to the server, `resources` knows its types, `builder` finds the objects a command
//! line means, `printers` show them.

mod builder;
mod classic;
mod command;
mod commands;
mod describe;
mod error;
mod explain;
mod flags;
use api::jsonpath;
mod kuberc;
mod kustomize;
mod kyaml;
mod output;
mod printers;
mod resources;
mod session;
mod tabwriter;
mod yaml;

use std::ffi::OsString;
use std::process::ExitCode;

/// Runs `kubectl` with `arguments` (without the program's name).
pub fn main(arguments: Vec<OsString>) -> ExitCode {
    let arguments = arguments.into_iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            output::complain(format!("error: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let outcome = runtime.block_on(command::run(arguments));
    // A read of stdin that is still waiting must not keep the program.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let told = error.told();
            if !told.is_empty() {
                output::complain(told.trim_end_matches('\n'));
            }
            ExitCode::from(error.exit_code())
        }
    }
}
