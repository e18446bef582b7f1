//! `kubeadm token`: create, list, delete, generate. Mirrors `cmd/token.go`.

use std::path::{Path, PathBuf};

use api::columns::human_duration;
use base64::Engine as _;
use clap::{Args, Subcommand};
use client::kubeconfig::Config;
use client::{Client, DeleteOptions, ListOptions};
use jiff::{SignedDuration, Timestamp};
use plan::bootstrap::{SECRET_NAMESPACE, SECRET_PREFIX, SECRET_TYPE};
use serde_json::{Value, json};

use crate::bootstrap_token::{self, BootstrapToken, Description, GROUP, ID_PATTERN, PATTERN, duration, is_id};
use crate::error::Error;
use crate::host::KUBERNETES_FOLDER;
use crate::join_command;
use crate::publish;
use crate::rest::{SECRETS, connect};
use crate::output::{API_VERSION, Output};
use crate::shared_certificates::CertificateKey;
use crate::tabs::columns;

#[derive(Args, Debug)]
pub struct TokenCommand {
    #[command(subcommand)]
    what: What,
    /// The kubeconfig file to use when talking to the cluster
    #[arg(long, value_name = "FILE", global = true)]
    kubeconfig: Option<PathBuf>,
}

#[derive(Subcommand, Debug)]
enum What {
    /// Create bootstrap tokens on the server
    Create(Create),
    /// List bootstrap tokens on the server
    List {
        /// Output format
        #[arg(long, short, value_enum, default_value = "text")]
        output: Output,
    },
    /// Delete bootstrap tokens on the server
    Delete {
        #[arg(value_name = "TOKEN-VALUE")]
        tokens: Vec<String>,
    },
    /// Generate and print a bootstrap token, but do not create it on the server
    Generate,
}

#[derive(Args, Debug)]
struct Create {
    token: Option<String>,
    /// Instead of printing only the token, print the full 'kubeadm join' flag needed to join the cluster using the token
    #[arg(long)]
    print_join_command: bool,
    /// When used together with '--print-join-command', print the full 'kubeadm join' flag needed to join the cluster as a control-plane
    #[arg(long, value_name = "KEY", requires = "print_join_command")]
    certificate_key: Option<CertificateKey>,
    /// The duration before the token is automatically deleted (e.g. 1s, 2m, 3h). If set to '0', the token will never expire
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "24h0m0s", allow_hyphen_values = true)]
    ttl: SignedDuration,
    /// A human friendly description of how this token is used
    #[arg(long, default_value = "")]
    description: String,
    /// Describes the ways in which this token can be used
    #[arg(long, value_delimiter = ',', default_value = "signing,authentication", value_parser = ["signing", "authentication"])]
    usages: Vec<String>,
    /// Extra groups that this token will authenticate as when used for authentication
    #[arg(long, value_delimiter = ',', default_value = GROUP)]
    groups: Vec<String>,
}

/// `--kubeconfig`, else what kubectl would use, else `admin.conf`.
pub fn config(explicit: Option<&Path>) -> Result<Config, Error> {
    let admin = Path::new(KUBERNETES_FOLDER).join("admin.conf");
    let asked = explicit.is_some() || std::env::var_os("KUBECONFIG").is_some_and(|list| !list.is_empty());
    let path = if asked || !admin.exists() { explicit.map(Path::to_owned) } else { Some(admin) };
    Ok(Config::load(path.as_deref())?)
}

async fn create(client: &Client, config: &Config, options: &Create) -> Result<(), Error> {
    let token = match &options.token {
        Some(text) => text.parse()?,
        None => BootstrapToken::generate()?,
    };
    if let Some(bad) = options.groups.iter().find(|group| !group.starts_with("system:bootstrappers:")) {
        return Err(Error::Invalid(format!("bootstrapTokens: Invalid value: {bad:?}: bootstrap group {bad:?} is invalid (must match \\Asystem:bootstrappers:[a-z0-9:-]{{0,255}}[a-z0-9]\\z)")));
    }
    let what = Description { usages: options.usages.clone(), groups: options.groups.clone(), description: options.description.clone() };
    publish::token(client, &token, &what, options.ttl).await?;
    if !options.print_join_command {
        println!("{token}");
        return Ok(());
    }
    let ca = config.certificate_authority.clone().and_then(|ca| String::from_utf8(ca).ok()).ok_or_else(|| Error::Invalid("failed to get join command: the kubeconfig has no certificate authority".into()))?;
    let endpoint = config.server.trim_start_matches("https://");
    let mut command = join_command::worker(endpoint, &token.to_string(), &ca)?;
    if let Some(key) = &options.certificate_key {
        command = join_command::control_plane(&command, Some(&key.to_string()));
    }
    println!("{}", join_command::one_line(&command));
    Ok(())
}

/// What a Secret says under a key.
fn datum(secret: &Value, key: &str) -> Option<String> {
    let text = secret.get("data")?.get(key)?.as_str()?;
    String::from_utf8(base64::engine::general_purpose::STANDARD.decode(text).ok()?).ok().filter(|text| !text.is_empty())
}

fn usages(secret: &Value) -> Vec<&'static str> {
    ["authentication", "signing"].into_iter().filter(|usage| datum(secret, &format!("usage-bootstrap-{usage}")).as_deref() == Some("true")).collect()
}

