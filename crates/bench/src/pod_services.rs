//! Services between pods of two nodes: servers on `--server-node`, clients on each `--client-node` in turns, and so many Services in the cluster.
//!
//! Each client's node has a Service proxy of its own: `lab-services.sh` makes a lab in which some have upstream's kube-proxy. All see the same Services, so the only
//! difference is who translates a client's packets. The pods run this program.

use std::net::{IpAddr, SocketAddr};

use api::Object;
use api::k8s::api::core::v1::{Pod, Service};
use bytes::Bytes;
use client::DeleteOptions;
use futures_util::{StreamExt, TryStreamExt, stream};
use http::Method;
use serde_json::{Value, json};

use crate::cluster::{Cluster, target};
use crate::measure::Figure;
use crate::through::{LONG_PORT, SHORT_PORT, program};
use crate::{BenchError, Options};

/// Every node of Coracle has it.
const IMAGE: &str = "coracle.dev/coracle";
const SERVERS: usize = 2;
const SERVICE_PORT: u16 = 80;
/// Connections go to so many Services in turns, from the first to the last: where rules are in a row, each has another place in it.
const SPREAD: u32 = 10;
/// Requests under way at one time.
const AT_ONCE: usize = 64;

/// Those with an even number lead to `SHORT_PORT`, the others to `LONG_PORT`.
fn objects(number: u32, servers: &[IpAddr]) -> (Value, Value) {
    let name = format!("service-{number}");
    let port = if number % 2 == 0 { SHORT_PORT } else { LONG_PORT };
    let family = if servers.iter().all(IpAddr::is_ipv4) { "IPv4" } else { "IPv6" };
    let endpoints: Vec<Value> = servers.iter().map(|address| json!({"addresses": [address], "conditions": {"ready": true}})).collect();
    (
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": {"ports": [{"port": SERVICE_PORT}]}}),
        json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": {"name": name, "labels": {"kubernetes.io/service-name": name}},
            "addressType": family, "ports": [{"name": "", "port": port, "protocol": "TCP"}], "endpoints": endpoints}),
    )
}

/// Some that lead to `SHORT_PORT`, the last of them among these.
fn spread(count: u32) -> impl Iterator<Item = u32> {
    let pairs = count / 2;
    let some = pairs.min(SPREAD);
    (1..=some).map(move |place| (pairs * place / some - 1) * 2)
}

fn pod(name: &str, node: &str, words: &[&str]) -> Value {
    let arguments = [&["bench", "--only"], words].concat();
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"nodeName": node, "restartPolicy": "Never", "terminationGracePeriodSeconds": 0,
        "automountServiceAccountToken": false, "enableServiceLinks": false, "tolerations": [{"operator": "Exists"}],
        "containers": [{"name": "bench", "image": IMAGE, "imagePullPolicy": "IfNotPresent", "args": arguments}]}})
}

fn phase(object: &Object) -> Option<String> {
    object.typed::<Pod>().ok()?.status.as_ref()?.phase.clone()
}

struct Bench<'a> {
    cluster: &'a Cluster,
    client_nodes: &'a [String],
    servers: Vec<IpAddr>,
    pods: usize,
}

