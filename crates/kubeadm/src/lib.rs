//! kubeadm: makes a cluster out of machines. See README.md.

mod bootstrap_token;
mod certificates;
mod certs;
mod cli;
mod config;
mod control_plane;
mod discovery;
mod error;
mod files;
mod host;
mod identity;
mod init;
mod init_phases;
mod join;
mod join_command;
mod join_control_plane;
mod kubeconfig;
mod objects;
mod phases;
mod preflight;
mod publish;
mod reset;
mod rest;
mod shared_certificates;
mod signing;
mod tabs;
mod tokens;

pub use bootstrap_token::BootstrapToken;
pub use certificates::{FRONT_PROXY_CLIENT, KUBELET_CLIENT, KUBELET_CLIENT_USER, Names, PkiFolder};
pub use cli::main;
pub use files::{remove_traces, write_private};
pub use host::{Agent, ControlPlane, EtcdFacts, ExternalEtcd, Host, KUBELET_FOLDER, KUBERNETES_FOLDER};
pub use identity::IdentityFile;
pub use kubeconfig::{Login, kubeconfig};
pub use signing::{CLIENT_SIGNER, SERVING_SIGNER, SigningError, Wish, sign};
