//! What is read from containers and said to them: logs, exec, attach and ports, over WebSockets and SPDY.

use std::time::Instant;

use serde_json::json;

use super::{logged, sh};
use crate::world::{PATIENCE, World, phase, ready};

pub async fn logs(world: &mut World) {
    let spec = json!({"terminationGracePeriodSeconds": 1, "restartPolicy": "Never", "containers": [sh("echo one; echo two; echo three; while ! test -e /tmp/go; do sleep 0.05; done; echo four; exit 1")]});
    world.create("logs", spec).await;
    let pod = world.until("logs", "ready", ready).await;
    logged(world, &pod, "three\n").await;
    let path = |query: &str| format!("/containerLogs/default/logs/c?{query}");
    assert_eq!(world.get(&path("")).await, (200, "one\ntwo\nthree\n".to_owned()));
    assert_eq!(world.get(&path("tailLines=1")).await.1, "three\n");
    assert_eq!(world.get(&path("limitBytes=5")).await.1, "one\nt");
    let stamped = world.get(&path("timestamps=true&tailLines=1")).await.1;
    assert!(stamped.ends_with("Z three\n"), "{stamped}");
    let (status, text) = world.get(&path("previous=true")).await;
    assert!(status == 400 && text.contains("previous terminated container \\\"c\\\" in pod \\\"logs\\\" not found"), "{status} {text}");
    // Following ends with the container.
    let path = path("follow=true&tailLines=1");
    let mut lines = world.stream(&path).await;
    let mut next = async || tokio::time::timeout(PATIENCE, lines.recv()).await.expect("in time");
    assert_eq!(next().await.as_deref(), Some(&b"three\n"[..]));
    channels(world.websocket("/exec/default/logs/c?command=touch&command=/tmp/go&output=1", "v5.channel.k8s.io").await).await;
    assert_eq!((next().await.as_deref(), next().await), (Some(&b"four\n"[..]), None));
    world.until("logs", "failed", |pod| phase(pod) == "Failed").await;
    assert_eq!(world.get("/containerLogs/default/logs/c?tailLines=1").await.1, "four\n");
    world.delete("logs", 0).await;
    world.gone("logs").await;
}

/// What came on each channel until the end.
pub async fn channels(mut socket: tokio_tungstenite::WebSocketStream<tokio::io::DuplexStream>) -> std::collections::BTreeMap<u8, String> {
    let mut out = std::collections::BTreeMap::<u8, String>::new();
    while let Some(Ok(message)) = tokio::time::timeout(PATIENCE, futures_util::StreamExt::next(&mut socket)).await.expect("in time") {
        if let tokio_tungstenite::tungstenite::Message::Binary(bytes) = message {
            out.entry(bytes[0]).or_default().push_str(&String::from_utf8_lossy(&bytes[1..]));
        }
    }
    out
}

pub async fn exec(world: &mut World) {
    use futures_util::SinkExt;
    use tokio_tungstenite::tungstenite::Message;
    let mut container = sh("echo ready; cat");
    container["stdin"] = json!(true);
    world.create("exec", json!({"terminationGracePeriodSeconds": 1, "restartPolicy": "Never", "containers": [container]})).await;
    world.until("exec", "ready", ready).await;
    let command = "/exec/default/exec/c?command=sh&command=-c&command=";
    let socket = world.websocket(&format!("{command}echo%20out;echo%20err%20%3E%262;exit%205&output=1&error=1"), "v4.channel.k8s.io").await;
    let got = channels(socket).await;
    assert_eq!((got[&1].as_str(), got[&2].as_str()), ("out\n", "err\n"));
    let status: serde_json::Value = serde_json::from_str(&got[&3]).unwrap();
    assert_eq!((status["status"].as_str(), status["reason"].as_str(), status["details"]["causes"][0]["message"].as_str()), (Some("Failure"), Some("NonZeroExitCode"), Some("5")));
    // Standard input, ended by v5's close.
    let mut socket = world.websocket("/exec/default/exec/c?command=cat&input=1&output=1", "v5.channel.k8s.io, v4.channel.k8s.io").await;
    socket.send(Message::Binary(bytes::Bytes::from_static(b"\0hello"))).await.unwrap();
    socket.send(Message::Binary(bytes::Bytes::from_static(&[255, 0]))).await.unwrap();
    let got = channels(socket).await;
    assert_eq!((got[&1].as_str(), got[&3].contains("Success")), ("hello", true));
    // A terminal of the size that was asked for.
    let mut socket = world.websocket(&format!("{command}read%20x;stty%20size&input=1&output=1&tty=1"), "v5.channel.k8s.io").await;
    socket.send(Message::Binary(bytes::Bytes::from_static(b"\x04{\"Width\":91,\"Height\":33}"))).await.unwrap();
    socket.send(Message::Binary(bytes::Bytes::from_static(b"\0go\n"))).await.unwrap();
    let got = channels(socket).await;
    assert!(got[&1].contains("33 91"), "{got:?}");
    // Attach: the container's own input and output.
    let mut socket = world.websocket("/attach/default/exec/c?input=1&output=1", "v5.channel.k8s.io").await;
    socket.send(Message::Binary(bytes::Bytes::from_static(b"\0attached\n"))).await.unwrap();
    let mut heard = String::new();
    while !heard.contains("attached") {
        let message = tokio::time::timeout(PATIENCE, futures_util::StreamExt::next(&mut socket)).await.expect("in time").unwrap().unwrap();
        heard.push_str(&String::from_utf8_lossy(&message.into_data()));
    }
    drop(socket);
    let (status, text) = world.get("/exec/default/exec/none?command=x&output=1").await;
    assert!(status == 500 && text.contains("container not found"), "{status} {text}");
    world.delete("exec", 0).await;
    world.gone("exec").await;
}

