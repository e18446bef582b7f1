//! Plugins that are shell scripts: what each is told, in which order, and what is remembered.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use cni::{Attachment, Cni, NetworkList};
use serde_json::{Value, json};

/// Writes down what it is told. The first of the chain answers an address, the second what it was told the first had made.
const PLUGIN: &str = r#"#!/bin/sh
here=$(dirname "$0")
name=$(basename "$0")
printf '%s %s %s %s %s ' "$name" "$CNI_COMMAND" "$CNI_CONTAINERID" "$CNI_IFNAME" "$CNI_ARGS" >>"$here/log"
cat >>"$here/log"
echo >>"$here/log"
[ ! -e "$here/$name.fails" ] || { cat "$here/$name.fails"; exit 1; }
[ "$CNI_COMMAND" != ADD ] || echo '{"cniVersion":"1.1.0","interfaces":[{"name":"eth0","sandbox":"/x"}],"ips":[{"interface":0,"address":"10.9.0.7/24"}],"by":"'$name'"}'
"#;

struct World {
    folder: tempfile::TempDir,
    cni: Cni,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("tempdir");
        let programs = folder.path().join("bin");
        std::fs::create_dir(&programs).expect("folder");
        for name in ["first", "second"] {
            let path = programs.join(name);
            std::fs::write(&path, PLUGIN).expect("write");
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("mode");
        }
        let cni = Cni::open(vec![folder.path().join("nowhere"), programs], folder.path().join("records")).expect("open");
        Self { folder, cni }
    }

    fn list(version: &str) -> NetworkList {
        let text = json!({"cniVersion": version, "name": "net", "plugins": [{"type": "first", "mtu": 1400}, {"type": "second", "capabilities": {"portMappings": true, "bandwidth": true}}]});
        NetworkList::parse(Path::new("/nowhere/net.conflist"), text.to_string().as_bytes()).expect("list")
    }

    /// What was run since the last look: the words, and the configuration.
    fn log(&self) -> Vec<(String, Value)> {
        let path = self.folder.path().join("bin/log");
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let _ = std::fs::remove_file(path);
        text.lines().map(|line| line.split_once('{').expect("configuration")).map(|(words, config)| (words.trim().to_owned(), serde_json::from_str(&format!("{{{config}")).expect("JSON"))).collect()
    }

    fn words(&self) -> Vec<String> {
        self.log().into_iter().map(|(words, _)| words).collect()
    }

    fn fails(&self, name: &str, says: &str) {
        std::fs::write(self.folder.path().join(format!("bin/{name}.fails")), says).expect("write");
    }

    fn mends(&self, name: &str) {
        std::fs::remove_file(self.folder.path().join(format!("bin/{name}.fails"))).expect("remove");
    }
}

fn attachment(id: &str) -> Attachment {
    Attachment {
        container_id: id.into(),
        netns: "/proc/self/ns/net".into(),
        if_name: "eth0".into(),
        args: vec![("IgnoreUnknown".into(), "1".into()), ("K8S_POD_NAME".into(), "web".into())],
        capabilities: json!({"portMappings": [{"hostPort": 80, "containerPort": 8080, "protocol": "tcp"}], "ipRanges": []}).as_object().expect("object").clone(),
    }
}

#[tokio::test]
async fn from_add_to_del() {
    let world = World::new();
    let list = World::list("1.1.0");
    assert_eq!(world.cni.add(&list, attachment("a")).await.expect("add"), ["10.9.0.7".parse::<std::net::IpAddr>().expect("ip")]);
    let log = world.log();
    assert_eq!(log[0].0, "first ADD a eth0 IgnoreUnknown=1;K8S_POD_NAME=web");
    assert_eq!(log[0].1, json!({"type": "first", "mtu": 1400, "name": "net", "cniVersion": "1.1.0"}));
    assert_eq!(log[1].1["prevResult"]["by"], "first");
    assert_eq!(log[1].1["runtimeConfig"], json!({"portMappings": [{"hostPort": 80, "containerPort": 8080, "protocol": "tcp"}]}));
    assert_eq!(log[1].1.get("capabilities"), None);

    world.cni.check("a").await.expect("check");
    let log = world.log();
    assert_eq!((log.len(), &log[0].1["prevResult"]["by"]), (2, &json!("second")));
    world.cni.status(&list).await.expect("status");
    assert_eq!(world.words(), ["first STATUS", "second STATUS"]);

    // In reverse, with the last result, by a process that knows only the files; and once.
    let again = Cni::open(vec![world.folder.path().join("bin")], world.folder.path().join("records")).expect("open");
    again.del("a").await.expect("del");
    let log = world.log();
    assert_eq!(log.iter().map(|(words, _)| words.split(' ').next().expect("word")).collect::<Vec<_>>(), ["second", "first"]);
    assert_eq!((log[1].0.as_str(), &log[1].1["prevResult"]["by"]), ("first DEL a eth0 IgnoreUnknown=1;K8S_POD_NAME=web", &json!("second")));
    again.del("a").await.expect("del again");
    assert!(world.log().is_empty() && again.known().expect("known").is_empty());
}

#[tokio::test]
async fn what_fails_is_told_and_taken_back() {
    let world = World::new();
    let list = World::list("1.0.0");
    world.fails("second", r#"{"cniVersion":"1.0.0","code":11,"msg":"try again","details":"the lock is held"}"#);
    let error = world.cni.add(&list, attachment("a")).await.expect_err("add");
    assert_eq!(error.to_string(), r#"plugin type="second" name="net" failed (add): try again; the lock is held"#);
    assert!(world.cni.knows("a"), "it must be taken back");
    assert!(world.cni.del("a").await.is_err(), "not yet");
    world.mends("second");
    world.log();
    world.cni.del("a").await.expect("del");
    assert_eq!(world.log().iter().filter(|(_, config)| config.get("prevResult").is_some()).count(), 0, "there was no result");
    world.fails("first", "rubbish");
    let error = world.cni.add(&list, attachment("a")).await.expect_err("add").to_string();
    assert!(error.contains("rubbish"), "{error}");
    let mut missing = list.clone();
    missing.plugins[0].0.insert("type".into(), "third".into());
    let error = world.cni.add(&missing, attachment("b")).await.expect_err("add").to_string();
    assert!(error.contains(r#"failed to find plugin "third" in path ["#), "{error}");
    world.log();
    world.cni.status(&list).await.expect("before 1.1.0 nobody is asked");
    assert!(world.log().is_empty());
}

#[tokio::test]
async fn what_is_left_over_is_given_back() {
    let world = World::new();
    let list = World::list("1.1.0");
    for id in ["a", "b"] {
        world.cni.add(&list, attachment(id)).await.expect("add");
    }
    world.log();
    world.cni.retain(Some(&list), |id| id == "a").await.expect("retain");
    let log = world.log();
    let words: Vec<&str> = log.iter().map(|(words, _)| words.as_str()).collect();
    assert_eq!(words, ["second DEL b eth0 IgnoreUnknown=1;K8S_POD_NAME=web", "first DEL b eth0 IgnoreUnknown=1;K8S_POD_NAME=web", "first GC", "second GC"]);
    assert_eq!(log[3].1["cni.dev/valid-attachments"], json!([{"containerID": "a", "ifname": "eth0"}]));
}
