//! Checks before anything is changed, and what they say. Mirrors `preflight/checks.go`: names, texts, and how they are told.

use std::collections::BTreeSet;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use crate::domain::{WANTED, is_subdomain};
use crate::error::Error;

/// One thing that must be so.
#[derive(Debug, Clone)]
pub enum Check {
    Root,
    PortOpen(u16),
    FileAvailable(PathBuf),
    /// A folder that is not there or empty.
    DirAvailable(PathBuf),
    HostName(String),
    /// Found out elsewhere: its name, and what is wrong.
    Found { name: &'static str, wrong: Option<String> },
}

/// A path as a part of a check's name.
fn label(path: &Path) -> String {
    path.display().to_string().replace('/', "-")
}

impl Check {
    pub fn name(&self) -> String {
        match self {
            Check::Root => "IsPrivilegedUser".to_owned(),
            Check::PortOpen(port) => format!("Port-{port}"),
            Check::FileAvailable(path) => format!("FileAvailable-{}", label(path)),
            Check::DirAvailable(path) => format!("DirAvailable-{}", label(path)),
            Check::HostName(_) => "Hostname".to_owned(),
            Check::Found { name, .. } => (*name).to_owned(),
        }
    }

    /// What is wrong, if something is.
    fn run(&self) -> Option<String> {
        match self {
            Check::Root => (!nix::unistd::geteuid().is_root()).then(|| "user is not running as root".to_owned()),
            Check::PortOpen(port) => {
                // In both families, as it will be used.
                let taken = std::net::TcpListener::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, *port))).is_err();
                taken.then(|| format!("Port {port} is in use"))
            }
            Check::FileAvailable(path) => path.exists().then(|| format!("{} already exists", path.display())),
            Check::DirAvailable(path) => match std::fs::read_dir(path) {
                Ok(mut entries) => entries.next().map(|_| format!("{} is not empty", path.display())),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
                Err(error) => Some(format!("unable to check if {} is empty: {error}", path.display())),
            },
            Check::HostName(name) => (!is_subdomain(name)).then(|| format!("invalid node name format {name:?}: {WANTED}\n\thint: --node-name chooses another name")),
            Check::Found { wrong, .. } => wrong.clone(),
        }
    }
}

/// What is told of a number of checks, and whether they let go on.
#[derive(Debug, PartialEq, Eq)]
pub struct Report {
    pub text: String,
    pub fatal: bool,
}

pub fn report(found: &[(String, Option<String>)], ignored: &BTreeSet<String>) -> Report {
    let (mut warnings, mut errors) = (String::new(), String::new());
    for (name, wrong) in found {
        let Some(wrong) = wrong else { continue };
        if ignored.contains("all") || ignored.contains(&name.to_lowercase()) {
            warnings.push_str(&format!("\t[WARNING {name}]: {wrong}\n"));
        } else {
            errors.push_str(&format!("\t[ERROR {name}]: {wrong}\n"));
        }
    }
    if errors.is_empty() {
        return Report { text: warnings, fatal: false };
    }
    let text = format!("{warnings}[preflight] Some fatal errors occurred:\n{errors}[preflight] If you know what you are doing, you can make a check non-fatal with `--ignore-preflight-errors=...`\n");
    Report { text, fatal: true }
}

/// Names of checks, as `--ignore-preflight-errors` has them.
pub fn ignored(names: &[String]) -> BTreeSet<String> {
    names.iter().flat_map(|names| names.split(',')).map(|name| name.trim().to_lowercase()).filter(|name| !name.is_empty()).collect()
}

/// Tells what is wrong on standard error; fails if it is too much.
pub fn run(checks: &[Check], ignored: &BTreeSet<String>) -> Result<(), Error> {
    let found: Vec<_> = checks.iter().map(|check| (check.name(), check.run())).collect();
    let report = report(&found, ignored);
    eprint!("{}", report.text);
    if report.fatal { Err(Error::Preflight) } else { Ok(()) }
}

/// Root first and alone: others can make nothing of the rest.
pub fn root(ignored: &BTreeSet<String>) -> Result<(), Error> {
    run(&[Check::Root], ignored)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_see_what_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let taken = std::net::TcpListener::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0))).unwrap();
        let port = taken.local_addr().unwrap().port();
        assert_eq!(Check::PortOpen(port).run(), Some(format!("Port {port} is in use")));
        assert_eq!(Check::FileAvailable(at("x")).run(), None);
        assert_eq!(Check::DirAvailable(at("x")).run(), None);
        assert_eq!(Check::DirAvailable(folder.path().to_owned()).run(), None);
        std::fs::write(at("x"), "").unwrap();
        assert_eq!(Check::FileAvailable(at("x")).run(), Some(format!("{} already exists", at("x").display())));
        assert_eq!(Check::DirAvailable(folder.path().to_owned()).run(), Some(format!("{} is not empty", folder.path().display())));
        assert!(Check::HostName("node1".into()).run().is_none() && Check::HostName("Node1".into()).run().is_some());
        assert_eq!(Check::FileAvailable("/etc/kubernetes/kubelet.conf".into()).name(), "FileAvailable--etc-kubernetes-kubelet.conf");
    }

    #[test]
    fn told_as_upstream_tells_it() {
        let found = [("Port-6443".to_owned(), Some("Port 6443 is in use".to_owned())), ("Swap".to_owned(), None), ("Hostname".to_owned(), Some("x".to_owned()))];
        let of = |names: &[&str]| report(&found, &ignored(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()));
        assert_eq!(
            of(&["hostName"]).text,
            "\t[WARNING Hostname]: x\n[preflight] Some fatal errors occurred:\n\t[ERROR Port-6443]: Port 6443 is in use\n[preflight] If you know what you are doing, you can make a check non-fatal with `--ignore-preflight-errors=...`\n"
        );
        assert_eq!(of(&["Hostname,Port-6443"]), Report { text: "\t[WARNING Port-6443]: Port 6443 is in use\n\t[WARNING Hostname]: x\n".into(), fatal: false });
        assert!(!of(&["all"]).fatal && of(&[]).fatal);
    }
}