pub async fn forwards(world: &mut World) {
    use futures_util::SinkExt;
    use tokio_tungstenite::tungstenite::Message;
    world.create("fwd", json!({"terminationGracePeriodSeconds": 1, "containers": [sh("while true; do echo served | nc -l -p 8080 127.0.0.1; done")]})).await;
    world.until("fwd", "ready", ready).await;
    let begun = Instant::now();
    loop {
        let mut socket = world.websocket("/portForward/default/fwd?port=8080", "v4.channel.k8s.io").await;
        socket.send(Message::Binary(bytes::Bytes::from_static(b"\0x"))).await.unwrap();
        let got = channels(socket).await;
        // The first bytes of each channel are the port, little-endian.
        assert!(got[&0].starts_with("\u{fffd}\u{1f}") && got[&1].starts_with("\u{fffd}\u{1f}"), "{got:?}");
        if got[&0].ends_with("served\n") {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "{got:?}");
    }
    let pods = world.get("/pods").await.1;
    assert!(pods.contains("\"name\":\"fwd\""));
    assert!(world.get("/metrics/resource").await.1.contains("container_memory_working_set_bytes{container=\"c\",namespace=\"default\",pod=\"fwd\"}"));
    let cadvisor = world.get("/metrics/cadvisor").await.1;
    for (name, labels) in [("container_cpu_usage_seconds_total", "container=\"c\""), ("container_memory_working_set_bytes", "container=\"c\""), ("container_memory_working_set_bytes", "container=\"\""), ("container_processes", "container=\"c\"")] {
        let line = |line: &str| line.starts_with(&format!("{name}{{{labels}")) && line.contains("namespace=\"default\",pod=\"fwd\"");
        assert!(cadvisor.lines().any(line), "{name} of {labels}\n{cadvisor}");
    }
    let own = world.get("/metrics").await.1;
    for name in ["kubelet_started_containers_total{container_type=\"container\"} ", "kubelet_pod_worker_duration_seconds_count{operation_type=\"create\"} ", "kubelet_pod_start_duration_seconds_count ", "process_cpu_seconds_total "] {
        assert!(own.lines().any(|line| line.starts_with(name)), "{name}\n{own}");
    }
    assert!(world.get("/stats/summary").await.1.contains("usageCoreNanoSeconds"));
    assert_eq!(world.get("/healthz").await, (200, "ok".to_owned()));
    world.delete("fwd", 0).await;
    world.gone("fwd").await;
}

async fn all(reader: &mut spdy::Reader) -> String {
    let mut all = Vec::new();
    while let Some(data) = tokio::time::timeout(PATIENCE, reader.next()).await.expect("in time") {
        all.extend_from_slice(&data);
    }
    String::from_utf8_lossy(&all).into_owned()
}

async fn open(connection: &spdy::Connection, headers: &[(&str, &str)]) -> (spdy::Reader, spdy::Writer) {
    let headers = headers.iter().fold(spdy::Headers::default(), |headers, (name, value)| headers.with(name, value));
    connection.open(headers).await.expect("a stream").split()
}