impl Bench<'_> {
    async fn server(&mut self, node: &str) -> Result<(), BenchError> {
        let pods = target("", "pods", Some(&self.cluster.namespace), None);
        let name = format!("server-{}", self.servers.len());
        self.cluster.create(&pods, pod(&name, node, &["answer"])).await?;
        let mut address: Option<IpAddr> = None;
        self.cluster
            .until(&pods, &format!("metadata.name={name}"), |object, _| {
                address = object.typed::<Pod>().ok().and_then(|pod| pod.status.as_ref()?.pod_ip.as_deref()?.parse().ok());
                address.is_some() && phase(object).as_deref() == Some("Running")
            })
            .await?;
        self.servers.extend(address);
        Ok(())
    }

    /// Services `from..to`.
    async fn add(&self, from: u32, to: u32) -> Result<(), BenchError> {
        let namespace = Some(self.cluster.namespace.as_str());
        let (services, slices) = (target("", "services", namespace, None), target("discovery.k8s.io", "endpointslices", namespace, None));
        stream::iter((from..to).map(|number| {
            let (service, slice) = objects(number, &self.servers);
            let (services, slices) = (&services, &slices);
            async move {
                self.cluster.create(slices, slice).await?;
                self.cluster.create(services, service).await.map(drop)
            }
        }))
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await
    }

    async fn cluster_ip(&self, number: u32) -> Result<SocketAddr, BenchError> {
        let name = format!("service-{number}");
        let mut address: Option<IpAddr> = None;
        let read = |object: &Object| object.typed::<Service>().ok().and_then(|service| service.spec.as_ref()?.cluster_ip.as_deref()?.parse().ok());
        self.cluster
            .until(&target("", "services", Some(&self.cluster.namespace), None), &format!("metadata.name={name}"), |object, _| {
                address = read(object);
                address.is_some()
            })
            .await?;
        Ok(SocketAddr::new(address.ok_or(BenchError::Ended(name))?, SERVICE_PORT))
    }

    /// In a pod on that node.
    async fn client(&mut self, node: &str, with: &str, to: &[SocketAddr]) -> Result<Vec<Figure>, BenchError> {
        self.pods += 1;
        let name = format!("client-{}", self.pods);
        let namespace = Some(self.cluster.namespace.as_str());
        let pods = target("", "pods", namespace, None);
        let to = to.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(",");
        self.cluster.create(&pods, pod(&name, node, &["through", "--json", "--to", &to])).await?;
        let mut good = false;
        self.cluster
            .until(&pods, &format!("metadata.name={name}"), |object, gone| {
                let phase = phase(object);
                good = phase.as_deref() == Some("Succeeded");
                gone || good || phase.as_deref() == Some("Failed")
            })
            .await?;
        let log = self.log(&name).await?;
        if !good {
            return Err(BenchError::Strange(format!("the pod on {node}: {}", log.trim())));
        }
        self.cluster.delete(&target("", "pods", namespace, Some(&name)), &DeleteOptions { grace_period_seconds: Some(0), ..DeleteOptions::default() }).await?;
        #[derive(serde::Deserialize)]
        struct Said {
            figures: Vec<Figure>,
        }
        let said: Said = serde_json::from_str(&log).map_err(|error| BenchError::Strange(format!("{error}: {log}")))?;
        let named = |figure: Figure| Figure { what: figure.what.replace("this way", with), cluster: node.to_owned(), ..figure };
        Ok(said.figures.into_iter().map(named).collect())
    }

    async fn log(&self, pod: &str) -> Result<String, BenchError> {
        let path = format!("/api/v1/namespaces/{}/pods/{pod}/log", self.cluster.namespace);
        let client = &self.cluster.clients[0];
        let mut response = client.request(Method::GET, &path, &[], Bytes::new()).await?;
        let mut text = Vec::new();
        while let Some(chunk) = response.chunk().await {
            text.extend_from_slice(&chunk?);
        }
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// From every client's node in turns, another one first in each round, so that what changes in the meantime decides nothing.
    async fn rounds(&mut self, rounds: usize, with: &str, to: &[SocketAddr]) -> Result<Vec<Figure>, BenchError> {
        let nodes = self.client_nodes;
        for node in nodes {
            // Whoever programs it has done so when this returns, and the node's files and caches are warm.
            self.client(node, with, to).await?;
        }
        let mut figures = Vec::new();
        for round in 0..rounds.max(1) {
            for turn in 0..nodes.len() {
                figures.extend(self.client(&nodes[(round + turn) % nodes.len()], with, to).await?);
            }
        }
        Ok(figures)
    }
}

async fn measured(options: &Options, cluster: &Cluster) -> Result<Vec<Figure>, BenchError> {
    let server_node = options.server_node.as_deref().ok_or(BenchError::Needs("pod-services", "--server-node and --client-node"))?;
    let mut bench = Bench { cluster, client_nodes: &options.client_node, servers: Vec::new(), pods: 0 };
    for _ in 0..SERVERS {
        bench.server(server_node).await?;
    }
    let first = *bench.servers.first().ok_or_else(|| BenchError::Ended("the servers".into()))?;
    let mut figures = bench.rounds(options.rounds, "no service", &[SHORT_PORT, LONG_PORT].map(|port| SocketAddr::new(first, port))).await?;
    let mut there = 0;
    let mut counts: Vec<u32> = options.services.iter().copied().filter(|count| *count > 1).map(|count| count.next_multiple_of(2)).collect();
    counts.sort_unstable();
    for count in counts {
        bench.add(there, count).await?;
        there = count;
        let mut to = Vec::new();
        for number in spread(count).chain([count - 1]) {
            to.push(bench.cluster_ip(number).await?);
        }
        figures.extend(bench.rounds(options.rounds, &format!("{count} services"), &to).await?);
    }
    Ok(figures)
}

pub async fn run(options: &Options) -> Result<Vec<Figure>, BenchError> {
    let Some(first) = options.client_node.first() else { return Err(BenchError::Needs("pod-services", "--server-node and --client-node")) };
    let cluster = Cluster::open(first, options.kubeconfig.as_deref(), 1, Vec::new()).await?;
    let figures = tokio::select! {
        figures = measured(options, &cluster) => figures,
        asked = tokio::signal::ctrl_c() => Err(asked.map_or_else(program("wait for a signal"), |()| BenchError::Ended("this measurement".into()))),
    };
    cluster.close().await?;
    figures
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_of_many() {
        assert_eq!(spread(4).collect::<Vec<_>>(), [0, 2]);
        assert_eq!(spread(10_000).collect::<Vec<_>>(), [998, 1998, 2998, 3998, 4998, 5998, 6998, 7998, 8998, 9998]);
    }

    #[test]
    fn services_lead_to_servers() {
        let (service, slice) = objects(7, &["10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap()]);
        assert_eq!(service["metadata"]["name"], slice["metadata"]["labels"]["kubernetes.io/service-name"]);
        assert_eq!((&slice["ports"][0]["port"], &slice["addressType"]), (&json!(LONG_PORT), &json!("IPv4")));
        assert_eq!(slice["endpoints"][1]["addresses"][0], "10.0.0.2");
    }
}
