//! The cluster's keys and certificates on disk, and the kubeconfig made of them.
//!
//! Files are kubeadm's: `pki/ca.crt`, `pki/apiserver.crt`, `pki/sa.key`, `admin.conf`.

use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use rustls::server::WebPkiClientVerifier;
use server::{Authority, FrontProxy, Identity, Pki, TokenKey};

use crate::api_server::Tls;
use crate::paths::Paths;

pub struct Credentials {
    pub authority: Authority,
    pub api_server: Identity,
    pub admin: Identity,
    pub token_key: Arc<TokenKey>,
    /// Who we are to the servers behind APIServices.
    pub front_proxy: FrontProxy,
}

/// Writes so that others never see half a file, and only the owner can read it.
pub fn write_private(path: &Path, contents: &[u8]) -> Result<()> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
    }
    let temporary = path.with_extension("tmp");
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary).with_context(|| format!("cannot write {}", temporary.display()))?;
    file.write_all(contents)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path).with_context(|| format!("cannot write {}", path.display()))
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Loaded, or made when it is not there.
fn authority(pki: &Path, file: &str, name: &str, now_seconds: i64) -> Result<Authority> {
    let (certificate, key) = (pki.join(file).with_extension("crt"), pki.join(file).with_extension("key"));
    if certificate.exists() {
        return Authority::load(&read(&certificate)?, &read(&key)?).with_context(|| format!("{} is damaged; `coracle reset` starts over", certificate.display()));
    }
    let authority = Authority::generate(name, now_seconds)?;
    write_private(&key, authority.identity.key_pem.as_bytes())?;
    write_private(&certificate, authority.identity.certificate_pem.as_bytes())?;
    Ok(authority)
}

/// An authority of its own: who is believed to speak for others must not be mistaken for a client, nor the other way round.
fn authority_of_front_proxies(pki: &Path, now_seconds: i64) -> Result<FrontProxy> {
    let authority = authority(pki, "front-proxy-ca", "front-proxy-ca", now_seconds)?;
    let identity = authority.issue(&Pki::Client { user: "front-proxy-client", groups: &[] }, now_seconds)?;
    Ok(FrontProxy { authority_pem: authority.identity.certificate_pem.clone(), identity })
}

/// What the API server's certificate is good for.
pub struct Names {
    pub dns: Vec<String>,
    pub addresses: Vec<IpAddr>,
}

impl Credentials {
    /// Loads what is there and makes what is missing. The server's certificate is made anew at each start: addresses change.
    pub fn open(paths: &Paths, names: &Names, now_seconds: i64) -> Result<Self> {
        let pki = paths.pki();
        let authority = authority(&pki, "ca", "kubernetes", now_seconds)?;
        let front = authority_of_front_proxies(&pki, now_seconds)?;
        let token_file = pki.join("sa.key");
        if !token_file.exists() {
            write_private(&token_file, &TokenKey::generate()?)?;
        }
        let token_key = Arc::new(TokenKey::from_pkcs8(&std::fs::read(&token_file)?)?);
        let api_server = authority.issue(&Pki::Server { name: "kube-apiserver", groups: &[], dns: &names.dns, addresses: &names.addresses }, now_seconds)?;
        write_private(&pki.join("apiserver.crt"), api_server.certificate_pem.as_bytes())?;
        write_private(&pki.join("apiserver.key"), api_server.key_pem.as_bytes())?;
        let admin = authority.issue(&Pki::Client { user: "kubernetes-admin", groups: &["system:masters"] }, now_seconds)?;
        Ok(Self { authority, api_server, admin, token_key, front_proxy: front })
    }

    /// TLS 1.2 and later; client certificates of our CA are verified, none is asked for more than once.
    pub fn tls(&self, identity: &Identity) -> Result<Arc<rustls::ServerConfig>> {
        self.tls_as(identity, Tls::default(), "")
    }

    /// Client certificates of `others` (PEM) are verified as well.
    pub fn tls_as(&self, identity: &Identity, tls: Tls, others: &str) -> Result<Arc<rustls::ServerConfig>> {
        let provider = tls.provider;
        let mut roots = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(self.authority.identity.certificate_pem.as_bytes()).chain(CertificateDer::pem_slice_iter(others.as_bytes())) {
            roots.add(certificate?)?;
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).allow_unauthenticated().build()?;
        let chain = CertificateDer::pem_slice_iter(identity.certificate_pem.as_bytes()).collect::<Result<Vec<_>, _>>()?;
        let key = PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes())?;
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(tls.versions)?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    /// `admin.conf` for `server` (`https://192.0.2.1:6443`).
    pub fn kubeconfig(&self, server: &str) -> String {
        use base64_text as encode;
        let ca = encode(&self.authority.identity.certificate_pem);
        let (certificate, key) = (encode(&self.admin.certificate_pem), encode(&self.admin.key_pem));
        format!(
            "apiVersion: v1\nkind: Config\nclusters:\n- cluster:\n    certificate-authority-data: {ca}\n    server: {server}\n  name: kubernetes\ncontexts:\n- context:\n    cluster: kubernetes\n    user: kubernetes-admin\n  name: kubernetes-admin@kubernetes\ncurrent-context: kubernetes-admin@kubernetes\npreferences: {{}}\nusers:\n- name: kubernetes-admin\n  user:\n    client-certificate-data: {certificate}\n    client-key-data: {key}\n"
        )
    }
}

fn base64_text(text: &str) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(text)
}
