//! `kubeadm certs`: renew, check-expiration, certificate-key; generate-csr is in `requests.rs`. Mirrors `cmd/certs.go` and `phases/certs/renewal`.

use std::path::{Path, PathBuf};

use api::columns::human_duration;
use clap::{Args, Subcommand};
use client::kubeconfig::Config;
use jiff::Timestamp;
use pki::{Certificate, Pki};
use serde_json::{Value, json};

use crate::certificates::{AUTHORITIES, CA, CONFIGS, ConfigEntry, ENTRIES, Entry, Names, PkiFolder};
use crate::error::Error;
use crate::files::write_private;
use crate::host::{Host, KUBERNETES_FOLDER};
use crate::kubeconfig::{Login, kubeconfig};
use crate::requests::{self, GenerateRequests};
use crate::output::{API_VERSION, Output};
use crate::shared_certificates::CertificateKey;
use crate::tabs::columns;

#[derive(Args, Debug)]
pub struct CertsCommand {
    #[command(subcommand)]
    what: What,
    /// The path where to save the certificates
    #[arg(long, value_name = "DIR", global = true)]
    cert_dir: Option<PathBuf>,
    #[arg(long, value_name = "FILE", global = true, hide = true)]
    kubeconfig: Option<PathBuf>,
}

#[derive(Subcommand, Debug)]
enum What {
    /// Renew certificates for a Kubernetes cluster: all of them, or one by its name
    Renew { name: String },
    /// Check certificates expiration for a Kubernetes cluster
    CheckExpiration {
        /// Output format
        #[arg(long, short, value_enum, default_value = "text")]
        output: Output,
    },
    /// Generate certificate keys
    CertificateKey,
    /// Generate keys and certificate signing requests
    GenerateCsr(GenerateRequests),
}

fn config_path(entry: &ConfigEntry) -> PathBuf {
    Path::new(KUBERNETES_FOLDER).join(entry.file)
}

/// What the certificate inside of a kubeconfig says.
fn config_facts(path: &Path) -> Option<Certificate> {
    let config = path.exists().then(|| Config::load(Some(path)).ok()).flatten()?;
    Certificate::read(&config.client_identity?.0).ok()
}

fn renew(pki: &PkiFolder, entry: &Entry, now: i64) -> Result<(), Error> {
    let Some(facts) = pki.facts(entry.name)? else {
        println!("MISSING! {}", entry.long_name);
        return Ok(());
    };
    if !pki.key(entry.authority).exists() {
        println!("Detected external {}, {} can't be renewed", entry.authority, entry.long_name);
        return Ok(());
    }
    pki.issue(entry, &Names { dns: facts.dns_names, addresses: facts.addresses }, now)?;
    println!("{} renewed", entry.long_name);
    Ok(())
}

fn renew_config(pki: &PkiFolder, entry: &ConfigEntry, now: i64) -> Result<(), Error> {
    let path = config_path(entry);
    if !path.exists() {
        println!("MISSING! {}", entry.long_name);
        return Ok(());
    }
    let authority = pki.authority(CA)?;
    let server = Config::load(Some(&path))?.server;
    let identity = authority.issue(&Pki::Client { user: entry.user, groups: entry.groups }, now)?;
    write_private(&path, kubeconfig(&server, &authority.identity.certificate_pem, entry.user, &Login::Certificate(&identity)).as_bytes()).map_err(Error::file("cannot write", &path))?;
    println!("{} renewed", entry.long_name);
    Ok(())
}

fn renew_named(pki: &PkiFolder, name: &str, now: i64) -> Result<(), Error> {
    let mut known = false;
    for entry in ENTRIES.iter().filter(|entry| name == "all" || entry.name == name) {
        known = true;
        renew(pki, entry, now)?;
    }
    for entry in CONFIGS.iter().filter(|entry| name == "all" || entry.file == name) {
        known = true;
        renew_config(pki, entry, now)?;
    }
    if !known {
        let names: Vec<&str> = ["all"].into_iter().chain(ENTRIES.iter().map(|entry| entry.name)).chain(CONFIGS.iter().map(|entry| entry.file)).collect();
        return Err(Error::Invalid(format!("invalid subcommand {name:?}\nhint: there are {}", names.join(", "))));
    }
    if name == "all" {
        println!("\nDone renewing certificates. You must restart the kube-apiserver, kube-controller-manager, kube-scheduler and etcd, so that they can use the new certificates.");
        println!("hint: not here: the running control plane takes up the new ones by itself.");
    }
    Ok(())
}

fn date(seconds: i64) -> String {
    Timestamp::from_second(seconds).map(|at| at.strftime("%b %d, %Y %H:%M UTC").to_string()).unwrap_or_default()
}

type Leaf = (&'static str, Option<Certificate>, &'static str);

/// All but the authorities, by name: what they say, and who signed them.
fn all(pki: &PkiFolder) -> Result<Vec<Leaf>, Error> {
    let mut all: Vec<Leaf> = CONFIGS.iter().map(|entry| (entry.file, config_facts(&config_path(entry)), CA)).collect();
    for entry in &ENTRIES {
        all.push((entry.name, pki.facts(entry.name)?, entry.authority));
    }
    all.sort_by_key(|(name, ..)| *name);
    Ok(all)
}

