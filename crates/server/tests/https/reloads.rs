//! Configurations that change while the server runs.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::SendRequest;
use server::{Followed, Fronts, Issuer, ReloadMetrics, Reloaded, RequestHeader, StaticTokens, parse_authentication_configuration, parse_authorization_configuration};

use crate::harness::{CONFIG_MAPS, Server};

fn write(file: &Path, text: &str) {
    let beside = file.with_extension("new");
    std::fs::write(&beside, text).unwrap();
    std::fs::rename(beside, file).unwrap();
}

async fn metric(server: &Server, line: &str) -> bool {
    String::from_utf8(server.get("/metrics").await.expect(200).body.to_vec()).unwrap().lines().any(|known| known.starts_with(line))
}

#[tokio::test]
async fn who_is_asked_what_users_may_do() {
    const HEAD: &str = "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthorizationConfiguration\nauthorizers:\n";
    const RELOADS: &str = "apiserver_authorization_config_controller_automatic_reloads_total";
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("authorization.yaml");
    let first = format!("{HEAD}- {{type: AlwaysAllow, name: all}}\n");
    write(&file, &first);
    let parse = |content: &[u8]| parse_authorization_configuration(content, &|_: &str| Err("no webhooks".to_owned())).map_err(|error| error.to_string());
    let modes = parse(first.as_bytes()).unwrap();
    let followed = Followed { path: file.clone(), first: first.into_bytes(), parse: Box::new(move |content| parse(content).map(Reloaded::Authorization)), metrics: Some(ReloadMetrics::authorization()) };
    let server = Server::start_with(|config| {
        config.authorization = modes;
        config.followed.push(Arc::new(followed));
    })
    .await;
    let jane = [("impersonate-user", "jane")];
    server.call("GET", CONFIG_MAPS, &jane, "").await.expect(200);
    write(&file, &format!("{HEAD}- {{type: RBAC, name: roles}}\n"));
    while server.call("GET", CONFIG_MAPS, &jane, "").await.code != 403 {
        tokio::task::yield_now().await;
    }
    assert!(metric(&server, &format!("{RELOADS}{{status=\"success\"")).await);
    // A file that is wrong changes nothing.
    write(&file, &format!("{HEAD}- {{type: Oracle, name: o}}\n"));
    while !metric(&server, &format!("{RELOADS}{{status=\"failure\"")).await {
        tokio::task::yield_now().await;
    }
    server.call("GET", CONFIG_MAPS, &jane, "").await.expect(403);
}

#[tokio::test]
async fn who_may_be_nobody() {
    const HEAD: &str = "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\n";
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("authentication.yaml");
    let first = format!("{HEAD}anonymous: {{enabled: true}}\n");
    write(&file, &first);
    let parse: server::Parse = Box::new(|content| {
        let (issuers, anonymous) = parse_authentication_configuration(content).map_err(|error| error.to_string())?;
        Ok(Reloaded::Authentication { issuers: issuers.into_iter().map(Issuer::new).map(Arc::new).collect(), anonymous: anonymous.unwrap() })
    });
    let followed = Followed { path: file.clone(), first: first.into_bytes(), parse, metrics: Some(ReloadMetrics::authentication()) };
    let server = Server::start_with(|config| config.followed.push(Arc::new(followed))).await;
    let nobody = [("anonymous", "yes")];
    server.call("GET", "/healthz", &nobody, "").await.expect(200);
    write(&file, &format!("{HEAD}anonymous: {{enabled: false}}\n"));
    while server.call("GET", "/healthz", &nobody, "").await.code != 401 {
        tokio::task::yield_now().await;
    }
    assert!(metric(&server, "apiserver_authentication_config_controller_automatic_reloads_total{status=\"success\"").await);
}

