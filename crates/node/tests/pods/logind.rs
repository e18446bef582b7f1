//! The machine shuts down: a system bus of this test's own, on which logind says so.

use std::io::{IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::mpsc;

use api::k8s::api::core::v1::Node;
use client::Informer;
use node::shutdown::dbus::{DESTINATION, INTERFACE, MEMBER, PATH, Type, Writer, message, parse};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde_json::json;

use crate::world::{PATIENCE, World, phase, ready, settings};

const MANAGER: &str = "org.freedesktop.login1.Manager";

/// What happens at logind's: who asks for what, and inhibitors (each the end of a pipe that the other end holds).
enum Seen {
    Asked(String),
    Inhibitor(std::io::PipeReader),
}

struct Logind {
    seen: mpsc::Receiver<Seen>,
    bus: UnixStream,
    serial: u32,
}

fn line(stream: &mut UnixStream, begin: &str) {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        bytes.push(byte[0]);
    }
    assert!(String::from_utf8_lossy(&bytes).trim_start_matches('\0').starts_with(begin), "{bytes:?}");
}

/// One client's calls, until it goes. logind waits five seconds at most, until it is told to read its configuration again.
fn serve(mut stream: UnixStream, drop_in: PathBuf, seen: &mpsc::Sender<Seen>) -> std::io::Result<()> {
    line(&mut stream, "AUTH EXTERNAL ");
    stream.write_all(b"OK 0123\r\n")?;
    line(&mut stream, "NEGOTIATE_UNIX_FD");
    stream.write_all(b"AGREE_UNIX_FD\r\n")?;
    line(&mut stream, "BEGIN");
    let mut longest = 5_000_000u64;
    loop {
        let mut head = [0; 16];
        stream.read_exact(&mut head)?;
        let number = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().unwrap()) as usize;
        let mut bytes = head.to_vec();
        bytes.resize((16 + number(12)).next_multiple_of(8) + number(4), 0);
        stream.read_exact(&mut bytes[16..])?;
        let call = parse(&bytes, vec![]).unwrap();
        let member = call.text(MEMBER).to_owned();
        let (mut body, mut signature, mut inhibitor) = (Writer::default(), "", None);
        match member.as_str() {
            "Hello" => {
                signature = "s";
                body.text(":1.7");
            }
            "Get" => {
                signature = "v";
                body.signature("t");
                body.u64(longest);
            }
            "KillUnit" => {
                let text = std::fs::read_to_string(&drop_in).unwrap();
                longest = text.trim().rsplit_once('=').unwrap().1.parse::<u64>().unwrap() * 1_000_000;
            }
            "Inhibit" => {
                let (reader, writer) = std::io::pipe().unwrap();
                seen.send(Seen::Inhibitor(reader)).unwrap();
                signature = "h";
                body.u32(0);
                inhibitor = Some(writer);
            }
            "AddMatch" => {}
            other => panic!("{other} of {}", call.text(DESTINATION)),
        }
        let answer = message(Type::Return, 1, &[], Some(call.serial), u32::from(inhibitor.is_some()), signature, &body.0);
        match &inhibitor {
            Some(inhibitor) => {
                let fds = [inhibitor.as_fd()];
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
                let mut ancillary = SendAncillaryBuffer::new(&mut space);
                assert!(ancillary.push(SendAncillaryMessage::ScmRights(&fds)));
                sendmsg(&stream, &[IoSlice::new(&answer)], &mut ancillary, SendFlags::empty())?;
            }
            None => stream.write_all(&answer)?,
        }
        seen.send(Seen::Asked(member)).unwrap();
    }
}

impl Logind {
    fn start(socket: PathBuf, drop_in: PathBuf) -> mpsc::Receiver<(UnixStream, mpsc::Receiver<Seen>)> {
        let listener = UnixListener::bind(socket).unwrap();
        let (came, clients) = mpsc::channel();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (sender, seen) = mpsc::channel();
                if came.send((stream.try_clone().unwrap(), seen)).is_err() {
                    return;
                }
                let drop_in = drop_in.clone();
                std::thread::spawn(move || {
                    let _ = serve(stream, drop_in, &sender);
                });
            }
        });
        clients
    }

    fn inhibitor(&self) -> std::io::PipeReader {
        loop {
            match self.seen.recv_timeout(PATIENCE).expect("an inhibitor") {
                Seen::Inhibitor(reader) => return reader,
                Seen::Asked(_) => {}
            }
        }
    }

    fn asked(&self, member: &str) {
        while !matches!(self.seen.recv_timeout(PATIENCE).expect("a call"), Seen::Asked(call) if call == member) {}
    }

    /// The machine is about to shut down, or will not after all.
    fn prepare_for_shutdown(&mut self, begins: bool) {
        self.serial += 1;
        let fields = [(PATH, "/org/freedesktop/login1"), (INTERFACE, MANAGER), (MEMBER, "PrepareForShutdown")];
        let mut body = Writer::default();
        body.u32(begins.into());
        self.bus.write_all(&message(Type::Signal, self.serial, &fields, None, 0, "b", &body.0)).unwrap();
    }
}

