//! `kubeadm kubeconfig user`: a login for one more user, on standard output. Mirrors `cmd/kubeconfig.go`.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use client::kubeconfig::Config;
use jiff::{SignedDuration, Timestamp};
use pki::Pki;

use crate::bootstrap_token::duration;
use crate::certificates::{CA, PkiFolder};
use crate::config_file;
use crate::control_plane::{ADMIN, BIND_PORT, advertised, endpoint};
use crate::documents::{self, of_kind};
use crate::error::Error;
use crate::host::{Host, KUBERNETES_FOLDER};
use crate::init::DEFAULT_SERVICE_SUBNET;
use crate::kubeconfig::{Login, kubeconfig};

/// As long as the cluster's own certificates live.
const DEFAULT_VALIDITY: &str = "8760h0m0s";

#[derive(Args, Debug)]
pub struct KubeconfigCommand {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    /// Output a kubeconfig file for an additional user
    User(User),
}

#[derive(Args, Debug)]
struct User {
    /// The name of user. It will be used as the CN if client certificates are created
    #[arg(long, value_name = "NAME")]
    client_name: String,
    /// The organizations of the client certificate. It will be used as the O if client certificates are created
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    org: Vec<String>,
    /// The token that should be used as the authentication mechanism for this kubeconfig, instead of client certificates
    #[arg(long)]
    token: Option<String>,
    /// The validity period of the client certificate. It is an offset from the current time
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = DEFAULT_VALIDITY)]
    validity_period: SignedDuration,
    /// Path to a kubeadm configuration file: where the API server is, and the certificates
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Where the API server is, and the folder of the certificates: as a file says, else as this machine's administrator has it.
fn cluster(user: &User, host: &dyn Host) -> Result<(String, PkiFolder), Error> {
    let own = PkiFolder(Path::new(KUBERNETES_FOLDER).join("pki"));
    let Some(path) = &user.config else {
        return Ok((Config::load(Some(&Path::new(KUBERNETES_FOLDER).join(ADMIN)))?.server, own));
    };
    let (documents, notes) = documents::read(path)?;
    notes.warn();
    let text = |kind: &str, path: &str| of_kind(&documents, kind).map(config_file::Reader).map_or(Ok(None), |read| read.text(path));
    let folder = text("ClusterConfiguration", "/certificatesDir")?.map_or(own, |folder| PkiFolder(folder.into()));
    let port = of_kind(&documents, "InitConfiguration").and_then(|value| value.pointer("/localAPIEndpoint/bindPort")?.as_u64()).and_then(|port| u16::try_from(port).ok()).unwrap_or(BIND_PORT);
    let shown = match text("ClusterConfiguration", "/controlPlaneEndpoint")? {
        Some(name) => endpoint(&name, port)?.1,
        None => {
            let given = text("InitConfiguration", "/localAPIEndpoint/advertiseAddress")?.and_then(|text| text.parse().ok());
            endpoint(&advertised(given, DEFAULT_SERVICE_SUBNET, host)?.to_string(), port)?.1
        }
    };
    Ok((format!("https://{shown}"), folder))
}

fn text(user: &User, server: &str, pki: &PkiFolder, now: Timestamp) -> Result<String, Error> {
    let authority = pki.authority(CA)?;
    let ca = &authority.identity.certificate_pem;
    if let Some(token) = &user.token {
        return Ok(kubeconfig(server, ca, &user.client_name, &Login::Token(token)));
    }
    let groups: Vec<&str> = user.org.iter().map(String::as_str).collect();
    let identity = authority.issue_for(&Pki::Client { user: &user.client_name, groups: &groups }, now.as_second(), user.validity_period.as_secs())?;
    Ok(kubeconfig(server, ca, &user.client_name, &Login::Certificate(&identity)))
}

pub fn run(command: &KubeconfigCommand, host: &dyn Host) -> Result<(), Error> {
    let What::User(user) = &command.what;
    let (server, pki) = cluster(user, host)?;
    print!("{}", text(user, &server, &pki, host.clock().now())?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificates::Names;
    use crate::options::of_line;
    use base64::Engine as _;

    #[test]
    fn logins() {
        const NOW: i64 = 1_800_000_000;
        let folder = tempfile::tempdir().unwrap();
        let pki = PkiFolder(folder.path().to_owned());
        pki.ensure(&Names::default(), NOW, &mut |_| {}).unwrap();
        let of = |line: &str| {
            let text = text(&of_line(line).unwrap(), "https://192.0.2.1:6443", &pki, Timestamp::from_second(NOW).unwrap()).unwrap();
            serde_saphyr::from_str::<serde_json::Value>(&text).unwrap()
        };
        let jane = of("--client-name jane --org dev,ops --validity-period 1h");
        assert_eq!((&jane["clusters"][0]["cluster"]["server"], &jane["current-context"]), (&"https://192.0.2.1:6443".into(), &"jane@kubernetes".into()));
        let pem = base64::engine::general_purpose::STANDARD.decode(jane["users"][0]["user"]["client-certificate-data"].as_str().unwrap()).unwrap();
        let facts = pki::Certificate::read(&pem).unwrap();
        assert_eq!((facts.common_name.as_str(), facts.organizations.join(" ").as_str(), facts.not_after), ("jane", "dev ops", NOW + 3600));
        assert_eq!(of("--client-name jane --token t")["users"][0]["user"]["token"], "t");
        assert!(of_line::<User>("--org dev").is_err());
    }
}
