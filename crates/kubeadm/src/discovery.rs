//! How a machine comes to trust a cluster: `cluster-info`, signed with the token, and the authority's pinned keys.
//!
//! Mirrors `discovery/token/token.go`, texts included.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::Clock;
use base64::Engine as _;
use client::HttpClient;
use client::kubeconfig::Config;
use http::Method;
use jiff::Timestamp;
use jiff::fmt::rfc2822;
use plan::bootstrap::{CLUSTER_INFO, signature};
use serde_json::Value;

use crate::bootstrap_token::BootstrapToken;
use crate::error::Error;

const PATH: &str = "/api/v1/namespaces/kube-public/configmaps/cluster-info";
/// How long a cluster may take to answer, and to sign with a token that is new.
pub const TIMEOUT: Duration = Duration::from_secs(10);
/// Nobody tells the unauthenticated of changes.
const PAUSE: Duration = Duration::from_millis(300);
/// Clocks may differ by so much.
const MAX_SKEW_SECONDS: i64 = 300;

/// A cluster that is who it says it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// `https://192.0.2.1:6443`.
    pub server: String,
    /// PEM.
    pub ca: String,
}

/// How the authority is known.
#[derive(Debug, Clone)]
pub enum Trust {
    /// `sha256:…` of public keys.
    Pinned(Vec<String>),
    /// A kubeconfig that names cluster and authority.
    File(PathBuf),
    Unverified,
}

fn expired(id: &str) -> Error {
    Error::Hinted {
        message: format!("couldn't validate the identity of the API Server: token id {id:?} is invalid for this cluster or it has expired. Use \"kubeadm token create\" on the control-plane node to create a new valid token"),
        hint: "`kubeadm token list` on the control-plane node shows the tokens that are good; `kubeadm token create --print-join-command` makes a new line to paste here".into(),
    }
}

fn distrusted(message: impl std::fmt::Display) -> Error {
    Error::Invalid(format!("couldn't validate the identity of the API Server: {message}"))
}

/// `--discovery-token-ca-cert-hash`.
pub fn valid_pin(text: &str) -> Result<(), Error> {
    let Some((kind, hex)) = text.split_once(':') else { return Err(distrusted(format!("invalid discovery token CA certificate hash: invalid hash, expected \"format:hex-value\". Known format(s) are: sha256, got {text:?}"))) };
    if !kind.eq_ignore_ascii_case("sha256") {
        return Err(distrusted(format!("invalid discovery token CA certificate hash: unknown hash format {kind:?}. Known format(s) are: sha256")));
    }
    if hex.len() != 64 || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(distrusted(format!("invalid discovery token CA certificate hash: expected 64 hexadecimal digits after \"sha256:\", found {:?}", hex)));
    }
    Ok(())
}

/// What `cluster-info` says, if the token's signature is on it. `Ok(None)`: it is not signed with this token (yet).
pub fn read(cluster_info: &Value, token: &BootstrapToken) -> Result<Option<Cluster>, Error> {
    let data = |key: &str| cluster_info.pointer(&format!("/data/{key}")).and_then(Value::as_str).filter(|text| !text.is_empty());
    let Some(kubeconfig) = data("kubeconfig") else {
        return Err(distrusted(format!("there is no kubeconfig key in the {CLUSTER_INFO} ConfigMap. This API Server isn't set up for token bootstrapping, can't connect")));
    };
    let Some(signed) = data(&format!("jws-kubeconfig-{}", token.id)) else { return Ok(None) };
    if signature(kubeconfig, &token.id, &token.secret) != signed {
        return Err(Error::Hinted {
            message: "couldn't validate the identity of the API Server: failed to verify JWS signature of received cluster info object, can't trust this API Server".into(),
            hint: "the part of the token after the dot is not the one that this cluster knows; `kubeadm token list` on the control-plane node shows it".into(),
        });
    }
    let parsed: Value = serde_saphyr::from_str(kubeconfig).map_err(|error| distrusted(format!("couldn't parse the kubeconfig file in the {CLUSTER_INFO} ConfigMap: {error}")))?;
    let text = |key: &str| parsed.pointer(&format!("/clusters/0/cluster/{key}")).and_then(Value::as_str);
    let ca = text("certificate-authority-data").and_then(|text| base64::engine::general_purpose::STANDARD.decode(text).ok()).and_then(|bytes| String::from_utf8(bytes).ok());
    match (text("server"), ca) {
        (Some(server), Some(ca)) => Ok(Some(Cluster { server: server.to_owned(), ca })),
        _ => Err(distrusted(format!("malformed kubeconfig in the {CLUSTER_INFO} ConfigMap"))),
    }
}

