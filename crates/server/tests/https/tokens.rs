//! Bearer tokens of every kind, proxies in front, and who may ask without saying who they are.

use base64::Engine as _;
use serde_json::{Value, json};
use server::{Anonymous, RequestHeader, StaticTokens};

use crate::harness::{CONFIG_MAPS, PODS, Server, pod};

const SELF: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
const REVIEWS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";
const TOKENS: &str = "/api/v1/namespaces/default/serviceaccounts/default/token";

async fn whoami(server: &Server, token: &str) -> Value {
    let bearer = format!("Bearer {token}");
    server.call("POST", SELF, &[("authorization", &bearer), ("content-type", "application/json")], "{}").await.expect(201).json()["status"]["userInfo"].clone()
}

async fn review(server: &Server, token: &str, audiences: Value) -> Value {
    server.post(REVIEWS, json!({"spec": {"token": token, "audiences": audiences}})).await.expect(201).json()["status"].clone()
}

fn claims(token: &str) -> Value {
    let middle = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(middle).unwrap()).unwrap()
}

#[tokio::test]
async fn machines_join_by_bootstrap_tokens() {
    let server = Server::start().await;
    let secret = |usage: &str, expiration: &str| {
        json!({"metadata": {"name": "bootstrap-token-abcdef"}, "type": "bootstrap.kubernetes.io/token", "stringData": {"token-id": "abcdef", "token-secret": "0123456789abcdef", "usage-bootstrap-authentication": usage,
            "expiration": expiration, "auth-extra-groups": "system:bootstrappers:kubeadm:default-node-token"}})
    };
    let secrets = "/api/v1/namespaces/kube-system/secrets";
    const TOKEN: &str = "abcdef.0123456789abcdef";
    let asked = [("authorization", "Bearer abcdef.0123456789abcdef")];
    server.call("GET", "/api", &asked, "").await.expect(401);
    server.post(secrets, secret("true", "2999-01-01T00:00:00Z")).await.expect(201);
    let user = whoami(&server, TOKEN).await;
    assert_eq!((&user["username"], &user["groups"]), (&json!("system:bootstrap:abcdef"), &json!(["system:bootstrappers", "system:bootstrappers:kubeadm:default-node-token", "system:authenticated"])));
    server.call("GET", CONFIG_MAPS, &asked, "").await.expect(403);
    assert_eq!(review(&server, TOKEN, json!(["elsewhere"])).await, json!({"user": {}, "error": "invalid bearer token"}));
    for (usage, expiration) in [("false", "2999-01-01T00:00:00Z"), ("true", "2020-01-01T00:00:00Z")] {
        server.put(&format!("{secrets}/bootstrap-token-abcdef"), secret(usage, expiration)).await.expect(200);
        server.call("GET", "/api", &asked, "").await.expect(401);
    }
}

#[tokio::test]
async fn tokens_are_good_while_what_they_are_bound_to_lives() {
    let server = Server::start().await;
    server.service_account("default").await;
    server.post("/api/v1/nodes", json!({"metadata": {"name": "n"}})).await.expect(201);
    let mut bound = pod("p");
    bound["spec"]["nodeName"] = json!("n");
    server.post(PODS, bound).await.expect(201);
    let ask = async |reference: Value, seconds: i64, audiences: Value| {
        server.post(TOKENS, json!({"spec": {"expirationSeconds": seconds, "audiences": audiences, "boundObjectRef": reference}})).await
    };
    let status = ask(json!({"kind": "Pod", "apiVersion": "v1", "name": "p"}), 3607, json!([])).await.expect(201).json();
    let token = status["status"]["token"].as_str().unwrap().to_owned();
    let user = whoami(&server, &token).await;
    let extra = |key: &str| user["extra"][format!("authentication.kubernetes.io/{key}")][0].as_str().unwrap_or("").to_owned();
    assert_eq!((extra("pod-name"), extra("node-name")), ("p".into(), "n".into()));
    assert!(extra("credential-id").starts_with("JTI=") && !extra("pod-uid").is_empty() && !extra("node-uid").is_empty());
    // What pods get unasked lives on; the status tells of the hour.
    let inside = claims(&token);
    assert_eq!(inside["exp"].as_i64().unwrap() - inside["iat"].as_i64().unwrap(), 365 * 24 * 3600);
    assert_eq!(inside["kubernetes.io"]["warnafter"].as_i64().unwrap() - inside["iat"].as_i64().unwrap(), 3607);
    let other = ask(json!({"kind": "Pod", "apiVersion": "v1", "name": "p"}), 3607, json!(["vault"])).await.expect(201).json();
    let other = other["status"]["token"].as_str().unwrap().to_owned();
    assert_eq!(claims(&other)["exp"].as_i64().unwrap() - claims(&other)["iat"].as_i64().unwrap(), 3607);
    assert_eq!(review(&server, &other, json!(["vault", "x"])).await["audiences"], json!(["vault"]));
    assert!(review(&server, &other, json!([])).await["error"].as_str().unwrap().contains("is invalid for the target audiences"));

    let of_node = ask(json!({"kind": "Node", "apiVersion": "v1", "name": "n"}), 600, json!([])).await.expect(201).json()["status"]["token"].as_str().unwrap().to_owned();
    assert_eq!(whoami(&server, &of_node).await["extra"]["authentication.kubernetes.io/node-name"], json!(["n"]));
    server.delete("/api/v1/nodes/n").await.expect(200);
    assert_eq!(review(&server, &of_node, json!([])).await["error"], "[invalid bearer token, service account token has been invalidated]");
    assert_eq!(whoami(&server, &token).await["extra"]["authentication.kubernetes.io/node-name"], json!(["n"]));
    server.delete(&format!("{PODS}/p?gracePeriodSeconds=0")).await.expect(200);
    assert_eq!(review(&server, &token, json!([])).await["error"], "[invalid bearer token, service account token has been invalidated]");

    assert!(ask(Value::Null, 599, json!([])).await.expect(422).message().contains("may not specify a duration less than 10 minutes"));
    assert!(ask(json!({"kind": "ConfigMap", "apiVersion": "v1", "name": "x"}), 600, json!([])).await.expect(400).message().contains("cannot bind token to object of type /v1, Kind=ConfigMap"));
    ask(json!({"kind": "Secret", "apiVersion": "v1", "name": "x"}), 600, json!([])).await.expect(404);
}

