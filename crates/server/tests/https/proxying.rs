//! What the API server passes on: `proxy` and the streams of pods, to a node's agent that is a few lines of HTTP in this process.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;

use ::api::Status;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::json;
use server::{Dial, NodeStream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::Server;

struct Agents;

impl Dial for Agents {
    fn dial<'a>(&'a self, _: &'a str) -> Pin<Box<dyn Future<Output = Result<NodeStream, Status>> + Send + 'a>> {
        Box::pin(async {
            let (near, far) = tokio::io::duplex(1 << 16);
            let service = hyper::service::service_fn(|request| async { Ok::<_, Infallible>(agent(request).await) });
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(far), service).with_upgrades());
            Ok(Box::new(near) as NodeStream)
        })
    }
}

/// Says what it was asked, moves elsewhere, shows a page, or sends back what comes after an upgrade.
async fn agent(mut request: http::Request<Incoming>) -> http::Response<Full<Bytes>> {
    let answer = http::Response::builder().header("access-control-allow-origin", "*");
    let path = request.uri().to_string();
    let built = match path.as_str() {
        "/moved" => answer.status(302).header("location", "/there/?a=b").body(Full::default()),
        "/page" => answer.header("content-type", "text/html; charset=utf-8").body(Full::from("<a href=\"/x\">/x</a>")),
        _ if request.headers().contains_key("upgrade") => {
            let upgraded = hyper::upgrade::on(&mut request);
            tokio::spawn(async move {
                let (mut read, mut write) = tokio::io::split(TokioIo::new(upgraded.await.unwrap()));
                tokio::io::copy(&mut read, &mut write).await.unwrap();
                write.shutdown().await.unwrap();
            });
            answer.status(101).header("connection", "Upgrade").header("upgrade", "SPDY/3.1").header("x-path", path).body(Full::default())
        }
        _ => {
            let method = request.method().to_string();
            let names = ["authorization", "x-forwarded-uri", "x-mine", "impersonate-user"].map(|name| request.headers().get(name).map_or("-".to_owned(), |value| value.to_str().unwrap().to_owned()));
            let forwarded = request.headers().contains_key("x-forwarded-for");
            let body = request.into_body().collect().await.unwrap().to_bytes();
            answer.status(202).body(Full::from(format!("{method} {path} {} {forwarded} {}", names.join(" "), String::from_utf8_lossy(&body))))
        }
    };
    built.unwrap()
}

async fn started() -> Server {
    let server = Server::start_among(std::sync::Arc::new(Agents)).await;
    server.post("/api/v1/nodes", json!({"metadata": {"name": "n"}})).await.expect(201);
    server.post("/api/v1/namespaces", json!({"metadata": {"name": "t"}})).await.expect(201);
    server.service_account("t").await;
    server.post("/api/v1/namespaces/t/pods", json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n", "containers": [{"name": "c", "image": "i"}]}})).await.expect(201);
    server
}

#[tokio::test]
async fn a_node_through_the_api_server() {
    let server = started().await;
    let node = "/api/v1/nodes/n/proxy";
    let reply = server.call("POST", &format!("{node}/a%2Fb//c/?d=e%20f"), &[("x-mine", "yes"), ("impersonate-user", "me"), ("impersonate-group", "system:masters")], "body").await.expect(202);
    assert_eq!(String::from_utf8_lossy(&reply.body), format!("POST /a%2Fb//c/?d=e%20f - {node}/a%2Fb//c/ yes - true body"));
    assert_eq!(reply.header("access-control-allow-origin"), "", "a backend does not speak for us");
    let moved = server.get(&format!("{node}/moved")).await.expect(302);
    assert_eq!(moved.header("location"), format!("{node}/there/?a=b"));
    let page = server.get(&format!("{node}/page")).await.expect(200);
    assert_eq!((String::from_utf8_lossy(&page.body).as_ref(), page.header("content-length")), (format!("<a href=\"{node}/x\">/x</a>").as_str(), page.body.len().to_string().as_str()));
    // A path that ends there would make a page's relative links lead astray.
    assert_eq!(server.get(&format!("{node}?a=b")).await.expect(301).header("location"), format!("{node}/?a=b"));
    let refused = server.get("/api/v1/nodes/a:b:c:d/proxy/").await.expect(400);
    assert_eq!(refused.message(), "invalid node request \"a:b:c:d\"");
    let nobody = server.get("/api/v1/namespaces/t/services/none:80/proxy/").await.expect(404);
    assert_eq!(nobody.message(), "services \"none\" not found");
}

#[tokio::test]
async fn a_pods_streams() {
    let server = started().await;
    let exec = "/api/v1/namespaces/t/pods/p/exec?command=a%20b&stdin=true&stdout=true";
    assert_eq!(server.call("POST", exec, &[], "").await.expect(400).message(), "Upgrade request required");
    server.call("PUT", exec, &[], "").await.expect(405);
    let unknown = server.get("/api/v1/namespaces/t/pods/p/exec?container=x").await.expect(400);
    assert_eq!(unknown.message(), "container x is not valid for pod p");
    for method in ["GET", "POST"] {
        let response = server.upgraded(method, exec).await;
        assert_eq!(response.headers()["x-path"], "/exec/t/p/c?command=a%20b&input=1&output=1");
        let mut stream = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
        let sent = vec![7; 300_000];
        let (mut read, mut write) = tokio::io::split(&mut stream);
        let mut got = Vec::new();
        let send = async {
            write.write_all(&sent).await.unwrap();
            write.shutdown().await.unwrap();
        };
        // The end of one direction is passed on, and the other goes on.
        tokio::join!(send, async { read.read_to_end(&mut got).await.unwrap() });
        assert!(got == sent);
    }
    // Who may only read pods does not run anything in them with a GET.
    server.post("/apis/rbac.authorization.k8s.io/v1/clusterroles", json!({"metadata": {"name": "reader"}, "rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods/exec"]}]})).await.expect(201);
    let subject = json!({"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "eve"});
    let role = json!({"kind": "ClusterRole", "apiGroup": "rbac.authorization.k8s.io", "name": "reader"});
    server.post("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", json!({"metadata": {"name": "reader"}, "roleRef": role, "subjects": [subject]})).await.expect(201);
    let refused = server.call("GET", exec, &[("impersonate-user", "eve")], "").await.expect(403);
    assert!(refused.message().contains("cannot create resource \"pods/exec\""), "{}", refused.message());
}
