//! kubeadm's command line: which command, with which options, and how failures are told.

use std::ffi::OsString;
use std::future::Future;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand, ValueEnum};

use crate::error::Error;
use crate::host::Host;
use crate::{certs, config, init, join, reset, tokens};

/// kubeadm: easily bootstrap a secure Kubernetes cluster
#[derive(Parser)]
#[command(name = "kubeadm", max_term_width = 100, disable_version_flag = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// number for the log level verbosity
    #[arg(long = "v", short = 'v', value_name = "LEVEL", global = true)]
    verbosity: Option<u32>,
}

#[derive(Subcommand)]
enum Command {
    /// Run this command in order to set up the Kubernetes control plane
    Init(init::InitCommand),
    /// Run this on any machine you wish to join an existing cluster
    Join(join::Options),
    /// Manage bootstrap tokens
    Token(tokens::TokenCommand),
    /// Commands related to handling Kubernetes certificates
    Certs(certs::CertsCommand),
    /// Performs a best effort revert of changes made to this host by 'kubeadm init' or 'kubeadm join'
    Reset(reset::Options),
    /// Manage configuration for a kubeadm cluster persisted in a ConfigMap in the cluster
    Config(config::ConfigCommand),
    /// Upgrade your cluster smoothly to a newer version with this command
    Upgrade(config::UpgradeCommand),
    /// Print the version of kubeadm
    Version {
        #[arg(long, short)]
        output: Option<Format>,
    },
}

#[derive(ValueEnum, Clone, Copy)]
enum Format {
    Short,
    Json,
    Yaml,
}

/// Runs what talks to the API.
pub fn block_on<T>(work: impl Future<Output = T>) -> Result<T, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| Error::Host(format!("cannot start: {error}")))?;
    Ok(runtime.block_on(work))
}

fn version(version: &str, output: Option<Format>) -> String {
    let (major, minor) = version.trim_start_matches('v').split_once('.').map_or(("", ""), |(major, rest)| (major, rest.split('.').next().unwrap_or_default()));
    match output {
        None => format!("kubeadm version: &version.Info{{Major:\"{major}\", Minor:\"{minor}\", GitVersion:\"{version}\"}}\n"),
        Some(Format::Short) => format!("{version}\n"),
        Some(Format::Json) => format!("{{\n  \"clientVersion\": {{\n    \"major\": \"{major}\",\n    \"minor\": \"{minor}\",\n    \"gitVersion\": \"{version}\"\n  }}\n}}\n"),
        Some(Format::Yaml) => format!("clientVersion:\n  gitVersion: {version}\n  major: \"{major}\"\n  minor: \"{minor}\"\n"),
    }
}

fn run(command: Command, host: &dyn Host) -> Result<(), Error> {
    match command {
        Command::Init(command) => init::run(&command, host),
        Command::Join(options) => join::run(&options, host),
        Command::Token(command) => tokens::run(&command),
        Command::Certs(command) => certs::run(&command),
        Command::Reset(options) => reset::run(&options, host),
        Command::Config(command) => {
            config::run(&command, host);
            Ok(())
        }
        Command::Upgrade(command) => {
            config::upgrade(&command, host);
            Ok(())
        }
        Command::Version { output } => {
            print!("{}", version(host.version(), output));
            Ok(())
        }
    }
}

/// What cobra says of a line it does not understand.
fn misunderstood(error: &clap::Error) -> String {
    use clap::error::{ContextKind, ContextValue};
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => text.clone(),
        _ => String::new(),
    };
    match error.kind() {
        ErrorKind::UnknownArgument if context(ContextKind::InvalidArg).starts_with('-') => format!("unknown flag: {}", context(ContextKind::InvalidArg)),
        ErrorKind::InvalidSubcommand => format!("unknown command {:?} for \"kubeadm\"", context(ContextKind::InvalidSubcommand)),
        _ => error.to_string().trim_start_matches("error: ").trim_end().to_owned(),
    }
}

/// `arguments` without the program's name.
pub fn main(arguments: Vec<OsString>, host: &dyn Host) -> ExitCode {
    let line = std::iter::once(OsString::from("kubeadm")).chain(arguments);
    let parsed = match Cli::try_parse_from(line) {
        Ok(parsed) => parsed,
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::DisplayVersion) => {
            print!("{error}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("error: {}\nTo see the stack trace of this error execute with --v=5 or higher", misunderstood(&error));
            return ExitCode::FAILURE;
        }
    };
    match run(parsed.command, host) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}\nTo see the stack trace of this error execute with --v=5 or higher");
            if let Some(hint) = error.hint() {
                eprintln!("hint: {hint}");
            }
            ExitCode::from(error.code())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
        for line in [
            "init",
            "init --apiserver-advertise-address=10.0.0.1 --pod-network-cidr 10.32.0.0/12 --network=none --token abcdef.0123456789abcdef --token-ttl 0 --ignore-preflight-errors=all -v5",
            "init --apiserver-advertise-address 10.0.0.1 --control-plane-endpoint lb:6443 --ignore-preflight-errors Swap,Port-6443 --v=5",
            "init --etcd-servers https://192.0.2.9:2379 --etcd-cafile a --etcd-certfile b --etcd-keyfile c --upload-certs --control-plane-endpoint lb",
            "init phase upload-certs --upload-certs",
            "init phase certs apiserver --apiserver-advertise-address 10.0.0.1",
            "init phase",
            "join lb:6443 --token abcdef.0123456789abcdef --control-plane --certificate-key 00000000000000000000000000000000",
            "token create --print-join-command --ttl 2h",
            "token create abcdef.0123456789abcdef --description x",
            "token delete abcdef",
            "certs renew all",
            "certs check-expiration",
            "reset -f",
            "config print init-defaults",
            "upgrade plan",
            "version -o short",
            "version",
        ] {
            assert!(Cli::try_parse_from(std::iter::once("kubeadm").chain(line.split(' '))).is_ok(), "{line}");
        }
        let says = |line: &str| misunderstood(&Cli::try_parse_from(std::iter::once("kubeadm").chain(line.split(' '))).err().unwrap());
        assert_eq!(says("init --nonsense"), "unknown flag: --nonsense");
        assert_eq!(says("nonsense"), "unknown command \"nonsense\" for \"kubeadm\"");
        assert!(says("init --pod-network-cidr x").contains("invalid CIDR address"), "{}", says("init --pod-network-cidr x"));
        assert_eq!(version("v1.36.2", Some(Format::Short)), "v1.36.2\n");
        assert!(version("v1.36.2", None).starts_with("kubeadm version: &version.Info{Major:\"1\", Minor:\"36\", GitVersion:\"v1.36.2\""));
    }
}
