//! `kubeadm reset`: takes this machine out of its cluster and leaves it as it was found. Mirrors `cmd/reset.go` and `cmd/phases/reset`: names, order and texts.

use std::io::BufRead as _;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::config_file::Reader;
use crate::documents::{self, of_kind};
use crate::error::{Error, InPhase};
use crate::files;
use crate::host::{Host, KUBELET_FOLDER, KUBERNETES_FOLDER};
use crate::options::{Common, Workflow};
use crate::phases::{self, Phase};
use crate::preflight;

/// Where upstream's kubeadm keeps what it works on, in the folder of the cluster's files.
const TEMPORARY: &str = "tmp";

pub const PHASES: [Phase; 3] = [
    Phase { name: "preflight", short: "Run reset pre-flight checks", parts: &[] },
    Phase { name: "remove-etcd-member", short: "Nothing to remove: an etcd that is shared is not kubeadm's", parts: &[] },
    Phase { name: "cleanup-node", short: "Run cleanup node.", parts: &[] },
];

#[derive(Args, Debug, Clone)]
pub struct Options {
    #[command(flatten)]
    common: Common,
    /// Reset the node without prompting for confirmation
    #[arg(long, short)]
    force: bool,
    /// The path to the directory where the certificates are stored. If specified, clean this directory
    #[arg(long, value_name = "DIR", default_value = "/etc/kubernetes/pki")]
    cert_dir: PathBuf,
    /// Cleanup the "/etc/kubernetes/tmp" directory
    #[arg(long)]
    cleanup_tmp_dir: bool,
    /// Taken for upstream's sake: nothing is asked of the cluster
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
}

/// With what a ResetConfiguration says.
pub fn of_file(options: &mut Options, documents: &[documents::Document]) -> Result<(), Error> {
    let Some(value) = of_kind(documents, "ResetConfiguration") else { return Ok(()) };
    let read = Reader(value);
    options.force |= read.truth("/force")?;
    options.common.dry_run |= read.truth("/dryRun")?;
    options.cleanup_tmp_dir |= read.truth("/cleanupTmpDir")?;
    options.common.ignore_preflight_errors.extend(read.texts("/ignorePreflightErrors")?);
    options.common.skip_phases.extend(read.texts("/skipPhases")?);
    if let Some(folder) = read.text("/certificatesDir")? {
        options.cert_dir = folder.into();
    }
    read.pass_over(&["/unmountFlags"]);
    Ok(())
}

fn filled(options: &Options) -> Result<Options, Error> {
    let mut options = options.clone();
    if let Some(path) = &options.common.config {
        let (documents, notes) = documents::read(path)?;
        notes.warn();
        if of_kind(&documents, "ResetConfiguration").is_none() {
            return Err(Error::Invalid("no ResetConfiguration kind was found in the YAML file".into()));
        }
        of_file(&mut options, &documents)?;
    }
    Ok(options)
}

fn agreed() -> Result<bool, Error> {
    println!("W [reset] WARNING: Changes made to this host by 'kubeadm init' or 'kubeadm join' will be reverted.");
    confirmed("[reset] Are you sure you want to proceed?")
}

/// Asks whoever sits there.
pub fn confirmed(question: &str) -> Result<bool, Error> {
    print!("{question} [y/N]: ");
    let _ = std::io::Write::flush(&mut std::io::stdout());
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).map_err(|error| Error::Host(format!("cannot read the answer: {error}")))?;
    Ok(matches!(line.trim().to_lowercase().as_str(), "y" | "yes"))
}

fn preflight(options: &Options) -> Result<(), Error> {
    if !options.force && !options.common.dry_run && !agreed()? {
        return Err(Error::Host("aborted reset operation".into()));
    }
    println!("[preflight] Running pre-flight checks");
    preflight::root(&preflight::ignored(&options.common.ignore_preflight_errors))
}

