//! kubeadm's command line: which command, with which options, and how failures are told.

use std::ffi::OsString;
use std::future::Future;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

use crate::error::Error;
use crate::options::Workflow;
use crate::host::Host;
use crate::documents::Document;
use crate::{certs, completion, config, config_file, init, join, kubeconfig_user, options, reset, tokens, upgrade};

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
    Init(Workflow<init::Options>),
    /// Run this on any machine you wish to join an existing cluster
    Join(join::JoinCommand),
    /// Manage bootstrap tokens
    Token(tokens::TokenCommand),
    /// Commands related to handling Kubernetes certificates
    Certs(certs::CertsCommand),
    /// Performs a best effort revert of changes made to this host by 'kubeadm init' or 'kubeadm join'
    Reset(Workflow<reset::Options>),
    /// Manage configuration for a kubeadm cluster persisted in a ConfigMap in the cluster
    Config(config::ConfigCommand),
    /// Kubeconfig file utilities
    Kubeconfig(kubeconfig_user::KubeconfigCommand),
    /// Upgrade your cluster smoothly to a newer version with this command
    Upgrade(upgrade::UpgradeCommand),
    /// Output shell completion code for the specified shell (bash or zsh)
    Completion {
        #[arg(value_parser = ["bash", "zsh"])]
        shell: String,
    },
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
    // In the order and by the names of upstream's version.Info; there is no Go here.
    let platform = format!("linux/{}", if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" });
    let facts = [("major", major), ("minor", minor), ("gitVersion", version), ("gitCommit", ""), ("gitTreeState", "clean"), ("buildDate", "1970-01-01T00:00:00Z"), ("goVersion", "none"), ("compiler", "rustc"), ("platform", &platform)];
    let lines = |line: &dyn Fn(&str, &str) -> String, between: &str| facts.iter().map(|(name, value)| line(name, value)).collect::<Vec<_>>().join(between);
    match output {
        None => {
            let capital = |name: &str| name[..1].to_uppercase() + &name[1..];
            let go = lines(&|name, value| format!("{}:{value:?}", capital(name)), ", ");
            // Those are of a server that pretends to be older.
            format!("kubeadm version: &version.Info{{{}}}\n", go.replace(", GitVersion", ", EmulationMajor:\"\", EmulationMinor:\"\", MinCompatibilityMajor:\"\", MinCompatibilityMinor:\"\", GitVersion"))
        }
        Some(Format::Short) => format!("{version}\n"),
        Some(Format::Json) => format!("{{\n  \"clientVersion\": {{\n{}\n  }}\n}}\n", lines(&|name, value| format!("    {name:?}: {value:?}"), ",\n")),
        Some(Format::Yaml) => {
            let mut facts = facts;
            facts.sort_unstable();
            // What YAML would take for a number or a time is in quotes.
            let plain = |value: &str| if value.is_empty() || value.starts_with(|first: char| first.is_ascii_digit()) { format!("{value:?}") } else { value.to_owned() };
            let lines: String = facts.iter().map(|(name, value)| format!("  {name}: {}\n", plain(value))).collect();
            format!("clientVersion:\n{lines}\n")
        }
    }
}

fn run(command: Command, host: &dyn Host) -> Result<(), Error> {
    match command {
        Command::Init(command) => init::run(&command, host),
        Command::Join(command) => join::run(&command, host),
        Command::Token(command) => tokens::run(&command),
        Command::Certs(command) => certs::run(&command, host),
        Command::Reset(command) => reset::run(&command, host),
        Command::Config(command) => config::run(&command, host),
        Command::Kubeconfig(command) => kubeconfig_user::run(&command, host),
        Command::Upgrade(command) => upgrade::run(&command, host),
        Command::Completion { shell } => {
            print!("{}", completion::script(&Cli::command(), &shell));
            Ok(())
        }
        Command::Version { output } => {
            print!("{}", version(host.version(), output));
            Ok(())
        }
    }
}

/// Flags that go with a file.
const BESIDE_CONFIG: [&str; 9] = ["config", "ignore-preflight-errors", "dry-run", "kubeconfig", "node-name", "upload-certs", "v", "data-dir", "network"];

/// Flags that were given beside --config and say what the file says.
fn mixed(command: &clap::Command, matches: &ArgMatches) -> Vec<String> {
    let deeper = matches.subcommand().and_then(|(name, matches)| Some(mixed(command.find_subcommand(name)?, matches)));
    let given = |name: &str| matches.try_contains_id(name).unwrap_or(false) && matches.value_source(name) == Some(ValueSource::CommandLine);
    let mut found = deeper.unwrap_or_default();
    if given("config") {
        let flags = command.get_arguments().filter(|argument| given(argument.get_id().as_str())).filter_map(|argument| argument.get_long());
        found.extend(flags.filter(|flag| !BESIDE_CONFIG.contains(flag) && !flag.starts_with("skip-")).map(str::to_owned));
    }
    found
}