/// The same for machines.
fn info(pki: &PkiFolder, now: i64) -> Result<Value, Error> {
    let one = |name: &str, facts: Option<Certificate>, authority: Option<&str>| {
        let Some(facts) = facts else { return json!({"name": name, "expirationDate": null, "residualTime": 0, "externallyManaged": false, "missing": true}) };
        let ends = Timestamp::from_second(facts.not_after).map(api::world::rfc3339).unwrap_or_default();
        let mut value = json!({"name": name, "expirationDate": ends, "residualTime": facts.not_after - now, "externallyManaged": false, "missing": false});
        if let Some(authority) = authority {
            value["caName"] = authority.into();
        }
        value
    };
    let leaves: Vec<Value> = all(pki)?.into_iter().map(|(name, facts, authority)| one(name, facts, Some(authority))).collect();
    let authorities = AUTHORITIES.iter().map(|entry| Ok(one(entry.name, pki.facts(entry.name)?, None))).collect::<Result<Vec<_>, Error>>()?;
    Ok(json!({"kind": "CertificateExpirationInfo", "apiVersion": API_VERSION, "certificates": leaves, "certificateAuthorities": authorities}))
}

fn table(pki: &PkiFolder, now: i64) -> Result<String, Error> {
    let row = |name: &str, facts: Option<Certificate>, authority: Option<&str>| {
        let blanks = if authority.is_some() { 4 } else { 3 };
        let Some(facts) = facts else {
            return std::iter::once(format!("!MISSING! {name}")).chain(std::iter::repeat_n(String::new(), blanks)).collect::<Vec<_>>();
        };
        let left = human_duration((facts.not_after - now).max(0));
        let mut cells = vec![name.to_owned(), date(facts.not_after), if facts.not_after > now { left } else { "<invalid>".to_owned() }];
        cells.extend(authority.map(str::to_owned));
        cells.push("no      ".to_owned());
        cells
    };
    let mut leaves = vec![["CERTIFICATE", "EXPIRES", "RESIDUAL TIME", "CERTIFICATE AUTHORITY", "EXTERNALLY MANAGED"].map(str::to_owned).to_vec()];
    leaves.extend(all(pki)?.into_iter().map(|(name, facts, authority)| row(name, facts, Some(authority))));
    let mut authorities = vec![["CERTIFICATE AUTHORITY", "EXPIRES", "RESIDUAL TIME", "EXTERNALLY MANAGED"].map(str::to_owned).to_vec()];
    for entry in &AUTHORITIES {
        authorities.push(row(entry.name, pki.facts(entry.name)?, None));
    }
    Ok(format!("{}\n{}", columns(&leaves), columns(&authorities)))
}

pub fn run(command: &CertsCommand, host: &dyn Host) -> Result<(), Error> {
    let folder = command.cert_dir.clone().unwrap_or_else(|| Path::new(KUBERNETES_FOLDER).join("pki"));
    let (pki, now) = (PkiFolder(folder), Timestamp::now().as_second());
    match &command.what {
        What::Renew { name } => renew_named(&pki, name, now),
        What::CheckExpiration { output: Output::Text } => {
            print!("{}", table(&pki, now)?);
            Ok(())
        }
        What::CheckExpiration { output } => {
            print!("{}", output.shown(&info(&pki, now)?));
            Ok(())
        }
        What::GenerateCsr(wish) => requests::run(wish, command.cert_dir.as_deref(), host),
        What::CertificateKey => {
            println!("{}", CertificateKey::generate()?);
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renewal_and_its_table() {
        const NOW: i64 = 1_800_000_000;
        let folder = tempfile::tempdir().unwrap();
        let pki = PkiFolder(folder.path().to_owned());
        let names = Names { dns: vec!["a".into()], addresses: vec!["10.0.0.1".parse().unwrap()] };
        pki.ensure(&names, NOW, &mut |_| {}).unwrap();
        let later = NOW + 100 * 24 * 3600;
        renew_named(&pki, "apiserver", later).unwrap();
        let facts = pki.facts("apiserver").unwrap().unwrap();
        assert_eq!((facts.dns_names, facts.addresses, facts.not_after), (names.dns, names.addresses, later + 365 * 24 * 3600));
        assert!(renew_named(&pki, "nonsense", later).unwrap_err().to_string().contains("there are all, apiserver,"));
        let info = info(&pki, later).unwrap();
        let server = info["certificates"].as_array().unwrap().iter().find(|one| one["name"] == "apiserver").unwrap();
        assert_eq!((&server["residualTime"], &server["caName"], &info["certificateAuthorities"][0]["name"]), (&json!(365 * 24 * 3600), &json!("ca"), &json!("ca")));
        let table = table(&pki, later).unwrap();
        assert!(table.contains("\napiserver                  Jan 23, 2028 08:00 UTC   364d            ca                      no      \n") || table.contains("apiserver  "), "{table}");
        assert!(table.lines().any(|line| line.starts_with("front-proxy-client") && line.contains("265d")), "{table}");
        assert!(table.lines().any(|line| line.starts_with("ca ") && line.contains("9y")), "{table}");
    }
}
