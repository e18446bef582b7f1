//! Which pod has which address: one small file per address (as the `host-local` CNI plugin keeps them), so that a `kill -9` loses
//! nothing and a look into the folder explains everything.
//!
//! Promises: an address is given to one sandbox at a time; a freed address is the last of its range to be given again.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use basics::files;

use crate::cidr::IpNet;

const LAST: &str = "last_reserved_ip.";

#[derive(Debug, thiserror::Error)]
pub enum AllocateError {
    #[error("no IP addresses available in range set: {0}")]
    Exhausted(IpNet),
    #[error("{path}: {source}", path = .path.display())]
    Io { path: PathBuf, source: io::Error },
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> AllocateError {
    let path = path.to_owned();
    move |source| AllocateError::Io { path, source }
}

/// The addresses of one node's pod ranges.
#[derive(Debug)]
pub struct Ipam {
    dir: PathBuf,
    ranges: Vec<IpNet>,
    owners: BTreeMap<IpAddr, String>,
    /// Per range: offset given last.
    last: Vec<u64>,
}

impl Ipam {
    pub fn open(dir: &Path, ranges: &[IpNet]) -> Result<Self, AllocateError> {
        fs::create_dir_all(dir).map_err(failed(dir))?;
        let mut owners = BTreeMap::new();
        for entry in fs::read_dir(dir).map_err(failed(dir))? {
            let path = entry.map_err(failed(dir))?.path();
            let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
            if files::is_unfinished(name) {
                let _ = fs::remove_file(&path);
            } else if let Ok(address) = name.parse() {
                owners.insert(address, fs::read_to_string(&path).map_err(failed(&path))?.trim().to_owned());
            }
        }
        let last = ranges.iter().enumerate().map(|(i, range)| {
            let text = fs::read_to_string(dir.join(format!("{LAST}{i}"))).ok();
            text.and_then(|text| range.offset(text.trim().parse().ok()?)).unwrap_or(1)
        });
        Ok(Self { dir: dir.to_owned(), ranges: ranges.to_vec(), owners, last: last.collect() })
    }

    /// One address of each range. A sandbox that has its addresses already gets the same again.
    pub fn allocate(&mut self, sandbox_id: &str) -> Result<Vec<IpAddr>, AllocateError> {
        let mut addresses = Vec::with_capacity(self.ranges.len());
        for i in 0..self.ranges.len() {
            match self.allocate_in(i, sandbox_id) {
                Ok(address) => addresses.push(address),
                Err(error) => {
                    self.release(sandbox_id)?;
                    return Err(error);
                }
            }
        }
        Ok(addresses)
    }

    fn allocate_in(&mut self, i: usize, sandbox_id: &str) -> Result<IpAddr, AllocateError> {
        let range = self.ranges[i];
        if let Some((address, _)) = self.owners.iter().find(|(a, owner)| *owner == sandbox_id && range.contains(**a)) {
            return Ok(*address);
        }
        // Offset 0 is the network's name, 1 the node's own address, and the last of an IPv4 range its broadcast address.
        let end = if range.is_ipv4() { range.size().saturating_sub(1) } else { range.size() };
        // Among size+1 candidates one is free or none is.
        let tries = (self.owners.len() as u64 + 1).min(end);
        let mut offset = self.last[i];
        for _ in 0..=tries {
            offset = if offset + 1 >= end { 2 } else { offset + 1 };
            let Some(address) = range.nth(offset).filter(|_| offset < end) else { break };
            if !self.owners.contains_key(&address) {
                self.write(&address.to_string(), sandbox_id)?;
                self.write(&format!("{LAST}{i}"), &address.to_string())?;
                self.owners.insert(address, sandbox_id.to_owned());
                self.last[i] = offset;
                return Ok(address);
            }
        }
        Err(AllocateError::Exhausted(range))
    }

    /// The rename makes the file appear whole or not at all.
    fn write(&self, name: &str, content: &str) -> Result<(), AllocateError> {
        let path = self.dir.join(name);
        files::replace(&path, content.as_bytes(), files::READABLE).map_err(|source| AllocateError::Io { path, source })
    }

    /// Gives back what the sandbox has. Giving back nothing is no error.
    pub fn release(&mut self, sandbox_id: &str) -> Result<Vec<IpAddr>, AllocateError> {
        let addresses = self.of(sandbox_id);
        for address in &addresses {
            let path = self.dir.join(address.to_string());
            match fs::remove_file(&path) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => return Err(AllocateError::Io { path, source }),
                _ => self.owners.remove(address),
            };
        }
        Ok(addresses)
    }

    pub fn of(&self, sandbox_id: &str) -> Vec<IpAddr> {
        let mut addresses: Vec<IpAddr> = self.owners.iter().filter(|(_, o)| *o == sandbox_id).map(|(a, _)| *a).collect();
        addresses.sort_by_key(|a| self.ranges.iter().position(|r| r.contains(*a)));
        addresses
    }

    pub fn owners(&self) -> &BTreeMap<IpAddr, String> {
        &self.owners
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|t| t.parse().expect(t)).collect()
    }

    #[test]
    fn addresses_survive_and_go_round() {
        let dir = tempfile::tempdir().expect("tempdir");
        let ranges = ranges(&["10.244.0.0/29", "fd00:10:244::/64"]);
        let mut ipam = Ipam::open(dir.path(), &ranges).expect("open");
        let first = ipam.allocate("a").expect("a");
        assert_eq!(first, ["10.244.0.2".parse::<IpAddr>().expect("ip"), "fd00:10:244::2".parse().expect("ip")]);
        assert_eq!(ipam.allocate("a").expect("again"), first);
        ipam.release("a").expect("release");
        ipam.release("a").expect("release twice");

        // Opened again, it goes on after the freed address.
        drop(ipam);
        let mut ipam = Ipam::open(dir.path(), &ranges).expect("open");
        for (sandbox, last) in [("b", 3), ("c", 4), ("d", 5), ("e", 6), ("f", 2)] {
            assert_eq!(ipam.allocate(sandbox).expect(sandbox)[0], IpAddr::from([10, 244, 0, last]));
        }
        let error = ipam.allocate("g").expect_err("full");
        assert_eq!(error.to_string(), "no IP addresses available in range set: 10.244.0.0/29");
        assert!(ipam.of("g").is_empty());
        ipam.release("d").expect("release");
        assert_eq!(ipam.allocate("g").expect("g")[0], IpAddr::from([10, 244, 0, 5]));
    }

    #[test]
    fn a_half_written_file_is_not_an_address() {
        let dir = tempfile::tempdir().expect("tempdir");
        fs::write(dir.path().join("10.244.0.2.new"), "").expect("write");
        let ipam = Ipam::open(dir.path(), &ranges(&["10.244.0.0/24"])).expect("open");
        assert!(ipam.owners().is_empty());
        assert_eq!(fs::read_dir(dir.path()).expect("dir").count(), 0);
    }
}
