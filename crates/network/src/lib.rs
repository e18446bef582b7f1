#![doc = include_str!("../README.md")]
//!
//! The table of contents of the network; the page before is its README.

mod chain;
mod changes;
mod cidr;
mod conntrack;
mod dataplane;
mod firewall;
pub mod holder;
mod host;
mod hostport;
mod ipam;
mod link;
mod neighbour;
pub mod netlink;
pub mod netns;
mod nft;
mod peering;
pub mod peers;
mod pod;
mod policy;
mod policy_tables;
mod ranges;
mod route;
mod rule;
pub mod segment;
mod service;
mod sticky;
mod sysctl;
mod tables;
mod underlay;

pub use cidr::{IpNet, ParseError};
pub use dataplane::{Dataplane, DataplaneConfig, DataplaneError};
pub use host::{HostAddresses, host_addresses, watch_host_addresses};
pub use ipam::AllocateError;
pub use netlink::NetlinkError;
pub use hostport::PortMapping;
pub use peers::Peer;
pub use pod::{PodNet, PodNetConfig, PodNetError};
pub use policy::{Allow, Direction, Member, Peers, PolicyState, Ports};
pub use policy_tables::{PolicyError, PolicyTables};
pub use service::{Endpoint, Protocol, ServiceChange, ServicePort, ServicePortName};
pub use underlay::watch_underlay;
