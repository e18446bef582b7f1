//! Kubeconfigs as kubeadm writes them.

use base64::Engine as _;

/// How somebody shows who they are.
pub enum Login<'a> {
    Certificate(&'a pki::Identity),
    /// A file that holds certificate and key.
    File(&'a str),
    Token(&'a str),
    /// The certificate is still to be signed.
    Key(&'a str),
}

fn encode(text: &str) -> String {
    base64::engine::general_purpose::STANDARD.encode(text)
}

/// For `user` of the cluster at `server` (`https://192.0.2.1:6443`), whose authority is `ca` (PEM).
pub fn kubeconfig(server: &str, ca: &str, user: &str, login: &Login<'_>) -> String {
    let login = match login {
        Login::Certificate(identity) => format!("    client-certificate-data: {}\n    client-key-data: {}\n", encode(&identity.certificate_pem), encode(&identity.key_pem)),
        Login::File(path) => format!("    client-certificate: {path}\n    client-key: {path}\n"),
        Login::Key(key) => format!("    client-key-data: {}\n", encode(key)),
        Login::Token(token) => format!("    token: {token}\n"),
    };
    // Nobody knows it yet.
    let ca = if ca.is_empty() { String::new() } else { format!("    certificate-authority-data: {}\n", encode(ca)) };
    format!(
        "apiVersion: v1\nclusters:\n- cluster:\n{ca}    server: {server}\n  name: kubernetes\ncontexts:\n- context:\n    cluster: kubernetes\n    user: {user}\n  name: {user}@kubernetes\ncurrent-context: {user}@kubernetes\nkind: Config\npreferences: {{}}\nusers:\n- name: {user}\n  user:\n{login}"
    )
}

/// What `cluster-info` holds: a cluster and nobody.
pub fn of_cluster(server: &str, ca: &str) -> String {
    format!(
        "apiVersion: v1\nclusters:\n- cluster:\n    certificate-authority-data: {}\n    server: {server}\n  name: \"\"\ncontexts: null\ncurrent-context: \"\"\nkind: Config\npreferences: {{}}\nusers: null\n",
        encode(ca)
    )
}
