//! `lab add` and `lab rm`: one machine more, and one less, while the others run.

use std::io::Write;
use std::time::Instant;

use clap::Args;
use nix::fcntl::{Flock, FlockArg};

use super::cluster;
use crate::error::{LabError, Result, io};
use crate::record::NodeRecord;
use crate::start::Lab;

#[derive(Args)]
pub struct Add {
    /// Its name; the next number when left out: node3
    name: Option<String>,
    /// Only the machine: whoever sits at it types `kubeadm join`
    #[arg(long)]
    bare: bool,
}

/// Two commands that change what the lab is made of do so one after the other.
fn locked(lab: &Lab) -> Result<(Flock<std::fs::File>, Lab)> {
    let path = lab.layout.lock();
    let file = std::fs::File::options().create(true).append(true).open(&path).map_err(io(format!("write {}", path.display())))?;
    let held = Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, error)| LabError::Io { what: "wait for another command".into(), source: error.into() })?;
    // Read again: another may have changed it meanwhile.
    Ok((held, Lab::open(lab.layout.clone())?))
}

pub fn add(lab: &Lab, options: &Add) -> Result<()> {
    let begun = Instant::now();
    let (held, mut lab) = locked(lab)?;
    let node = lab.record.next(options.name.as_deref())?;
    lab.record.nodes.push(node.clone());
    if let Err(error) = lab.start(&node) {
        // A machine that did not come to be leaves nothing behind.
        if let Err(undo) = take_away(&lab, &node) {
            eprintln!("warning: cannot clean up: {undo}");
        }
        return Err(error);
    }
    lab.record.write(&lab.layout)?;
    tell_others(&lab, &node, &|hosts| hosts.push_str(&node.hosts_line()))?;
    drop(held);
    println!("{} ({}) is on after {:.2} s", node.name, node.address, begun.elapsed().as_secs_f64());
    let first = lab.record.nodes.first().map(|first| first.name.clone()).unwrap_or_default();
    if options.bare || lab.record.bare {
        println!("hint: `kubeadm token create --print-join-command` on {first} prints what to type on it: `coracle lab{} shell {}`", lab.layout.flag(), node.name);
        return Ok(());
    }
    cluster::join(&lab, &node, !lab.record.no_network)?;
    match lab.record.no_network {
        true => println!("{} has joined after {:.2} s; it is ready as soon as a pod network is applied", node.name, begun.elapsed().as_secs_f64()),
        false => println!("{} has joined and is ready after {:.2} s", node.name, begun.elapsed().as_secs_f64()),
    }
    Ok(())
}

pub fn remove(lab: &Lab, name: &str) -> Result<()> {
    let (held, mut lab) = locked(lab)?;
    let node = lab.record.node(name)?.clone();
    if lab.record.nodes.first() == Some(&node) {
        return Err(LabError::Invalid(format!("{name} is the lab's first machine, and its cluster's control plane\nhint: `coracle lab{} down` takes all of the lab away", lab.layout.flag())));
    }
    lab.kill(&node)?;
    lab.unslow(&node)?;
    cluster::forget(&lab, name);
    lab.record.nodes.retain(|other| other.name != name);
    // What is left of it is nobody's from here on.
    lab.record.write(&lab.layout)?;
    take_away(&lab, &node)?;
    tell_others(&lab, &node, &|hosts| *hosts = hosts.replace(&node.hosts_line(), ""))?;
    drop(held);
    println!("{name} is gone, with its disk");
    Ok(())
}

/// Its processes, cgroup and files.
fn take_away(lab: &Lab, node: &NodeRecord) -> Result<()> {
    lab.kill(node)?;
    let folder = lab.layout.node(&node.name).folder;
    match std::fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(io(format!("remove {}", folder.display()))(error)),
        _ => Ok(()),
    }
}

/// Names are in every machine's `/etc/hosts`. One that is switched off reads it when it is switched on.
fn tell_others(lab: &Lab, node: &NodeRecord, change: &dyn Fn(&mut String)) -> Result<()> {
    for other in lab.record.nodes.iter().filter(|other| other.name != node.name) {
        let path = match lab.running(&other.name) {
            // As it sees it: the file of an overlay must not be changed behind its back.
            Some(process) => std::path::PathBuf::from(format!("/proc/{}/root/etc/hosts", process.pid)),
            None => lab.layout.node(&other.name).overlay("etc").join("upper/hosts"),
        };
        let failed = || io(format!("write {}", path.display()));
        let mut text = std::fs::read_to_string(&path).map_err(failed())?;
        change(&mut text);
        // In place: whoever has it open or mounted somewhere sees the change.
        let mut file = std::fs::File::options().write(true).truncate(true).open(&path).map_err(failed())?;
        file.write_all(text.as_bytes()).map_err(failed())?;
    }
    Ok(())
}
