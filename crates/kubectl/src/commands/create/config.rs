//! `create configmap`, `secret …`, `namespace`, `serviceaccount`.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::super::apply::WRITE;
use super::submit;
use crate::command::command;
use crate::error::{Error, Result, fail};
use crate::flags::{Args, Flag, list, switch, text};
use crate::printers::OUTPUT;
use crate::session::Session;

const DATA: &[Flag] = &[
    switch("append-hash", "Append a hash of the object to its name."),
    list("from-env-file", "Specify the path to a file to read lines of key=val pairs."),
    list("from-file", "Key files can be specified using their file path."),
    list("from-literal", "Specify a key and literal value to insert (i.e. mykey=somevalue)."),
];
command!(CONFIGMAP, "configmap", ["cm"], "NAME [--from-file=[key=]source] [--from-literal=key1=value1] [--dry-run=server|client|none] [options]", "Create a config map from a local file, directory or literal value", [DATA, WRITE, OUTPUT], configmap);
command!(GENERIC, "generic", [], "NAME [--type=string] [--from-file=[key=]source] [--from-literal=key1=value1] [--dry-run=server|client|none] [options]", "Create a secret from a local file, directory, or literal value", [DATA, &[text("type", "", "The type of secret to create")], WRITE, OUTPUT], generic);
command!(TLS, "tls", [], "NAME --cert=path/to/cert/file --key=path/to/key/file [--dry-run=server|client|none] [options]", "Create a TLS secret", [&[text("cert", "", "Path to PEM encoded public key certificate."), text("key", "", "Path to private key associated with given certificate."), switch("append-hash", "")], WRITE, OUTPUT], tls);
command!(DOCKER_REGISTRY, "docker-registry", [], "NAME --docker-username=user --docker-password=password --docker-email=email [--docker-server=string] [options]", "Create a secret for use with a Docker registry", [REGISTRY, WRITE, OUTPUT], docker_registry);
const REGISTRY: &[Flag] = &[
    text("docker-email", "", "Email for Docker registry"),
    text("docker-password", "", "Password for Docker registry authentication"),
    text("docker-server", "https://index.docker.io/v1/", "Server location for Docker registry"),
    text("docker-username", "", "Username for Docker registry authentication"),
    list("from-file", "Key files can be specified using their file path."),
    switch("append-hash", "Append a hash of the secret to its name."),
];
command!(NAMESPACE, "namespace", ["ns"], "NAME [--dry-run=server|client|none] [options]", "Create a namespace with the specified name", [WRITE, OUTPUT], namespace);
command!(SERVICEACCOUNT, "serviceaccount", ["sa"], "NAME [--dry-run=server|client|none] [options]", "Create a service account with the specified name", [WRITE, OUTPUT], serviceaccount);

async fn namespace(session: &Session, args: &Args) -> Result<()> {
    let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": args.name()?}, "spec": {}, "status": {}});
    submit(session, args, "/api/v1", "namespaces", false, "namespace", object).await
}

async fn serviceaccount(session: &Session, args: &Args) -> Result<()> {
    let object = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": args.name()?}});
    submit(session, args, "/api/v1", "serviceaccounts", true, "serviceaccount", object).await
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|error| {
        let cause = if error.kind() == std::io::ErrorKind::NotFound { "no such file or directory".to_owned() } else { error.to_string() };
        Error::Message(format!("error reading {}: {cause}", path.display()))
    })
}