/// Whether one of the authority's keys is one that we were told of.
pub fn check_pins(ca: &str, pins: &[String]) -> Result<(), Error> {
    let hashes = pki::public_key_hash(ca.as_bytes()).map_err(|error| distrusted(format!("failed to parse cluster CA from the {CLUSTER_INFO} ConfigMap: {error}")))?;
    if hashes.iter().any(|hash| pins.iter().any(|pin| pin.eq_ignore_ascii_case(hash))) {
        return Ok(());
    }
    let list = |items: &[String]| items.iter().map(|item| format!("{item:?}")).collect::<Vec<_>>().join(", ");
    Err(Error::Hinted {
        message: format!("couldn't validate the identity of the API Server: cluster CA found in {CLUSTER_INFO} ConfigMap is invalid: none of the public keys {} are pinned", list(&hashes)),
        hint: format!("this is another cluster than the one whose join command you have (its hash is {}), or the hash was not copied in full", list(pins)),
    })
}

/// By how many seconds this clock is ahead of the one in an HTTP `Date`.
pub fn skew(date: &str, now: Timestamp) -> Option<i64> {
    let there = rfc2822::parse(date).ok()?.timestamp();
    Some(now.as_second() - there.as_second())
}

/// What is wrong with this machine's clock.
fn judge_clock(seconds: i64) -> Option<String> {
    if seconds.abs() <= MAX_SKEW_SECONDS {
        return None;
    }
    let (amount, direction) = (seconds.abs(), if seconds > 0 { "ahead of" } else { "behind" });
    Some(format!("the clock of this machine is {}m{}s {direction} the control plane's: certificates would seem expired or not yet valid\n\thint: set it right (`timedatectl set-ntp true`, or `date --set=…`) and join again", amount / 60, amount % 60))
}

/// What was found out about a cluster: who it is, and what is wrong with our clock.
pub struct Found {
    pub cluster: Cluster,
    pub clock: Option<String>,
}

struct Answer {
    info: Value,
    skew: Option<i64>,
}

async fn ask(http: &HttpClient, patience: Duration, clock: &dyn Clock) -> Result<Answer, Error> {
    let failed = |message: String| Error::Hinted {
        hint: if message.contains(client::EXPIRED) {
            // Its own time is not known, or it would have been compared.
            format!("this machine's clock says {}: is that so (`date -u` here and on the control plane), and is the API server's certificate good (`kubeadm certs check-expiration` there)?", api::world::rfc3339(clock.now()))
        } else {
            "is this the address of the control plane, does it run, and does this machine reach it (`ping`, `curl -k https://…/healthz`)?".to_owned()
        },
        message: format!("couldn't validate the identity of the API Server: failed to request the cluster-info ConfigMap: Get \"{}{PATH}\": {message}", http.server()),
    };
    let answered = tokio::time::timeout(patience, http.request(Method::GET, PATH, &[("accept", "application/json")], Vec::<u8>::new())).await;
    let response = answered.map_err(|_| failed("net/http: request canceled while waiting for connection (Client.Timeout exceeded while awaiting headers)".into()))?.map_err(|error| failed(error.to_string()))?;
    let skew = skew(response.header("date"), clock.now());
    let body = client::remote::success(response).await.map_err(|status| failed(status.message))?;
    Ok(Answer { info: serde_json::from_slice(&body).map_err(|error| failed(error.to_string()))?, skew })
}

