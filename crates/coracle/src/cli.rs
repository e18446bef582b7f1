//! The command line: which command, with which options. Every command lives in a file of its own.

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::{complaint, down, image_commands, kubeadm_host, kubelet, network_commands, reset, status, store_commands, up};

/// A whole Kubernetes you can carry.
#[derive(Parser)]
#[command(name = "coracle", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start a cluster on this machine: control plane, node, pod network, DNS
    Up(up::Options),
    /// Stop the cluster; its data and its containers' images stay
    Down(down::Options),
    /// Show whether the cluster runs and how it is
    Status(Folder),
    /// Stop the cluster and remove everything it made on this machine
    Reset(reset::Options),
    /// Make this machine a cluster's first, as kubeadm does (also: call this binary by the name kubeadm)
    #[command(disable_help_flag = true)]
    Init(Rest),
    /// Make this machine one of a cluster's
    #[command(disable_help_flag = true)]
    Join(Rest),
    /// Tokens by which machines join: create, list, delete, generate
    #[command(disable_help_flag = true)]
    Token(Rest),
    /// The cluster's certificates: renew, check-expiration, certificate-key
    #[command(disable_help_flag = true)]
    Certs(Rest),
    /// The configuration files of kubeadm: print the defaults
    #[command(disable_help_flag = true)]
    Config(Rest),
    /// Upgrade the cluster: plan, apply, node
    #[command(disable_help_flag = true)]
    Upgrade(Rest),
    /// All commands of kubeadm
    #[command(disable_help_flag = true)]
    Kubeadm(Rest),
    /// The node agent alone, on a machine that has joined
    Kubelet(kubelet::Options),
    /// Build an image from a Dockerfile; pods can run it at once
    Build(image_commands::BuildCommand),
    /// List, import, tag, remove, pull and push images
    Image(image_commands::ImageCommand),
    /// Where the cluster's objects are kept: move them into an etcd, and back
    Store(store_commands::StoreCommand),
    /// The built-in pod network, for clusters made with --network=none
    Network(network_commands::NetworkCommand),
    /// Several nodes on this machine, with links that can be cut
    Lab(lab::Options),
    /// Measure this or any other Kubernetes
    Bench(bench::Options),
    /// Kubernetes' command line (also: call this binary by the name kubectl)
    #[command(disable_help_flag = true)]
    Kubectl(Rest),
}

/// Where a cluster lives.
#[derive(Args, Clone)]
pub struct Folder {
    /// Folder of the cluster's data
    #[arg(long, value_name = "DIR", default_value = "/var/lib/coracle", global = true)]
    pub data_dir: PathBuf,
}

#[derive(Args)]
struct Rest {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, num_args = 0..)]
    arguments: Vec<OsString>,
}

pub fn run(arguments: Vec<OsString>) -> ExitCode {
    let called_as = arguments.first().map(Path::new).and_then(Path::file_name).and_then(|name| name.to_str()).unwrap_or("coracle").to_owned();
    if called_as == "kubectl" {
        return kubectl_main(arguments.into_iter().skip(1).collect());
    }
    // The shim is started for every pod: it must not pay for the command line's parser.
    if arguments.get(1).is_some_and(|word| word == "shim") {
        sandbox::shim::main(arguments.into_iter().skip(2));
    }
    if called_as == "kubeadm" {
        return kubeadm_host::main(arguments.into_iter().skip(1).collect());
    }
    let arguments = if called_as == "kubelet" { ["coracle", "kubelet"].map(OsString::from).into_iter().chain(arguments.into_iter().skip(1)).collect() } else { arguments };
    if let Some(code) = arguments.get(1).and_then(|word| word.to_str()).and_then(|word| lab::helper(word, arguments.iter().skip(2).cloned())) {
        return ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX));
    }
    let command = match Cli::parse_from(arguments).command {
        // What kubeadm made goes on as what it was made.
        Command::Up(options) => match kubeadm_host::noted(&options) {
            Some(words) => Cli::parse_from(words).command,
            None => Command::Up(options),
        },
        other => other,
    };
    let outcome = match command {
        Command::Up(options) => up::run(options),
        Command::Down(folder) => down::run(&folder),
        Command::Status(folder) => status::run(&folder),
        Command::Reset(options) => reset::run(&options),
        Command::Init(rest) => return kubeadm_main("init", rest),
        Command::Join(rest) => return kubeadm_main("join", rest),
        Command::Token(rest) => return kubeadm_main("token", rest),
        Command::Certs(rest) => return kubeadm_main("certs", rest),
        Command::Config(rest) => return kubeadm_main("config", rest),
        Command::Upgrade(rest) => return kubeadm_main("upgrade", rest),
        Command::Kubeadm(rest) => return kubeadm_host::main(rest.arguments),
        Command::Kubelet(options) => kubelet::run(options),
        Command::Build(command) => image_commands::build(&command),
        Command::Image(command) => image_commands::run(&command),
        Command::Store(command) => store_commands::run(command),
        Command::Network(command) => network_commands::run(&command),
        Command::Lab(options) => match lab::run(options) {
            Ok(code) => return ExitCode::from(code),
            Err(error) => Err(error.into()),
        },
        Command::Bench(options) => run_bench(options),
        Command::Kubectl(rest) => return kubectl_main(rest.arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}", complaint::told(&error));
            ExitCode::FAILURE
        }
    }
}

