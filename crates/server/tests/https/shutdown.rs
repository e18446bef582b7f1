//! A server that is told to end: it answers what it has begun, begins nothing new, and goes.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use serde_json::Value;
use server::Shutdown;
use tokio::sync::Notify;

use super::harness::{CONFIG_MAPS, Server, config_map};

#[tokio::test]
async fn what_was_begun_is_answered_and_who_comes_is_told_to_come_again() {
    let server = Server::start_with(|config| config.shutdown = Shutdown { send_retry_after: true, ..Shutdown::default() }).await;
    assert!(String::from_utf8_lossy(&server.get("/readyz?verbose").await.expect(200).body).contains("[+]shutdown ok\n"));
    server.get("/livez/shutdown").await.expect(404);
    let mut watched = server.watch(&format!("{CONFIG_MAPS}?watch=1&resourceVersion=0")).await;
    let begun = server.unfinished("POST", CONFIG_MAPS, &[], config_map("begun").to_string()).await;
    let mut connection = server.connect_http2().await;
    // By its answer it is known to have been seen; the one before was sent earlier.
    server.get("/api").await.expect(200);
    server.stop();
    while server.get("/readyz").await.code == 200 {}
    let report = server.get("/readyz").await.expect(500);
    assert!(String::from_utf8_lossy(&report.body).contains("[-]shutdown failed: reason withheld\n"), "{report:?}", report = report.body);
    server.get("/livez").await.expect(200);
    let refused = server.get(CONFIG_MAPS).await.expect(429);
    assert_eq!((refused.header("retry-after"), refused.header("connection"), &refused.body[..]), ("5", "close", &b"The apiserver is shutting down, please try again later.\n"[..]));
    // Over HTTP/2 the connection ends as well: by a frame.
    let request = || http::Request::get(format!("https://localhost{CONFIG_MAPS}")).body(Full::new(Bytes::new())).unwrap();
    let refused = connection.send_request(request()).await.unwrap();
    assert_eq!(refused.status().as_u16(), 429);
    refused.into_body().collect().await.unwrap();
    while connection.ready().await.is_ok() {
        if let Ok(refused) = connection.send_request(request()).await {
            assert_eq!(refused.status().as_u16(), 429);
        }
    }
    // As if its time were over.
    loop {
        match watched.line().await.as_str() {
            "end" => break,
            line => assert!(!line.starts_with("ERROR"), "{line}"),
        }
    }
    assert_eq!(begun.finish().await, 201);
    let store = server.store.clone();
    server.ended().await;
    assert!(store.get("/registry/configmaps/default/begun").is_some());
}

#[tokio::test]
async fn over_http2_streams_are_finished_and_watches_end() {
    let server = Server::start().await;
    let mut connection = server.connect_http2().await;
    let get = |path: String| http::Request::get(format!("https://localhost{path}")).body(Full::new(Bytes::new())).unwrap();
    let watched = connection.send_request(get(format!("{CONFIG_MAPS}?watch=1&resourceVersion=0"))).await.unwrap();
    let (body, sending) = Slow::new(config_map("slow").to_string());
    let slow = http::Request::post(format!("https://localhost{CONFIG_MAPS}")).header("content-type", "application/json").body(body).unwrap();
    let mut other = server.connect_http2_of().await;
    let asking = tokio::spawn(async move { other.send_request(slow).await });
    server.stop();
    watched.into_body().collect().await.expect("the watch ends whole");
    while connection.ready().await.is_ok() {
        let _ = connection.send_request(get(CONFIG_MAPS.to_owned())).await;
    }
    // The port is closed, and what was begun goes on.
    while server.try_post(CONFIG_MAPS, &config_map("late")).await.is_some() {}
    sending.notify_one();
    let answer = asking.await.unwrap();
    // The server may not have seen its head yet; then it was refused, whole.
    assert!(answer.as_ref().is_ok_and(|answer| matches!(answer.status().as_u16(), 201 | 503)) || answer.is_err_and(|error| error.is_canceled() || error.is_closed()));
    server.ended().await;
}

/// A body that comes when it is told to.
pub struct Slow {
    body: Option<Bytes>,
    told: std::pin::Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Slow {
    fn new(body: String) -> (Self, Arc<Notify>) {
        let told = Arc::new(Notify::new());
        let waits = told.clone();
        (Self { body: Some(body.into()), told: Box::pin(async move { waits.notified().await }) }, told)
    }
}

impl http_body::Body for Slow {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(mut self: std::pin::Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
        if self.body.is_some() {
            std::task::ready!(self.told.as_mut().poll(cx));
        }
        std::task::Poll::Ready(self.body.take().map(|body| Ok(http_body::Frame::data(body))))
    }
}

/// Each request of many, over connections of their own, is answered whole or finds no server: what is acknowledged is there, and nothing else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_load_nothing_is_cut_in_the_middle() {
    const CLIENTS: usize = 8;
    const FIRST: usize = 5;
    let server = Arc::new(Server::start().await);
    let (mut clients, warm) = (tokio::task::JoinSet::new(), Arc::new(tokio::sync::Barrier::new(CLIENTS + 1)));
    for client in 0..CLIENTS {
        let (server, warm) = (server.clone(), warm.clone());
        clients.spawn(async move {
            let mut created = Vec::new();
            for number in 0.. {
                if number == FIRST {
                    warm.wait().await;
                }
                let name = format!("of-{client}-{number}");
                match server.try_post(CONFIG_MAPS, &config_map(&name)).await {
                    Some(Ok(201)) => created.push(name),
                    Some(Ok(503)) => {}
                    Some(other) => panic!("{name}: {other:?}"),
                    None => break,
                }
            }
            created
        });
    }
    warm.wait().await;
    server.stop();
    let mut created: Vec<String> = clients.join_all().await.into_iter().flatten().collect();
    let store = server.store.clone();
    Arc::into_inner(server).expect("nobody else").ended().await;
    let listed = store.list("/registry/configmaps/default/of-", None, None, 0).unwrap();
    let mut stored: Vec<String> = listed.items.iter().filter_map(|(key, _)| key.rsplit('/').next().map(str::to_owned)).collect();
    created.sort();
    stored.sort();
    assert!(created.len() >= CLIENTS * FIRST);
    assert_eq!(stored, created);
}

/// Nobody asks: nothing is waited for, whoever is connected.
#[tokio::test]
async fn without_requests_it_ends_at_once() {
    let server = Server::start().await;
    let mut idle = server.connect_http2().await;
    let whole = idle.send_request(http::Request::get("https://localhost/version").body(Full::new(Bytes::new())).unwrap()).await.unwrap();
    assert!(serde_json::from_slice::<Value>(&whole.into_body().collect().await.unwrap().to_bytes()).unwrap()["major"] == "1");
    server.stop();
    server.ended().await;
    drop(idle);
}

#[tokio::test]
async fn it_serves_on_while_it_is_not_ready() {
    // Longer than any test: it is not waited for.
    let server = Server::start_with(|config| config.shutdown = Shutdown { delay: Duration::from_secs(3600), ..Shutdown::default() }).await;
    server.stop();
    while server.get("/readyz").await.code == 200 {}
    server.get("/readyz/shutdown").await.expect(500);
    server.post(CONFIG_MAPS, config_map("still")).await.expect(201);
}
