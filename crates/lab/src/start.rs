//! Switching nodes on and off: a namespace on the wire, and a process 1 in it.

use std::fs::File;
use std::net::IpAddr;

use network::segment::{self, Port, PortAddress};
use sandbox::cgroup::Cgroups;

use crate::error::{LabError, Result, io};
use crate::init::{self, Spec};
use crate::layout::Layout;
use crate::process::{Process, launch};
use crate::record::{self, NodeRecord, Record};
use crate::{keeper, relay};

pub const BRIDGE: &str = "lab0";
const NODE_LINK: &str = "eth0";
/// Answers pings inside the lab, as it does outside: the lesson pings it.
const EVERYBODYS_PING: [u8; 4] = [8, 8, 8, 8];

/// The port of a node at the bridge has the node's name; what a slow cable is made of has names after it.
fn splice_names(node: &str) -> (String, String) {
    (format!("{node}-in"), format!("{node}-out"))
}

pub struct Lab {
    pub layout: Layout,
    pub record: Record,
}

impl Lab {
    pub fn open(layout: Layout) -> Result<Self> {
        let record = Record::must_read(&layout)?;
        Ok(Self { layout, record })
    }

    /// The process that holds the wires, made anew if it is gone (the machine was restarted).
    pub fn wires(&self) -> Result<File> {
        if let Some(keeper) = Process::read(&self.layout.keeper()) {
            return keeper.namespace("net");
        }
        let namespace = network::netns::create().map_err(io("make a network namespace"))?;
        let mut own = vec![(IpAddr::from(self.record.gateway), self.record.prefix)];
        own.extend(has_ipv6().then_some((IpAddr::from(record::ipv6(1)), record::PREFIX_V6)));
        segment::create_bridge(&namespace, BRIDGE, &own, &[IpAddr::from(EVERYBODYS_PING)])?;
        let said = launch("the lab's keeper", &self.layout.folder.join("keeper.log"), Some(&namespace), &[keeper::WORD.to_owned(), self.layout.authority().to_string_lossy().into_owned(), self.layout.images().to_string_lossy().into_owned()])?;
        process_of(&said, "the lab's keeper")?.write(&self.layout.keeper())?;
        Ok(namespace)
    }

    pub fn running(&self, node: &str) -> Option<Process> {
        Process::read(&self.layout.node(node).init())
    }

    pub fn must_run(&self, node: &str) -> Result<Process> {
        self.record.node(node)?;
        self.running(node).ok_or_else(|| LabError::Off { name: node.to_owned() })
    }

    pub fn start(&self, node: &NodeRecord) -> Result<()> {
        if self.running(&node.name).is_some() {
            return Err(LabError::On { name: node.name.clone() });
        }
        let place = self.layout.node(&node.name);
        std::fs::create_dir_all(place.root()).map_err(io(format!("make {}", place.root().display())))?;
        let wires = self.wires()?;
        self.unslow(node)?;
        let namespace = network::netns::create().map_err(io("make a network namespace"))?;
        let mut addresses = vec![PortAddress { address: node.address.into(), prefix: self.record.prefix, gateway: self.record.gateway.into() }];
        if has_ipv6() {
            addresses.push(PortAddress { address: node.ipv6().into(), prefix: record::PREFIX_V6, gateway: record::ipv6(1).into() });
        }
        let port = Port { name: &node.name, machine_link: NODE_LINK, addresses: &addresses };
        segment::plug_in(&wires, BRIDGE, &namespace, &port)?;
        let spec = Spec {
            name: node.name.clone(),
            folder: place.folder.clone(),
            cgroup: place.cgroup.clone(),
            hide: self.layout.folder.clone(),
            exe: std::env::current_exe().map_err(io("find this program"))?,
            hosts: self.record.hosts(),
            resolv_conf: format!("nameserver {}\n", self.record.gateway),
        };
        let bytes = serde_json::to_vec(&spec).map_err(|error| LabError::Io { what: "tell the node about itself".into(), source: error.into() })?;
        std::fs::write(place.spec(), bytes).map_err(io(format!("write {}", place.spec().display())))?;
        let said = launch(
            &node.name,
            &place.folder.join("init.log"),
            Some(&namespace),
            &[init::WORD.to_owned(), place.spec().to_string_lossy().into_owned()],
        )?;
        process_of(&said, &node.name)?.write(&place.init())
    }