/// What kubectl before 1.31, and most programs, speak.
pub async fn over_spdy(world: &mut World) {
    const V4: &str = "v4.channel.k8s.io";
    let container = sh("while true; do echo served | nc -l -p 8080 127.0.0.1; done");
    world.create("spdy", json!({"terminationGracePeriodSeconds": 1, "containers": [container]})).await;
    world.until("spdy", "ready", ready).await;
    let command = "/exec/default/spdy/c?command=sh&command=-c&command=";
    for (protocols, code, text) in [(&[][..], 400, "header X-Stream-Protocol-Version does not exist"), (&["v9.channel.k8s.io"][..], 403, "unable to negotiate protocol: client supports [v9.channel.k8s.io], server accepts [v4.channel.k8s.io ")] {
        let refused = world.spdy(&format!("{command}true&output=1"), protocols).await.err().expect("a refusal");
        assert!(refused.0 == code && refused.1.contains(text), "{refused:?}");
    }
    // Output, and how it ended.
    let connection = world.spdy(&format!("{command}echo%20out;echo%20err%20%3E%262;exit%205&output=1&error=1"), &[V4, "channel.k8s.io"]).await.expect("upgrade");
    let (mut status, _status) = open(&connection, &[("streamType", "error")]).await;
    let (mut out, _out) = open(&connection, &[("streamType", "stdout")]).await;
    let (mut err, _err) = open(&connection, &[("streamType", "stderr")]).await;
    assert_eq!((all(&mut out).await.as_str(), all(&mut err).await.as_str()), ("out\n", "err\n"));
    let status: serde_json::Value = serde_json::from_str(&all(&mut status).await).unwrap();
    assert_eq!((status["reason"].as_str(), status["details"]["causes"][0]["message"].as_str()), (Some("NonZeroExitCode"), Some("5")));
    tokio::time::timeout(PATIENCE, connection.ended()).await.expect("the node goes too");
    // Input until its end, both ways at once; v2 tells success by silence.
    let connection = world.spdy("/exec/default/spdy/c?command=cat&input=1&output=1", &["v2.channel.k8s.io"]).await.expect("upgrade");
    let (mut status, _status) = open(&connection, &[("streamType", "error")]).await;
    let (_in, input) = open(&connection, &[("streamType", "stdin")]).await;
    let (mut out, _out) = open(&connection, &[("streamType", "stdout")]).await;
    let sent = "0123456789abcdef".repeat(64 * 1024);
    let (got, ()) = tokio::join!(all(&mut out), async {
        input.send(sent.clone().into()).await.expect("taken");
        input.finish().await;
    });
    assert!(got == sent && all(&mut status).await.is_empty());
    // A terminal of the size that was asked for; streams keep no order among each other, so the program waits for it.
    let connection = world.spdy(&format!("{command}until%20stty%20size%20%7C%20grep%20-q%2092;%20do%20sleep%200.01;%20done;%20stty%20size&input=1&output=1&tty=1"), &[V4]).await.expect("upgrade");
    let _status = open(&connection, &[("streamType", "error")]).await;
    let _in = open(&connection, &[("streamType", "stdin")]).await;
    let (mut out, _out) = open(&connection, &[("streamType", "stdout")]).await;
    let (_resize, resize) = open(&connection, &[("streamType", "resize")]).await;
    resize.send(bytes::Bytes::from_static(b"{\"Width\":92,\"Height\":34}\n")).await.expect("taken");
    assert!(all(&mut out).await.contains("34 92"));
    // Ports: bare, and inside of a WebSocket.
    let bare = world.spdy("/portForward/default/spdy", &["portforward.k8s.io"]).await.expect("upgrade");
    let tunnel = spdy::Connection::client(client::websocket::Tunnel::new(world.websocket("/portForward/default/spdy", "SPDY/3.1+portforward.k8s.io").await));
    for connection in [bare, tunnel] {
        let begun = Instant::now();
        for id in 0.. {
            let id = id.to_string();
            let of = |kind| [("streamType", kind), ("port", "8080"), ("requestID", id.as_str())];
            let (mut error, said_nothing) = open(&connection, &of("error")).await;
            said_nothing.finish().await;
            let (mut data, input) = open(&connection, &of("data")).await;
            input.finish().await;
            let (got, failed) = (all(&mut data).await, all(&mut error).await);
            if got == "served\n" {
                break;
            }
            // Between two clients nobody listens.
            assert!(begun.elapsed() < PATIENCE && (got.is_empty() || !failed.is_empty()), "{got:?} {failed:?}");
        }
        let of = |kind| [("streamType", kind), ("port", "81"), ("requestID", "last")];
        let (mut error, _error) = open(&connection, &of("error")).await;
        let (mut data, _data) = open(&connection, &of("data")).await;
        let failed = all(&mut error).await;
        assert!(failed.starts_with("error forwarding port 81 to pod spdy, uid ") && all(&mut data).await.is_empty(), "{failed}");
        let kind = connection.open(spdy::Headers::default().with("streamType", "data")).await;
        assert!(matches!(kind, Err(spdy::OpenError::Refused)));
    }
    world.delete("spdy", 0).await;
    world.gone("spdy").await;
}