/// Asks until the cluster answers and has signed with the token, or it takes too long.
async fn wait(http: &HttpClient, token: &BootstrapToken, patience: Duration, clock: &dyn Clock) -> Result<(Answer, Cluster), Error> {
    let until = Instant::now() + patience;
    loop {
        let last = match ask(http, patience, clock).await {
            Ok(answer) => match read(&answer.info, token)? {
                Some(cluster) => return Ok((answer, cluster)),
                None => expired(&token.id),
            },
            Err(error) => error,
        };
        if Instant::now() >= until {
            return Err(last);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// The cluster of a kubeconfig, if it answers.
async fn of_file(path: &Path, patience: Duration, clock: &Arc<dyn Clock>) -> Result<Found, Error> {
    let config = Config::load(Some(path))?;
    let ca = config.certificate_authority.clone().and_then(|pem| String::from_utf8(pem).ok()).ok_or_else(|| distrusted(format!("{} names no certificate authority", path.display())))?;
    let plain = Config { server: config.server.clone(), ..Config::default() };
    let verified = connect(&Config { certificate_authority: config.certificate_authority.clone(), ..plain.clone() }, clock)?;
    let cluster = Cluster { server: config.server, ca };
    match ask(&verified, patience, &**clock).await {
        Ok(answer) => Ok(Found { cluster, clock: answer.skew.and_then(judge_clock) }),
        Err(error) => {
            // Perhaps only the clocks differ: what time it is there is asked of whoever answers, and nothing else is taken from it.
            let told = ask(&connect(&Config { insecure: true, ..plain }, clock)?, patience, &**clock).await;
            let wrong = told.ok().and_then(|answer| answer.skew).and_then(judge_clock).ok_or(error)?;
            Ok(Found { cluster, clock: Some(wrong) })
        }
    }
}

fn connect(config: &Config, clock: &Arc<dyn Clock>) -> Result<HttpClient, Error> {
    HttpClient::at(config, "kubeadm", clock.clone()).map_err(distrusted)
}

/// Who is at `endpoint` (`192.0.2.1:6443`), and what of that is wrong by this machine's clock.
pub async fn discover(endpoint: &str, token: &BootstrapToken, trust: &Trust, patience: Duration, clock: &Arc<dyn Clock>) -> Result<Found, Error> {
    if let Trust::File(path) = trust {
        return of_file(path, patience, clock).await;
    }
    let server = format!("https://{endpoint}");
    let unverified = connect(&Config { server: server.clone(), insecure: true, ..Config::default() }, clock)?;
    let (answer, cluster) = wait(&unverified, token, patience, &**clock).await?;
    let wrong = answer.skew.and_then(judge_clock);
    let Trust::Pinned(pins) = trust else { return Ok(Found { cluster, clock: wrong }) };
    check_pins(&cluster.ca, pins)?;
    if wrong.is_some() {
        // The second connection could not but fail, with words that say less.
        return Ok(Found { cluster, clock: wrong });
    }
    let verified = connect(&Config { server, certificate_authority: Some(cluster.ca.clone().into_bytes()), ..Config::default() }, clock)?;
    let again = ask(&verified, patience, &**clock).await?;
    if again.info.pointer("/data/kubeconfig") != answer.info.pointer("/data/kubeconfig") {
        return Err(distrusted(format!("the second kubeconfig from the {CLUSTER_INFO} ConfigMap (using validated TLS) was different from the first")));
    }
    Ok(Found { cluster, clock: None })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn info(token: &BootstrapToken) -> (Value, String) {
        let ca = pki::Authority::generate("kubernetes", 1_800_000_000).unwrap().identity.certificate_pem;
        let text = crate::kubeconfig::of_cluster("https://192.0.2.1:6443", &ca);
        let signed = signature(&text, &token.id, &token.secret);
        (json!({"data": {"kubeconfig": text, format!("jws-kubeconfig-{}", token.id): signed}}), ca)
    }

    #[test]
    fn only_who_knows_the_token_is_believed() {
        let token: BootstrapToken = "abcdef.0123456789abcdef".parse().unwrap();
        let (info, ca) = info(&token);
        assert_eq!(read(&info, &token).unwrap(), Some(Cluster { server: "https://192.0.2.1:6443".into(), ca: ca.clone() }));
        assert_eq!(read(&info, &"zzzzzz.0123456789abcdef".parse().unwrap()).unwrap(), None);
        let says = |info: &Value, token: &str| read(info, &token.parse().unwrap()).unwrap_err().to_string();
        assert!(says(&info, "abcdef.0123456789abcdee").ends_with("failed to verify JWS signature of received cluster info object, can't trust this API Server"));
        let mut forged = info.clone();
        forged["data"]["kubeconfig"] = forged["data"]["kubeconfig"].as_str().unwrap().replace("192.0.2.1", "192.0.2.2").into();
        assert!(says(&forged, "abcdef.0123456789abcdef").contains("JWS"));
        assert!(says(&json!({"data": {}}), "abcdef.0123456789abcdef").contains("there is no kubeconfig key in the cluster-info ConfigMap"));
        assert!(says(&json!(null), "abcdef.0123456789abcdef").contains("isn't set up for token bootstrapping"));
        let strange = json!({"data": {"kubeconfig": "a: [", "jws-kubeconfig-abcdef": signature("a: [", "abcdef", "0123456789abcdef")}});
        assert!(says(&strange, "abcdef.0123456789abcdef").contains("couldn't parse the kubeconfig file"));
    }

    #[test]
    fn pins() {
        let token: BootstrapToken = "abcdef.0123456789abcdef".parse().unwrap();
        let (_, ca) = info(&token);
        let right = pki::public_key_hash(ca.as_bytes()).unwrap().remove(0);
        check_pins(&ca, &[right.to_uppercase().replace("SHA256", "sha256")]).unwrap();
        let wrong = format!("sha256:{}", "0".repeat(64));
        check_pins(&ca, &[wrong.clone(), right.clone()]).unwrap();
        let error = check_pins(&ca, std::slice::from_ref(&wrong)).unwrap_err();
        assert!(error.to_string().ends_with(&format!("cluster CA found in cluster-info ConfigMap is invalid: none of the public keys {right:?} are pinned")), "{error}");
        assert!(error.hint().unwrap().contains(&wrong));
        for (pin, good) in [(right.as_str(), true), ("sha256:abc", false), ("md5:00", false), ("", false), ("sha256", false)] {
            assert_eq!(valid_pin(pin).is_ok(), good, "{pin}");
        }
        assert!(check_pins("nothing", &[right]).is_err());
    }

    #[test]
    fn clocks() {
        let now: Timestamp = "2026-01-01T01:00:10Z".parse().unwrap();
        assert_eq!(skew("Thu, 01 Jan 2026 00:00:00 GMT", now), Some(3610));
        assert_eq!(skew("tomorrow", now), None);
        assert!(judge_clock(3610).unwrap().starts_with("the clock of this machine is 60m10s ahead of the control plane's"));
        assert!(judge_clock(-3600).unwrap().contains("60m0s behind"));
        assert_eq!((judge_clock(0), judge_clock(-300)), (None, None));
    }
}