/// The inner error is for what is understood and makes no sense.
fn parse(line: impl Iterator<Item = OsString>) -> Result<Result<Cli, Error>, clap::Error> {
    let mut command = Cli::command();
    let matches = command.try_get_matches_from_mut(line)?;
    let mixed = mixed(&command, &matches);
    let cli = Cli::from_arg_matches(&matches)?;
    // `config validate --config` and `images list --config` are no such files.
    if mixed.is_empty() || matches!(cli.command, Command::Config(_) | Command::Kubeconfig(_)) { Ok(Ok(cli)) } else { Ok(Err(Error::Invalid(format!("can not mix '--config' with arguments [{}]", mixed.join(" "))))) }
}

/// Whether the documents of a file could be used.
pub fn check_documents(documents: &[Document]) -> Result<(), Error> {
    let unusable = |error: clap::Error| Error::Invalid(error.to_string());
    config_file::of_init(&mut options::defaults().map_err(unusable)?, documents)?;
    config_file::of_join(&mut options::defaults().map_err(unusable)?, documents)?;
    reset::of_file(&mut options::defaults().map_err(unusable)?, documents)
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
    let parsed = match parse(line) {
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
    let outcome = parsed.and_then(|parsed| run(parsed.command, host));
    match outcome {
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
            "init --config a.yaml --dry-run --upload-certs --ignore-preflight-errors all --skip-phases addon",
            "join --config a.yaml",
            "join phase",
            "join phase kubelet-start 10.0.0.1:6443 --token abcdef.0123456789abcdef --discovery-token-unsafe-skip-ca-verification",
            "join phase control-plane-prepare certs lb:6443 --control-plane",
            "join phase control-plane-join mark-control-plane --control-plane --node-name n",
            "config validate --config a.yaml",
            "config migrate --old-config a --new-config b",
            "config images list --config a",
            "config images pull --cri-socket x",
            "init --patches a",
            "join 10.0.0.1:6443 --patches a",
            "upgrade node --patches a",
            "certs generate-csr --kubeconfig-dir a --cert-dir b",
            "certs certificate-key",
            "token generate",
            "config print init-defaults --component-configs KubeletConfiguration",
            "completion bash",
            "token create --print-join-command --ttl 2h",
            "token create abcdef.0123456789abcdef --description x",
            "token delete abcdef",
            "certs renew all",
            "certs check-expiration",
            "reset -f",
            "reset --config a.yaml --dry-run --cert-dir /x --cleanup-tmp-dir --skip-phases preflight",
            "reset phase cleanup-node -f",
            "config print init-defaults",
            "kubeconfig user --client-name jane --org dev --validity-period 24h",
            "token list -o json",
            "certs check-expiration -o yaml",
            "upgrade plan",
            "upgrade apply v1.36.2 -y --dry-run",
            "upgrade node",
            "upgrade diff v1.36.2",
            "version -o short",
            "version",
        ] {
            assert!(Cli::try_parse_from(std::iter::once("kubeadm").chain(line.split(' '))).is_ok(), "{line}");
        }
        let says = |line: &str| misunderstood(&Cli::try_parse_from(std::iter::once("kubeadm").chain(line.split(' '))).err().unwrap());
        assert_eq!(says("init --nonsense"), "unknown flag: --nonsense");
        assert_eq!(says("nonsense"), "unknown command \"nonsense\" for \"kubeadm\"");
        let mixed = |line: &str| parse(std::iter::once("kubeadm").chain(line.split(' ')).map(OsString::from)).unwrap().err().map(|error| error.to_string());
        assert_eq!(mixed("init --config a --pod-network-cidr 10.0.0.0/8 --token x --dry-run --skip-token-print").as_deref(), Some("can not mix '--config' with arguments [pod-network-cidr token]"));
        assert_eq!(mixed("init phase certs --config a --service-cidr 10.0.0.0/8").as_deref(), Some("can not mix '--config' with arguments [service-cidr]"));
        assert_eq!((mixed("init --pod-network-cidr 10.0.0.0/8"), mixed("init --config a --v 5"), mixed("config images list --config a --image-repository b")), (None, None, None));
        assert!(says("init --pod-network-cidr x").contains("invalid CIDR address"), "{}", says("init --pod-network-cidr x"));
        assert_eq!(version("v1.36.2", Some(Format::Short)), "v1.36.2\n");
        assert!(version("v1.36.2", None).starts_with("kubeadm version: &version.Info{Major:\"1\", Minor:\"36\", EmulationMajor:\"\", EmulationMinor:\"\", MinCompatibilityMajor:\"\", MinCompatibilityMinor:\"\", GitVersion:\"v1.36.2\", GitCommit:\"\", "));
        let json: serde_json::Value = serde_json::from_str(&version("v1.36.2", Some(Format::Json))).unwrap();
        let yaml: serde_json::Value = serde_saphyr::from_str(&version("v1.36.2", Some(Format::Yaml))).unwrap();
        assert_eq!((&json, &json["clientVersion"]["minor"], &json["clientVersion"]["gitVersion"]), (&yaml, &"36".into(), &"v1.36.2".into()));
    }
}