/// A token as machines read it; none if the Secret is no token.
fn object(secret: &Value) -> Option<Value> {
    let mut object = json!({"kind": "BootstrapToken", "apiVersion": API_VERSION, "token": format!("{}.{}", datum(secret, "token-id")?, datum(secret, "token-secret")?)});
    for (key, value) in [("description", datum(secret, "description")), ("expires", datum(secret, "expiration"))] {
        if let Some(value) = value {
            object[key] = value.into();
        }
    }
    let groups = datum(secret, "auth-extra-groups").map(|groups| groups.split(',').map(str::to_owned).collect()).unwrap_or_default();
    for (key, values) in [("usages", usages(secret).into_iter().map(str::to_owned).collect()), ("groups", groups)] {
        let values: Vec<String> = values;
        if !values.is_empty() {
            object[key] = json!(values);
        }
    }
    Some(object)
}

/// A row of `token list`; none if the Secret is no token.
fn row(secret: &Value, now: Timestamp) -> Option<Vec<String>> {
    let datum = |key: &str| datum(secret, key);
    let (id, key) = (datum("token-id")?, datum("token-secret")?);
    let (ttl, expires) = match datum("expiration") {
        None => ("<forever>".to_owned(), "<never>".to_owned()),
        Some(text) => match text.parse::<Timestamp>() {
            Ok(at) => (if at > now { short(at.duration_since(now).as_secs()) } else { "<invalid>".to_owned() }, text),
            Err(_) => ("<invalid>".to_owned(), text),
        },
    };
    let usages = usages(secret);
    let or_none = |text: String| if text.is_empty() { "<none>".to_owned() } else { text };
    let description = or_none(datum("description").unwrap_or_default());
    Some(vec![format!("{id}.{key}"), format!("{ttl:<9}"), expires, format!("{:<22}", or_none(usages.join(","))), format!("{description:<56}"), or_none(datum("auth-extra-groups").unwrap_or_default())])
}

/// apimachinery's `ShortHumanDuration`.
fn short(seconds: i64) -> String {
    const HOUR: i64 = 3600;
    match seconds {
        ..0 => "<invalid>".to_owned(),
        0..60 => format!("{seconds}s"),
        60..HOUR => format!("{}m", seconds / 60),
        _ if seconds < 24 * HOUR => format!("{}h", seconds / HOUR),
        _ if seconds < 365 * 24 * HOUR => format!("{}d", seconds / HOUR / 24),
        _ => human_duration(seconds),
    }
}

async fn list(client: &Client, output: Output) -> Result<(), Error> {
    let options = ListOptions { field_selector: format!("type={SECRET_TYPE}"), ..ListOptions::default() };
    let found = client.transport().list(&SECRETS.target(Some(SECRET_NAMESPACE), None), &options).await.map_err(Error::api("failed to list bootstrap tokens"))?;
    let now = Timestamp::now();
    if output != Output::Text {
        let tokens = found.items.iter().filter_map(|secret| object(&secret.value().ok()?));
        tokens.for_each(|token| print!("{}", output.shown(&token)));
        return Ok(());
    }
    let mut rows: Vec<Vec<String>> = found.items.iter().filter_map(|secret| row(&secret.value().ok()?, now)).collect();
    if !rows.is_empty() {
        rows.insert(0, ["TOKEN", "TTL", "EXPIRES", "USAGES", "DESCRIPTION", "EXTRA GROUPS"].map(str::to_owned).to_vec());
        print!("{}", columns(&rows));
    }
    Ok(())
}

async fn delete(client: &Client, tokens: &[String]) -> Result<(), Error> {
    if tokens.is_empty() {
        return Err(Error::Invalid(format!("missing argument; 'token delete' is missing token of form \"{PATTERN}\" or \"{ID_PATTERN}\"")));
    }
    for text in tokens {
        let id = if is_id(text) {
            text.clone()
        } else {
            text.parse::<BootstrapToken>().map_err(|_| Error::Invalid(format!("given token didn't match pattern \"{PATTERN}\" or \"{}\"", bootstrap_token::ID_PATTERN)))?.id
        };
        let target = SECRETS.target(Some(SECRET_NAMESPACE), Some(&format!("{SECRET_PREFIX}{id}")));
        client.transport().delete(&target, &DeleteOptions::default()).await.map_err(Error::api("failed to delete bootstrap token"))?;
        println!("bootstrap token {id:?} deleted");
    }
    Ok(())
}

pub fn run(command: &TokenCommand) -> Result<(), Error> {
    if matches!(command.what, What::Generate) {
        println!("{}", BootstrapToken::generate()?);
        return Ok(());
    }
    let config = config(command.kubeconfig.as_deref())?;
    crate::cli::block_on(async {
        let client = connect(&config)?;
        match &command.what {
            What::Create(options) => create(&client, &config, options).await,
            What::List { output } => list(&client, *output).await,
            What::Delete { tokens } => delete(&client, tokens).await,
            What::Generate => Ok(()),
        }
    })?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let token: BootstrapToken = "abcdef.0123456789abcdef".parse().unwrap();
        let what = publish::default_description("");
        let of = |expires: Option<&str>| row(&token.secret(&what, expires.map(|at| at.parse().unwrap())), now).unwrap();
        let cells = of(Some("2026-01-01T23:30:00Z"));
        assert_eq!(cells.iter().map(|cell| cell.trim_end()).collect::<Vec<_>>(), ["abcdef.0123456789abcdef", "23h", "2026-01-01T23:30:00Z", "authentication,signing", "<none>", GROUP]);
        assert_eq!(of(None)[1..3], ["<forever>", "<never>"]);
        let object = object(&token.secret(&what, None)).unwrap();
        assert_eq!((&object["token"], &object["usages"], object.get("expires")), (&json!("abcdef.0123456789abcdef"), &json!(["authentication", "signing"]), None));
        assert_eq!(of(Some("2025-01-01T00:00:00Z"))[1], "<invalid>");
        assert_eq!(row(&serde_json::json!({"data": {"token-id": "?"}}), now), None);
    }
}
