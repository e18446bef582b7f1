//! The bench as a program of its own, for when the rest does not build: `cargo run -p bench --example bench -- --help`.

use std::process::ExitCode;

use clap::Parser;

#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    options: bench::Options,
}

#[tokio::main]
async fn main() -> ExitCode {
    match bench::run(Arguments::parse().options).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