fn run_bench(options: bench::Options) -> anyhow::Result<()> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(bench::run(options))?)
}

fn kubeadm_main(command: &str, rest: Rest) -> ExitCode {
    kubeadm_host::main(std::iter::once(OsString::from(command)).chain(rest.arguments).collect())
}

fn kubectl_main(arguments: Vec<OsString>) -> ExitCode {
    kubectl::main(arguments)
}

/// One range, or one of each family with the primary one first: `10.244.0.0/16,fd00:10:244::/56`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cidrs(Vec<(IpAddr, u8)>);

impl Cidrs {
    pub fn primary(&self) -> (IpAddr, u8) {
        self.0[0]
    }

    pub fn all(&self) -> &[(IpAddr, u8)] {
        &self.0
    }

    pub fn text(&self) -> Vec<String> {
        self.0.iter().map(|(base, prefix)| format!("{base}/{prefix}")).collect()
    }
}

pub fn cidrs(text: &str) -> Result<Cidrs, String> {
    let all = text.split(',').map(cidr).collect::<Result<Vec<_>, _>>()?;
    match all.as_slice() {
        [_] => Ok(Cidrs(all)),
        [first, second] if first.0.is_ipv4() != second.0.is_ipv4() => Ok(Cidrs(all)),
        [_, _] => Err("two ranges must be of two families, IPv4 and IPv6".to_owned()),
        _ => Err("want one range, or one of each family".to_owned()),
    }
}

/// `key=value`, as labels are given.
pub fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("want key=value")?;
    Ok((key.to_owned(), value.to_owned()))
}

/// A CIDR, `10.244.0.0/16`.
pub fn cidr(text: &str) -> Result<(IpAddr, u8), String> {
    let (address, prefix) = text.split_once('/').ok_or("want an address and a prefix length, as 10.244.0.0/16")?;
    let address: IpAddr = address.parse().map_err(|error| format!("{address:?}: {error}"))?;
    let prefix: u8 = prefix.parse().map_err(|error| format!("prefix length {prefix:?}: {error}"))?;
    if prefix > if address.is_ipv4() { 32 } else { 128 } {
        return Err(format!("prefix length {prefix} is too long"));
    }
    Ok((address, prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_range_or_one_of_each_family() {
        let shown = |text: &str| cidrs(text).map(|cidrs| cidrs.text().join(" "));
        assert_eq!(shown("10.244.0.0/16").as_deref(), Ok("10.244.0.0/16"));
        assert_eq!(shown("fd00::/56,10.0.0.0/8").as_deref(), Ok("fd00::/56 10.0.0.0/8"));
        for wrong in ["", "10.0.0.0/8,10.1.0.0/16", "10.0.0.0/8,fd00::/56,fd01::/56", "10.0.0.0/33", "x/8"] {
            assert!(shown(wrong).is_err(), "{wrong}");
        }
    }
}