    /// Cuts the power: all that runs on it is gone when this returns, its disk stays.
    pub fn kill(&self, node: &NodeRecord) -> Result<bool> {
        let place = self.layout.node(&node.name);
        let process = self.running(&node.name);
        if let Some(process) = process {
            process.kill()?;
        }
        // Whatever joined from outside is no process of the node's, but of its cgroup.
        if let Ok(cgroups) = Cgroups::discover() {
            cgroups.kill(&place.cgroup);
            cgroups.remove(&place.cgroup).map_err(io(format!("remove cgroup {}", place.cgroup)))?;
        }
        let _ = std::fs::remove_file(place.init());
        Ok(process.is_some())
    }

    /// Makes the node's cable late and lossy, in both directions.
    pub fn slow(&self, node: &NodeRecord, delay_ms: u64, loss_percent: f64) -> Result<()> {
        self.unslow(node)?;
        let wires = self.wires()?;
        let (inner, outer) = splice_names(&node.name);
        let spec = relay::Spec { port: node.name.clone(), inner: inner.clone(), delay_ms, loss_percent };
        let spec = serde_json::to_string(&spec).map_err(|error| LabError::Io { what: "tell the relay what to do".into(), source: error.into() })?;
        let start = || {
            segment::splice(&wires, BRIDGE, &node.name, &inner, &outer)?;
            let what = format!("the slow cable of {}", node.name);
            let said = launch(&what, &self.layout.folder.join("relay.log"), Some(&wires), &[relay::WORD.to_owned(), spec])?;
            process_of(&said, &what)?.write(&self.layout.relay(&node.name))
        };
        start().inspect_err(|_| drop(self.unslow(node)))
    }

    /// Whether it was slow.
    pub fn unslow(&self, node: &NodeRecord) -> Result<bool> {
        let path = self.layout.relay(&node.name);
        if !path.exists() {
            return Ok(false);
        }
        if let Some(process) = Process::read(&path) {
            process.kill()?;
        }
        let wires = self.wires()?;
        if segment::is_plugged(&wires, &node.name)?.is_some() {
            segment::unsplice(&wires, BRIDGE, &node.name, &splice_names(&node.name).0)?;
        }
        std::fs::remove_file(&path).map_err(io(format!("remove {}", path.display())))?;
        Ok(true)
    }

    /// Ends every process of the lab. What they held, namespaces, mounts, links, goes with them.
    pub fn stop_all(&self) -> Result<()> {
        for node in &self.record.nodes {
            self.kill(node)?;
            if let Some(process) = Process::read(&self.layout.relay(&node.name)) {
                process.kill()?;
            }
        }
        if let Some(process) = Process::read(&self.layout.keeper()) {
            process.kill()?;
        }
        if let Ok(cgroups) = Cgroups::discover() {
            cgroups.remove_empty(&self.layout.cgroup());
        }
        Ok(())
    }
}

/// Kernels can be built, and booted, without.
fn has_ipv6() -> bool {
    std::path::Path::new("/proc/sys/net/ipv6").exists()
}

/// `pid 1234`, from what a process said before it was ready.
fn process_of(said: &[String], what: &str) -> Result<Process> {
    let pid = said.iter().find_map(|line| line.strip_prefix("pid ")?.parse().ok());
    pid.and_then(Process::of).ok_or_else(|| LabError::Start { node: what.to_owned(), message: "it ended at once".into() })
}
