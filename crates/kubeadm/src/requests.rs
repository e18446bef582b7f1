//! `kubeadm certs generate-csr`: keys and requests for what an authority elsewhere is to sign. Mirrors `cmd/certs.go`, `phases/certs/certlist.go` and `phases/kubeconfig`, texts and files.
//!
//! What was signed goes beside its key as `.crt`, or into the kubeconfig. The authority itself is then brought along: a running control plane signs nodes' certificates by it.

use std::path::{Path, PathBuf};

use clap::Args;
use pki::{Request, Subject};

use crate::certificates::{CONFIGS, ENTRIES};
use crate::config_file;
use crate::control_plane::KUBELET_CONFIG;
use crate::error::Error;
use crate::files::write_private;
use crate::host::{Host, KUBERNETES_FOLDER};
use crate::init::{self, Init};
use crate::kubeconfig::{Login, kubeconfig};
use crate::options;

#[derive(Args, Debug)]
pub struct GenerateRequests {
    /// Path to a kubeadm configuration file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The path where to save the kubeconfig file
    #[arg(long, value_name = "DIR", default_value = KUBERNETES_FOLDER)]
    kubeconfig_dir: PathBuf,
}

fn write(folder: &Path, name: &str, text: &str) -> Result<(), Error> {
    let path = folder.join(name);
    write_private(&path, text.as_bytes()).map_err(Error::file("cannot write", &path))
}

fn generate(init: &Init<'_>, folder: &Path, kubeconfig_folder: &Path) -> Result<(), Error> {
    let names = init.what.names()?;
    println!("generating keys and CSRs in {}", folder.display());
    for entry in &ENTRIES {
        let name = entry.name;
        if folder.join(format!("{name}.key")).exists() || folder.join(format!("{name}.csr")).exists() {
            return Err(Error::Invalid(format!("file already exists: key or CSR {}/{name}", folder.display())));
        }
        let request = Request::new(&entry.subject(&names))?;
        write(folder, &format!("{name}.key"), &request.key_pem)?;
        write(folder, &format!("{name}.csr"), &request.request_pem)?;
        println!("  {name}");
    }
    println!("generating keys and CSRs in {}", kubeconfig_folder.display());
    let node = format!("system:node:{}", init.what.node_name);
    let configs = CONFIGS.iter().map(|entry| (entry.file, entry.user, entry.groups.first().copied())).chain([(KUBELET_CONFIG, node.as_str(), Some("system:nodes"))]);
    for (file, user, group) in configs {
        let (path, csr) = (kubeconfig_folder.join(file), format!("{file}.csr"));
        if path.exists() {
            return Err(Error::Invalid(format!("file already exists: kube config: {}", path.display())));
        }
        if kubeconfig_folder.join(&csr).exists() {
            return Err(Error::Invalid(format!("file already exists: csr: {}", path.display())));
        }
        let request = Request::new(&Subject { common_name: user.to_owned(), organization: group.map(str::to_owned), ..Subject::default() })?;
        write(kubeconfig_folder, file, &kubeconfig(&init.server(), "", user, &Login::Key(&request.key_pem)))?;
        write(kubeconfig_folder, &csr, &request.request_pem)?;
        println!("  {file}");
    }
    Ok(())
}

/// `cert_dir`: none unless it was asked for.
pub fn run(command: &GenerateRequests, cert_dir: Option<&Path>, host: &dyn Host) -> Result<(), Error> {
    let mut options: init::Options = options::defaults().map_err(|error| Error::Invalid(error.to_string()))?;
    if let Some(path) = &command.config {
        config_file::init(&mut options, path)?;
    }
    if let Some(folder) = cert_dir {
        options.cert_dir = folder.to_owned();
    }
    generate(&Init::of(&options, host)?, &options.cert_dir, &command.kubeconfig_dir)
}
