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

/// Of a line of `/proc/net/tcp`: which socket, if it listens on the port.
fn listening_inode(line: &str, port: u16) -> Option<&str> {
    const LISTEN: &str = "0A";
    let words: Vec<&str> = line.split_whitespace().collect();
    let (_, local) = words.get(1)?.rsplit_once(':')?;
    (words.get(3) == Some(&LISTEN) && u16::from_str_radix(local, 16).ok()? == port).then_some(*words.get(9)?)
}

/// Who listens on a port, as far as that can be found out.
fn listener(port: u16) -> Option<String> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|path| std::fs::read_to_string(path).unwrap_or_default());
    let inode = tables.iter().flat_map(|table| table.lines()).find_map(|line| listening_inode(line, port))?;
    let socket = PathBuf::from(format!("socket:[{inode}]"));
    let holds = |process: &Path| std::fs::read_dir(process.join("fd")).into_iter().flatten().flatten().any(|entry| std::fs::read_link(entry.path()).is_ok_and(|target| target == socket));
    let process = std::fs::read_dir("/proc").ok()?.flatten().map(|entry| entry.path()).find(|path| holds(path))?;
    let name = std::fs::read_to_string(process.join("comm")).ok()?;
    Some(format!("process {} ({})", process.file_name()?.to_string_lossy(), name.trim()))
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
                taken.then(|| format!("Port {port} is in use{}", listener(*port).map_or_else(String::new, |who| format!("\n\thint: {who} listens on it"))))
            }
            Check::FileAvailable(path) => path.exists().then(|| format!("{} already exists\n\thint: this machine was part of a cluster; `kubeadm reset` takes away what is left of it", path.display())),
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
    fn who_listens() {
        let line = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0000000000000000 100 0 0 10 0";
        assert_eq!((listening_inode(line, 8080), listening_inode(line, 8081), listening_inode(&line.replace(" 0A ", " 01 "), 8080)), (Some("4711"), None, None));
        assert_eq!(listening_inode("  sl  local_address rem_address   st", 8080), None);
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let who = listener(socket.local_addr().unwrap().port()).unwrap();
        // Which number it has depends on whose /proc this is.
        assert!(who.starts_with("process ") && who.ends_with(')'), "{who}");
    }

    #[test]
    fn checks_see_what_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let taken = std::net::TcpListener::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0))).unwrap();
        let port = taken.local_addr().unwrap().port();
        assert!(Check::PortOpen(port).run().is_some_and(|wrong| wrong.starts_with(&format!("Port {port} is in use"))));
        assert_eq!(Check::FileAvailable(at("x")).run(), None);
        assert_eq!(Check::DirAvailable(at("x")).run(), None);
        assert_eq!(Check::DirAvailable(folder.path().to_owned()).run(), None);
        std::fs::write(at("x"), "").unwrap();
        assert!(Check::FileAvailable(at("x")).run().is_some_and(|wrong| wrong.starts_with(&format!("{} already exists", at("x").display()))));
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
