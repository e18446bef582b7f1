//! The coracle binary: argument parsing and wiring only.
//!
//! One binary, many names (decision 8 of the design): called as `kubectl` it is kubectl.

mod agent_login;
mod agents;
mod allocator;
mod api_server;
mod cli;
mod component_flags;
mod complaint;
mod component_logs;
mod controller_options;
mod credentials;
mod detach;
mod down;
mod etcd_options;
mod image_commands;
mod images;
mod kubeadm_host;
mod kubelet;
mod kubelet_configuration;
mod leader;
mod machine;
mod network_commands;
mod own_image;
mod parts;
mod paths;
mod renewal;
mod reset;
mod signer;
mod status;
mod store_commands;
mod system;
mod tls;
mod up;
mod user_flags;

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: allocator::Allocator = allocator::Allocator;

fn main() -> ExitCode {
    cli::run(std::env::args_os().collect())
}