/// Blocking work of the test, off the runtime's threads.
async fn off<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::time::timeout(PATIENCE * 2, tokio::task::spawn_blocking(work)).await.expect("in time").expect("no panic")
}

pub async fn shuts_down(world: &mut World) {
    let clients = Logind::start(world.dir.join("bus"), world.dir.join("logind.conf.d/99-kubelet.conf"));
    world.restart_node_with(|config| config.settings = settings(json!({"shutdownGracePeriod": "50s", "shutdownGracePeriodCriticalPods": "25s", "evictionHard": {"memory.available": "0%"}})));
    let (mut logind, held) = off(move || {
        let (bus, seen) = clients.recv_timeout(PATIENCE).expect("the node connects");
        let logind = Logind { seen, bus, serial: 0 };
        let held = logind.inhibitor();
        logind.asked("AddMatch");
        (logind, held)
    })
    .await;
    let drop_in = std::fs::read_to_string(world.dir.join("logind.conf.d/99-kubelet.conf")).unwrap();
    assert_eq!(drop_in, "# Kubelet logind override\n# coracle's: its reset removes this file\n[Login]\nInhibitDelayMaxSec=50\n");

    // Each notes when it is told to end: the lesser ones first.
    let order = world.dir.join("order");
    std::fs::create_dir_all(&order).unwrap();
    let pod = |name: &str| {
        let mut container = crate::cases::sh(&format!("trap 'echo {name} >>/order/file; exit' TERM; while :; do sleep 0.1; done"));
        container["volumeMounts"] = json!([{"name": "order", "mountPath": "/order"}]);
        json!({"terminationGracePeriodSeconds": 20, "containers": [container], "volumes": [{"name": "order", "hostPath": {"path": order}}]})
    };
    let mut vital = pod("vital");
    vital["priorityClassName"] = json!("system-node-critical");
    world.create("vital", vital).await;
    world.create("plain", pod("plain")).await;
    for name in ["vital", "plain"] {
        world.until(name, "ready", ready).await;
    }
    logind.prepare_for_shutdown(true);

    let nodes = Informer::<Node>::of(&world.client, None).start();
    let says = |text: &'static str| {
        let nodes = &nodes;
        async move {
            let condition = |node: &Node| node.status.iter().flat_map(|s| s.conditions.iter().flatten()).any(|c| c.type_ == "Ready" && c.message.as_deref() == Some(text));
            tokio::time::timeout(PATIENCE, nodes.until(|cache| cache.get("", "node1").is_some_and(|node| condition(&node)))).await.unwrap_or_else(|_| panic!("the node does not say {text:?}"));
        }
    };
    says("node is shutting down").await;
    // The machine goes on when the pods have ended, not before.
    let order_then = {
        let (mut held, file) = (held, order.join("file"));
        off(move || {
            assert_eq!(held.read(&mut [0]).unwrap(), 0);
            std::fs::read_to_string(file).unwrap()
        })
        .await
    };
    assert_eq!(order_then, "plain\nvital\n");
    for name in ["plain", "vital"] {
        let pod = world.until(name, "failed", |pod| phase(pod) == "Failed").await;
        let status = pod.status.as_ref().unwrap();
        let message = "Pod was terminated in response to imminent node shutdown.";
        assert_eq!((status.reason.as_deref(), status.message.as_deref()), (Some("Terminated"), Some(message)));
        let target = status.conditions.iter().flatten().find(|c| c.type_ == "DisruptionTarget").expect("DisruptionTarget");
        assert_eq!((target.status.as_str(), target.reason.as_deref(), target.message.as_deref()), ("True", Some("TerminationByKubelet"), Some(message)));
    }
    world.create("late", json!({"containers": [crate::cases::sh("true")]})).await;
    let late = world.until("late", "rejected", |pod| phase(pod) == "Failed").await;
    let status = late.status.as_ref().unwrap();
    assert_eq!((status.reason.as_deref(), status.message.as_deref()), (Some("NodeShutdown"), Some("Pod was rejected: Pod was rejected as the node is shutting down.")));
    world.event("late", "NodeShutdown: Pod was rejected as the node is shutting down.").await;
    world.event("node1", "NodeShutdown: Shutdown manager detected shutdown event").await;
    let (_, metrics) = world.get("/metrics").await;
    let ended = metrics.lines().find_map(|line| line.strip_prefix("kubelet_graceful_shutdown_end_time_seconds ")).unwrap().parse::<f64>().unwrap();
    assert!(ended > 0.0);

    // After all it does not: the node is there again, and holds the next shutdown up too.
    logind.prepare_for_shutdown(false);
    says("kubelet is posting ready status").await;
    let (logind, _held) = off(move || {
        let held = logind.inhibitor();
        (logind, held)
    })
    .await;
    world.create("again", json!({"terminationGracePeriodSeconds": 0, "containers": [crate::cases::sh("sleep 1000")]})).await;
    world.until("again", "ready", ready).await;
    for name in ["plain", "vital", "late", "again"] {
        world.delete(name, 0).await;
        world.gone(name).await;
    }
    // The bus goes, and nobody minds.
    std::fs::remove_file(world.dir.join("bus")).unwrap();
    drop(logind);
    world.restart_node();
}
