//! Names: questions for Services over UDP, as fast as they are answered, from this machine. Whoever asks is on the same processors as the server, so it works
//! in batches and is as cheap as can be.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use api::k8s::api::core::v1::Service;
use dns::udp::{self, Batch};
use serde_json::json;

use crate::BenchError;
use crate::cluster::{Cluster, target};
use crate::measure::{Figure, Stopwatch};

const PORT: u16 = 53;
/// Asked for in turns.
const SERVICES: usize = 100;
/// Threads, each with a socket of its own.
const ASKERS: usize = 2;
/// Questions of an asker that are under way at one time: one batch.
const WINDOW: usize = udp::BATCH;
const SECONDS: u64 = 10;
/// A question that is not answered by then is lost and asked anew.
const LOST: Duration = Duration::from_millis(500);
/// Until a new Service has its name.
const NAMED: Duration = Duration::from_secs(30);
const CODE_MASK: u8 = 0x0f;

fn question(id: u16, name: &str) -> Vec<u8> {
    let mut message = id.to_be_bytes().to_vec();
    message.extend_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        message.push(label.len() as u8);
        message.extend_from_slice(label.as_bytes());
    }
    message.extend_from_slice(&[0, 0, 1, 0, 1]);
    message
}

/// Whether it has an address.
fn is_good(answer: &[u8]) -> bool {
    answer.len() > 12 && answer[3] & CODE_MASK == 0 && answer[7] > 0
}

/// Of one asker.
#[derive(Default)]
struct Tally {
    answered: usize,
    failed: usize,
    latencies: Vec<Duration>,
}

fn program(action: &'static str) -> impl Fn(std::io::Error) -> BenchError {
    move |error| BenchError::Program { action, error }
}

/// Asks until it is told to stop. Each question's number is its place in the window.
fn ask(server: SocketAddr, names: &[String], stop: &AtomicBool) -> Result<Tally, BenchError> {
    let any: IpAddr = if server.is_ipv4() { [0; 4].into() } else { [0u16; 8].into() };
    let socket = udp::bind((any, 0).into()).map_err(program("open a socket"))?;
    let questions: Vec<Vec<u8>> = names.iter().map(|name| question(0, name)).collect();
    let mut sent = [Instant::now(); WINDOW];
    let mut next = 0;
    let mut tally = Tally::default();
    let mut write = |place: usize, sent: &mut [Instant; WINDOW], buffer: &mut Vec<u8>| {
        next = (next + 1) % questions.len();
        buffer.clear();
        buffer.extend_from_slice(&questions[next]);
        buffer[..2].copy_from_slice(&(place as u16).to_be_bytes());
        sent[place] = Instant::now();
    };
    let mut buffer = Vec::new();
    for place in 0..WINDOW {
        write(place, &mut sent, &mut buffer);
        socket.send_to(&buffer, server).map_err(program("ask"))?;
    }
    let mut batch = Batch::new(udp::QUESTION_BYTES_MAX);
    while !stop.load(Ordering::Relaxed) {
        let count = match batch.receive(&socket) {
            Ok(count) => count,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                if !udp::wait_at_most(&socket, LOST).map_err(program("wait"))? {
                    for place in 0..WINDOW {
                        tally.failed += 1;
                        write(place, &mut sent, &mut buffer);
                        socket.send_to(&buffer, server).map_err(program("ask"))?;
                    }
                }
                continue;
            }
            Err(error) => return Err(program("listen")(error)),
        };
        for i in 0..count {
            let (answer, again) = batch.turn(i);
            again.clear();
            let place = answer.get(..2).map_or(WINDOW, |id| usize::from(u16::from_be_bytes([id[0], id[1]])));
            if place >= WINDOW {
                continue;
            }
            tally.latencies.push(sent[place].elapsed());
            if is_good(answer) {
                tally.answered += 1;
            } else {
                tally.failed += 1;
            }
            write(place, &mut sent, again);
        }
        batch.send(&socket, count);
    }
    Ok(tally)
}

/// Until all names are known: the last Service's is the last to come.
fn until_named(server: SocketAddr, name: &str) -> Result<(), BenchError> {
    let any: IpAddr = if server.is_ipv4() { [0; 4].into() } else { [0u16; 8].into() };
    let socket = UdpSocket::bind((any, 0)).map_err(program("open a socket"))?;
    socket.connect(server).map_err(program("reach the name server"))?;
    socket.set_read_timeout(Some(LOST)).map_err(program("open a socket"))?;
    let begun = Instant::now();
    let mut answer = [0; udp::QUESTION_BYTES_MAX];
    while begun.elapsed() < NAMED {
        let _ = socket.send(&question(1, name));
        if socket.recv(&mut answer).is_ok_and(|length| is_good(&answer[..length])) {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Err(BenchError::Strange(format!("{server} does not know {name}\nhint: run this on a node of the cluster, or name a server with --dns-server")))
}

pub async fn run(cluster: &Cluster, server: Option<IpAddr>) -> Result<Figure, BenchError> {
    let server = match server {
        Some(server) => server,
        None => cluster_dns(cluster).await?,
    };
    let server = SocketAddr::new(server, PORT);
    let services = target("", "services", Some(&cluster.namespace), None);
    let mut names = Vec::new();
    for number in 0..SERVICES {
        let name = format!("name-{number}");
        cluster.create(&services, json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": {"ports": [{"port": 80}]}})).await?;
        names.push(format!("{name}.{}.svc.cluster.local", cluster.namespace));
    }
    let last = names.last().cloned().unwrap_or_default();
    tokio::task::spawn_blocking(move || until_named(server, &last)).await.map_err(|error| BenchError::Strange(error.to_string()))??;
    let (names, stop) = (Arc::new(names), Arc::new(AtomicBool::new(false)));
    let watch = Stopwatch::start(&cluster.pids);
    let askers: Vec<_> = (0..ASKERS)
        .map(|_| {
            let (names, stop) = (names.clone(), stop.clone());
            tokio::task::spawn_blocking(move || ask(server, &names, &stop))
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(SECONDS)).await;
    stop.store(true, Ordering::Relaxed);
    let mut all = Tally::default();
    for asker in askers {
        let one = asker.await.map_err(|error| BenchError::Strange(error.to_string()))??;
        all.answered += one.answered;
        all.failed += one.failed;
        all.latencies.extend(one.latencies);
    }
    Ok(watch.figure("DNS question, UDP", &cluster.name, all.answered, all.failed, all.latencies))
}

async fn cluster_dns(cluster: &Cluster) -> Result<IpAddr, BenchError> {
    let services = target("", "services", Some("kube-system"), None);
    let mut found = None;
    cluster
        .until(&services, "metadata.name=kube-dns", |object, _| {
            found = object.typed::<Service>().ok().and_then(|service| service.spec.as_ref()?.cluster_ip.as_deref()?.parse().ok());
            true
        })
        .await?;
    found.ok_or_else(|| BenchError::Strange("the Service kube-system/kube-dns has no address".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_and_answers() {
        let asked = question(7, "a.bc");
        assert_eq!(asked[..2], [0, 7]);
        assert_eq!(asked[12..], *b"\x01a\x02bc\0\0\x01\0\x01");
        let mut answer = asked.clone();
        assert!(!is_good(&answer), "no address");
        answer[7] = 1;
        assert!(is_good(&answer));
        answer[3] |= 3;
        assert!(!is_good(&answer), "no such name");
    }
}