fn gather(args: &Args) -> Result<Vec<(String, Vec<u8>)>> {
    let mut found: Vec<(String, Vec<u8>)> = Vec::new();
    let mut add = |key: String, value: Vec<u8>| {
        if found.iter().any(|(known, _)| *known == key) {
            return fail(format!("cannot add key {key}, another key by that name already exists in Data"));
        }
        if key.is_empty() || !key.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')) {
            return fail(format!("{key:?} is not a valid key name: a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"));
        }
        found.push((key, value));
        Ok(())
    };
    for source in args.list("from-file") {
        let (key, path) = match source.split_once('=') {
            Some((key, path)) => (Some(key), Path::new(path)),
            None => (None, Path::new(source)),
        };
        if path.is_dir() {
            if key.is_some() {
                return fail("cannot give a key name for a directory path");
            }
            let mut entries: Vec<_> = std::fs::read_dir(path)?.collect::<std::io::Result<Vec<_>>>()?;
            entries.sort_by_key(std::fs::DirEntry::file_name);
            for entry in entries.into_iter().filter(|entry| entry.path().is_file()) {
                add(entry.file_name().to_string_lossy().into_owned(), read(&entry.path())?)?;
            }
        } else {
            let name = key.map(str::to_owned).unwrap_or_else(|| path.file_name().unwrap_or_default().to_string_lossy().into_owned());
            add(name, read(path)?)?;
        }
    }
    for literal in args.list("from-literal") {
        let Some((key, value)) = literal.split_once('=').filter(|(key, _)| !key.is_empty()) else {
            return fail(format!("invalid literal source {literal}, expected key=value"));
        };
        let value = value.strip_prefix(['"', '\'']).and_then(|inner| inner.strip_suffix(['"', '\''])).unwrap_or(value);
        add(key.to_owned(), value.as_bytes().to_vec())?;
    }
    for file in args.list("from-env-file") {
        for line in String::from_utf8_lossy(&read(Path::new(file))?).lines() {
            let line = line.trim_start();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (key, value) = match line.split_once('=') {
                Some((key, value)) => (key.to_owned(), value.to_owned()),
                None => (line.to_owned(), std::env::var(line).unwrap_or_default()),
            };
            add(key, value.into_bytes())?;
        }
    }
    Ok(found)
}

async fn configmap(session: &Session, args: &Args) -> Result<()> {
    let (mut data, mut binary) = (Map::new(), Map::new());
    for (key, value) in gather(args)? {
        match String::from_utf8(value) {
            Ok(text) => data.insert(key, text.into()),
            Err(error) => binary.insert(key, STANDARD.encode(error.into_bytes()).into()),
        };
    }
    let mut object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": args.name()?}});
    if !data.is_empty() {
        object["data"] = data.into();
    }
    if !binary.is_empty() {
        object["binaryData"] = binary.into();
    }
    submit(session, args, "/api/v1", "configmaps", true, "configmap", object).await
}

async fn secret(session: &Session, args: &Args, kind: &str, data: Vec<(String, Vec<u8>)>) -> Result<()> {
    let mut object = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": args.name()?}});
    if !kind.is_empty() {
        object["type"] = kind.into();
    }
    if !data.is_empty() {
        object["data"] = Value::Object(data.into_iter().map(|(key, value)| (key, STANDARD.encode(value).into())).collect());
    }
    submit(session, args, "/api/v1", "secrets", true, "secret", object).await
}

async fn generic(session: &Session, args: &Args) -> Result<()> {
    secret(session, args, args.text("type"), gather(args)?).await
}

async fn tls(session: &Session, args: &Args) -> Result<()> {
    let (Some(cert), Some(key)) = (args.given("cert"), args.given("key")) else { return fail("key and cert must be specified") };
    let data = vec![("tls.crt".to_owned(), read(Path::new(cert))?), ("tls.key".to_owned(), read(Path::new(key))?)];
    secret(session, args, "kubernetes.io/tls", data).await
}

async fn docker_registry(session: &Session, args: &Args) -> Result<()> {
    let data = if args.list("from-file").is_empty() {
        let (user, password, server) = (args.text("docker-username"), args.text("docker-password"), args.text("docker-server"));
        if user.is_empty() || password.is_empty() || server.is_empty() {
            return fail("either --from-file or the combination of --docker-username, --docker-password and --docker-server is required");
        }
        // In Go's order of the fields: the bytes of the Secret are upstream's.
        let fields = [("username", Some(user)), ("password", Some(password)), ("email", args.given("docker-email"))];
        let mut entry: String = fields.into_iter().filter_map(|(name, value)| Some(format!("\"{name}\":{},", json!(value?)))).collect();
        entry.push_str(&format!("\"auth\":{}", json!(STANDARD.encode(format!("{user}:{password}")))));
        vec![(".dockerconfigjson".to_owned(), format!("{{\"auths\":{{{}:{{{entry}}}}}}}", json!(server)).into_bytes())]
    } else {
        let mut found = gather(args)?;
        if let [(name, _)] = found.as_mut_slice() {
            *name = ".dockerconfigjson".to_owned();
        }
        found
    };
    secret(session, args, "kubernetes.io/dockerconfigjson", data).await
}