#[tokio::test]
async fn which_authority_proxies_are_of() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("front.crt");
    let other = pki::Authority::generate("front-proxy-ca", jiff::Timestamp::now().as_second()).unwrap().identity.certificate_pem;
    write(&file, &other);
    let mut own = String::new();
    let server = Server::start_with(|config| {
        own = config.ca_pem.clone();
        config.authentication.request_header = Some(RequestHeader::usual(other.clone(), vec!["kubernetes-admin".into()]));
        let parse: server::Parse = Box::new(|content| Fronts::parse(content).map(Reloaded::Fronts));
        config.followed.push(Arc::new(Followed { path: file.clone(), first: other.clone().into_bytes(), parse, metrics: None }));
    })
    .await;
    let who = async || {
        let headers = [("x-remote-user", "joe"), ("content-type", "application/json")];
        let review = server.call("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", &headers, "{}").await.expect(201).json();
        review["status"]["userInfo"]["username"].as_str().unwrap().to_owned()
    };
    assert_eq!(who().await, "kubernetes-admin");
    // The tests' own authority stands in for the proxies' next one.
    write(&file, &own);
    while who().await != "joe" {
        tokio::task::yield_now().await;
    }
    // No certificates at all: nothing changes.
    assert!(Fronts::parse(b"nothing").is_err());
    write(&file, "nothing");
    for _ in 0..10 {
        assert_eq!(who().await, "joe");
    }
}

/// Who the server takes a connection for, or the code of its answer.
async fn taken_for(connection: &mut SendRequest<Full<Bytes>>, headers: &[(&str, &str)]) -> Result<String, u16> {
    let mut request = http::Request::builder().method("POST").uri("/apis/authentication.k8s.io/v1/selfsubjectreviews").header("host", "localhost").header("content-type", "application/json");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    connection.ready().await.unwrap();
    let (parts, body) = connection.send_request(request.body(Full::new(Bytes::from_static(b"{}"))).unwrap()).await.unwrap().into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    if parts.status.as_u16() != 201 {
        return Err(parts.status.as_u16());
    }
    let review: serde_json::Value = serde_json::from_slice(&body).unwrap();
    Ok(review["status"]["userInfo"]["username"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn which_authorities_clients_are_of() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("clients.crt");
    let now = jiff::Timestamp::now().as_second();
    let [first, second] = ["first", "second"].map(|name| pki::Authority::generate(name, now).unwrap());
    let [one, two] = [&first, &second].map(|authority| authority.identity.certificate_pem.clone());
    let both = format!("{one}{two}");
    write(&file, &both);
    let mut own = String::new();
    let server = Server::start_with(|config| {
        own = config.ca_pem.clone();
        config.authentication.client_ca_pem = both.clone();
        config.authentication.tokens = StaticTokens::parse("letmein,joe,1").unwrap();
        let parse: server::Parse = Box::new(|content| Fronts::parse(content).map(Reloaded::Clients));
        config.followed.push(Arc::new(Followed { path: file.clone(), first: both.clone().into_bytes(), parse, metrics: None }));
    })
    .await;
    let published = async || server.get("/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication").await.expect(200).json()["data"]["client-ca-file"].as_str().unwrap().to_owned();
    assert_eq!(published().await, format!("{own}{both}"));
    let identity = |authority: &pki::Authority, user: &str| authority.issue(&pki::Pki::Client { user, groups: &[] }, now).unwrap();
    let jane = identity(&first, "jane");
    let (mut jane_before, mut jill) = (server.connect_as(&jane).await, server.connect_as(&identity(&second, "jill")).await);
    assert_eq!((taken_for(&mut jane_before, &[]).await, taken_for(&mut jill, &[]).await), (Ok("jane".to_owned()), Ok("jill".to_owned())));
    // The first authority is gone: what it signed is worth nothing, on connections of before as on new ones, nor is its owner taken for nobody.
    write(&file, &two);
    while taken_for(&mut jane_before, &[]).await.is_ok() {
        tokio::task::yield_now().await;
    }
    assert_eq!((taken_for(&mut jane_before, &[]).await, taken_for(&mut jill, &[]).await), (Err(401), Ok("jill".to_owned())));
    assert_eq!(taken_for(&mut server.connect_as(&jane).await, &[]).await, Err(401));
    // A token is as good as from anybody.
    assert_eq!(taken_for(&mut jane_before, &[("authorization", "Bearer letmein")]).await, Ok("joe".to_owned()));
    server.get("/api").await.expect(200);
    // Back again, on the same connection.
    write(&file, &both);
    while taken_for(&mut jane_before, &[]).await != Ok("jane".to_owned()) {
        tokio::task::yield_now().await;
    }
    // Other servers that know the first one may be there: it is published until it ends.
    assert_eq!(published().await, format!("{own}{both}"));
}