fn cleanup(options: &Options, host: &dyn Host) -> Result<(), Error> {
    let (mut folders, names) = files::traces();
    let own = Path::new(KUBERNETES_FOLDER).join("pki");
    if options.cert_dir != own {
        println!("W [reset] WARNING: Cleaning a non-default certificates directory: {:?}", options.cert_dir.display().to_string());
        folders.push(options.cert_dir.clone());
    }
    if options.cleanup_tmp_dir {
        folders.push(Path::new(KUBERNETES_FOLDER).join(TEMPORARY));
    }
    let list = |paths: &[PathBuf]| paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" ");
    if options.common.dry_run {
        println!("[dryrun] Would stop the kubelet service");
        println!("[dryrun] Would unmount mounted directories in {KUBELET_FOLDER:?}");
        println!("[dryrun] Would remove Kubernetes-managed containers");
        println!("[dryrun] Would delete contents of directories: [{}]", list(&folders));
        println!("[dryrun] Would delete files: [{}]", list(&names));
        return Ok(());
    }
    println!("[reset] Stopping the kubelet service");
    println!("[reset] Unmounting mounted directories in {KUBELET_FOLDER:?}");
    host.remove(&options.common.data_dir).map_err(Error::Host)?;
    println!("[reset] Deleting contents of directories: [{}]", list(&folders));
    println!("[reset] Deleting files: [{}]", list(&names));
    folders.iter().for_each(|folder| files::remove(folder));
    files::remove_traces();
    Ok(())
}

fn one(options: &Options, host: &dyn Host, phase: &str) -> Result<(), Error> {
    match phase {
        "preflight" => preflight(options),
        "cleanup-node" => cleanup(options, host),
        _ => {
            println!("[reset] No etcd config found. Assuming external etcd");
            println!("[reset] Please, manually reset etcd to prevent further issues");
            Ok(())
        }
    }
}

pub fn run(command: &Workflow<Options>, host: &dyn Host) -> Result<(), Error> {
    if let Some((words, options)) = command.alone() {
        let Some((phase, _)) = phases::find(&PHASES, "reset", words)? else { return Ok(()) };
        return one(&filled(options)?, host, phase.name).phase(phase.name);
    }
    let options = filled(&command.options)?;
    phases::known(&PHASES, &options.common.skip_phases)?;
    // A cluster of one machine has its objects with it: nobody's etcd is left.
    for phase in PHASES.iter().filter(|phase| !phase.is_skipped(&options.common.skip_phases) && phase.name != "remove-etcd-member") {
        one(&options, host, phase.name).phase(phase.name)?;
    }
    println!("\nThe reset process does not perform cleanup of CNI plugin configuration,\nnetwork filtering rules and kubeconfig files.\n\nFor information on how to perform this cleanup manually, please see:\n    https://k8s.io/docs/reference/setup-tools/kubeadm/kubeadm-reset/\n");
    println!("hint: the pod network's links, rules and configuration are gone already; $HOME/.kube/config is yours to remove, and so is what others put into {KUBERNETES_FOLDER}.");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::of_line;

    #[test]
    fn a_file_says_what_flags_say() {
        let mut options = of_line::<Options>("--ignore-preflight-errors a").unwrap();
        let text = "apiVersion: kubeadm.k8s.io/v1beta4\nkind: ResetConfiguration\nforce: true\ndryRun: true\ncertificatesDir: /x\nignorePreflightErrors: [b]\nskipPhases: [cleanup-node]\ncleanupTmpDir: true\n";
        of_file(&mut options, &documents::parse(text).unwrap().0).unwrap();
        assert!(options.force && options.common.dry_run && options.cleanup_tmp_dir);
        assert_eq!((options.cert_dir.as_path(), options.common.ignore_preflight_errors.join(" ").as_str(), options.common.skip_phases.as_slice()), (Path::new("/x"), "a b", &["cleanup-node".to_owned()][..]));
        let wrong = text.replace("force: true", "force: maybe");
        assert!(of_file(&mut options, &documents::parse(&wrong).unwrap().0).unwrap_err().to_string().contains("force: Invalid value"));
    }
}