#[tokio::test]
async fn tokens_may_be_cut_short() {
    let server = Server::start_with(|config| config.authentication.max_token_seconds = Some(3600)).await;
    server.service_account("default").await;
    let made = server.post(TOKENS, json!({"spec": {"expirationSeconds": 7200}})).await.expect(201);
    assert!(made.warnings()[0].contains("requested expiration of 7200 seconds shortened to 3600 seconds"), "{:?}", made.warnings());
    assert_eq!(made.json()["spec"]["expirationSeconds"], 3600);
}

#[tokio::test]
async fn others_find_out_how_to_verify_them() {
    let server = Server::start().await;
    server.service_account("default").await;
    let token = server.post(TOKENS, json!({"spec": {}})).await.expect(201).json()["status"]["token"].as_str().unwrap().to_owned();
    let bearer = format!("Bearer {token}");
    let asked = [("authorization", bearer.as_str())];
    let document = server.call("GET", "/.well-known/openid-configuration", &asked, "").await.expect(200);
    assert_eq!((document.header("content-type"), document.header("cache-control")), ("application/json", "public, max-age=3600"));
    assert_eq!(document.json()["issuer"], claims(&token)["iss"]);
    assert_eq!(document.json()["id_token_signing_alg_values_supported"], json!(["ES256"]));
    let keys = server.call("GET", "/openid/v1/jwks", &asked, "").await.expect(200);
    assert_eq!(keys.header("content-type"), "application/jwk-set+json");
    let header: Value = serde_json::from_slice(&base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(token.split('.').next().unwrap()).unwrap()).unwrap();
    assert_eq!(keys.json()["keys"][0]["kid"], header["kid"]);
    server.call("GET", "/openid/v1/jwks", &[("anonymous", "yes")], "").await.expect(403);
}

#[tokio::test]
async fn tokens_of_a_file_and_users_of_a_proxy() {
    let server = Server::start_with(|config| {
        config.authentication.tokens = StaticTokens::parse("letmein,jane,1,\"dev,ops\"").unwrap();
        // The tests' own authority stands in for the proxies'.
        config.authentication.request_header = Some(RequestHeader::usual(config.ca_pem.clone(), vec!["kubernetes-admin".into()]));
    })
    .await;
    assert_eq!(whoami(&server, "letmein").await, json!({"username": "jane", "uid": "1", "groups": ["dev", "ops", "system:authenticated"]}));
    server.call("GET", "/api", &[("authorization", "Bearer wrong")], "").await.expect(401);
    let headers = [("x-remote-user", "joe"), ("x-remote-group", "qa"), ("x-remote-extra-scope", "x"), ("content-type", "application/json")];
    let user = server.call("POST", SELF, &headers, "{}").await.expect(201).json()["status"]["userInfo"].clone();
    assert_eq!(user, json!({"username": "joe", "groups": ["qa", "system:authenticated"], "extra": {"scope": ["x"]}}));
    // A proxy that tells of nobody speaks for itself, should the clients' authority know it too.
    assert_eq!(server.post(SELF, json!({})).await.expect(201).json()["status"]["userInfo"]["username"], "kubernetes-admin");
}

#[tokio::test]
async fn strangers_see_health_and_version() {
    let server = Server::start().await;
    let code = async |server: &Server, path: &str| server.call("GET", path, &[("anonymous", "yes")], "").await.code;
    for (path, want) in [("/healthz", 200), ("/livez", 200), ("/readyz", 200), ("/version", 200), ("/api", 403), ("/metrics", 403), ("/openapi/v2", 403), ("/api/v1/namespaces/kube-public/configmaps/cluster-info", 403)] {
        assert_eq!(code(&server, path).await, want, "{path}");
    }
    // What kubeadm allows them.
    let roles = "/apis/rbac.authorization.k8s.io/v1/namespaces/kube-public";
    server.post("/api/v1/namespaces/kube-public/configmaps", json!({"metadata": {"name": "cluster-info"}, "data": {"kubeconfig": "x"}})).await.expect(201);
    server.post(&format!("{roles}/roles"), json!({"metadata": {"name": "info"}, "rules": [{"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["cluster-info"], "verbs": ["get"]}]})).await.expect(201);
    let binding = json!({"metadata": {"name": "info"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "info"}, "subjects": [{"kind": "User", "name": "system:anonymous", "apiGroup": "rbac.authorization.k8s.io"}]});
    server.post(&format!("{roles}/rolebindings"), binding).await.expect(201);
    assert_eq!(code(&server, "/api/v1/namespaces/kube-public/configmaps/cluster-info").await, 200);

    let closed = Server::start_with(|config| config.authentication.anonymous = Anonymous { enabled: true, paths: vec!["/livez".into()] }).await;
    assert_eq!((code(&closed, "/livez").await, code(&closed, "/readyz").await, code(&closed, "/version").await), (200, 401, 401));
    let closed = Server::start_with(|config| config.authentication.anonymous = Anonymous { enabled: false, paths: Vec::new() }).await;
    assert_eq!(code(&closed, "/livez").await, 401);
}
