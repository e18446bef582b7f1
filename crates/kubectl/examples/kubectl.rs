//! The program alone, for trying it without the rest of Coracle.

fn main() -> std::process::ExitCode {
    kubectl::main(std::env::args_os().skip(1).collect())
}
