//! What network policies cost: 1,000 pods on this node, 100 policies, cold and change by change. As root, in a network namespace of its own:
//! `cargo run --release -p node --example policies`.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Instant;

use network::PolicyTables;
use node::policy::Labels;
use node::policy::engine::{Engine, Key};
use node::policy::pods::Facts;
use node::policy::rules::Policy;
use serde_json::json;

const PODS: u32 = 1000;
const POLICIES: u32 = 100;
const CHANGES: u32 = 100;

fn key(name: String) -> Key {
    ("default".into(), name.into())
}

fn pod(i: u32, app: u32) -> Facts {
    let labels = Labels::from([("app".to_owned(), format!("app-{app}"))]);
    Facts { uid: i.to_string(), labels, addresses: vec![IpAddr::from(Ipv4Addr::from_bits(0x0af4_0002 + i))], ports: Vec::new(), local: true }
}

fn policy(i: u32, port: u32) -> Result<Policy, Box<dyn std::error::Error + Send + Sync>> {
    let app = |i: u32| json!({"matchLabels": {"app": format!("app-{}", i % POLICIES)}});
    let spec = json!({"podSelector": app(i), "ingress": [{"from": [{"podSelector": app(i + 1)}, {"podSelector": app(i + 2), "namespaceSelector": {}}], "ports": [{"port": port}]}]});
    let policy = serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "default"}, "spec": spec}))?;
    Policy::new(&policy).ok_or_else(|| "not understood".into())
}

fn measure() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let mut tables = PolicyTables::open(&["10.244.0.0/16".parse()?])?;
    let mut engine = Engine::default();
    let start = Instant::now();
    engine.set_namespace(&Arc::from("default"), Some(Labels::new()));
    for i in 0..PODS {
        engine.set_pod(&key(format!("pod-{i}")), Some(pod(i, i % POLICIES)));
    }
    for i in 0..POLICIES {
        engine.set_policy(&key(format!("policy-{i}")), Some(policy(i, 80)?));
    }
    let decided = start.elapsed();
    tables.program(&mut engine.state)?;
    println!("{PODS} pods, {POLICIES} policies, cold: {:?}, of which decided in {decided:?}", start.elapsed());
    let mut worst = [std::time::Duration::ZERO; 2];
    for i in 0..CHANGES {
        let start = Instant::now();
        engine.set_policy(&key(format!("policy-{}", i % POLICIES)), Some(policy(i, 81 + i)?));
        tables.program(&mut engine.state)?;
        worst[0] = worst[0].max(start.elapsed());
        let start = Instant::now();
        engine.set_pod(&key(format!("pod-{i}")), Some(pod(i, (i + 7) % POLICIES)));
        tables.program(&mut engine.state)?;
        worst[1] = worst[1].max(start.elapsed());
    }
    println!("the slowest of {CHANGES} changes: of a policy {:?}, of a pod's labels {:?}", worst[0], worst[1]);
    tables.reset()?;
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    network::netns::run_in(&network::netns::create()?, measure)?
}
