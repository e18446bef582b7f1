//! `lab status`: the nodes and their links.

use network::segment;

use crate::error::Result;
use crate::process::Process;
use crate::relay;
use crate::start::Lab;

pub fn run(lab: &Lab) -> Result<()> {
    println!("{:<8} {:<15} {:<5} LINK", "NODE", "ADDRESS", "POWER");
    let wires = match Process::read(&lab.layout.keeper()) {
        Some(keeper) => Some(keeper.namespace("net")?),
        None => None,
    };
    for node in &lab.record.nodes {
        let on = lab.running(&node.name).is_some();
        let link = match &wires {
            Some(wires) if on => match segment::is_plugged(wires, &node.name)? {
                Some(true) => slowness(lab, &node.name).unwrap_or_else(|| "ok".into()),
                Some(false) => "cut".into(),
                None => "none".into(),
            },
            _ => "-".into(),
        };
        println!("{:<8} {:<15} {:<5} {link}", node.name, node.address, if on { "on" } else { "off" });
    }
    println!("all of it is in {}", lab.layout.folder.display());
    Ok(())
}

/// As the process that makes the link slow was told.
fn slowness(lab: &Lab, node: &str) -> Option<String> {
    let process = Process::read(&lab.layout.relay(node))?;
    let line = std::fs::read(format!("/proc/{}/cmdline", process.pid)).ok()?;
    let spec: relay::Spec = serde_json::from_slice(line.split(|byte| *byte == 0).nth(2)?).ok()?;
    Some(format!("slow: {} ms late each way, {} % lost", spec.delay_ms, spec.loss_percent))
}
