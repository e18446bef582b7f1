//! `cargo xtask fuzz NAME [--seconds N] [--seed N]`: a decoder, `all` of them, or the whole API of a control plane of its own, for as long as one likes.
//!
//! `cargo xtask test` runs each for a moment; see crates/fuzz.

use anyhow::{Result, bail};

use crate::cargo;

pub fn command(arguments: &[String]) -> Result<()> {
    let programs = cargo::build(&["coracle", "fuzz"])?;
    let [coracle, fuzz] = programs.as_slice() else { bail!("cargo built something else") };
    let mut run = std::process::Command::new(fuzz);
    run.args(arguments);
    if arguments.first().is_some_and(|name| name == "api") && !arguments.iter().any(|word| word == "--kubeconfig") {
        run.arg("--program").arg(coracle);
    }
    if !run.status()?.success() {
        bail!("the fuzzer found something; see above");
    }
    Ok(())
}
