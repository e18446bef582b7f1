//! Services between pods of two nodes: servers on `--server-node`, clients on each `--client-node` in turns, and so many Services in the cluster.
//!
//! Each client's node has a Service proxy of its own: `lab-services.sh` makes a lab in which some have upstream's kube-proxy. All see the same Services, so the only
//! difference is who translates a client's packets. The pods run this program, and are there all the time: what starting one costs disturbs nobody. Turns are short
//! and in an order in which nobody is favoured (`turns.rs`). Nothing is waited for without a limit.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use api::Object;
use api::k8s::api::core::v1::{Pod, Service};
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use http::Method;
use serde_json::{Value, json};

use crate::cluster::{Cluster, target};
use crate::in_pod::CLIENT_PORT;
use crate::measure::Figure;
use crate::through::{LONG_PORT, Load, SHORT_PORT, TRY, program};
use crate::turns::{self, order};
use crate::{BenchError, Options};

/// Every node of Coracle has it.
const IMAGE: &str = "coracle.dev/coracle";
const SERVERS: usize = 2;
const SERVICE_PORT: u16 = 80;
/// Connections go to so many Services in turns, from the first to the last: where rules are in a row, each has another place in it.
const SPREAD: u32 = 10;
/// Requests under way at one time.
const AT_ONCE: usize = 64;
/// Short, so that the turns of several nodes are close to one another.
const LOAD: Load = Load { connections: 2000, carry: Duration::from_millis(200) };
/// Nobody's figures: files and caches become warm.
const WARM_UP_ROUNDS: usize = 2;
/// A client answers much earlier, also when its connections fail one after the other.
const TURN_LIMIT: Duration = Duration::from_secs(60);
/// For whoever programs the Services to do so: kube-proxy takes minutes for 10,000 of them.
const PATIENCE: Duration = Duration::from_secs(900);

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
}

impl Bench<'_> {
    /// Until it runs and has an address.
    async fn start(&self, name: &str, node: &str, words: &[&str]) -> Result<IpAddr, BenchError> {
        let pods = target("", "pods", Some(&self.cluster.namespace), None);
        self.cluster.create(&pods, pod(name, node, words)).await?;
        let mut address: Option<IpAddr> = None;
        let mut ended = false;
        self.cluster
            .until(&pods, &format!("metadata.name={name}"), |object, gone| {
                address = object.typed::<Pod>().ok().and_then(|pod| pod.status.as_ref()?.pod_ip.as_deref()?.parse().ok());
                let phase = phase(object);
                ended = gone || matches!(phase.as_deref(), Some("Succeeded" | "Failed"));
                ended || (address.is_some() && phase.as_deref() == Some("Running"))
            })
            .await?;
        address.filter(|_| !ended).ok_or_else(|| BenchError::Strange(format!("the pod {name} on {node} ended")))
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

    /// The client on that node, by way of the API server.
    async fn ask<T: serde::de::DeserializeOwned>(&self, node: &str, question: &str) -> Result<T, BenchError> {
        let path = format!("/api/v1/namespaces/{}/pods/{}:{CLIENT_PORT}/proxy/{question}", self.cluster.namespace, client(node));
        let asked = async {
            let response = self.cluster.clients[0].request(Method::GET, &path, &[], Bytes::new()).await?;
            let status = response.status;
            Ok::<_, BenchError>((status, response.bytes().await?))
        };
        let (status, body) = tokio::time::timeout(TURN_LIMIT, asked).await.map_err(|_| BenchError::Strange(format!("the client on {node} said nothing for {TURN_LIMIT:?}")))??;
        let strange = || BenchError::Strange(format!("the client on {node}: {status} {}", String::from_utf8_lossy(&body)));
        serde_json::from_slice(&body).ok().filter(|_| status == 200).ok_or_else(strange)
    }

    /// Until what programs the Services of every client's node has done so. What is awaited is another program's rules, which nobody tells of.
    async fn programmed(&self, to: &[SocketAddr]) -> Result<(), BenchError> {
        let begun = Instant::now();
        for node in self.client_nodes {
            for to in to {
                while !self.ask::<bool>(node, &format!("answers?to={to}")).await? {
                    if begun.elapsed() > PATIENCE {
                        return Err(BenchError::Strange(format!("{to} was not to be reached from {node} for {PATIENCE:?}")));
                    }
                    tokio::time::sleep(TRY).await;
                }
            }
        }
        Ok(())
    }

    async fn rounds(&self, rounds: usize, with: &str, to: &[SocketAddr]) -> Result<Vec<Figure>, BenchError> {
        let nodes = self.client_nodes;
        let to = to.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(",");
        let question = format!("measure?connections={}&carry={}&to={to}", LOAD.connections, LOAD.carry.as_millis());
        let mut figures = Vec::new();
        for round in 0..WARM_UP_ROUNDS + rounds.max(1) {
            for turn in order(round, nodes.len()) {
                let node = &nodes[turn];
                let said: Vec<Figure> = self.ask(node, &question).await?;
                if round >= WARM_UP_ROUNDS {
                    figures.extend(said.into_iter().map(|figure| Figure { what: format!("{}{with}", figure.what), cluster: node.clone(), ..figure }));
                }
            }
        }
        let medians = turns::medians(&figures, &nodes[0]);
        // Whatever comes of the next ones, and of removing ten thousand Services: these are there.
        eprint!("{}", crate::report::table(&medians, &nodes[0]));
        Ok(medians)
    }
}

fn client(node: &str) -> String {
    format!("client-{node}")
}

async fn measured(options: &Options, cluster: &Cluster) -> Result<Vec<Figure>, BenchError> {
    let server_node = options.server_node.as_deref().ok_or(BenchError::Needs("pod-services", "--server-node and --client-node"))?;
    let mut bench = Bench { cluster, client_nodes: &options.client_node, servers: Vec::new() };
    for number in 0..SERVERS {
        let address = bench.start(&format!("server-{number}"), server_node, &["answer"]).await?;
        bench.servers.push(address);
    }
    for node in bench.client_nodes {
        bench.start(&client(node), node, &["through"]).await?;
    }
    let first = *bench.servers.first().ok_or_else(|| BenchError::Ended("the servers".into()))?;
    let direct = [SHORT_PORT, LONG_PORT].map(|port| SocketAddr::new(first, port));
    bench.programmed(&direct).await?;
    let mut figures = bench.rounds(options.rounds, "no service", &direct).await?;
    let mut there = 0;
    let mut counts: Vec<u32> = options.services.iter().copied().filter(|count| *count > 1).map(|count| count.next_multiple_of(2)).collect();
    counts.sort_unstable();
    for count in counts {
        bench.add(there, count).await?;
        let mut to = Vec::new();
        for number in spread(count).chain([count - 1]) {
            to.push(bench.cluster_ip(number).await?);
        }
        bench.programmed(&to).await?;
        // kube-proxy programs what came meanwhile, one lot after the other: when one more is there, nothing is left to do.
        bench.add(count, count + 1).await?;
        bench.programmed(&[bench.cluster_ip(count).await?]).await?;
        there = count + 1;
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
