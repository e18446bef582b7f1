//! Switching nodes off and on, and taking the lab away.

use super::cluster;
use crate::error::{LabError, Result, io};
use crate::layout::Layout;
use crate::record::Record;
use crate::start::Lab;

pub fn kill(lab: &Lab, name: &str) -> Result<()> {
    let node = lab.record.node(name)?;
    lab.must_run(name)?;
    lab.kill(node)?;
    println!("{name} is off; `coracle lab start {name}` switches it on");
    Ok(())
}

/// As a power button: what runs there is asked to end its pods, and then the power goes.
pub fn stop(lab: &Lab, name: &str) -> Result<()> {
    let node = lab.record.node(name)?;
    lab.must_run(name)?;
    cluster::shut_down(lab, name)?;
    lab.kill(node)?;
    println!("{name} has shut down; `coracle lab start {name}` switches it on");
    Ok(())
}

pub fn start(lab: &Lab, name: &str) -> Result<()> {
    lab.start(lab.record.node(name)?)?;
    match cluster::resume(lab, name)? {
        true => println!("{name} is on, and part of its cluster again"),
        false => println!("{name} is on"),
    }
    Ok(())
}

pub fn down(layout: Layout) -> Result<()> {
    let Some(record) = Record::read(&layout)? else { return Err(LabError::None { folder: layout.folder }) };
    let lab = Lab { layout: layout.clone(), record };
    take_away(&layout, Some(&lab))?;
    println!("the lab is gone");
    Ok(())
}

/// Every process, cgroup and file of it.
pub fn take_away(layout: &Layout, lab: Option<&Lab>) -> Result<()> {
    if let Some(lab) = lab {
        lab.stop_all()?;
    }
    // Nothing is mounted here as we see it: the nodes' mounts were the nodes' own, and are gone. What the record is in goes last, so that
    // a second try finds what the first one left.
    let failed = |path: &std::path::Path| io(format!("remove {}", path.display()));
    let nodes = layout.folder.join("nodes");
    match std::fs::remove_dir_all(&nodes) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(&nodes)(error)),
        _ => {}
    }
    std::fs::remove_dir_all(&layout.folder).map_err(failed(&layout.folder))
}
