//! Encryption at rest through the real server and a store on the disk: what lies there, what clients see, keys that change.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};
use server::{Encryption, follow_encryption};
use store::{Embedded, Sealing, Store};
use tokio::sync::watch;

use crate::harness::{CONFIG_MAPS, Server, config_map};

pub const SECRETS: &str = "/api/v1/namespaces/default/secrets";
const KEY1: &str = "{name: key1, secret: MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=}";
const KEY2: &str = "{name: key2, secret: ZmVkY2JhOTg3NjU0MzIxMGZlZGNiYTk4NzY1NDMyMTA=}";

pub fn write(file: &Path, providers: &str) {
    let text = format!("apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n- resources: [secrets]\n  providers:\n{providers}");
    // As an administrator's tools do: the file is whole at any moment.
    let beside = file.with_extension("new");
    std::fs::write(&beside, text).unwrap();
    std::fs::rename(beside, file).unwrap();
}

pub async fn open(folder: &Path, encryption: Option<&Arc<Encryption>>) -> Result<Arc<dyn Store>, String> {
    let mut config = store::Config::new(folder.join("store"));
    if let Some(encryption) = encryption {
        config.sealing = Sealing::with(encryption.clone());
    }
    loop {
        match Embedded::open(config.clone()) {
            Ok(store) => return Ok(Arc::new(store)),
            // The server before lets go of it as its tasks end.
            Err(store::OpenError::Locked { .. }) => tokio::task::yield_now().await,
            Err(error) => return Err(error.to_string()),
        }
    }
}

/// Whether any file of the store holds these bytes.
pub fn holds(folder: &Path, wanted: &[u8]) -> bool {
    std::fs::read_dir(folder.join("store")).unwrap().any(|entry| std::fs::read(entry.unwrap().path()).is_ok_and(|bytes| bytes.windows(wanted.len()).any(|window| window == wanted)))
}

pub fn secret(name: &str) -> Value {
    json!({"metadata": {"name": name}, "stringData": {"password": "correct-horse-battery"}})
}

// What `correct-horse-battery` is in base64: the way it would lie open.
pub const OPEN: &[u8] = b"Y29ycmVjdC1ob3JzZS1iYXR0ZXJ5";

#[tokio::test]
async fn secrets_lie_sealed_and_are_read_by_whoever_may() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("encryption.yaml");
    write(&file, &format!("  - aescbc: {{keys: [{KEY1}]}}\n  - identity: {{}}\n"));
    let encryption = Encryption::open(&file).unwrap();
    {
        let server = Server::start_over(open(folder.path(), Some(&encryption)).await.unwrap(), |_| {}).await;
        let mut events = server.watch(&format!("{SECRETS}?watch=true&resourceVersion={}", server.store.revision())).await;
        server.post(SECRETS, secret("a")).await.expect(201);
        server.post(CONFIG_MAPS, config_map("open")).await.expect(201);
        let seen = events.next().await.unwrap();
        for object in [server.get(&format!("{SECRETS}/a")).await.expect(200).json(), server.get(SECRETS).await.json()["items"][0].clone(), seen["object"].clone()] {
            assert_eq!(object["data"]["password"].as_str().map(str::as_bytes), Some(OPEN));
        }
    }
    assert!(holds(folder.path(), b"k8s:enc:aescbc:v1:key1:") && !holds(folder.path(), OPEN));
    assert!(holds(folder.path(), br#""data":{"k":"v"}"#), "what is not named lies open");
    // Without the key nothing is served, and it is told why.
    let refused = open(folder.path(), None).await.map(drop).unwrap_err();
    assert!(refused.contains("/registry/secrets/default/a cannot be read") && refused.contains("--encryption-provider-config"), "{refused}");
    write(&file, &format!("  - aescbc: {{keys: [{KEY2}]}}\n"));
    let refused = open(folder.path(), Some(&Encryption::open(&file).unwrap())).await.map(drop).unwrap_err();
    assert!(refused.contains("no matching key was found for the provided AES transformer"), "{refused}");
    let server = Server::start_over(open(folder.path(), Some(&encryption)).await.unwrap(), |_| {}).await;
    assert_eq!(server.get(&format!("{SECRETS}/a")).await.expect(200).json()["data"]["password"].as_str().map(str::as_bytes), Some(OPEN));
}

#[tokio::test]
async fn another_key_seals_everything_anew_while_the_server_runs() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("encryption.yaml");
    write(&file, "  - identity: {}\n");
    let encryption = Encryption::open(&file).unwrap();
    let store = open(folder.path(), Some(&encryption)).await.unwrap();
    let (_stop, stopped) = watch::channel(false);
    tokio::spawn(follow_encryption(encryption.clone(), store.clone(), stopped));
    let server = Server::start_over(store.clone(), |_| {}).await;
    server.post(SECRETS, secret("a")).await.expect(201);
    assert!(holds(folder.path(), OPEN));
    let version = server.get(&format!("{SECRETS}/a")).await.json()["metadata"]["resourceVersion"].clone();
    for (providers, wanted, gone) in [
        (format!("  - secretbox: {{keys: [{KEY1}]}}\n  - identity: {{}}\n"), &b"k8s:enc:secretbox:v1:key1:"[..], OPEN),
        (format!("  - aesgcm: {{keys: [{KEY2}]}}\n  - secretbox: {{keys: [{KEY1}]}}\n"), b"k8s:enc:aesgcm:v1:key2:", b"k8s:enc:secretbox:"),
    ] {
        write(&file, &providers);
        while !holds(folder.path(), wanted) || holds(folder.path(), gone) {
            tokio::task::yield_now().await;
        }
    }
    // A file that is wrong changes nothing.
    write(&file, "  - kms: {name: k}\n");
    while !encryption.metrics().contains("apiserver_encryption_config_controller_automatic_reloads_total{status=\"failure\"") {
        tokio::task::yield_now().await;
    }
    server.post(SECRETS, secret("b")).await.expect(201);
    assert!(!holds(folder.path(), OPEN));
    assert_eq!(server.get(&format!("{SECRETS}/a")).await.json()["metadata"]["resourceVersion"], version, "it was not written for that");
}

#[tokio::test]
async fn what_lies_under_an_old_key_is_sealed_anew_at_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("encryption.yaml");
    write(&file, &format!("  - aescbc: {{keys: [{KEY1}]}}\n"));
    {
        let server = Server::start_over(open(folder.path(), Some(&Encryption::open(&file).unwrap())).await.unwrap(), |_| {}).await;
        server.post(SECRETS, secret("a")).await.expect(201);
    }
    write(&file, &format!("  - aescbc: {{keys: [{KEY2}, {KEY1}]}}\n"));
    let store = open(folder.path(), Some(&Encryption::open(&file).unwrap())).await.unwrap();
    while holds(folder.path(), b"k8s:enc:aescbc:v1:key1:") {
        tokio::task::yield_now().await;
    }
    assert!(holds(folder.path(), b"k8s:enc:aescbc:v1:key2:"));
    drop(store);
    // From now on the old key is not needed any more.
    write(&file, &format!("  - aescbc: {{keys: [{KEY2}]}}\n"));
    assert!(open(folder.path(), Some(&Encryption::open(&file).unwrap())).await.is_ok());
}
